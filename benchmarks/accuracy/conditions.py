"""Worse pictures made of good ones: what a network must stand that was shown good ones.

Every condition takes an upright picture, ``uint8 [H, W, 3]``, the landmarks of its face or None,
and a random generator, and gives another picture. Those that ``facegender evaluate --robustness``
has too come from the package. Nothing here is shared with the augmentation that networks are
trained with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from facegender.faces.alignment import ALIGNED_CROP, estimate_similarity
from facegender.images.pixels import Pixels
from facegender.training.evaluation.corruptions import (
    BLURS,
    DEGREES,
    QUALITIES,
    SIZES,
    CorruptFunction,
    Landmarks,
    blurred,
    clean,
    compressed,
    downscaled,
    rotated,
)


def grayscale(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """Three equal channels."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def dark(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A quarter of the light, with the noise of a dark picture (sigma 4 of 255)."""
    shade = (pixels / 255.0) * 0.25 * 255 + rng.normal(0, 4, pixels.shape)
    return np.clip(np.rint(shade), 0, 255).astype(np.uint8)


def tinted(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A strong cast: one channel at 60 %, another at 140 %."""
    gains = rng.permutation((0.6, 1.0, 1.4))
    return np.clip(np.rint(pixels * gains), 0, 255).astype(np.uint8)


def mask(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A surgical mask: from the middle of the nose down over the chin."""
    points = _frame(pixels, landmarks)
    return _painted(pixels, [points(x, y) for x, y in MASK], (170, 200, 210))


def sunglasses(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A dark band over both eyes."""
    points = _frame(pixels, landmarks)
    return _painted(pixels, [points(x, y) for x, y in GLASSES], (20, 20, 20))


def scarf(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """Cloth over hair, forehead, ears and neck: all but an oval from brows to chin."""
    points = _frame(pixels, landmarks)
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    oval = [points(0.5 + 0.31 * np.cos(t), 0.57 + 0.36 * np.sin(t)) for t in turns]
    inside = Image.new("L", (pixels.shape[1], pixels.shape[0]), 0)
    ImageDraw.Draw(inside).polygon(oval, fill=255)
    cloth = np.full_like(pixels, rng.integers(40, 200, 3, dtype=np.uint8))
    return np.where(np.asarray(inside)[..., None] > 0, pixels, cloth)


def tight(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """Only brows to below the mouth; nothing of hair, ears and chin."""
    height, width = pixels.shape[:2]
    points = _frame(pixels, landmarks)
    corners = np.array([points(x, y) for x in (0.2, 0.8) for y in (0.2, 0.9)])
    left, top = np.clip(corners.min(0), 0, (width - 8, height - 8)).astype(int)
    right, bottom = np.clip(corners.max(0), (left + 8, top + 8), (width, height)).astype(int)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def loose(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """The picture in a frame of 2.2 times its size, off the middle, before a blurred backdrop."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    rows, columns = round(2.2 * height), round(2.2 * width)
    blur = ImageFilter.GaussianBlur(0.08 * max(rows, columns))
    context_pixels = image.resize((columns, rows)).filter(blur)
    left, top = (
        int((0.5 + 0.4 * rng.uniform(-1, 1)) * (outer - inner))
        for outer, inner in ((columns, width), (rows, height))
    )
    context_pixels.paste(image, (left, top))
    return np.asarray(context_pixels)


CONDITIONS: dict[str, CorruptFunction] = {
    "clean": clean,
    **{
        f"turned {degrees} {fill}": rotated(degrees, fill)
        for fill in ("black", "grey", "edge", "photo")
        for degrees in DEGREES
    },
    "grey": grayscale,
    **{f"{side} px": downscaled(side) for side in SIZES},
    **{f"blur {share:g}": blurred(share) for share in BLURS},
    **{f"JPEG {quality}": compressed(quality) for quality in QUALITIES},
    "dark": dark,
    "tinted": tinted,
    "mask": mask,
    "sunglasses": sunglasses,
    "scarf": scarf,
    "tight": tight,
    "loose": loose,
}

MASK = ((0.14, 0.52), (0.5, 0.47), (0.86, 0.52), (0.84, 0.8), (0.66, 1.0), (0.34, 1.0), (0.16, 0.8))
GLASSES = ((0.12, 0.31), (0.88, 0.31), (0.86, 0.47), (0.56, 0.49), (0.44, 0.49), (0.14, 0.47))
"""In the unit square of the crop rule ``ALIGNED``."""


def _frame(
    pixels: Pixels, landmarks: Landmarks | None
) -> Callable[[float, float], tuple[float, float]]:
    """From the unit square around the face to pixels; around the picture where none is known."""
    if landmarks is None:
        height, width = pixels.shape[:2]
        return lambda x, y: (x * width, y * height)
    matrix = estimate_similarity(landmarks, ALIGNED_CROP)
    return lambda x, y: tuple(matrix @ (x, y, 1.0))


def _painted(
    pixels: Pixels, shape: list[tuple[float, float]], color: tuple[int, int, int]
) -> Pixels:
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).polygon(shape, fill=color)
    return np.asarray(image)
