"""Bytes -> upright RGB ``uint8`` pixels -> the network's input. The only decoder in the project.

Training, evaluation and use all read pictures through :func:`decode` (or :func:`decode_reduced`,
the same for large ones) and bring them to the network's size through :func:`fit`, so that they
cannot drift apart.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from facegender.errors import UnreadablePictureError, how_to_install

Pixels = NDArray[np.uint8]
"""Pixels ``[H, W, 3]``, ``uint8``, RGB, upright."""


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

    ``pixels`` are ``uint8 [h, w, 3]``, RGB, upright; ``width`` and ``height`` are those of the
    upright picture itself.
    """

    pixels: Pixels
    width: int
    height: int

    @property
    def scale(self) -> float:
        """How many of the picture's pixels one of ``pixels`` stands for, along a side."""
        return max(self.width, self.height) / float(max(self.pixels.shape[:2]))


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
_EXIF_KEYS = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}
# A marker that is neither a stuffed zero byte, nor a restart, nor a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Data that decodes to something, with every restart marker in between.
_JPEG_STUFFING = b"".join(b"\x5a\xa5\x33\xcc" * 16 + bytes((0xFF, 0xD0 + n)) for n in range(8))
_FILL = 128.0  # brightness of what libjpeg puts where data is missing
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
        with path.open("rb") as file:
            head = file.read(16)
            if is_leftover(path.name, head) or not looks_like_picture(path.name, head):
                return None
            if found.st_size > limits.bytes:
                raise UnreadablePictureError(
                    f"{found.st_size:,} bytes are over the limit of {limits.bytes:,}"
                )
            return head + file.read()
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
    return _decode(data, None, limits, None).pixels


def decode_reduced(data: bytes, long_side: int, limits: Limits = LIMITS) -> Reduced:
    """Decode a picture file as :func:`decode` does, a large JPEG at a half, quarter or eighth.

    Args:
        data: the bytes of the file.
        long_side: pixels that the longer side has at least, where the picture has as many.
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
                _draft(image, long_side)
            image.load()
            if image.format in ("JPEG", "MPO") and _jpeg_ends_early(data, image, long_side):
                raise UnreadablePictureError("cut off: the picture's data ends before its last row")
            upright = _rgb(image)
            is_turned = upright.width != image.width
            pixels = _pixels(upright if resize is None else _fitted(upright, resize))
    except UnreadablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnreadablePictureError("the content is not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise UnreadablePictureError(f"over the limit of {limits.pixels:,} pixels") from None
    except MemoryError:
        raise UnreadablePictureError("too large for this machine's memory") from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UnreadablePictureError(f"cannot be decoded: {error}") from error
    if is_turned:  # by EXIF
        width, height = height, width
    return Reduced(pixels, width, height)


def _draft(image: Image.Image, long_side: int) -> None:
    """Have a JPEG decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that keeps ``long_side``."""
    share = long_side / max(image.size)
    if share < 1.0:
        image.draft(None, (ceil(image.width * share), ceil(image.height * share)))


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
        return _pixels(_rgb(image))
    except UnreadablePictureError:
        raise
    except Exception as error:  # a lazily opened file is decoded here
        raise UnreadablePictureError(f"cannot be decoded: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright and bring its colours to sRGB; what is so already stays itself."""
    if image.width < 1 or image.height < 1:
        raise UnreadablePictureError(f"{image.width}x{image.height} is a picture without pixels")
    return _to_srgb(_upright(image))


def _pixels(image: Image.Image) -> Pixels:
    return np.array(image, dtype=np.uint8)


def fit(pixels: Pixels, resize: Resize) -> Pixels:
    """Bring pixels ``uint8 [H, W, 3]`` to the network's size by its stored rule.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (resize.height, resize.width):
        return pixels
    return np.asarray(_fitted(Image.fromarray(pixels), resize))


def _fitted(image: Image.Image, resize: Resize) -> Image.Image:
    size = (resize.width, resize.height)
    resample = _FILTERS[resize.filter]
    if image.size == size:
        return image
    if resize.aspect == "pad":
        return ImageOps.pad(image, size, resample, color=(0, 0, 0))
    if resize.aspect == "crop":
        return ImageOps.fit(image, size, resample)
    return image.resize(size, resample)


def _jpeg_ends_early(data: bytes, image: Image.Image, long_side: int | None) -> bool:
    """Tell whether a JPEG with an end marker lacks part of its data (libjpeg only fills with grey).

    Bytes put in before the end marker change nothing in a whole picture, for all of its rows are
    done by then; in one that was cut off they are decoded as rows. The second decoding is spared
    where a sequential JPEG's last pixel is not the grey that libjpeg fills with. Not seen: a cut
    inside the last block, and one exactly between two scans of a progressive JPEG (a whole
    picture, only coarser).
    """
    end, is_sequential = _jpeg_end(data)
    if end < 0:
        return False
    if is_sequential and abs(_luma(image, image.width - 1, image.height - 1) - _FILL) > 2.0:
        return False
    stuffed = io.BytesIO(data[:end] + _JPEG_STUFFING + data[end:])
    with Image.open(stuffed, formats=("JPEG",)) as second:
        if long_side is not None:
            _draft(second, long_side)
        return second.tobytes() != image.tobytes()


def _luma(image: Image.Image, x: int, y: int) -> float:
    """Brightness of one pixel, as JPEG has it; ``_FILL`` for four channels, which it cannot tell.

    Unlike its colour it takes nothing from the pixels beside it, where colour is kept coarser.
    """
    value = image.getpixel((x, y))
    if isinstance(value, tuple) and len(value) == 3:
        return 0.299 * value[0] + 0.587 * value[1] + 0.114 * value[2]
    return _FILL if value is None or isinstance(value, tuple) else float(value)


def _jpeg_end(data: bytes) -> tuple[int, bool]:
    """Where the first picture's end marker stands (-1: nowhere); is it Huffman and sequential."""
    at, is_sequential = 2, False
    while found := _JPEG_MARKER.search(data, at):
        at, kind = found.start(), data[found.start() + 1]
        if kind == 0xD9:
            return at, is_sequential
        is_sequential = is_sequential or kind in (0xC0, 0xC1)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1, is_sequential


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF counts as none, for the pixels are still whole."""
    if image.format == "JPEG" and not image.info.keys() & _EXIF_KEYS:
        return image  # without a copy
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Bring a picture to RGB by the colour profile that is embedded in it, if any fits."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or image.mode.startswith(("I", "F")):
        return _to_rgb(image)
    given = image if image.mode in ("L", "CMYK") else _to_rgb(image)
    try:
        transform = _transform_to_srgb(profile, given.mode)
        if transform is None:
            return _to_rgb(given)
        return transform.apply(given)
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile, one of another kind
        return _to_rgb(given)


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make what converts pixels of ``mode``; None where they are sRGB already.

    Raises:
        PyCMSError: the profile is damaged or of another kind of pixels.
    """
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(given):
        return None
    return ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Bring any of Pillow's modes to 8-bit RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[Any]) -> Pixels:
    """Bring 16-bit, 32-bit and float grey to 8 bits by the range that the values themselves show.

    Pillow gives 16-bit grey as ``I;16`` or ``I``; floats are read as 0..1 unless they exceed it.
    """
    wide = np.nan_to_num(values.astype(np.float64))
    top = wide.max(initial=0.0)
    if values.dtype.kind == "f":
        full = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else 65535.0
    else:
        full = 65535.0 if values.dtype.itemsize == 2 or top > 255 else 255.0
    return np.clip(np.rint(wide * (255.0 / full)), 0, 255).astype(np.uint8)
