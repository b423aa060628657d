"""One member of a folder or archive, and the errors of damaged archives."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

FOLDER = "a folder"
"""Value of :attr:`Member.problem` for a folder."""

ENCRYPTED = "encrypted (it needs a password)"
"""Value of :attr:`Member.problem` for an encrypted member."""

DAMAGE_ERRORS = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # zipfile: an unknown compression method
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged archive raises."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a folder or archive.

    Attributes:
        name: its path inside, with ``/``.
        size: in bytes, as stated.
        problem: why it must not be opened; empty if it may be.
        open: opens it for reading.
        state: changes with its content: the modification time, in a zip the CRC-32; 64 bits.
    """

    name: str
    size: int
    problem: str
    open: Callable[[], IO[bytes] | None]
    state: int = 0


def to_int64(value: float) -> int:
    """Limit a number that a file system or an archive states to the range of 64 bits."""
    return max(-(2**63), min(int(value), 2**63 - 1))
