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

Upright: TypeAlias = Pixels | Image.Image
"""A decoded picture as pixels or as Pillow's, RGB and upright: each way to the other is a copy."""
_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ASPECTS = ("stretch", "pad", "crop")


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture is brought to the network's size. Stored in the model file.

    ``aspect``: ``stretch`` fills the frame and lets the shape go; ``pad`` keeps the shape and adds
    black; ``crop`` keeps the shape and cuts the longer side around the middle. Every ``filter``
    widens with the scale (antialiasing), as Pillow's do.
    """

    height: int
    width: int
    filter: str = "bilinear"
    aspect: str = "stretch"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse what :func:`fit` would not do.

        Raises:
            ValueError: a size below 1, or a filter, aspect rule or antialiasing not known here.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"input size {self.height}x{self.width} is not positive")
        if self.filter not in _FILTERS:
            raise ValueError(f"resize filter {self.filter!r} is not one of {', '.join(_FILTERS)}")
        if self.aspect not in _ASPECTS:
            raise ValueError(f"aspect rule {self.aspect!r} is not one of {', '.join(_ASPECTS)}")
        if not self.antialias:
            raise ValueError("resizing without antialiasing is not supported")


def _pixels(image: Image.Image) -> Pixels:
    return np.array(image, dtype=np.uint8)


def as_image(picture: Upright) -> Image.Image:
    """Give a decoded picture as Pillow's; one that is so stays itself."""
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def fit(pixels: Pixels, resize: Resize) -> Pixels:
    """Bring pixels ``uint8 [H, W, 3]`` to the network's size by its stored rule.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (resize.height, resize.width):
        return pixels
    return np.asarray(fitted(Image.fromarray(pixels), resize))


def fitted(image: Image.Image, resize: Resize) -> Image.Image:
    """Do what :func:`fit` does with a picture of Pillow's; one of that size stays itself."""
    size = (resize.width, resize.height)
    resample = _FILTERS[resize.filter]
    if image.size == size:
        return image
    if resize.aspect == "pad":
        return ImageOps.pad(image, size, resample, color=(0, 0, 0))
    if resize.aspect == "crop":
        return ImageOps.fit(image, size, resample)
    return image.resize(size, resample)


THUMBNAIL = 160
"""Long side of the small copies in pixels."""


def thumbnail(picture: Upright) -> bytes:
    """Make the small copy that the report shows.

    Args:
        picture: ``uint8 [H, W, 3]``, RGB, upright, or Pillow's.

    Returns:
        The bytes of a JPEG file, its long side at most :data:`THUMBNAIL` pixels; smaller pictures
        keep their size.
    """
    image = as_image(picture)
    width, height = image.size
    scale = min(1.0, THUMBNAIL / max(height, width))
    small = fitted(image, Resize(max(1, round(height * scale)), max(1, round(width * scale))))
    file = io.BytesIO()
    # by way of an array, so that nothing of the file but its pixels comes along (a comment, say)
    Image.fromarray(np.asarray(small)).save(file, "JPEG", quality=75, optimize=True)
    return file.getvalue()
