"""Face alignment: map the landmarks of a face to a template by a similarity, and crop it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.images.pixels import ImageLike, Pixels, Resize, resize_image, to_image

_LANDMARKS = 5


@dataclass(frozen=True, slots=True)
class Crop:
    """How a network's input is cropped from an image. Stored in the model file.

    Attributes:
        rule: ``none`` takes the full image; ``aligned`` crops a face upright, so that its
            landmarks lie on ``template`` as closely as rotation, scale and translation allow.
        template: where the landmarks lie in an aligned crop: x and y of the person's right eye,
            left eye, nose tip, right and left mouth corner, 0 to 1 across and down the crop.
            Empty for ``none``.
    """

    rule: str = "none"
    template: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Check the rule and its template.

        Raises:
            ValueError: an unknown rule, or a template that is not five different points.
        """
        if self.rule not in ("none", "aligned"):
            raise ValueError(f"The crop rule {self.rule!r} is not one of none, aligned")
        points = _LANDMARKS if self.rule == "aligned" else 0
        if len(set(self.template)) != points or any(len(point) != 2 for point in self.template):
            raise ValueError(f"The crop rule {self.rule!r} needs a template of {points} points")


ALIGNED_CROP = Crop(
    "aligned", ((0.344, 0.385), (0.656, 0.385), (0.5, 0.563), (0.371, 0.745), (0.629, 0.745))
)
"""The crop of the model that ships: forehead to chin, ear to ear, with a narrow margin."""

_CORNERS = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)  # of a crop


def estimate_similarity(landmarks: NDArray[np.floating], crop: Crop) -> NDArray[np.float64]:
    """Estimate the similarity transform from a crop to its image by the landmarks of the face.

    Least squares over rotation, scale and translation (S. Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 1991, without reflection).

    Args:
        landmarks: ``float [5, 2]`` in the image.
        crop: an aligned crop; its template is mapped onto the landmarks.

    Returns:
        ``float64 [2, 3]``: maps ``(u, v, 1)``, 0 to 1 across and down the crop, to the image.

    Raises:
        ValueError: all landmarks are the same point.
    """
    # As complex numbers, a rotation with scale is one factor
    center, offsets, variance = _template_as_complex(crop)
    points = landmarks.astype(np.float64) @ (1, 1j)
    factor = (offsets * points).sum() / variance
    if not abs(factor) > 1e-6:
        raise ValueError("All landmarks are the same point")
    shift = points.mean() - factor * center
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


@cache
def _template_as_complex(crop: Crop) -> tuple[complex, NDArray[np.complex128], float]:
    """Return a template as complex numbers.

    Returns:
        The mean of the points, the conjugated offset of each from it, and the sum of the squared
        offsets.
    """
    points = np.array(crop.template) @ (1, 1j)
    offsets = points - points.mean()
    return points.mean(), offsets.conj(), (abs(offsets) ** 2).sum()


def align_crop(
    image: ImageLike, landmarks: NDArray[np.floating], crop: Crop, resize: Resize
) -> Pixels:
    """Crop a face, rotated upright, at the network's input size.

    Outside the image its edge pixels are repeated.

    Args:
        image: pixels ``uint8 [H, W, 3]``, or a Pillow image.
        landmarks: ``float [5, 2]`` in its pixels.
        crop: an aligned crop.
        resize: the input size; the crop is stretched to it.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    matrix = estimate_similarity(landmarks, crop)
    pil_image = to_image(image)
    corners = matrix @ _CORNERS
    extents = list(zip(corners.min(1).tolist(), corners.max(1).tolist(), strict=True))
    # Cut out the region that the crop covers, and reduce it to the crop's scale (antialiasing)
    (left, right), (top, bottom) = (
        _clip(low, high, side) for (low, high), side in zip(extents, pil_image.size, strict=True)
    )
    region = pil_image.crop((left, top, right, bottom))
    scale = min(1.0, max(resize.width, resize.height) / float(np.hypot(*matrix[:, 0])))
    columns, rows = (max(1, round(count * scale)) for count in region.size)
    factors = (columns / region.width, rows / region.height)
    region = resize_image(region, Resize(rows, columns, resize.interpolation))
    # Pad it by edge pixels as far as the crop extends
    across, down = (
        (
            max(0, 1 - floor((low - first) * factor)),
            max(0, ceil((high - first) * factor) + 1 - side),
        )
        for (low, high), first, factor, side in zip(
            extents, (left, top), factors, region.size, strict=True
        )
    )
    if any((*across, *down)):
        region = Image.fromarray(_pad_edges(np.asarray(region), across, down))
    step = matrix[:, :2] * np.array(factors)[:, None] * (1 / resize.width, 1 / resize.height)
    shift = (matrix[:, 2] - (left, top)) * factors + (across[0], down[0])
    data = [*step[0], shift[0], *step[1], shift[1]]
    size = (resize.width, resize.height)
    return np.asarray(
        region.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    )


def _clip(low: float, high: float, side: int) -> tuple[int, int]:
    """Return the whole pixels from low to high that lie within ``side``; at least one."""
    first = min(max(floor(low), 0), side - 1)
    return first, min(max(ceil(high), first + 1), side)


def _pad_edges(pixels: Pixels, across: tuple[int, int], down: tuple[int, int]) -> Pixels:
    """Pad by edge pixels, as ``np.pad(mode="edge")``, which takes nine times as long."""
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = (
        (before, before + side) for (before, _), side in ((across, width), (down, height))
    )
    padded = np.empty((height + sum(down), width + sum(across), 3), np.uint8)
    padded[top:bottom, left:right] = pixels
    padded[:top, left:right], padded[bottom:, left:right] = pixels[0], pixels[-1]
    padded[:, :left] = padded[:, left : left + 1]
    padded[:, right:] = padded[:, right - 1 : right]
    return padded
