"""Augmentation of whole batches on the training device: one function per transform.

The random numbers of an image are keyed by seed, epoch and the position in the epoch, so that they
do not depend on the batch, on the number of devices, or on where a run was resumed. To add a
transform: an option in ``recipe.AugmentOptions``, columns at the end of :class:`Draws`, a function
here, a call in :func:`augment`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facegender.images.pixels import Pixels
from facegender.training.recipe import AugmentOptions, InputOptions

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grayscale (ITU-R BT.601, as in Pillow)."""


_CHANNEL_ORDERS = ((2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1))
"""All orders of R, G and B but their own."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of a batch by purpose, each ``float32 [N]`` in 0..1.

    The fields are the columns of :func:`random_numbers`, in order: a new transform gets new
    columns at the end, so that a seed keeps giving the batches that it gave.
    """

    rotation_chosen: Tensor
    rotation: Tensor
    jitter_radius: Tensor
    jitter_angle: Tensor
    scale: Tensor
    aspect_ratio: Tensor
    hflip: Tensor
    translate_x: Tensor
    translate_y: Tensor
    pad_edge: Tensor
    pad_red: Tensor  # also the horizontal side of the background
    pad_green: Tensor
    pad_blue: Tensor
    downscale_chosen: Tensor
    downscale_size: Tensor
    saturation: Tensor
    grayscale: Tensor
    gain_red: Tensor
    gain_green: Tensor
    gain_blue: Tensor
    noise_std: Tensor
    noise_chosen: Tensor
    noise_position: Tensor
    contrast: Tensor
    brightness: Tensor
    erase_chosen: Tensor
    erase_height: Tensor  # also the blue of the erased area
    erase_width: Tensor
    erase_top: Tensor
    erase_left: Tensor
    erase_red: Tensor
    erase_green: Tensor
    zoom_out_chosen: Tensor
    zoom_out: Tensor
    pad_background: Tensor
    background_side_y: Tensor
    full_image: Tensor
    channel_shuffle_chosen: Tensor
    channel_order: Tensor

    @classmethod
    def from_numbers(cls, numbers: Tensor) -> Draws:
        """Name the columns of ``float32 [N, RANDOM_COLUMNS]``."""
        return cls(*numbers.unbind(1))

    def pick(self, rows: Tensor) -> Draws:
        """Return the draws of some images only; ``rows`` is ``bool [N]``."""
        return Draws(*(getattr(self, item.name)[rows] for item in fields(self)))


RANDOM_COLUMNS = len(fields(Draws))
"""Random numbers per image and epoch."""


