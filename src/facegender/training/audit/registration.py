"""Register one face image to another, to tell whether both show the same photo.

Two photos of one person look alike to a face network, and so do duplicates; only duplicates agree
in their pixels once one is registered to the other. The transform is a similarity, then an affine
map, found by Gauss-Newton steps on grayscale images, from coarse to fine (B. Lucas, T. Kanade, "An
iterative image registration technique", IJCAI 1981; with free brightness and contrast).
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
"""Side in pixels of the grayscale view that is compared."""

_ZOOM = 1.15  # the surroundings of the face crop also tell duplicates from other photos
_EDGE = 0.98  # beyond it a view holds the border pixels, repeated
_MAX_STEP = 0.1
_REFINE_ABOVE = 0.85  # correlation at half resolution from which a pair is refined
_MAX_TRANSFORM = 0.6  # of half a view; detected faces are nearer than that
_SIMILARITY, _AFFINE = 4, 6  # free parameters


@dataclass(frozen=True, slots=True)
class Registration:
    """How well pairs of images agree once registered; each array is ``[pairs]``.

    Attributes:
        correlation: of detail finer than a twelfth of the view, -1 to 1.
        overlap: fraction of the view that both images cover, 0 to 1.
        mirrored: whether the second is the mirror image of the first.
    """

    correlation: NDArray[np.float32]
    overlap: NDArray[np.float32]
    mirrored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _View:
    """Grayscale views ``[n, 1, side, side]``, and a mask that is 1 where they show the image."""

    values: Tensor
    mask: Tensor

    def halved(self) -> _View:
        return _View(_halved(self.values), _halved(self.mask))

    def mirrored(self) -> _View:
        return _View(self.values.flip(3), self.mask.flip(3))

    def select(self, rows: Tensor) -> _View:
        return _View(self.values[rows], self.mask[rows])


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage of the registration: blur in pixels, Gauss-Newton steps, free parameters."""

    blur: float
    steps: int
    parameters: int


_COARSE = (_Stage(2.0, 8, _SIMILARITY), _Stage(1.0, 4, _SIMILARITY))
_FINE = (_Stage(1.0, 6, _AFFINE),)


def register(
    first: ImageCache, rows: NDArray[np.int64], second: ImageCache, others: NDArray[np.int64]
) -> Registration:
    """Register images of one cache to images of another, pair by pair.

    Args:
        first: the first cache.
        rows: rows of it, ``int64 [pairs]``.
        second: the second cache.
        others: rows of it, ``int64 [pairs]``.
    """
    with torch.inference_mode():
        fixed = _view(read_rows(first.context_pixels, rows), first.crop_matrices[rows])
        moving = _view(read_rows(second.context_pixels, others), second.crop_matrices[others])
        candidates = (moving, moving.mirrored())
        transforms, correlations = [], []
        for candidate in candidates:
            identity = torch.eye(2, 3).repeat(len(rows), 1, 1)
            halves = fixed.halved(), candidate.halved()
            transforms.append(_align(*halves, identity, _COARSE))
            correlations.append(_correlate_detail(*halves, transforms[-1])[0])
        mirrored = correlations[1] > correlations[0]
        correlation = torch.maximum(correlations[0], correlations[1])
        overlap = torch.zeros(len(rows))
        for is_mirrored, candidate in enumerate(candidates):
            near = (correlation > _REFINE_ABOVE) & (mirrored == bool(is_mirrored))
            if near.any():
                pair = fixed.select(near), candidate.select(near)
                transform = _align(*pair, transforms[is_mirrored][near], _FINE)
                correlation[near], overlap[near] = _correlate_detail(*pair, transform)
    return Registration(correlation.numpy(), overlap.numpy(), mirrored.numpy())


def _view(context_pixels: Pixels, crop_matrices: NDArray[np.float32]) -> _View:
    """Sample grayscale views around the faces, with ``side`` :data:`SIDE`."""
    transform = torch.from_numpy(np.array(crop_matrices))
    transform[:, :, :2] *= _ZOOM
    transform[torch.isnan(transform[:, 0, 0])] = torch.eye(2, 3)  # no face: the full image
    grayscale = torch.from_numpy(context_pixels).float().mean(3)[:, None]
    # sampled at twice the size and averaged, against aliasing
    size = [len(transform), 1, 2 * SIDE, 2 * SIDE]
    grid = functional.affine_grid(transform, size, align_corners=False)
    values = functional.grid_sample(grayscale, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs().amax(3) <= _EDGE).float()[:, None]
    return _View(_halved(values), (_halved(inside) > 0.99).float())


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


