"""A picture of any mode and colour profile, turned in any way -> upright sRGB of 8 bits."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from facegender.errors import UnreadableImageError

_EXIF_KEYS = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright and bring its colours to sRGB; what is so already stays itself."""
    if image.width < 1 or image.height < 1:
        raise UnreadableImageError(f"{image.width}x{image.height} is a picture without pixels")
    return _to_srgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF counts as none, for the pixels are still whole."""
    if image.format == "JPEG" and not image.info.keys() & _EXIF_KEYS:
        return image  # without a copy
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Bring a picture to RGB by the colour profile that is embedded in it, if any fits."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or image.mode.startswith(("I", "F")):
        return _to_8_bit_rgb(image)
    given = image if image.mode in ("L", "CMYK") else _to_8_bit_rgb(image)
    try:
        transform = _transform_to_srgb(profile, given.mode)
        if transform is None:
            return _to_8_bit_rgb(given)
        return transform.apply(given)
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile, one of another kind
        return _to_8_bit_rgb(given)


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make what converts pixels of ``mode``; None where they are sRGB already.

    Raises:
        PyCMSError: the profile is damaged or of another kind of pixels.
    """
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(given):
        return None
    return ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_8_bit_rgb(image: Image.Image) -> Image.Image:
    """Bring any of Pillow's modes to 8-bit RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring 16-bit, 32-bit and float grey to 8 bits by the range that the values themselves show.

    Pillow gives 16-bit grey as ``I;16`` or ``I``; floats are read as 0..1 unless they exceed it.
    """
    wide = np.nan_to_num(values.astype(np.float64))
    top = wide.max(initial=0.0)
    if values.dtype.kind == "f":
        full = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else 65535.0
    else:
        full = 65535.0 if values.dtype.itemsize == 2 or top > 255 else 255.0
    return np.clip(np.rint(wide * (255.0 / full)), 0, 255).astype(np.uint8)
