"""Bytes -> upright RGB ``uint8`` pixels -> the network's input. The only decoder in the project.

Training, evaluation and use all read pictures through :func:`decode` (or :func:`decode_reduced`,
the same for large ones) and bring them to the network's size through :func:`fit`, so that they
cannot drift apart.
"""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from facegender.colours import to_rgb
from facegender.errors import UnreadablePictureError, how_to_install
from facegender.jpeg import draft, ends_early

Pixels = NDArray[np.uint8]
"""Pixels ``[H, W, 3]``, ``uint8``, RGB, upright."""

Upright: TypeAlias = Pixels | Image.Image
"""A decoded picture as pixels or as Pillow's, RGB and upright: each way to the other is a copy."""


@dataclass(frozen=True, slots=True)
class Limits:
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


LIMITS = Limits()
"""The limits where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A picture that may have been decoded smaller than it is.

    ``image`` is RGB and upright; ``width`` and ``height`` are those of the upright picture itself.
    """

    image: Image.Image
    width: int
    height: int

    @property
    def pixels(self) -> Pixels:
        """A copy of the image as an array."""
        return _pixels(self.image)

    @property
    def scale(self) -> float:
        """How many of the picture's pixels one of ``image`` stands for, along a side."""
        return max(self.width, self.height) / float(max(self.image.size))


# Only formats whose decoder is part of Pillow itself: none that starts another program (EPS, PDF).
# MPO comes in through JPEG; to name it makes Image.open fail.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
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
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # ._photo.jpg, which macOS leaves beside photo.jpg
_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TOO_LARGE = "too large for this machine's memory"
_ASPECTS = ("stretch", "pad", "crop")

# Pillow warns above half of its limit; the limit itself is what counts here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture is brought to the network's size. Stored in the model file.

    ``aspect``: ``stretch`` fills the frame and lets the shape go; ``pad`` keeps the shape and adds
    black; ``crop`` keeps the shape and cuts the longer side around the middle. Every ``filter``
    widens with the scale (antialiasing), as Pillow's do.
    """

    height: int
    width: int
    filter: str = "bilinear"
    aspect: str = "stretch"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse what :func:`fit` would not do.

        Raises:
            ValueError: a size below 1, or a filter, aspect rule or antialiasing not known here.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"input size {self.height}x{self.width} is not positive")
        if self.filter not in _FILTERS:
            raise ValueError(f"resize filter {self.filter!r} is not one of {', '.join(_FILTERS)}")
        if self.aspect not in _ASPECTS:
            raise ValueError(f"aspect rule {self.aspect!r} is not one of {', '.join(_ASPECTS)}")
        if not self.antialias:
            raise ValueError("resizing without antialiasing is not supported")


def looks_like_picture(name: str, head: bytes) -> bool:
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
    return head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", *_HEIC_BRANDS)


def read_file(path: Path, limits: Limits = LIMITS) -> bytes | None:
    """Read a file that claims to be a picture; only its first bytes where it does not.

    Returns:
        The bytes of the file, or None where it is no picture by suffix and content, or is no
        regular file (a pipe, a device: these are never opened, for they would wait forever).

    Raises:
        UnreadablePictureError: a link to nothing, no permission, a folder, over the limit.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UnreadablePictureError("is a folder, not a picture")
        if not stat.S_ISREG(found.st_mode):
            return None
        with path.open("rb", buffering=0) as file:  # a buffer would be one more copy
            head = file.read(16)
            if is_leftover(path.name, head) or not looks_like_picture(path.name, head):
                return None
            if found.st_size > limits.bytes:
                raise UnreadablePictureError(
                    f"{found.st_size:,} bytes are over the limit of {limits.bytes:,}"
                )
            file.seek(0)
            return file.read()
    except FileNotFoundError:
        reason = "is a link to a file that is not there" if path.is_symlink() else "is not there"
        raise UnreadablePictureError(reason) from None
    except OSError as error:
        raise UnreadablePictureError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UnreadablePictureError(f"cannot be read: {error}") from error


def is_leftover(name: str, head: bytes) -> bool:
    """Tell what macOS leaves beside a picture (``._photo.jpg``) from a picture."""
    return name.startswith("._") and head.startswith(_APPLE_DOUBLE)


def decode(data: bytes, limits: Limits = LIMITS) -> Pixels:
    """Decode a picture file, whole or not at all.

    The format is told from the content. EXIF orientation is applied; colours are brought to sRGB
    where a profile is embedded; of several frames the first is taken; transparent parts become
    white; grey becomes three equal channels; 16 bits become 8.

    Args:
        data: the bytes of the file.
        limits: what it may cost.

    Returns:
        ``uint8 [H, W, 3]``, RGB, upright, owned by the caller.

    Raises:
        UnreadablePictureError: not a picture, cut off, damaged, or over a limit.
    """
    try:
        return _decode(data, None, limits, None).pixels
    except MemoryError:
        raise UnreadablePictureError(_TOO_LARGE) from None


