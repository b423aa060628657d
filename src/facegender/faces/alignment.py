"""Align a face: estimate the similarity of its landmarks to a template, and crop it."""

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
    """How a face is cut out of a picture. Stored in the model file.

    ``rule`` is ``none`` (the picture is the face's frame, as it is) or ``aligned``: the face is
    turned upright and cut so that its landmarks come to lie on ``points``, as nearly as turn, size
    and shift allow. These are x and y of the person's right eye, left eye, tip of the nose, right
    and left corner of the mouth, 0 to 1 across and down the crop.
    """

    rule: str = "none"
    template: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what :func:`facegender.faces.alignment.align_crop` would not do.

        Raises:
            ValueError: another rule, or not five different points.
        """
        if self.rule not in ("none", "aligned"):
            raise ValueError(f"crop rule {self.rule!r} is not one of none, aligned")
        wanted = _LANDMARKS if self.rule == "aligned" else 0
        if len(set(self.template)) != wanted or any(len(point) != 2 for point in self.template):
            raise ValueError(f"the crop rule {self.rule!r} needs {wanted} points")


ALIGNED_CROP = Crop(
    "aligned", ((0.344, 0.385), (0.656, 0.385), (0.5, 0.563), (0.371, 0.745), (0.629, 0.745))
)
"""The crop rule of the networks that ship: forehead to chin, ear to ear, with little around."""

_CORNERS = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)  # of a crop


def estimate_similarity(landmarks: NDArray[np.floating], crop: Crop) -> NDArray[np.float64]:
    """Find where a crop lies in its picture: the similarity that fits the landmarks best.

    Least squares over turn, size and shift (S. Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 1991, without reflection).

    Args:
        landmarks: ``float [5, 2]`` in the picture.
        crop: its ``points`` are where the landmarks shall lie.

    Returns:
        ``float64 [2, 3]``: takes ``(u, v, 1)``, 0 to 1 across and down the crop, to the picture.

    Raises:
        ValueError: all landmarks are one point.
    """
    middle, aside, spread = _template_as_complex(crop)
    given = landmarks.astype(np.float64) @ (1, 1j)
    turn = (aside * given).sum() / spread
    if not abs(turn) > 1e-6:
        raise ValueError("the landmarks are one point")
    shift = given.mean() - turn * middle
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


@cache
def _template_as_complex(crop: Crop) -> tuple[complex, NDArray[np.complex128], float]:
    """A crop's points as complex numbers, for then a similarity is one product and one sum.

    Returns:
        Their middle, how far each is from it (conjugated), and the sum of the squares of that.
    """
    points = np.array(crop.template) @ (1, 1j)
    aside = points - points.mean()
    return points.mean(), aside.conj(), (abs(aside) ** 2).sum()


def align_crop(
    image: ImageLike, landmarks: NDArray[np.floating], crop: Crop, resize: Resize
) -> Pixels:
    """Cut a face out, upright, at the network's size; beyond the picture its edge is repeated.

    Args:
        image: pixels ``uint8 [H, W, 3]``, or Pillow's.
        landmarks: ``float [5, 2]`` in its pixels.
        crop: where they shall lie.
        resize: the network's size; the crop is stretched to it.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    matrix = estimate_similarity(landmarks, crop)
    pil_image = to_image(image)
    reach = matrix @ _CORNERS
    ends = list(zip(reach.min(1).tolist(), reach.max(1).tolist(), strict=True))
    # The part of the picture that the crop touches, made smaller where the crop is (antialiasing)
    (left, right), (top, bottom) = (
        _within(low, high, side) for (low, high), side in zip(ends, pil_image.size, strict=True)
    )
    part = pil_image.crop((left, top, right, bottom))
    scale = min(1.0, max(resize.width, resize.height) / float(np.hypot(*matrix[:, 0])))
    columns, rows = (max(1, round(count * scale)) for count in part.size)
    times = (columns / part.width, rows / part.height)
    part = resize_image(part, Resize(rows, columns, resize.interpolation))
    # ... and with its edges repeated as far as the crop reaches
    across, down = (
        (max(0, 1 - floor((low - first) * by)), max(0, ceil((high - first) * by) + 1 - side))
        for (low, high), first, by, side in zip(ends, (left, top), times, part.size, strict=True)
    )
    if any((*across, *down)):
        part = Image.fromarray(_replicate_edges(np.asarray(part), across, down))
    step = matrix[:, :2] * np.array(times)[:, None] * (1 / resize.width, 1 / resize.height)
    shift = (matrix[:, 2] - (left, top)) * times + (across[0], down[0])
    data = [*step[0], shift[0], *step[1], shift[1]]
    size = (resize.width, resize.height)
    return np.asarray(part.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))


def _within(low: float, high: float, side: int) -> tuple[int, int]:
    """Whole pixels of ``side`` that reach from low to high; one at least."""
    first = min(max(floor(low), 0), side - 1)
    return first, min(max(ceil(high), first + 1), side)


def _replicate_edges(pixels: Pixels, across: tuple[int, int], down: tuple[int, int]) -> Pixels:
    """Repeat the edges so many times before and after (``np.pad`` takes nine times as long)."""
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = (
        (before, before + side) for (before, _), side in ((across, width), (down, height))
    )
    wide = np.empty((height + sum(down), width + sum(across), 3), np.uint8)
    wide[top:bottom, left:right] = pixels
    wide[:top, left:right], wide[bottom:, left:right] = pixels[0], pixels[-1]
    wide[:, :left], wide[:, right:] = wide[:, left : left + 1], wide[:, right - 1 : right]
    return wide
