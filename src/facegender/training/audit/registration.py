"""Lay one picture of a face over another, to see whether both show the same photo.

Two photos of one person look alike to a face network, and so do copies; only copies agree in their
pixels once the one is laid over the other. The overlay is a similarity, then an affine map, found
by Gauss-Newton steps on grey pictures, from coarse to fine (B. Lucas, T. Kanade, "An iterative
image registration technique", IJCAI 1981; with brightness and contrast set free).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facegender.images.pixels import Pixels
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows

SIDE = 48
"""Pixels across the grey view that is compared."""

_ZOOM = 1.15  # what is around the face's crop tells copies from other photos too
_EDGE = 0.98  # beyond it a view holds the picture's last pixels, repeated
_LONGEST_STEP = 0.1
_HOPEFUL = 0.85  # less agreement at half the size than this: not looked at closer
_FARTHEST = 0.6  # of half a view; faces found at all are nearer than that
_SIMILARITY, _AFFINE = 4, 6


@dataclass(frozen=True, slots=True)
class Registration:
    """How well pairs of pictures agree, each an array ``[pairs]``.

    Attributes:
        detail: correlation of what is finer than a twelfth of the view, -1 to 1.
        shared: share of the view that both pictures cover, 0 to 1.
        mirrored: the second is the first's mirror image.
    """

    detail: NDArray[np.float32]
    shared: NDArray[np.float32]
    mirrored: NDArray[np.bool_]


def register(
    first: ImageCache, rows: NDArray[np.int64], second: ImageCache, others: NDArray[np.int64]
) -> Registration:
    """Compare pictures ``rows`` of one store with pictures ``others`` of a store, pair by pair."""
    with torch.inference_mode():
        view, mask = _view(read_rows(first.context_pixels, rows), first.crop_matrices[rows])
        ways = [_view(read_rows(second.context_pixels, others), second.crop_matrices[others])]
        ways.append((ways[0][0].flip(3), ways[0][1].flip(3)))
        small = _halved(view), _halved(mask)
        starts, scores = [], []
        for view_2, mask_2 in ways:
            subsets = (*small, _halved(view_2), _halved(mask_2))
            start = torch.eye(2, 3).repeat(len(rows), 1, 1)
            start = _overlay(*subsets, start, ((2.0, 8, _SIMILARITY), (1.0, 4, _SIMILARITY)))
            starts.append(start)
            scores.append(_agreement(*subsets, start)[0])
        mirrored = scores[1] > scores[0]
        detail = torch.maximum(scores[0], scores[1])
        shared = torch.zeros(len(rows))
        for number, (view_2, mask_2) in enumerate(ways):
            near = (detail > _HOPEFUL) & (mirrored == bool(number))
            if near.any():
                subsets = (view[near], mask[near], view_2[near], mask_2[near])
                place = _overlay(*subsets, starts[number][near], ((1.0, 6, _AFFINE),))
                detail[near], shared[near] = _agreement(*subsets, place)
    return Registration(detail.numpy(), shared.numpy(), mirrored.numpy())


def _view(context_pixels: Pixels, crop_matrices: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Cut grey views around the faces: values and where they are real, ``[n, 1, SIDE, SIDE]``."""
    place = torch.from_numpy(np.array(crop_matrices))
    place[:, :, :2] *= _ZOOM
    place[torch.isnan(place[:, 0, 0])] = torch.eye(2, 3)  # no face: the whole picture
    grayscale = torch.from_numpy(context_pixels).float().mean(3)[:, None]
    # sampled at twice the size and averaged, against aliasing
    size = [len(place), 1, 2 * SIDE, 2 * SIDE]
    grid = functional.affine_grid(place, size, align_corners=False)
    values = functional.grid_sample(grayscale, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs().amax(3) <= _EDGE).float()[:, None]
    return _halved(values), (_halved(inside) > 0.99).float()


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