def decode_reduced(data: bytes, long_side: int | None, limits: Limits = LIMITS) -> Reduced:
    """Decode a picture file as :func:`decode` does, a large JPEG at a half, quarter or eighth.

    Args:
        data: the bytes of the file.
        long_side: pixels that the longer side has at least, where the picture has as many; None
            decodes it as large as it is.
        limits: what it may cost.

    Raises:
        UnreadablePictureError: as :func:`decode`.
    """
    return _decode(data, long_side, limits, None)


def decode_fitted(data: bytes, resize: Resize, limits: Limits = LIMITS) -> Reduced:
    """Decode a picture file and bring it to the network's size: :func:`decode`, then :func:`fit`.

    A large JPEG is decoded at a share that leaves twice the network's size at least. The pixels
    take no way through an array in between.

    Args:
        data: the bytes of the file.
        resize: the network's size.
        limits: what it may cost.

    Raises:
        UnreadablePictureError: as :func:`decode`.
    """
    return _decode(data, 2 * max(resize.width, resize.height), limits, resize)


def _decode(data: bytes, long_side: int | None, limits: Limits, resize: Resize | None) -> Reduced:
    if not data:
        raise UnreadablePictureError("the file is empty (0 bytes)")
    formats: tuple[str, ...] = _FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        if not _can_read_heic():
            raise UnreadablePictureError(
                f"HEIC is read with the 'heif' extra: {how_to_install('heif')}"
            )
        formats = ("HEIF",)
    if Image.MAX_IMAGE_PIXELS is not None and limits.pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.pixels  # Pillow holds it against every file it opens
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            if width * height > limits.pixels:
                raise UnreadablePictureError(
                    f"{width}x{height} is over the limit of {limits.pixels:,} pixels"
                )
            if long_side is not None:
                draft(image, long_side)
            image.load()
            if image.format in ("JPEG", "MPO") and ends_early(data, image, long_side):
                raise UnreadablePictureError("cut off: the picture's data ends before its last row")
            upright = to_rgb(image)
            is_turned = upright.width != image.width
            decoded = upright if resize is None else fitted(upright, resize)
    except UnreadablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnreadablePictureError("the content is not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise UnreadablePictureError(f"over the limit of {limits.pixels:,} pixels") from None
    except MemoryError:
        raise UnreadablePictureError(_TOO_LARGE) from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UnreadablePictureError(f"cannot be decoded: {error}") from error
    if is_turned:  # by EXIF
        width, height = height, width
    return Reduced(decoded, width, height)


@cache
def _can_read_heic() -> bool:
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return False
    pillow_heif.register_heif_opener()
    return True


def from_image(image: Image.Image) -> Pixels:
    """Bring a Pillow picture of any mode to pixels, by the same rules as :func:`decode`.

    Args:
        image: an open picture; its current frame is taken, the picture itself stays as it is.

    Returns:
        ``uint8 [H, W, 3]``, RGB, upright, owned by the caller.

    Raises:
        UnreadablePictureError: its pixels cannot be read or are none.
    """
    try:
        image.load()
        return _pixels(to_rgb(image))
    except UnreadablePictureError:
        raise
    except Exception as error:  # a lazily opened file is decoded here
        raise UnreadablePictureError(f"cannot be decoded: {error}") from error


def _pixels(image: Image.Image) -> Pixels:
    return np.array(image, dtype=np.uint8)


def as_image(picture: Upright) -> Image.Image:
    """Give a decoded picture as Pillow's; one that is so stays itself."""
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def fit(pixels: Pixels, resize: Resize) -> Pixels:
    """Bring pixels ``uint8 [H, W, 3]`` to the network's size by its stored rule.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (resize.height, resize.width):
        return pixels
    return np.asarray(fitted(Image.fromarray(pixels), resize))


def fitted(image: Image.Image, resize: Resize) -> Image.Image:
    """Do what :func:`fit` does with a picture of Pillow's; one of that size stays itself."""
    size = (resize.width, resize.height)
    resample = _FILTERS[resize.filter]
    if image.size == size:
        return image
    if resize.aspect == "pad":
        return ImageOps.pad(image, size, resample, color=(0, 0, 0))
    if resize.aspect == "crop":
        return ImageOps.fit(image, size, resample)
    return image.resize(size, resample)
