"""Pixels: arrays and Pillow images, conversion between them, resizing, thumbnails."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
"""Pixels ``[H, W, 3]``, ``uint8``, RGB, upright."""

ImageLike: TypeAlias = Pixels | Image.Image
"""A decoded upright RGB image, as an array or as a Pillow image; converting it makes a copy."""

RESIZE_MODES = ("stretch", "letterbox", "center_crop")
"""Values of :attr:`Resize.resize_mode`."""

THUMBNAIL = 160
"""Maximum long side of a thumbnail in pixels."""

_INTERPOLATIONS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Resize:
    """The input size of a network and how an image is resized to it. Stored in the model file.

    Attributes:
        height: in pixels.
        width: in pixels.
        interpolation: ``box``, ``bilinear``, ``bicubic`` or ``lanczos``, as in Pillow.
        resize_mode: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads with
            black; ``center_crop`` keeps it and crops the longer side around its center.
        antialias: always true: the kernel widens when an image is reduced, as in Pillow.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    resize_mode: str = "stretch"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a size below 1, an unknown interpolation or mode, or no antialiasing.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"The input size {self.height}x{self.width} is not positive")
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"interpolation {self.interpolation!r} is not one of {', '.join(_INTERPOLATIONS)}"
            )
        if self.resize_mode not in RESIZE_MODES:
            raise ValueError(
                f"resize_mode {self.resize_mode!r} is not one of {', '.join(RESIZE_MODES)}"
            )
        if not self.antialias:
            raise ValueError("Resizing without antialiasing is not supported")


def to_pixels(image: Image.Image) -> Pixels:
    """Copy an RGB Pillow image into an array ``uint8 [H, W, 3]``."""
    return np.array(image, dtype=np.uint8)


def to_image(image: ImageLike) -> Image.Image:
    """Convert to a Pillow image; a Pillow image is returned as it is."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def resize(pixels: Pixels, resize: Resize) -> Pixels:
    """Resize pixels to a network's input size.

    Args:
        pixels: ``uint8 [H, W, 3]``.
        resize: size and mode.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``; ``pixels`` itself if it has that size.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (resize.height, resize.width):
        return pixels
    return np.asarray(resize_image(Image.fromarray(pixels), resize))


def resize_image(image: Image.Image, resize: Resize) -> Image.Image:
    """Resize a Pillow image as :func:`resize` does; one of that size is returned as it is."""
    size = (resize.width, resize.height)
    interpolation = _INTERPOLATIONS[resize.interpolation]
    if image.size == size:
        return image
    if resize.resize_mode == "letterbox":
        return ImageOps.pad(image, size, interpolation, color=(0, 0, 0))
    if resize.resize_mode == "center_crop":
        return ImageOps.fit(image, size, interpolation)
    return image.resize(size, interpolation)


def thumbnail(image: ImageLike) -> bytes:
    """Make a small JPEG copy of an image, for the report.

    Args:
        image: ``uint8 [H, W, 3]``, RGB, upright, or a Pillow image.

    Returns:
        A JPEG file, its long side at most :data:`THUMBNAIL` pixels; never enlarged.
    """
    pil_image = to_image(image)
    width, height = pil_image.size
    scale = min(1.0, THUMBNAIL / max(height, width))
    small = resize_image(
        pil_image, Resize(max(1, round(height * scale)), max(1, round(width * scale)))
    )
    file = io.BytesIO()
    # copied through an array, which drops metadata such as a comment
    Image.fromarray(np.asarray(small)).save(file, "JPEG", quality=75, optimize=True)
    return file.getvalue()
