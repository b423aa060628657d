"""Camera raw: the largest JPEG preview inside the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from facegender.errors import UnsupportedImageError
from facegender.images.ifd import Ifd, read_ifds
from facegender.images.signatures import RAW, RAW_SUFFIXES, TIFF

_ORIENTATION = 274
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _DNG_VERSION = 256, 257, 259, 262, 50706
_SENSOR_PHOTOMETRICS = frozenset((32803, 34892, 52527))  # color filter array, linear raw, depth
# Sony, Kodak, Nikon, Samsung, Pentax
_SENSOR_COMPRESSIONS = frozenset((32767, 32769, 32770, 32867, 34713, 65000, 65535))
_START = re.compile(rb"\xff\xd8\xff[\xc0-\xc4\xdb\xdd\xe0-\xef\xfe]")
_FRAME_CODES = frozenset((0xC0, 0xC1, 0xC2))  # Huffman coding with losses, as Pillow reads it
_OTHER_FRAME_CODES = frozenset((*range(0xC0, 0xD0), 0xD9, 0xDA)) - {0xC4, 0xC8, 0xCC}
_MIN_SIDE = 320
_MAX_STARTS = 1000
_MAX_THUMBNAIL_PIXELS = 1024 * 1024
_NO_PREVIEW = "camera raw without a preview inside is not read: convert it to JPEG"


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG in a camera raw file.

    Attributes:
        data: the JPEG, with anything that follows it in the file.
        orientation: of the raw file, 1 to 8; counts if the JPEG has none.
    """

    data: bytes
    orientation: int


def find_preview(data: bytes) -> Preview | None:
    """Return the largest JPEG in a camera raw file.

    The makers put it in different tags, some in tags of their own, so that it is found by its
    content instead.

    Args:
        data: a file of any kind.

    Returns:
        The preview; None if the file is no camera raw file, but an image.

    Raises:
        UnsupportedImageError: a camera raw file without a preview, or with a thumbnail only.
    """
    if not data.startswith((*RAW, *TIFF)):
        return None
    ifds = read_ifds(data)
    is_raw = data.startswith(RAW) or data[8:10] == b"CR" or any(map(_is_sensor_image, ifds))
    first = ifds[0].number(_WIDTH, 0) * ifds[0].number(_HEIGHT, 0) if ifds else 0
    if not is_raw and first > _MAX_THUMBNAIL_PIXELS:
        return None
    area, start = _largest_jpeg(data)
    if area and (is_raw or area > first):
        return Preview(data[start:], ifds[0].number(_ORIENTATION, 1) if ifds else 1)
    if is_raw:
        raise UnsupportedImageError(_NO_PREVIEW)
    return None


def check_raw_file(name: str, data: bytes) -> None:
    """Check that a file with the suffix of camera raw is more than a thumbnail.

    Args:
        name: the file's name.
        data: its content.

    Raises:
        UnsupportedImageError: a camera raw file without a preview, or with a thumbnail only.
    """
    is_raw_name = name[name.rfind(".") :].lower() in RAW_SUFFIXES
    if is_raw_name and data.startswith(TIFF) and find_preview(data) is None:
        raise UnsupportedImageError(_NO_PREVIEW)


def _is_sensor_image(ifd: Ifd) -> bool:
    return (
        _DNG_VERSION in ifd.tags
        or ifd.number(_PHOTOMETRIC, 0) in _SENSOR_PHOTOMETRICS
        or ifd.number(_COMPRESSION, 1) in _SENSOR_COMPRESSIONS
    )


def _largest_jpeg(data: bytes) -> tuple[int, int]:
    """Return the area in pixels and the offset of the largest JPEG that is no thumbnail."""
    best, start = 0, 0
    for found in islice(_START.finditer(data), _MAX_STARTS):
        width, height = _frame_size(data, found.start())
        if width * height > best and max(width, height) >= _MIN_SIDE:
            best, start = width * height, found.start()
    return best, start


def _frame_size(data: bytes, start: int) -> tuple[int, int]:
    """Return width and height of the JPEG at ``start``; zeros if it is none that can be read."""
    at = start + 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == 0xFF:
            at += 1
        elif code in _FRAME_CODES and data[at + 4] == 8:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        elif code < 0xC0 or code in _OTHER_FRAME_CODES:
            return 0, 0
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
