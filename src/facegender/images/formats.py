"""Which files are images, by suffix and content, and what an image may cost."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import UnreadableImageError


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost at most, against bombs; what is over it is unreadable.

    ``pixels`` is Pillow's own limit against decompression bombs. A file of more than ``bytes`` is
    a film or a mistake. Of several frames only the first is ever decoded.
    """

    pixels: int = 178_956_970
    bytes: int = 2**30

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ValueError: one of them is below 1.
        """
        if self.pixels < 1 or self.bytes < 1:
            raise ValueError(f"limits of {self.pixels} pixels, {self.bytes} bytes")


DEFAULT_IMAGE_LIMITS = ImageLimits()
"""The limits where nothing else is asked for."""
# fmt: off
_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp",
    ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".heic", ".heif",
))
# fmt: on
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",  # TIFF, little-endian
    b"MM\x00*",  # TIFF, big-endian
    b"\x00\x00\x00\x0cjP  ",  # JPEG 2000
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # ._photo.jpg, which macOS leaves beside photo.jpg


def looks_like_image(name: str, head: bytes) -> bool:
    """Tell whether a file claims to be a picture, by its suffix or its first bytes (16 or more)."""
    dot = name.rfind(".")
    if dot > 0 and name[dot:].lower() in _SUFFIXES:
        return True
    if head.startswith(_SIGNATURES):
        return True
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":  # BMP: two reserved fields
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    return head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", *HEIC_BRANDS)


def read_image_file(path: Path, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> bytes | None:
    """Read a file that claims to be a picture; only its first bytes where it does not.

    Returns:
        The bytes of the file, or None where it is no picture by suffix and content, or is no
        regular file (a pipe, a device: these are never opened, for they would wait forever).

    Raises:
        UnreadableImageError: a link to nothing, no permission, a folder, over the limit.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UnreadableImageError("is a folder, not a picture")
        if not stat.S_ISREG(found.st_mode):
            return None
        with path.open("rb", buffering=0) as file:  # a buffer would be one more copy
            head = file.read(16)
            if is_apple_double(path.name, head) or not looks_like_image(path.name, head):
                return None
            if found.st_size > limits.bytes:
                raise UnreadableImageError(
                    f"{found.st_size:,} bytes are over the limit of {limits.bytes:,}"
                )
            file.seek(0)
            return file.read()
    except FileNotFoundError:
        reason = "is a link to a file that is not there" if path.is_symlink() else "is not there"
        raise UnreadableImageError(reason) from None
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableImageError(f"cannot be read: {error}") from error


def is_apple_double(name: str, head: bytes) -> bool:
    """Tell what macOS leaves beside a picture (``._photo.jpg``) from a picture."""
    return name.startswith("._") and head.startswith(_APPLE_DOUBLE)
