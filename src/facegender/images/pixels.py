"""Pixels: arrays and Pillow images, their conversion, and the resize rule."""

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
"""A decoded picture as pixels or as Pillow's, RGB and upright: each way to the other is a copy."""
_INTERPOLATIONS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
RESIZE_MODES = ("stretch", "pad", "crop")


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture is brought to the network's size. Stored in the model file.

    ``aspect``: ``stretch`` fills the frame and lets the shape go; ``pad`` keeps the shape and adds
    black; ``crop`` keeps the shape and cuts the longer side around the middle. Every ``filter``
    widens with the scale (antialiasing), as Pillow's do.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    resize_mode: str = "stretch"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse what :func:`resize` would not do.

        Raises:
            ValueError: a size below 1, or a filter, aspect rule or antialiasing not known here.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"input size {self.height}x{self.width} is not positive")
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"resize filter {self.interpolation!r} is not one of {', '.join(_INTERPOLATIONS)}"
            )
        if self.resize_mode not in RESIZE_MODES:
            raise ValueError(
                f"aspect rule {self.resize_mode!r} is not one of {', '.join(RESIZE_MODES)}"
            )
        if not self.antialias:
            raise ValueError("resizing without antialiasing is not supported")


def to_pixels(image: Image.Image) -> Pixels:
    """Copy an RGB Pillow image into an array ``uint8 [H, W, 3]``."""
    return np.array(image, dtype=np.uint8)


def to_image(image: ImageLike) -> Image.Image:
    """Give a decoded picture as Pillow's; one that is so stays itself."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def resize(pixels: Pixels, resize: Resize) -> Pixels:
    """Bring pixels ``uint8 [H, W, 3]`` to the network's size by its stored rule.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (resize.height, resize.width):
        return pixels
    return np.asarray(resize_image(Image.fromarray(pixels), resize))


def resize_image(image: Image.Image, resize: Resize) -> Image.Image:
    """Do what :func:`resize` does with a picture of Pillow's; one of that size stays itself."""
    size = (resize.width, resize.height)
    resample = _INTERPOLATIONS[resize.interpolation]
    if image.size == size:
        return image
    if resize.resize_mode == "pad":
        return ImageOps.pad(image, size, resample, color=(0, 0, 0))
    if resize.resize_mode == "crop":
        return ImageOps.fit(image, size, resample)
    return image.resize(size, resample)


THUMBNAIL = 160
"""Long side of the small copies in pixels."""


def thumbnail(image: ImageLike) -> bytes:
    """Make the small copy that the report shows.

    Args:
        image: ``uint8 [H, W, 3]``, RGB, upright, or Pillow's.

    Returns:
        The bytes of a JPEG file, its long side at most :data:`THUMBNAIL` pixels; smaller pictures
        keep their size.
    """
    pil_image = to_image(image)
    width, height = pil_image.size
    scale = min(1.0, THUMBNAIL / max(height, width))
    small = resize_image(
        pil_image, Resize(max(1, round(height * scale)), max(1, round(width * scale)))
    )
    file = io.BytesIO()
    # by way of an array, so that nothing of the file but its pixels comes along (a comment, say)
    Image.fromarray(np.asarray(small)).save(file, "JPEG", quality=75, optimize=True)
    return file.getvalue()
