"""Convert an image of any mode, color profile and EXIF orientation to upright 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from facegender.errors import UnreadableImageError
from facegender.images.orientation import read_orientation, turn


def to_rgb(
    image: Image.Image, image_format: str | None = None, orientation: int = 1
) -> Image.Image:
    """Apply the orientation that the file states and convert the colors to 8-bit sRGB.

    Args:
        image: an image of any mode.
        image_format: Pillow's name of the file's format.
        orientation: applied if the file states none, 1 to 8.

    Returns:
        ``image`` itself if nothing has to change, else a new image.

    Raises:
        UnreadableImageError: the image has no pixels.
    """
    if image.width < 1 or image.height < 1:
        raise UnreadableImageError(f"the image has no pixels ({image.width}x{image.height})")
    return _to_srgb(turn(image, read_orientation(image, image_format) or orientation))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB, by the embedded color profile if it is usable."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or image.mode.startswith(("I", "F")):
        return _to_8_bit_rgb(image)
    source = image if image.mode in ("L", "CMYK") else _to_8_bit_rgb(image)
    try:
        transform = _transform_to_srgb(profile, source.mode)
        if transform is None:
            return _to_8_bit_rgb(source)
        return transform.apply(source)
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or for another mode
        return _to_8_bit_rgb(source)


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB for pixels of ``mode``; None if it is sRGB.

    Raises:
        PyCMSError: the profile is damaged or for another mode.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_8_bit_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB; transparent pixels become white.

    An alpha channel that is zero everywhere is ignored if there are colors below it.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit_gray(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        return _lab_transform().apply(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        colors = rgba.convert("RGB")
        if rgba.getchannel("A").getextrema() == (0, 0) and _has_colors(colors):
            return colors
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _has_colors(image: Image.Image) -> bool:
    """Tell whether an RGB image has more than one color."""
    return any(band.getextrema()[0] != band.getextrema()[1] for band in image.split())


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    """Build the transform from CIELAB of white D50, as TIFF has it, to sRGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def _to_8_bit_gray(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit, 32-bit or float gray to 8 bits; the maximum tells which range is used.

    Pillow opens 16-bit gray as ``I;16`` or ``I``; floats are taken as 0 to 1 unless one is larger.
    """
    wide = np.nan_to_num(values.astype(np.float64))
    maximum = wide.max(initial=0.0)
    if values.dtype.kind == "f":
        white = 1.0 if maximum <= 1.0 else 255.0 if maximum <= 255.0 else 65535.0
    else:
        white = 65535.0 if values.dtype.itemsize == 2 or maximum > 255 else 255.0
    return np.clip(np.rint(wide * (255.0 / white)), 0, 255).astype(np.uint8)
