"""The part of a face crop that a member of the ensemble sees, and the resampling that gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CropView:
    """A square of the face crop, in coordinates from -1 to 1 across and down the crop.

    Attributes:
        center_y: height of the square's center; across it is centered.
        half_side: half the side of the square.
        size: side of the member's input, in pixels.
        supersampling: samples that are averaged for each pixel, along each axis.
    """

    center_y: float
    half_side: float
    size: int
    supersampling: int


def resampling_weights(view: CropView, crop_size: int, center: float) -> NDArray[np.float32]:
    """Compute the bilinear weights that resample one axis of a crop to one axis of a view.

    Args:
        view: the square to resample.
        crop_size: side of the crop, in pixels.
        center: of the square along this axis.

    Returns:
        ``float32 [view.size, crop_size]``; each row sums to 1.
    """
    count = view.size * view.supersampling
    positions = center + view.half_side * ((2 * np.arange(count) + 1) / count - 1)
    positions = np.clip(((positions + 1) * crop_size - 1) / 2, 0, crop_size - 1)
    low = np.minimum(positions.astype(int), crop_size - 2)
    weights = np.zeros((count, crop_size), np.float32)
    weights[np.arange(count), low] = 1 - (positions - low)
    weights[np.arange(count), low + 1] += positions - low
    mean: NDArray[np.float32] = weights.reshape(view.size, view.supersampling, crop_size).mean(1)
    return mean
