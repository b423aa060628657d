"""Which files are images, archives, or neither, by content and suffix; the size limits of an image.

:func:`classify` is the one place that decides what becomes of a file.
"""

from __future__ import annotations

import re
import stat
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from facegender.errors import UnreadableImageError, UnsupportedImageError
from facegender.images import signatures
from facegender.images.raw import check_raw_file


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Maximum size of an image, against decompression bombs; a larger one is unreadable.

    Attributes:
        pixels: maximum width times height; the default is Pillow's own limit.
        bytes: maximum size of the file.
    """

    pixels: int = 178_956_970
    bytes: int = 2**30

    def __post_init__(self) -> None:
        """Check both limits.

        Raises:
            ValueError: a limit is below 1.
        """
        if self.pixels < 1 or self.bytes < 1:
            raise ValueError(
                f"Image limits must be 1 or more, got {self.pixels} pixels, {self.bytes} bytes"
            )


DEFAULT_IMAGE_LIMITS = ImageLimits()
"""The limits used unless others are given."""

HEAD_BYTES = 512
"""Number of bytes at the start of a file that tell what it is."""


class FileKind(StrEnum):
    """What a file is for facegender."""

    IMAGE = "image"
    ARCHIVE = "archive"
    UNSUPPORTED = "unsupported"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Classified:
    """What a file is.

    Attributes:
        kind: ``IMAGE`` is decoded. ``ARCHIVE`` (tar or zip) is read if it is an input itself, not
            inside a folder. ``UNSUPPORTED`` is an image, a video or an archive that cannot be
            read. ``OTHER`` is skipped.
        reason: for ``ARCHIVE`` and ``UNSUPPORTED``, why the file is not read inside a folder, and
            what to do.
    """

    kind: FileKind
    reason: str = ""


_IMAGE = Classified(FileKind.IMAGE)
_OTHER = Classified(FileKind.OTHER)
_ARCHIVE = Classified(
    FileKind.ARCHIVE,
    "an archive inside another input is not read: name it as an input, or unpack it",
)


def classify(name: str, head: bytes) -> Classified:
    """Tell what a file is, by its content and its suffix.

    An image is recognized by either; content goes before the suffix for everything else.

    Args:
        name: the file's name.
        head: its first :data:`HEAD_BYTES` bytes, fewer if it has fewer.
    """
    if is_apple_double(name.rpartition("/")[2], head):
        return _OTHER
    suffix, inner = _suffixes(name)
    if suffix in signatures.IMAGE_SUFFIXES or signatures.has_signature(head):
        return _IMAGE
    reason = signatures.unsupported_content(head)
    if reason is None and suffix not in signatures.OTHER_ZIP_SUFFIXES:
        is_packed = f"{inner}{suffix}" in signatures.ARCHIVE_SUFFIXES
        is_packed_image = suffix in (".gz", ".bz2", ".xz") and inner in signatures.IMAGE_SUFFIXES
        if is_packed or suffix in signatures.ARCHIVE_SUFFIXES:
            return _ARCHIVE
        if is_packed_image or (not suffix and (_is_tar(head) or _is_zip(head))):
            return _ARCHIVE
    if reason is None:
        reason = signatures.UNSUPPORTED_SUFFIXES.get(f"{inner}{suffix}")
    if reason is None:
        reason = signatures.UNSUPPORTED_SUFFIXES.get(suffix)
    return _OTHER if reason is None else Classified(FileKind.UNSUPPORTED, reason)


def looks_like_image(name: str, head: bytes) -> bool:
    """Tell whether a file is an image by its suffix or its content; see :func:`classify`."""
    return classify(name, head).kind is FileKind.IMAGE


def looks_like_archive(head: bytes) -> bool:
    """Tell whether a file is a tar, compressed or not, or a zip, by its first 512 bytes."""
    return head.startswith(signatures.COMPRESSIONS) or _is_zip(head) or _is_tar(head)


def is_apple_double(name: str, head: bytes) -> bool:
    """Tell whether a file is macOS metadata (``._photo.jpg``) beside an image."""
    return name.startswith("._") and head.startswith(signatures.APPLE_DOUBLE)


def _suffixes(name: str) -> tuple[str, str]:
    """Return the last suffix of a name in lower case, and the one before it."""
    found = re.search(r"[^/](\.[^./\s]+)?(\.[^./]+)$", name.lower())
    return (found[2], found[1] or "") if found else ("", "")


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _is_tar(head: bytes) -> bool:
    """Tell whether a file is a tar: by the checksum of its header, which all versions have."""
    if len(head) < 512 or not head[0]:
        return False
    try:
        checksum = int(head[148:156].rstrip(b"\0 "), 8)
    except ValueError:
        return False
    unsigned = sum(head[:512]) - sum(head[148:156]) + 8 * 0x20
    signed = sum(struct.unpack("512b", head[:512])) - sum(struct.unpack("8b", head[148:156])) + 256
    return checksum in (unsigned, signed)


def read_image_file(path: Path, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> bytes | None:
    """Read a file if it is an image; of any other file only the first :data:`HEAD_BYTES` bytes.

    Args:
        path: the file.
        limits: maximum size of the file.

    Returns:
        The content, or None if the file is no image by suffix and content or no regular file. A
        pipe or a device is never opened, because reading it could block forever.

    Raises:
        UnreadableImageError: a broken link, no permission, a folder, over the limit, or no image
            by content; then nothing else of it is read.
        UnsupportedImageError: an image or archive that cannot be read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UnreadableImageError("is a folder, not an image")
        if not stat.S_ISREG(found.st_mode):
            return None
        with path.open("rb", buffering=0) as file:  # a buffer would be one more copy
            head = file.read(HEAD_BYTES)
            classified = classify(path.name, head)
            if classified.kind is FileKind.OTHER:
                return None
            if classified.kind is not FileKind.IMAGE:
                raise UnsupportedImageError(classified.reason)
            if found.st_size > limits.bytes:
                raise UnreadableImageError(describe_excess(found.st_size, limits))
            if head:
                check_content(head)
            file.seek(0)
            data = _read_all(file, found.st_size)
            check_raw_file(path.name, data)
            return data
    except FileNotFoundError:
        reason = "link to a missing file" if path.is_symlink() else "file not found"
        raise UnreadableImageError(reason) from None
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    except (OverflowError, ValueError) as error:  # a NUL in the name
        raise UnreadableImageError(f"cannot be read: {error}") from error


def check_content(head: bytes) -> None:
    """Check that the content of a file is an image, whatever its name says.

    Args:
        head: its first :data:`HEAD_BYTES` bytes.

    Raises:
        UnreadableImageError: it is no image.
        UnsupportedImageError: it is an image, a video or an archive that cannot be read.
    """
    if signatures.is_image(head):
        return
    reason = signatures.unsupported_content(head)
    if reason is not None:
        raise UnsupportedImageError(reason)
    raise UnreadableImageError("not an image in a known format")


def _read_all(file: BinaryIO, size: int) -> bytes:
    """Read a file, but never more than its size said.

    Raises:
        UnreadableImageError: the file has grown.
    """
    parts = []
    while size >= 0 and (part := file.read(size + 1)):
        parts.append(part)
        size -= len(part)
    if size < 0:
        raise UnreadableImageError("the file grows while it is read: run it again later")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def describe_excess(size: int, limits: ImageLimits) -> str:
    """Say that a file of ``size`` bytes is over the limit."""
    return f"{size:,} bytes are over the limit of {limits.bytes:,}"