def _align(fixed: _View, moving: _View, transform: Tensor, stages: tuple[_Stage, ...]) -> Tensor:
    """Find the transforms that align the moving views with the fixed ones, ``[n, 2, 3]``.

    Args:
        fixed: views.
        moving: views that are sampled through the transform.
        transform: where to start, ``[n, 2, 3]``.
        stages: from coarse to fine.
    """
    side = fixed.values.shape[-1]
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    for stage in stages:
        target = _blurred(fixed.values, fixed.mask, stage.blur)
        source = _blurred(moving.values, moving.mask, stage.blur)
        down, across = torch.gradient(target[:, 0], spacing=2 / side, dim=(1, 2))
        # derivatives by shift right and down, scale, rotation; then stretch and shear
        derivatives = [across, down, across * x + down * y, down * x - across * y]
        derivatives += [across * x - down * y, across * y + down * x]
        slopes = torch.stack(derivatives[: stage.parameters], 1)
        for _ in range(stage.steps):
            weight = fixed.mask * (_warp(moving.mask, transform) > 0.99)
            mean, std = _moments(target, weight)
            warped = _standardized(_warp(source, transform), weight) * std + mean
            weighted = (slopes * weight).flatten(2)
            curvature = weighted @ slopes.flatten(2).transpose(1, 2)
            curvature += 1e-2 * torch.diag_embed(torch.diagonal(curvature, dim1=1, dim2=2) + 1)
            error = (warped - target).flatten(1)[:, :, None]
            step = torch.linalg.solve(curvature, weighted @ error)[:, :, 0]
            step = functional.pad(
                step.clamp(-_MAX_STEP, _MAX_STEP), (0, _AFFINE - stage.parameters)
            )
            moved = (_square(transform) @ torch.linalg.inv(_square(_matrix(step))))[:, :2]
            is_near = (moved - torch.eye(2, 3)).abs().amax((1, 2)) < _MAX_TRANSFORM
            transform = torch.where(is_near[:, None, None], moved, transform)
    return transform


def _matrix(step: Tensor) -> Tensor:
    """Convert parameter steps ``[n, 6]`` to affine matrices ``[n, 2, 3]``."""
    right, down, scale, rotation, stretch, shear = step.unbind(1)
    rows = [1 + scale + stretch, shear - rotation, right]
    rows += [rotation + shear, 1 + scale - stretch, down]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _square(transform: Tensor) -> Tensor:
    """Append the last row of a homogeneous matrix: ``[n, 3, 3]``."""
    return torch.cat([transform, torch.tensor([0.0, 0.0, 1.0]).expand(len(transform), 1, 3)], 1)


def _correlate_detail(fixed: _View, moving: _View, transform: Tensor) -> tuple[Tensor, Tensor]:
    """Correlate the detail of two views where both show their image; give that overlap, too."""
    weight = fixed.mask * (_warp(moving.mask, transform) > 0.99)
    one, two = (_blurred(x, weight, 0.8) for x in (fixed.values, _warp(moving.values, transform)))
    broad = fixed.values.shape[-1] / 12
    detail_one = one - _blurred(one, weight, broad)
    detail_two = two - _blurred(two, weight, broad)
    return _correlation(detail_one, detail_two, weight), weight.mean((1, 2, 3))


def _warp(x: Tensor, transform: Tensor) -> Tensor:
    grid = functional.affine_grid(transform, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def _moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean and standard deviation of every view, ``[n, 1, 1, 1]`` each."""
    count = weight.sum((1, 2, 3), keepdim=True).clamp_min(1)
    mean = (x * weight).sum((1, 2, 3), keepdim=True) / count
    variance = ((x - mean).square() * weight).sum((1, 2, 3), keepdim=True) / count
    return mean, variance.sqrt().clamp_min(1e-3)


def _standardized(x: Tensor, weight: Tensor) -> Tensor:
    mean, std = _moments(x, weight)
    return (x - mean) / std


def _correlation(one: Tensor, two: Tensor, weight: Tensor) -> Tensor:
    product = _standardized(one, weight) * _standardized(two, weight) * weight
    return product.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)


def _blurred(x: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian of ``sigma`` pixels that ignores what the mask leaves out."""
    radius = int(3 * sigma + 0.5)
    kernel = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma**2))
    kernel /= kernel.sum()

    def blur(values: Tensor) -> Tensor:
        padded = functional.pad(values, (radius, radius, radius, radius), mode="replicate")
        return functional.conv2d(
            functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)
        )

    return blur(x * mask) / blur(mask).clamp_min(1e-3)
