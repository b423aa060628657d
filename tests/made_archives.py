"""Tar and zip files made byte by byte, for the tests."""

from __future__ import annotations

import io
import zipfile

BLOCK = 512


def number(value: int, width: int) -> bytes:
    """A field of a tar header: octal, or base 256 where that is too short."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=True)


def header(
    name: bytes,
    size: int,
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    magic: bytes = b"ustar\x0000",
    rest: bytes = b"",
) -> bytes:
    """A tar header with a right checksum.

    Args:
        name: at most 100 bytes.
        size: of the content that follows.
        kind: the type flag.
        link: the name that a link leads to.
        uid: the field of the owner.
        mtime: the field of the time.
        magic: none for the version of the seventh Unix, ``ustar  `` for GNU.
        rest: from byte 345.
    """
    start = name.ljust(100, b"\0") + b"0000644\0" + uid + b"0000000\0" + number(size, 12) + mtime
    after = (kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0")).ljust(189, b"\0")
    block = (start + b" " * 8 + after + rest).ljust(BLOCK, b"\0")
    assert len(block) == BLOCK
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(
    name: bytes,
    data: bytes,
    *,
    kind: bytes = b"0",
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """A header and its content, padded to whole blocks."""
    block = header(name, len(data), kind=kind, uid=uid, mtime=mtime, magic=magic)
    return block + data + bytes(-len(data) % BLOCK)


def pax(**values: str) -> bytes:
    """A PAX header with attributes of the next member."""
    records = b""
    for key, value in values.items():
        text = f" {key}={value}\n".encode()
        length = next(n for n in range(len(text), 2 * BLOCK) if n == len(text) + len(str(n)))
        records += b"%d" % length + text
    return member(b"pax", records, kind=b"x")


def old_gnu_sparse(name: str, data: bytes, size: int) -> bytes:
    """A member in GNU's old format for sparse files: ``data``, then a hole up to ``size``."""
    entries = number(0, 12) + number(len(data), 12) + number(size, 12) + number(0, 12)
    rest = bytes(41) + entries.ljust(96, b"\0") + b"\0" + number(size, 12)
    block = header(name.encode(), len(data), kind=b"S", magic=b"ustar  \0", rest=rest)
    return block + data + bytes(-len(data) % BLOCK)


def zip_of(names: list[bytes], data: bytes, *, is_zip64: bool = False) -> bytes:
    """A zip whose names are these bytes, without the flag for UTF-8."""
    file = io.BytesIO()
    placeholders = [f"{place:_>{len(name)}}" for place, name in enumerate(names)]
    with zipfile.ZipFile(file, "w") as packed:
        for placeholder in placeholders:
            with packed.open(placeholder, "w", force_zip64=is_zip64) as part:
                part.write(data)
    made = file.getvalue()
    for placeholder, name in zip(placeholders, names, strict=True):
        assert made.count(placeholder.encode()) == 2  # before the content, and in the directory
        made = made.replace(placeholder.encode(), name)
    return made