def random_numbers(
    seed: int, epoch: int, indices: Iterable[int], count: int = RANDOM_COLUMNS
) -> NDArray[np.float32]:
    """Return uniform numbers in 0..1, ``float32 [N, count]``: a row per index, keyed by all three.

    A row does not depend on what was drawn before it: Philox is a keyed generator (Salmon et al.,
    "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).

    Args:
        seed: of the recipe.
        epoch: from 0.
        indices: positions in the epoch.
        count: numbers per row.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) | index])).random(
            count, np.float32
        )
        for index in map(int, indices)
    ]
    return np.stack(rows) if rows else np.zeros((0, count), np.float32)


def to_float(pixels: Tensor, grayscale: bool) -> Tensor:
    """Convert ``uint8 [N, H, W, 3]`` to ``float32 [N, 3, H, W]`` in 0..1, optionally gray."""
    x = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    return _to_grayscale(x) if grayscale else x


def _to_grayscale(x: Tensor) -> Tensor:
    """Convert ``[N, 3, H, W]`` to three equal channels."""
    weights = torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def normalize(x: Tensor, options: InputOptions) -> Tensor:
    """Subtract the mean from ``[N, 3, H, W]`` in 0..1 and divide by the std, per channel."""
    mean = torch.tensor(options.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(options.std, device=x.device).view(1, 3, 1, 1)
    return (x - mean).div_(std)


def denormalize(x: Tensor, options: InputOptions) -> Pixels:
    """Undo :func:`normalize`: convert ``[N, 3, H, W]`` to images, ``uint8 [N, H, W, 3]``."""
    mean = torch.tensor(options.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(options.std, device=x.device).view(1, 3, 1, 1)
    pixels = ((x.float() * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def augment(
    pixels: Tensor,
    numbers: Tensor,
    options: AugmentOptions,
    *,
    crop_matrices: Tensor | None = None,
    size: tuple[int, int] | None = None,
    grayscale: bool = False,
) -> Tensor:
    """Augment every image of a batch at random, as :class:`AugmentOptions` describes.

    Args:
        pixels: ``uint8 [N, H, W, 3]``.
        numbers: ``float32 [N, RANDOM_COLUMNS]`` from :func:`random_numbers`, on the same device.
        options: which transforms, and how strong.
        crop_matrices: ``float32 [N, 2, 3]``, where each image's face crop lies in it (see
            ``ImageCache``); None takes all images in full.
        size: height and width of the result; None keeps those of ``pixels``.
        grayscale: whether the network sees grayscale only.

    Returns:
        ``float32 [N, 3, *size]`` in 0..1, ready for :func:`normalize`.
    """
    draws = Draws.from_numbers(numbers)
    x = to_float(pixels, grayscale)
    size = size or (x.shape[2], x.shape[3])
    matrices = random_affine(draws, options, size, crop_matrices)
    x = sample_with_padding(x, affine_grid(matrices, size), draws, options)
    x = random_downscale(x, draws, options)
    x = random_color_jitter(x, draws, options)
    x = random_gaussian_noise(x, draws, options)
    x = random_erasing(x, draws, options)
    return (_to_grayscale(x) if grayscale else x).clamp(0.0, 1.0)


def random_affine(
    draws: Draws,
    options: AugmentOptions,
    size: tuple[int, int],
    crop_matrices: Tensor | None = None,
) -> Tensor:
    """Draw crop, flip, rotation, scale, aspect ratio and translation as one matrix per image.

    Returns:
        ``float32 [N, 2, 3]``: from points of the result to points of the image, both in -1..1.
    """
    # a normal number from two uniform ones (Box and Muller)
    radius = (-2.0 * (1.0 - draws.jitter_radius).log()).sqrt()
    normal = radius * (2.0 * torch.pi * draws.jitter_angle).cos()
    degrees = torch.where(
        draws.rotation_chosen < options.rotation_prob,
        _signed(draws.rotation) * options.rotation_degrees,
        normal * options.rotation_jitter_std,
    )
    angle = torch.deg2rad(degrees)
    is_full = _is_full_image(draws, options, crop_matrices)
    zooms_out = is_full & (draws.zoom_out_chosen < options.zoom_out_prob)
    zoom_out = 1.0 + zooms_out * (options.zoom_out_max - 1.0) * draws.zoom_out
    scale = options.scale ** _signed(draws.scale)
    scale = scale * zoom_out
    aspect = options.aspect_ratio_jitter ** (_signed(draws.aspect_ratio) * 0.5)
    mirror = torch.where(draws.hflip < options.hflip_prob, -1.0, 1.0)
    # an image that is zoomed out may lie anywhere in the result
    reach = 2.0 * options.translate + (zoom_out - 1.0) * 0.5
    shift_x, shift_y = _signed(draws.translate_x) * reach, _signed(draws.translate_y) * reach
    cos, sin = angle.cos(), angle.sin()
    scale_x, scale_y = scale * aspect, scale / aspect
    shape = size[0] / size[1]  # grids count in sides, rotations in pixels
    matrices = torch.stack(
        [
            torch.stack([cos * scale_x * mirror, -sin * scale_x * shape, shift_x], 1),
            torch.stack([sin * scale_y * mirror / shape, cos * scale_y, shift_y], 1),
        ],
        1,
    )
    if crop_matrices is None:
        return matrices
    linear = crop_matrices[:, :, :2]
    moved = linear @ matrices[:, :, 2:] + crop_matrices[:, :, 2:]
    cropped = torch.cat([linear @ matrices[:, :, :2], moved], 2)
    return torch.where(is_full.view(-1, 1, 1), matrices, cropped)


def sample_with_padding(x: Tensor, grid: Tensor, draws: Draws, options: AugmentOptions) -> Tensor:
    """Sample ``[N, 3, H, W]`` by a grid ``[N, *size, 2]``, padded in one of three ways.

    Outside of its image a result repeats the edge, shows an enlarged quarter of the image as
    background, or has one color (black where no image repeats its edge).
    """
    edge = draws.pad_edge < options.pad_edge_prob
    background = ~edge & (draws.pad_background < options.pad_background_prob)
    plain = ~edge & ~background
    sampled = x.new_empty((*x.shape[:2], *grid.shape[1:3]))
    if edge.any():
        sampled[edge] = functional.grid_sample(
            x[edge], grid[edge], padding_mode="border", align_corners=False
        )
    if background.any():
        sampled[background] = _pad_with_background(
            x[background], grid[background], draws.pick(background)
        )
    if plain.any():
        colors = torch.stack([draws.pad_red, draws.pad_green, draws.pad_blue], 1)[plain]
        color = colors.view(-1, 3, 1, 1) * (1.0 if options.pad_edge_prob else 0.0)
        if not options.color_jitter:
            color = color.mean(1, keepdim=True)
        filled = functional.grid_sample(x[plain] - color, grid[plain], align_corners=False)
        sampled[plain] = filled.add_(color)
    return sampled


def random_downscale(x: Tensor, draws: Draws, options: AugmentOptions) -> Tensor:
    """Downscale some images to 20 to 96 pixels and upscale them again."""
    if not options.downscale_prob:
        return x
    chosen = draws.downscale_chosen < options.downscale_prob
    sizes = (20, 28, 40, 56, 72, 96)
    which = (draws.downscale_size * len(sizes)).long().clamp(max=len(sizes) - 1)
    for k, size in enumerate(sizes):
        rows = (chosen & (which == k)).nonzero().flatten()
        if len(rows) and size < x.shape[2]:
            small = functional.interpolate(x[rows], size=(size, size), mode="area")
            mode = "nearest" if k % 2 else "bilinear"
            x[rows] = functional.interpolate(small, size=x.shape[2:], mode=mode)
    return x


def random_color_jitter(x: Tensor, draws: Draws, options: AugmentOptions) -> Tensor:
    """Jitter brightness, contrast, saturation and channel gains, shuffle channels, or make gray.

    One matrix per image does all of it.
    """
    strengths = (options.color_jitter, options.color_cast, options.grayscale_prob)
    if not (any(strengths) or options.channel_shuffle_prob):
        return x
    luma = torch.tensor(LUMA, device=x.device).expand(3, 3)
    eye = torch.eye(3, device=x.device)
    is_gray = draws.grayscale < options.grayscale_prob
    saturation = 1.0 + options.color_jitter * _signed(draws.saturation)
    saturation = torch.where(is_gray, torch.zeros_like(saturation), saturation).view(-1, 1, 1)
    matrix = saturation * eye + (1.0 - saturation) * luma
    channels = [_signed(gain) for gain in (draws.gain_red, draws.gain_green, draws.gain_blue)]
    gains = torch.exp(options.color_cast * torch.stack(channels, 1))
    gains = torch.where(is_gray.view(-1, 1), torch.ones_like(gains), gains)
    contrast = torch.exp(options.color_jitter * _signed(draws.contrast))
    brightness = options.color_jitter * 0.5 * _signed(draws.brightness)
    matrix = matrix * gains.view(-1, 3, 1) * contrast.view(-1, 1, 1)
    if options.channel_shuffle_prob:
        orders = eye[torch.tensor(_CHANNEL_ORDERS, device=x.device)]
        order = orders[(draws.channel_order * len(orders)).long().clamp(max=len(orders) - 1)]
        shuffled = draws.channel_shuffle_chosen < options.channel_shuffle_prob
        matrix = torch.where(shuffled.view(-1, 1, 1), matrix @ order, matrix)
    offset = 0.5 * (1.0 - contrast) + brightness
    flat = x.reshape(x.shape[0], 3, -1)
    mixed = torch.baddbmm(offset.view(-1, 1, 1).expand(-1, 3, 1), matrix, flat)
    return mixed.view_as(x).clamp_(0.0, 1.0)


def random_gaussian_noise(x: Tensor, draws: Draws, options: AugmentOptions) -> Tensor:
    """Add gray Gaussian noise to half of the images, of a standard deviation up to the option's.

    The noise is one fixed sheet, of which each image sees another window.
    """
    if not options.gaussian_noise_std:
        return x
    height, width = x.shape[2:]
    noisy = draws.noise_chosen < 0.5
    position = draws.noise_position[noisy]
    generator = torch.Generator().manual_seed(20)
    sheet = torch.randn((2 * height, 2 * width), generator=generator).to(x.device)
    windows = sheet.unfold(0, height, 1).unfold(1, width, 1)  # a view of all windows
    noise = windows[(position * height).long(), (position * 7919.0 % 1.0 * width).long()]
    std = (options.gaussian_noise_std * draws.noise_std[noisy]).view(-1, 1, 1, 1)
    x[noisy] += std * noise.unsqueeze(1)
    return x


def random_erasing(x: Tensor, draws: Draws, options: AugmentOptions) -> Tensor:
    """Hide a box of some images behind one color.

    Source: Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """
    if not options.random_erasing_prob:
        return x
    height, width = x.shape[2:]
    chosen = draws.erase_chosen < options.random_erasing_prob
    draws = draws.pick(chosen)
    tall, wide = 0.12 + 0.33 * draws.erase_height, 0.2 + 0.8 * draws.erase_width
    top, left = draws.erase_top * (1.0 - tall), draws.erase_left * (1.0 - wide)
    rows = ((torch.arange(height, device=x.device) + 0.5) / height).view(1, -1, 1)
    columns = ((torch.arange(width, device=x.device) + 0.5) / width).view(1, 1, -1)

    def within(values: Tensor, start: Tensor, length: Tensor) -> Tensor:
        start, stop = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
        return (values >= start) & (values < stop)

    hidden = within(rows, top, tall) & within(columns, left, wide)
    color = torch.stack([draws.erase_red, draws.erase_green, draws.erase_height], 1)
    x[chosen] = torch.where(hidden.unsqueeze(1), color.view(-1, 3, 1, 1), x[chosen])
    return x


def affine_grid(matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the point of the image that each pixel of the result samples, ``[N, *size, 2]``.

    Except for the last bits the same as ``functional.affine_grid`` (pixel centers, not corners),
    and faster: that one writes three numbers per pixel and multiplies all of them by a matrix.
    """
    down, across = (
        ((2 * torch.arange(side, device=matrices.device) + 1) / side - 1.0).view(shape)
        for side, shape in zip(size, ((1, -1, 1), (1, 1, -1)), strict=True)
    )
    grid = matrices.new_empty((len(matrices), *size, 2))
    for axis in (0, 1):
        by_across, by_down, shift = matrices[:, axis].view(-1, 3, 1, 1).unbind(1)
        torch.add(by_across * across + shift, by_down * down, out=grid[..., axis])
    return grid


