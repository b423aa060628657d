"""JPEG: decoded at a share of its size, and told whether all of its data is there."""

from __future__ import annotations

import io
import re
from math import ceil

from PIL import Image

# A marker that is neither a stuffed zero byte, nor a restart, nor a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Data that decodes to something, with every restart marker in between.
_STUFFING = b"".join(b"\x5a\xa5\x33\xcc" * 16 + bytes((0xFF, 0xD0 + n)) for n in range(8))
_FILL = 128.0  # brightness of what libjpeg puts where data is missing


def set_draft_size(image: Image.Image, long_side: int) -> None:
    """Have a JPEG decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that keeps ``long_side``."""
    share = long_side / max(image.size)
    if share < 1.0:
        image.draft(None, (ceil(image.width * share), ceil(image.height * share)))


def is_truncated(data: bytes, image: Image.Image, long_side: int | None) -> bool:
    """Tell whether a JPEG with an end marker lacks part of its data (libjpeg only fills with grey).

    Bytes put in before the end marker change nothing in a whole picture, for all of its rows are
    done by then; in one that was cut off they are decoded as rows. The second decoding is spared
    where a sequential JPEG's last pixel is not the grey that libjpeg fills with. Not seen: a cut
    inside the last block, and one exactly between two scans of a progressive JPEG (a whole
    picture, only coarser).
    """
    end, is_sequential = _end(data)
    if end < 0:
        return False
    if is_sequential and abs(_luma(image, image.width - 1, image.height - 1) - _FILL) > 2.0:
        return False
    stuffed = io.BytesIO(data[:end] + _STUFFING + data[end:])
    with Image.open(stuffed, formats=("JPEG",)) as second:
        if long_side is not None:
            set_draft_size(second, long_side)
        return second.tobytes() != image.tobytes()


def _luma(image: Image.Image, x: int, y: int) -> float:
    """Brightness of one pixel, as JPEG has it; ``_FILL`` for four channels, which it cannot tell.

    Unlike its colour it takes nothing from the pixels beside it, where colour is kept coarser.
    """
    value = image.getpixel((x, y))
    if isinstance(value, tuple) and len(value) == 3:
        return 0.299 * value[0] + 0.587 * value[1] + 0.114 * value[2]
    return _FILL if value is None or isinstance(value, tuple) else float(value)


def _end(data: bytes) -> tuple[int, bool]:
    """Where the first picture's end marker stands (-1: nowhere); is it Huffman and sequential."""
    at, is_sequential = 2, False
    while found := _MARKER.search(data, at):
        at, kind = found.start(), data[found.start() + 1]
        if kind == 0xD9:
            return at, is_sequential
        is_sequential = is_sequential or kind in (0xC0, 0xC1)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1, is_sequential