def _overlay(
    view: Tensor,
    mask: Tensor,
    view_2: Tensor,
    mask_2: Tensor,
    place: Tensor,
    plan: tuple[tuple[float, int, int], ...],
) -> Tensor:
    """Find how the second view must be sampled to lie over the first, ``[n, 2, 3]``.

    Args:
        view: grey, ``[n, 1, side, side]``.
        mask: 1 where it is real.
        view_2: what is laid over it.
        mask_2: 1 where that is real.
        place: where to begin.
        plan: for each stage the blur in pixels, the steps, and how many numbers are free.
    """
    side = view.shape[-1]
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    for blur, steps, free in plan:
        target, moving = _blurred(view, mask, blur), _blurred(view_2, mask_2, blur)
        down, across = torch.gradient(target[:, 0], spacing=2 / side, dim=(1, 2))
        # shift, size, turn; stretch, shear
        ways = [across, down, across * x + down * y, down * x - across * y]
        ways += [across * x - down * y, across * y + down * x]
        slopes = torch.stack(ways[:free], 1)
        for _ in range(steps):
            weight = mask * (_warp(mask_2, place) > 0.99)
            mean, spread = _moments(target, weight)
            found = _normal(_warp(moving, place), weight) * spread + mean
            weighted = (slopes * weight).flatten(2)
            curvature = weighted @ slopes.flatten(2).transpose(1, 2)
            curvature += 1e-2 * torch.diag_embed(torch.diagonal(curvature, dim1=1, dim2=2) + 1)
            error = (found - target).flatten(1)[:, :, None]
            step = torch.linalg.solve(curvature, weighted @ error)[:, :, 0]
            step = functional.pad(step.clamp(-_LONGEST_STEP, _LONGEST_STEP), (0, _AFFINE - free))
            moved = (_square(place) @ torch.linalg.inv(_square(_matrix(step))))[:, :2]
            is_near = (moved - torch.eye(2, 3)).abs().amax((1, 2)) < _FARTHEST
            place = torch.where(is_near[:, None, None], moved, place)
    return place


def _matrix(step: Tensor) -> Tensor:
    """Write steps ``[n, 6]`` as maps ``[n, 2, 3]``."""
    right, below, size, turn, stretch, shear = step.unbind(1)
    rows = [1 + size + stretch, shear - turn, right, turn + shear, 1 + size - stretch, below]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _square(place: Tensor) -> Tensor:
    """Add the last row of a map between planes, ``[n, 3, 3]``."""
    return torch.cat([place, torch.tensor([0.0, 0.0, 1.0]).expand(len(place), 1, 3)], 1)


def _agreement(
    view: Tensor, mask: Tensor, view_2: Tensor, mask_2: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Correlate the details of two views where both are real; give that share of the view, too."""
    weight = mask * (_warp(mask_2, place) > 0.99)
    one, two = (_blurred(x, weight, 0.8) for x in (view, _warp(view_2, place)))
    broad = view.shape[-1] / 12
    fine_one, fine_two = one - _blurred(one, weight, broad), two - _blurred(two, weight, broad)
    return _correlation(fine_one, fine_two, weight), weight.mean((1, 2, 3))


def _warp(x: Tensor, place: Tensor) -> Tensor:
    grid = functional.affine_grid(place, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def _moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of every view, ``[n, 1, 1, 1]`` each."""
    count = weight.sum((1, 2, 3), keepdim=True).clamp_min(1)
    mean = (x * weight).sum((1, 2, 3), keepdim=True) / count
    variance = ((x - mean).square() * weight).sum((1, 2, 3), keepdim=True) / count
    return mean, variance.sqrt().clamp_min(1e-3)


def _normal(x: Tensor, weight: Tensor) -> Tensor:
    mean, spread = _moments(x, weight)
    return (x - mean) / spread


def _correlation(one: Tensor, two: Tensor, weight: Tensor) -> Tensor:
    product = _normal(one, weight) * _normal(two, weight) * weight
    return product.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)


def _blurred(x: Tensor, mask: Tensor, pixels: float) -> Tensor:
    """Blur by a Gaussian that looks only at what is real."""
    reach = int(3 * pixels + 0.5)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * pixels**2))
    kernel /= kernel.sum()

    def blur(values: Tensor) -> Tensor:
        padded = functional.pad(values, (reach, reach, reach, reach), mode="replicate")
        return functional.conv2d(
            functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)
        )

    return blur(x * mask) / blur(mask).clamp_min(1e-3)