def _is_full_image(draws: Draws, options: AugmentOptions, crop_matrices: Tensor | None) -> Tensor:
    """Return which images are taken in full: those drawn, and those without a face crop."""
    if crop_matrices is None:
        return torch.ones_like(draws.full_image, dtype=torch.bool)
    has_no_crop = crop_matrices.isnan().any(2).any(1)
    return (draws.full_image < options.full_image_prob) | has_no_crop


def _signed(values: Tensor) -> Tensor:
    """Map 0..1 to -1..1."""
    return values * 2.0 - 1.0


def _pad_with_background(x: Tensor, grid: Tensor, draws: Draws) -> Tensor:
    """Sample images by a grid, over an enlarged quarter of each as background."""
    half = torch.full_like(draws.pad_background, 0.5)
    none = torch.zeros_like(half)
    side_x, side_y = (
        torch.where(side < 0.5, -half, half) for side in (draws.pad_red, draws.background_side_y)
    )
    quarter = torch.stack(
        [torch.stack([half, none, side_x], 1), torch.stack([none, half, side_y], 1)], 1
    )
    behind = affine_grid(quarter, (grid.shape[1], grid.shape[2]))
    inside = (grid.abs() <= 1.0).all(3).unsqueeze(1)
    front, back = (
        functional.grid_sample(x, places, padding_mode="border", align_corners=False)
        for places in (grid, behind)
    )
    return torch.where(inside, front, back)
