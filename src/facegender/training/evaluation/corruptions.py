"""Image corruptions: rotation, low resolution, blur, JPEG compression.

Each takes an upright image, ``uint8 [H, W, 3]``, the landmarks of its face or None, and a random
generator, and returns an image. Nothing here is used by the training augmentation.
``benchmarks/accuracy`` has more of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from facegender.images.pixels import Pixels

Landmarks: TypeAlias = NDArray[np.float32]
CorruptFunction: TypeAlias = Callable[[Pixels, Landmarks | None, np.random.Generator], Pixels]

DEGREES = (15, 30, 45)
SIZES = (96, 64, 48, 32, 24)
BLURS = (0.01, 0.02, 0.03, 0.05)
QUALITIES = (50, 30, 20, 10)


def rotated(degrees: float, fill: str) -> CorruptFunction:
    """Rotate by ``degrees`` to either side.

    Args:
        degrees: 0 to 45.
        fill: what the corners show: ``black``, ``gray``, ``edge`` (mean color of the border), or
            ``photo`` (the image mirrored at its border, as if it had been cut from a larger
            photo).
    """

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        angle = degrees * rng.choice((-1, 1))
        if fill == "photo":
            height, width = pixels.shape[:2]
            padding = ((height // 2,) * 2, (width // 2,) * 2, (0, 0))
            padded = Image.fromarray(np.pad(pixels, padding, "symmetric"))
            left, top = width // 2, height // 2
            image = padded.rotate(angle, Image.Resampling.BICUBIC)
            return np.asarray(image.crop((left, top, left + width, top + height)))
        color = {"black": (0, 0, 0), "gray": (128, 128, 128)}.get(fill) or _border_color(pixels)
        image = Image.fromarray(pixels)
        return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=color))

    return change


def downscaled(side: int) -> CorruptFunction:
    """Resize the longer side to ``side`` pixels, if it is larger."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        image = Image.fromarray(pixels)
        scale = side / max(image.size)
        if scale >= 1:
            return pixels
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS))

    return change


def blurred(fraction: float) -> CorruptFunction:
    """Apply a Gaussian blur with a sigma of ``fraction`` times the longer side."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        blur = ImageFilter.GaussianBlur(fraction * max(pixels.shape[:2]))
        return np.asarray(Image.fromarray(pixels).filter(blur))

    return change


def compressed(quality: int) -> CorruptFunction:
    """Encode as JPEG of this quality, and decode."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))

    return change


def clean(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """Return the image unchanged."""
    return pixels


def _border_color(pixels: Pixels) -> tuple[int, int, int]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in border.mean(0))
    return red, green, blue
