"""JPEG XL, with the extra ``jxl``.

Source of the header: ISO/IEC 18181-1, SizeHeader; of the container: ISO/IEC 18181-2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from PIL import Image

from facegender.errors import UnreadableImageError, UnsupportedImageError
from facegender.images.formats import ImageLimits
from facegender.images.signatures import JXL, missing_extra

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def open_jxl(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode a JPEG XL file.

    Args:
        data: the file.
        limits: maximum size of the image.

    Returns:
        The upright image; of an animation its first frame.

    Raises:
        UnsupportedImageError: the extra is not installed.
        UnreadableImageError: damaged, or over the limit.
    """
    codec = _codec()
    if codec is None:
        raise UnsupportedImageError(missing_extra("JPEG XL", "jxl"))
    width, height = read_size(data)
    if width * height > limits.pixels:
        raise UnreadableImageError(
            f"{width}x{height} is over the limit of {limits.pixels:,} pixels"
        )
    pixels = codec.jpegxl_decode(data, index=0, numthreads=1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f":
        pixels = (pixels.clip(0.0, 1.0) * 255.0).round().astype("uint8")
    elif pixels.dtype.itemsize == 2:
        pixels = (pixels // 257).astype("uint8")
    return Image.fromarray(pixels)


@cache
def _codec() -> Any:
    try:
        import imagecodecs

        return imagecodecs if imagecodecs.JPEGXL.available else None
    except ImportError:
        return None


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height out of the header.

    Raises:
        UnreadableImageError: there is no header.
    """
    start = _codestream(data)
    bits = int.from_bytes(data[start + 2 : start + 14], "little")
    if start < 0 or not data.startswith(JXL[0], start):
        raise UnreadableImageError("damaged: no image in the JPEG XL file")

    def read(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(is_small: int) -> int:
        return (read(5) + 1) * 8 if is_small else read((9, 13, 18, 30)[read(2)]) + 1

    is_small = read(1)
    height = side(is_small)
    ratio = read(3)
    if not ratio:
        return side(is_small), height
    return height * _RATIOS[ratio][0] // _RATIOS[ratio][1], height


def _codestream(data: bytes) -> int:
    """Return the offset of the codestream, or of its first part in a container; -1 without one."""
    if data.startswith(JXL[0]):
        return 0
    at = 0
    while at + 16 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 16 if size == 1 else 8
        if name == b"jxlc":
            return at + head
        if name == b"jxlp":
            return at + head + 4
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < head:
            return -1
        at += size
    return -1
