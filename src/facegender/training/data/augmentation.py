"""Random changes to whole batches of pictures, on the device that trains.

Every picture's random numbers are keyed by seed, epoch and its place in the epoch, so they do not
depend on the batch, on the number of devices, or on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facegender.images.pixels import Pixels
from facegender.training.recipe import AugmentOptions, InputOptions

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R BT.601, as Pillow has them)."""

DRAWS = 37
"""Random numbers that one picture gets for one epoch."""


def random_numbers(
    seed: int, epoch: int, indices: Iterable[int], count: int = DRAWS
) -> NDArray[np.float32]:
    """Numbers from 0 to 1, ``float32 [N, count]``, a row for each index, keyed by all three.

    Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) is keyed, so a row
    is the same whatever was drawn before it.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) | index])).random(
            count, np.float32
        )
        for index in map(int, indices)
    ]
    return np.stack(rows) if rows else np.zeros((0, count), np.float32)


def as_floats(pixels: Tensor, grey: bool) -> Tensor:
    """Bring ``uint8 [N, H, W, 3]`` to ``float32 [N, 3, H, W]`` in 0..1, grey where asked for."""
    x = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    return _to_grey(x) if grey else x


def _to_grey(x: Tensor) -> Tensor:
    """Make three equal channels of ``[N, 3, H, W]``."""
    weights = torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def normalise(x: Tensor, options: InputOptions) -> Tensor:
    """Take the mean from ``[N, 3, H, W]`` in 0..1 and divide by the spread, for each channel."""
    mean = torch.tensor(options.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(options.std, device=x.device).view(1, 3, 1, 1)
    return (x - mean).div_(std)


def denormalise(x: Tensor, options: InputOptions) -> Pixels:
    """Undo :func:`normalise`: ``[N, 3, H, W]`` back to pictures, ``uint8 [N, H, W, 3]``."""
    mean = torch.tensor(options.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(options.std, device=x.device).view(1, 3, 1, 1)
    pixels = ((x.float() * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def augment(
    pixels: Tensor,
    numbers: Tensor,
    options: AugmentOptions,
    *,
    frames: Tensor | None = None,
    size: tuple[int, int] | None = None,
    grey: bool = False,
) -> Tensor:
    """Change every picture of a batch at random, as :class:`AugmentOptions` describes.

    Args:
        pixels: ``uint8 [N, H, W, 3]``.
        numbers: ``float32 [N, DRAWS]`` from :func:`random_numbers`, on the same device.
        options: what to do, and how strongly.
        frames: ``float32 [N, 2, 3]``, where each picture's crop lies in it (see ``Store``); None
            takes all pictures whole.
        size: height and width of the result; None keeps those of ``pixels``.
        grey: whether the network sees grey only.

    Returns:
        ``float32 [N, 3, *size]`` in 0..1, ready for :func:`normalise`.
    """
    u = numbers.T  # u[k] is the k-th number of every picture; signed(k) is it in -1..1
    x = as_floats(pixels, grey)
    x = _move(x, u, options, frames, size or (x.shape[2], x.shape[3]))
    x = _coarsen(x, u, options)
    x = _recolour(x, u, options)
    if options.noise:
        noisy = u[21] < 0.5
        sigma = (options.noise * u[20, noisy]).view(-1, 1, 1, 1)
        x[noisy] += sigma * _white_noise(x, u[22, noisy])
    if options.cover:
        x = _cover(x, u, options)
    return (_to_grey(x) if grey else x).clamp(0.0, 1.0)


def _signed(values: Tensor) -> Tensor:
    return values * 2.0 - 1.0


def _move(
    x: Tensor, u: Tensor, options: AugmentOptions, frames: Tensor | None, size: tuple[int, int]
) -> Tensor:
    """Cut out, mirror, turn, zoom, stretch and shift in one resampling."""
    turned = u[0] < options.turn_share
    # a normal number out of two even ones (Box and Muller)
    normal = (-2.0 * (1.0 - u[2]).log()).sqrt() * (2.0 * torch.pi * u[3]).cos()
    degrees = torch.where(
        turned, _signed(u[1]) * options.turn_degrees, normal * options.tilt_degrees
    )
    angle = torch.deg2rad(degrees)
    zoom = options.zoom ** _signed(u[4])
    whole = torch.ones_like(u[36], dtype=torch.bool)
    if frames is not None:
        whole = (u[36] < options.whole) | frames.isnan().any(2).any(1)
    farther = 1.0 + (whole & (u[32] < options.far)) * (options.farthest - 1.0) * u[33]
    zoom = zoom * farther
    stretch = options.stretch ** (_signed(u[5]) * 0.5)
    mirror = torch.where(u[6] < options.flip, -1.0, 1.0)
    reach = 2.0 * options.shift + (farther - 1.0) * 0.5  # a small picture may lie off the middle
    shift_x, shift_y = _signed(u[7]) * reach, _signed(u[8]) * reach
    cos, sin = angle.cos(), angle.sin()
    across, down = zoom * stretch, zoom / stretch
    shape = size[0] / size[1]  # grids count in sides, turns in pixels
    theta = torch.stack(
        [
            torch.stack([cos * across * mirror, -sin * across * shape, shift_x], 1),
            torch.stack([sin * down * mirror / shape, cos * down, shift_y], 1),
        ],
        1,
    )
    if frames is not None:
        cut = torch.cat([frames[:, :, :2] @ theta[:, :, :2], _apply(frames, theta[:, :, 2])], 2)
        theta = torch.where(whole.view(-1, 1, 1), theta, cut)
    grid = _grid(theta, size)
    repeated = u[9] < options.edge
    surrounded = ~repeated & (u[34] < options.surround)
    plain = ~repeated & ~surrounded
    moved = x.new_empty((*x.shape[:2], *size))
    if repeated.any():
        moved[repeated] = functional.grid_sample(
            x[repeated], grid[repeated], padding_mode="border", align_corners=False
        )
    if surrounded.any():
        moved[surrounded] = _surround(x[surrounded], grid[surrounded], u[:, surrounded])
    if plain.any():
        shade = u[10:13, plain].T.reshape(-1, 3, 1, 1) * (1.0 if options.edge else 0.0)
        if not options.light:
            shade = shade.mean(1, keepdim=True)
        filled = functional.grid_sample(x[plain] - shade, grid[plain], align_corners=False)
        moved[plain] = filled.add_(shade)
    return moved


def _grid(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each pixel of the result comes from, ``[N, *size, 2]``, for ``grid_sample``.

    What ``functional.affine_grid`` gives (pixels' middles, not corners), but for the last bits;
    that one writes down every place as three numbers and multiplies all of them by a matrix.
    """
    down, across = (
        ((2 * torch.arange(side, device=theta.device) + 1) / side - 1.0).view(shape)
        for side, shape in zip(size, ((1, -1, 1), (1, 1, -1)), strict=True)
    )
    grid = theta.new_empty((len(theta), *size, 2))
    for axis in (0, 1):
        by_across, by_down, shift = theta[:, axis].view(-1, 3, 1, 1).unbind(1)
        torch.add(by_across * across + shift, by_down * down, out=grid[..., axis])
    return grid


