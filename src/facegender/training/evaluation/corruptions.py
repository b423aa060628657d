"""Worse pictures made of good ones: turned, small, blurred, compressed.

Every condition takes an upright picture, ``uint8 [H, W, 3]``, the landmarks of its face or None,
and a random generator, and gives another picture. Nothing here is shared with the augmentation
that networks are trained with. ``benchmarks/accuracy`` has more of them.
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
    """Turn by ``degrees`` to either side; the corners are filled by ``fill``.

    ``black``, ``grey``, ``edge`` (the border's mean colour), or ``photo``: the picture is turned
    as part of a wider one, which is then cut to the same frame (its surroundings are mirrored, for
    the archive has no wider picture).
    """

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        angle = degrees * rng.choice((-1, 1))
        if fill == "photo":
            height, width = pixels.shape[:2]
            context_pixels = np.pad(
                pixels, ((height // 2,) * 2, (width // 2,) * 2, (0, 0)), "symmetric"
            )
            image = Image.fromarray(context_pixels).rotate(angle, Image.Resampling.BICUBIC)
            left, top = width // 2, height // 2
            return np.asarray(image.crop((left, top, left + width, top + height)))
        color = {"black": (0, 0, 0), "grey": (128, 128, 128)}.get(fill) or _border(pixels)
        image = Image.fromarray(pixels)
        return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=color))

    return change


def downscaled(side: int) -> CorruptFunction:
    """Bring the longer side down to ``side`` pixels."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        image = Image.fromarray(pixels)
        scale = side / max(image.size)
        if scale >= 1:
            return pixels
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS))

    return change


def blurred(share: float) -> CorruptFunction:
    """Blur by a Gaussian whose sigma is ``share`` of the longer side."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        blur = ImageFilter.GaussianBlur(share * max(pixels.shape[:2]))
        return np.asarray(Image.fromarray(pixels).filter(blur))

    return change


def compressed(quality: int) -> CorruptFunction:
    """Save as JPEG of that quality and read again."""

    def change(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))

    return change


def clean(pixels: Pixels, _: Landmarks | None, rng: np.random.Generator) -> Pixels:
    """The picture as it is."""
    return pixels


def _border(pixels: Pixels) -> tuple[int, int, int]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in border.mean(0))
    return red, green, blue
