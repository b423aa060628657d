"""The tags of a TIFF file, and of the camera raw files that are built like one.

Source: TIFF Revision 6.0, and the BigTIFF design of libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = int | float | bytes

MAX_IFDS = 64
"""Maximum number of directories that are read."""

_SUB_IFDS = 330
_FORMATS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_BIG_FORMATS = {16: "Q", 17: "q", 18: "Q"}
_BYTES = (1, 2, 7)
_MAX_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ifd:
    """One directory of tags: one image of the file.

    Attributes:
        tags: the values of each tag; text and bytes are one value.
        order: ``<`` or ``>``, the byte order of the file.
        page: its number in the file's chain of directories, from 0; None if it is inside another.
    """

    tags: dict[int, tuple[Value, ...]]
    order: str
    page: int | None

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the values of a tag as integers; empty if it is missing or no number."""
        values = self.tags.get(tag, ())
        if len(values) == 1 and isinstance(values[0], bytes):  # type BYTE
            return tuple(values[0])
        return tuple(int(value) for value in values if isinstance(value, int))

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        values = self.numbers(tag)
        return values[0] if values else default

    def content(self, tag: int) -> bytes:
        """Return the bytes of a tag; empty if it is missing."""
        values = self.tags.get(tag, ())
        return values[0] if values and isinstance(values[0], bytes) else b""


def read_ifds(data: bytes) -> list[Ifd]:
    """Read the directories of a file, at most :data:`MAX_IFDS`; damaged ones are left out."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order:
        return []
    is_big = data[2:4] in (b"+\0", b"\0+")
    try:
        pages = _numbers(data, order, "Q" if is_big else "I", 8 if is_big else 4, 1)
    except struct.error:
        return []
    found: list[Ifd] = []
    pending: list[tuple[int, int | None]] = [(pages[0], 0)]
    seen: set[int] = set()
    while pending and len(found) < MAX_IFDS:
        offset, page = pending.pop(0)
        if offset in seen or not offset:
            continue
        seen.add(offset)
        try:
            tags, following = _read_ifd(data, order, offset, is_big)
        except (struct.error, OverflowError):
            continue
        ifd = Ifd(tags, order, page)
        found.append(ifd)
        if page is not None:
            pending.append((following, page + 1))
        pending += [(inner, None) for inner in ifd.numbers(_SUB_IFDS)]
    return found


def _read_ifd(
    data: bytes, order: str, offset: int, is_big: bool
) -> tuple[dict[int, tuple[Value, ...]], int]:
    """Read the tags of one directory, and the offset of the next one."""
    (count,) = _numbers(data, order, "Q" if is_big else "H", offset, 1)
    entry_size, start = (20, offset + 8) if is_big else (12, offset + 2)
    if count > 4096:
        raise struct.error(f"{count} tags")
    tags = dict(_read_tags(data, order, start, count, is_big))
    try:
        end = start + count * entry_size
        (following,) = _numbers(data, order, "Q" if is_big else "I", end, 1)
    except struct.error:
        following = 0
    return tags, following


def _read_tags(
    data: bytes, order: str, start: int, count: int, is_big: bool
) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Read the entries of a directory; values are beside the entry if they are long."""
    head, room, pointer = ("HHQ", 8, "Q") if is_big else ("HHI", 4, "I")
    entry_size = 20 if is_big else 12
    for number in range(count):
        at = start + number * entry_size
        tag, kind, length = struct.unpack_from(order + head, data, at)
        at += struct.calcsize("<" + head)
        code = "B" if kind in _BYTES else (_FORMATS | _BIG_FORMATS).get(kind, "")
        if not code or length > (len(data) if kind in _BYTES else _MAX_VALUES):
            continue
        if length * struct.calcsize("<" + code) > room:
            (at,) = _numbers(data, order, pointer, at, 1)
        try:
            if kind in _BYTES:
                yield tag, (data[at : at + length],)
            else:
                yield tag, _numbers(data, order, code, at, length)
        except struct.error:
            continue


def _numbers(data: bytes, order: str, code: str, offset: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"{order}{count}{code}", data, offset)
