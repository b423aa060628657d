"""JPEG: decode at a fraction of its size, and detect missing or damaged data.

libjpeg fills missing data with gray and skips data that it cannot place; Pillow does not pass its
warnings on. The file is therefore handed to the decoder in pieces, cut at the ends of the
entropy-coded segments: a decoder that waits for a marker before a segment ends, or for data after
it has ended, shows that the segment is damaged. The image is decoded only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import ceil
from typing import Protocol

from PIL import Image, ImageFile

from facegender.errors import UnreadableImageError
from facegender.images.jpeg_shift import is_shifted

_END = b"\xff\xd9"
# A marker that ends entropy-coded data: no stuffed zero byte and no fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN, _END_CODE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
# Arithmetic coding: libjpeg's decoder cannot wait for more data.
_ARITHMETIC = frozenset((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
# As many bytes as libjpeg reads ahead, so that it can finish the last block of a segment.
_READ_AHEAD = b"\x5a\xa5\x33\xcc\x5a\xa5\x33\xcc"
_PROBE_BYTES = 3
# Some encoders pad the data with zeros or fill bytes, which are no damage.
_MAX_PADDING = 64
# An encoder may restart after every block; beyond this number only the last segments are checked.
_MAX_SEGMENTS = 4096


def set_draft_size(image: Image.Image, long_side: int) -> None:
    """Decode a JPEG at the smallest of 1/1, 1/2, 1/4, 1/8 that has ``long_side`` pixels or more."""
    fraction = long_side / max(image.size)
    if fraction < 1.0:
        image.draft(None, (ceil(image.width * fraction), ceil(image.height * fraction)))


def load_complete(image: ImageFile.ImageFile, data: bytes, width: int) -> None:
    """Decode a JPEG that Pillow has opened, if all of its data is there and undamaged.

    A missing end marker is no damage. Not detected: damage that changes a few blocks but neither
    their number nor the colors of those that follow, and a cut exactly between two scans of a
    progressive JPEG.

    Args:
        image: the opened image, after :func:`set_draft_size`.
        data: the file.
        width: of the full-size image in pixels.

    Raises:
        UnreadableImageError: the data is truncated or damaged.
    """
    ((name, extents, offset, args),) = image.tile
    if offset:
        data = data[offset:]
    image.load_prepare()
    decoder = Image._getdecoder(image.mode, name, args, image.decoderconfig)
    try:
        decoder.setimage(image.im, extents)
        _Feeder(decoder, data).run()
    finally:
        decoder.cleanup()
    image.tile = []
    image.load()
    if block := _block_size(data):
        fraction = round(width / image.width)
        if is_shifted(image, block[0] // fraction, block[1] // fraction):
            raise UnreadableImageError("damaged: the colors change within the image")


class _Decoder(Protocol):
    """Pillow's decoder."""

    def decode(self, data: bytes, /) -> tuple[int, int]:
        """Return the number of bytes taken, -1 at the end, and an error code."""


class _Feeder:
    """Hands a JPEG to Pillow's decoder in pieces and watches what the decoder takes of them."""

    def __init__(self, decoder: _Decoder, data: bytes) -> None:
        self._decoder = decoder
        self._data = data
        self._at = 0  # what was handed over, in data
        self._rest = b""  # what the decoder has not taken
        self._is_done = False

    def run(self) -> None:
        """Decode the file.

        Raises:
            UnreadableImageError: it is truncated or damaged.
        """
        segments = list(_segments(self._data))
        for start, end in segments[-_MAX_SEGMENTS:]:
            self._check(start, end)
        self._feed(self._data[self._at :])
        self._feed(_END)
        if not self._is_done:
            raise UnreadableImageError("truncated: the image data ends before the last row")

    def _check(self, start: int, end: int) -> None:
        """Hand over everything up to the end of an entropy-coded segment."""
        if self._is_done:
            return
        tail = max(start, end - _MAX_PADDING)
        needed = len(self._data[tail:end].rstrip(b"\0\xff"))
        last = max(start, tail + needed - 1)  # the last byte that is needed for sure
        probe = max(start, last - _PROBE_BYTES)
        self._feed(self._data[self._at : probe])
        is_waiting = self._waits_for_data(self._data[probe:last])
        self._at = end
        if last > start and (self._is_done or not is_waiting):
            raise UnreadableImageError("damaged: there is image data after the last row")
        self._feed(self._data[last:end] + _READ_AHEAD)
        if not self._is_done and self._waits_for_data(_READ_AHEAD[:_PROBE_BYTES]):
            raise UnreadableImageError("truncated: the image data ends before the last row")

    def _waits_for_data(self, probe: bytes) -> bool:
        """Hand over single bytes; a decoder that waits for a marker drops each of them."""
        is_waiting = False
        for n in range(len(probe)):
            self._feed(probe[n : n + 1])
            is_waiting = is_waiting or bool(self._rest)
        return is_waiting

    def _feed(self, piece: bytes) -> None:
        if self._is_done or not piece:
            return
        self._rest += piece
        count, error = self._decoder.decode(self._rest)
        if count >= 0:
            self._rest = self._rest[count:]
        elif error < 0:
            raise UnreadableImageError("damaged: the image data cannot be decoded")
        else:
            self._is_done = True


def _block_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a minimum coded unit; None with restart markers."""
    offset = 2
    size = None
    while found := _MARKER.search(data, offset):
        code, offset = data[found.start() + 1], found.end()
        if code in (_SCAN, _END_CODE):
            return size
        if code == _RESTART_INTERVAL and any(data[offset + 2 : offset + 4]):
            return None
        if code in _FRAMES:
            factors = data[offset + 9 : offset + 8 + 3 * data[offset + 7] : 3]
            if not factors:
                return None
            is_gray = len(factors) == 1  # its blocks are not grouped
            wide, high = max(f >> 4 for f in factors), max(f & 15 for f in factors)
            size = (8, 8) if is_gray else (8 * wide, 8 * high)
        if code not in _NO_LENGTH:
            offset += int.from_bytes(data[offset : offset + 2], "big")
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Find the entropy-coded segments: the first byte of each, and the byte after its last."""
    offset, size = 2, len(data)
    while found := _MARKER.search(data, offset):
        code, offset = data[found.start() + 1], found.end()
        if code in _ARITHMETIC or code == _END_CODE:
            return
        if code in _NO_LENGTH:
            continue
        offset += int.from_bytes(data[offset : offset + 2], "big")
        while code == _SCAN:
            start = offset
            found = _MARKER.search(data, start)
            end, offset = (found.start(), found.end()) if found else (size, size)
            yield start, end
            if found is None or not 0xD0 <= data[end + 1] <= 0xD7:
                offset = end
                break
