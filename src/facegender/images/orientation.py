"""The orientation that a file states, and turning an image upright by it."""

from __future__ import annotations

import re

from PIL import Image

_TAG = 0x0112
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_KEYS = frozenset(("exif", "Raw profile type exif"))
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_XMP_SIDES = (
    (b"tiff:ImageWidth", b"tiff:ImageLength"),
    (b"exif:PixelXDimension", b"exif:PixelYDimension"),
)
# Fractions of its size at which a JPEG may have been decoded.
_SCALES = (1, 2, 4, 8)
# Pillow turns a TIFF while it decodes it, and the codec of JPEG XL does, too.
_UPRIGHT_FORMATS = frozenset(("TIFF", "JXL"))
# The format has transformations of its own, which their decoders have applied or put in the EXIF.
_FORMATS_WITHOUT_XMP = frozenset(("HEIF", "AVIF"))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright.

    Args:
        image: the image as it is stored.
        orientation: 1 to 8, as in EXIF; another value changes nothing.

    Returns:
        ``image`` itself if nothing has to change, else a new image.
    """
    method = _METHODS.get(orientation)
    return image if method is None else image.transpose(method)


def read_orientation(image: Image.Image, image_format: str | None) -> int | None:
    """Return the orientation that the file of a decoded image states, 1 to 8; None if it does not.

    EXIF counts if it has one. XMP counts if EXIF has none, and only if it does not describe
    another width and height, as it does where a program turned the pixels and left the XMP.
    Damaged EXIF and XMP count as none, because the pixels are complete.

    Args:
        image: the decoded image.
        image_format: Pillow's name of the file's format.
    """
    if image_format in _UPRIGHT_FORMATS:
        return 1
    orientation = _exif_orientation(image) if image.info.keys() & _EXIF_KEYS else None
    if orientation is not None or image_format in _FORMATS_WITHOUT_XMP:
        return orientation
    return _xmp_orientation(image)


def _exif_orientation(image: Image.Image) -> int | None:
    """Return the value in the EXIF, 1 if it is not valid; None if there is no value."""
    exif = Image.Exif()
    try:
        if "exif" in image.info:
            exif.load(image.info["exif"])
        else:
            profile = image.info["Raw profile type exif"]
            exif.load(bytes.fromhex("".join(profile.split("\n")[3:])))
        value = exif.get(_TAG)
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return None
    if value is None:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _xmp_orientation(image: Image.Image) -> int | None:
    """Return the value in the XMP; None if there is no valid one."""
    xmp = next((image.info[key] for key in _XMP_KEYS if image.info.get(key)), None)
    if xmp is None:
        return None
    text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
    orientation = _xmp_number(text, b"tiff:Orientation")
    if orientation is None or not 1 <= orientation <= 8:
        return None
    if orientation < 5 or image.width == image.height:
        return orientation
    stated = [tuple(_xmp_number(text, side) or 0 for side in sides) for sides in _XMP_SIDES]
    decoded = {tuple(-(-side // scale) for side in sides) for sides in stated for scale in _SCALES}
    return 1 if image.size[::-1] in decoded else orientation


def _xmp_number(xmp: bytes, name: bytes) -> int | None:
    """Return the value of a property, which is an attribute or an element."""
    found = re.search(re.escape(name) + rb"""\s*(?:=\s*["']|>\s*)(\d{1,9})\b""", xmp)
    return int(found[1]) if found else None
