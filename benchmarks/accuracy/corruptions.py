"""Image corruptions on which robustness is measured.

Each takes an upright image, ``uint8 [H, W, 3]``, the landmarks of its face or None, and a random
generator, and returns a corrupted image. Those of ``facegender evaluate --robustness`` come from
the package. None shares code with the augmentation of training images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
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
    """A quarter of the brightness, with noise of standard deviation 4 (of 255)."""
    shade = (pixels / 255.0) * 0.25 * 255 + rng.normal(0, 4, pixels.shape)
    return np.clip(np.rint(shade), 0, 255).astype(np.uint8)


def tinted(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A strong color cast: one channel at 60 %, another at 140 %."""
    gains: NDArray[np.float64] = rng.permutation((0.6, 1.0, 1.4))
    return np.clip(np.rint(pixels * gains), 0, 255).astype(np.uint8)


def mask(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A surgical mask, from the middle of the nose to the chin."""
    points = _face_coordinates(pixels, landmarks)
    return _paint(pixels, [points(x, y) for x, y in MASK], (170, 200, 210))


def sunglasses(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A dark band over both eyes."""
    points = _face_coordinates(pixels, landmarks)
    return _paint(pixels, [points(x, y) for x, y in GLASSES], (20, 20, 20))


def scarf(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """Cloth over hair, forehead, ears and neck: only an oval from brows to chin is visible."""
    points = _face_coordinates(pixels, landmarks)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    oval = [points(0.5 + 0.31 * np.cos(t), 0.57 + 0.36 * np.sin(t)) for t in angles]
    inside = Image.new("L", (pixels.shape[1], pixels.shape[0]), 0)
    ImageDraw.Draw(inside).polygon(oval, fill=255)
    cloth = np.full_like(pixels, rng.integers(40, 200, 3, dtype=np.uint8))
    return np.where(np.asarray(inside)[..., None] > 0, pixels, cloth)


def tight(pixels: Pixels, landmarks: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A tight crop from the brows to below the mouth, without hair, ears and chin."""
    height, width = pixels.shape[:2]
    points = _face_coordinates(pixels, landmarks)
    corners = np.array([points(x, y) for x in (0.2, 0.8) for y in (0.2, 0.9)])
    left, top = np.clip(corners.min(0), 0, (width - 8, height - 8)).astype(int)
    right, bottom = np.clip(corners.max(0), (left + 8, top + 8), (width, height)).astype(int)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def loose(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """A loose crop: the image off center in one of 2.2 times its size, on a blurred background."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    rows, columns = round(2.2 * height), round(2.2 * width)
    blur = ImageFilter.GaussianBlur(0.08 * max(rows, columns))
    background = image.resize((columns, rows)).filter(blur)
    left, top = (
        int((0.5 + 0.4 * rng.uniform(-1, 1)) * (outer - inner))
        for outer, inner in ((columns, width), (rows, height))
    )
    background.paste(image, (left, top))
    return np.asarray(background)


CORRUPTIONS: dict[str, CorruptFunction] = {
    "clean": clean,
    **{
        f"rotated {degrees} {fill}": rotated(degrees, fill)
        for fill in ("black", "gray", "edge", "photo")
        for degrees in DEGREES
    },
    "grayscale": grayscale,
    **{f"{side} px": downscaled(side) for side in SIZES},
    **{f"blur {sigma:g}": blurred(sigma) for sigma in BLURS},
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
"""In the unit square of the aligned crop."""


def _face_coordinates(
    pixels: Pixels, landmarks: Landmarks | None
) -> Callable[[float, float], tuple[float, float]]:
    """Map the unit square around the face to pixels; without landmarks, around the image."""
    if landmarks is None:
        height, width = pixels.shape[:2]
        return lambda x, y: (x * width, y * height)
    matrix = estimate_similarity(landmarks, ALIGNED_CROP)

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        column, row = matrix @ (x, y, 1.0)
        return float(column), float(row)

    return to_pixels


def _paint(pixels: Pixels, shape: list[tuple[float, float]], color: tuple[int, int, int]) -> Pixels:
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).polygon(shape, fill=color)
    return np.asarray(image)