def _apply(frames: Tensor, points: Tensor) -> Tensor:
    """Take one point ``[N, 2]`` of every crop to its picture, ``[N, 2, 1]``."""
    return frames[:, :, :2] @ points.unsqueeze(2) + frames[:, :, 2:]


def _surround(x: Tensor, grid: Tensor, u: Tensor) -> Tensor:
    """Sample pictures by a grid and show an enlarged quarter of each where it leaves them."""
    half = torch.full_like(u[34], 0.5)
    none = torch.zeros_like(half)
    sides = [torch.where(u[k] < 0.5, -half, half) for k in (10, 35)]
    quarter = torch.stack(
        [torch.stack([half, none, sides[0]], 1), torch.stack([none, half, sides[1]], 1)], 1
    )
    behind = _grid(quarter, (grid.shape[1], grid.shape[2]))
    inside = (grid.abs() <= 1.0).all(3).unsqueeze(1)
    front, back = (
        functional.grid_sample(x, places, padding_mode="border", align_corners=False)
        for places in (grid, behind)
    )
    return torch.where(inside, front, back)


def _coarsen(x: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Bring some pictures down to a small size and up again."""
    if not options.low_resolution:
        return x
    chosen = u[13] < options.low_resolution
    sizes = (20, 28, 40, 56, 72, 96)
    which = (u[14] * len(sizes)).long().clamp(max=len(sizes) - 1)
    for k, size in enumerate(sizes):
        rows = (chosen & (which == k)).nonzero().flatten()
        if len(rows) and size < x.shape[2]:
            small = functional.interpolate(x[rows], size=(size, size), mode="area")
            mode = "nearest" if k % 2 else "bilinear"
            x[rows] = functional.interpolate(small, size=x.shape[2:], mode=mode)
    return x


def _recolour(x: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Change brightness, contrast, saturation and cast, or take the colour away: one matrix."""
    if not (options.light or options.cast or options.grey):
        return x
    count = x.shape[0]
    luma = torch.tensor(LUMA, device=x.device).expand(3, 3)
    eye = torch.eye(3, device=x.device)
    colour = 1.0 + options.light * _signed(u[15])
    colour = torch.where(u[16] < options.grey, torch.zeros_like(colour), colour).view(-1, 1, 1)
    matrix = colour * eye + (1.0 - colour) * luma
    gains = torch.exp(options.cast * torch.stack([_signed(u[k]) for k in (17, 18, 19)], 1))
    gains = torch.where((u[16] < options.grey).view(-1, 1), torch.ones_like(gains), gains)
    contrast = torch.exp(options.light * _signed(u[23]))
    brightness = options.light * 0.5 * _signed(u[24])
    matrix = matrix * gains.view(-1, 3, 1) * contrast.view(-1, 1, 1)
    offset = 0.5 * (1.0 - contrast) + brightness
    flat = x.reshape(count, 3, -1)
    mixed = torch.baddbmm(offset.view(-1, 1, 1).expand(-1, 3, 1), matrix, flat)
    return mixed.view_as(x).clamp_(0.0, 1.0)


def _white_noise(x: Tensor, key: Tensor) -> Tensor:
    """Noise of spread 1, ``[len(key), 1, H, W]``, a fixed sheet that each key sees shifted."""
    height, width = x.shape[2:]
    generator = torch.Generator().manual_seed(20)
    sheet = torch.randn((2 * height, 2 * width), generator=generator).to(x.device)
    windows = sheet.unfold(0, height, 1).unfold(1, width, 1)  # a view: all places to look from
    return windows[(key * height).long(), (key * 7919.0 % 1.0 * width).long()].unsqueeze(1)


def _cover(x: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Hide the lower part, a band or a box of some pictures behind one colour."""
    height, width = x.shape[2:]
    chosen = u[25] < options.cover
    u = u[:, chosen]
    tall, wide = 0.12 + 0.33 * u[26], 0.2 + 0.8 * u[27]
    top, left = u[28] * (1.0 - tall), u[29] * (1.0 - wide)
    rows = ((torch.arange(height, device=x.device) + 0.5) / height).view(1, -1, 1)
    columns = ((torch.arange(width, device=x.device) + 0.5) / width).view(1, 1, -1)

    def within(values: Tensor, start: Tensor, length: Tensor) -> Tensor:
        start, stop = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
        return (values >= start) & (values < stop)

    hidden = within(rows, top, tall) & within(columns, left, wide)
    shade = torch.stack([u[30], u[31], u[26]], 1).view(-1, 3, 1, 1)
    x[chosen] = torch.where(hidden.unsqueeze(1), shade, x[chosen])
    return x
