"""Bytes -> upright RGB ``uint8`` pixels -> the network's input. The only decoder in the project.

Training, evaluation and use all read pictures through :func:`decode` (or :func:`decode_downscaled`,
the same for large ones) and bring them to the network's size through :func:`fit`, so that they
cannot drift apart.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache

from PIL import Image, UnidentifiedImageError

from facegender.errors import UnreadableImageError, how_to_install
from facegender.images.color import to_rgb
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, HEIC_BRANDS, ImageLimits
from facegender.images.jpeg import is_truncated, set_draft_size
from facegender.images.pixels import Pixels, Resize, resize_image, to_pixels


@dataclass(frozen=True, slots=True)
class DownscaledImage:
    """A picture that may have been decoded smaller than it is.

    ``image`` is RGB and upright; ``width`` and ``height`` are those of the upright picture itself.
    """

    image: Image.Image
    width: int
    height: int

    @property
    def pixels(self) -> Pixels:
        """A copy of the image as an array."""
        return to_pixels(self.image)

    @property
    def scale(self) -> float:
        """How many of the picture's pixels one of ``image`` stands for, along a side."""
        return max(self.width, self.height) / float(max(self.image.size))


# Only formats whose decoder is part of Pillow itself: none that starts another program (EPS, PDF).
# MPO comes in through JPEG; to name it makes Image.open fail.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
_TOO_LARGE = "too large for this machine's memory"

# Pillow warns above half of its limit; the limit itself is what counts here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> Pixels:
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
        UnreadableImageError: not a picture, cut off, damaged, or over a limit.
    """
    try:
        return _decode(data, None, limits, None).pixels
    except MemoryError:
        raise UnreadableImageError(_TOO_LARGE) from None


def decode_downscaled(
    data: bytes, long_side: int | None, limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> DownscaledImage:
    """Decode a picture file as :func:`decode` does, a large JPEG at a half, quarter or eighth.

    Args:
        data: the bytes of the file.
        long_side: pixels that the longer side has at least, where the picture has as many; None
            decodes it as large as it is.
        limits: what it may cost.

    Raises:
        UnreadableImageError: as :func:`decode`.
    """
    return _decode(data, long_side, limits, None)


def decode_resized(
    data: bytes, resize: Resize, limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> DownscaledImage:
    """Decode a picture file and bring it to the network's size: :func:`decode`, then :func:`fit`.

    A large JPEG is decoded at a share that leaves twice the network's size at least. The pixels
    take no way through an array in between.

    Args:
        data: the bytes of the file.
        resize: the network's size.
        limits: what it may cost.

    Raises:
        UnreadableImageError: as :func:`decode`.
    """
    return _decode(data, 2 * max(resize.width, resize.height), limits, resize)


def _decode(
    data: bytes, long_side: int | None, limits: ImageLimits, resize: Resize | None
) -> DownscaledImage:
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    formats: tuple[str, ...] = _FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        if not _can_read_heic():
            raise UnreadableImageError(
                f"HEIC is read with the 'heif' extra: {how_to_install('heif')}"
            )
        formats = ("HEIF",)
    if Image.MAX_IMAGE_PIXELS is not None and limits.pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.pixels  # Pillow holds it against every file it opens
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            if width * height > limits.pixels:
                raise UnreadableImageError(
                    f"{width}x{height} is over the limit of {limits.pixels:,} pixels"
                )
            if long_side is not None:
                set_draft_size(image, long_side)
            image.load()
            if image.format in ("JPEG", "MPO") and is_truncated(data, image, long_side):
                raise UnreadableImageError("cut off: the picture's data ends before its last row")
            upright = to_rgb(image)
            is_turned = upright.width != image.width
            decoded = upright if resize is None else resize_image(upright, resize)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("the content is not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"over the limit of {limits.pixels:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError(_TOO_LARGE) from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UnreadableImageError(f"cannot be decoded: {error}") from error
    if is_turned:  # by EXIF
        width, height = height, width
    return DownscaledImage(decoded, width, height)


@cache
def _can_read_heic() -> bool:
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return False
    pillow_heif.register_heif_opener()
    return True


def from_pil_image(image: Image.Image) -> Pixels:
    """Bring a Pillow picture of any mode to pixels, by the same rules as :func:`decode`.

    Args:
        image: an open picture; its current frame is taken, the picture itself stays as it is.

    Returns:
        ``uint8 [H, W, 3]``, RGB, upright, owned by the caller.

    Raises:
        UnreadableImageError: its pixels cannot be read or are none.
    """
    try:
        image.load()
        return to_pixels(to_rgb(image))
    except UnreadableImageError:
        raise
    except Exception as error:  # a lazily opened file is decoded here
        raise UnreadableImageError(f"cannot be decoded: {error}") from error
