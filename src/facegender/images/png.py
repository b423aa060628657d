"""PNG: leave out damaged or very large text and profiles, which Pillow refuses with the image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks that change pixels, and the frames of an animation.
_NEEDED = frozenset((b"tRNS", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT"))
_MAX_PROFILE_BYTES = 1 << 20  # Pillow's limit for a decompressed chunk


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG without the chunks that no pixel depends on; None if there are none.

    Args:
        data: the file. Anything after damage is kept as it is.
    """
    kept, at = [_SIGNATURE], 0
    for start, end in _chunks(data):
        at = end
        if _is_kept(data, start, end):
            kept.append(data[start:end])
    kept.append(data[at:] if at else b"")
    shorter = b"".join(kept)
    return shorter if at and len(shorter) < len(data) else None


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each complete chunk."""
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield at, end
        at = end


def _is_kept(data: bytes, start: int, end: int) -> bool:
    """Tell whether a chunk is critical, or changes pixels and is undamaged."""
    name = data[start + 4 : start + 8]
    if not name[0] & 0x20:  # an upper-case letter: critical
        return True
    if name not in _NEEDED:
        return False
    content = data[start + 8 : end - 4]
    if zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
        return False
    return name != b"iCCP" or _has_small_profile(content)


def _has_small_profile(content: bytes) -> bool:
    try:
        unpacked = zlib.decompressobj()
        unpacked.decompress(content.partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return not unpacked.unconsumed_tail
