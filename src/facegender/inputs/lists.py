"""Text lists of names."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from facegender.errors import InputError
from facegender.images.formats import HEAD_BYTES, looks_like_archive, looks_like_image

LIST_SUFFIXES = (".txt", ".lst", ".list")
"""Suffixes of text lists of names."""

MAX_LIST_BYTES = 2**30
"""Maximum size of a list."""


def is_list(path: Path) -> bool:
    """Tell whether a file is a list of names: by its suffix, and because it is no image."""
    if path.suffix.lower() not in LIST_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            return not looks_like_image(path.stem, file.read(HEAD_BYTES))
    except OSError:
        return False


def read_list_file(path: Path) -> list[str]:
    """Read a list of names from a file, a named pipe or ``/dev/fd``; it is opened once.

    Raises:
        InputError: it is missing, cannot be read, is too large for a list, or is no text.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path} is a folder, not a list of names")
        if found.st_size > MAX_LIST_BYTES:
            raise InputError(_describe_size(str(path)))
        with path.open("rb") as file:
            return _read_bounded(str(path), file)
    except OSError as error:
        raise InputError(f"Cannot read the list {path}: {error.strerror or error}") from error


def read_standard_input(stream: BinaryIO | None) -> list[str]:
    """Read a list of names from standard input.

    Args:
        stream: what is read instead; None takes standard input.

    Raises:
        InputError: standard input is closed, too large for a list, or no text.
    """
    if stream is None:
        if sys.stdin is None:
            raise InputError("'-' reads names from standard input, which is closed")
        stream = sys.stdin.buffer
    return _read_bounded("Standard input", stream)


def read_list(text: bytes) -> list[str]:
    """Read a list of names: one per line, or separated by zero bytes (``find -print0``)."""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # PowerShell's
        text = text.decode("utf-16", "replace").encode()
    text = text.removeprefix(codecs.BOM_UTF8)
    separator = b"\0" if b"\0" in text else b"\n"
    lines = (line.removesuffix(b"\r") for line in text.split(separator))
    return [os.fsdecode(line) for line in lines if line.strip()]


def _read_bounded(name: str, stream: BinaryIO) -> list[str]:
    """Read a list of local paths, but not an endless stream."""
    parts: list[bytes] = []
    size = 0
    while part := stream.read(1 << 20):
        if not parts:
            _check_text(name, part[:HEAD_BYTES])
        parts.append(part)
        size += len(part)
        if size > MAX_LIST_BYTES:
            raise InputError(_describe_size(name))
    return [Path(line).as_posix() for line in read_list(b"".join(parts))]


def _check_text(name: str, head: bytes) -> None:
    """Check that the first bytes of a list are neither an image nor an archive, nor a hole."""
    if looks_like_image("", head) or looks_like_archive(head) or head.startswith(b"\0\0"):
        raise InputError(f"{name} is not a list of names: one path per line is expected")


def _describe_size(name: str) -> str:
    return f"{name} has more than {MAX_LIST_BYTES:,} bytes, too many for a list of names"
