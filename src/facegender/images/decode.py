"""The only image decoder of the project: the bytes of a file to upright RGB ``uint8`` pixels.

Training, evaluation and prediction all decode through :func:`decode` (or :func:`decode_downscaled`
for large images) and resize through :func:`facegender.images.pixels.resize`, so that they cannot
differ.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from facegender.errors import UnreadableImageError
from facegender.images.color import to_rgb
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
from facegender.images.opening import open_image
from facegender.images.pixels import Pixels, Resize, resize_image, to_pixels

_TOO_LARGE = "too large for this machine's memory"

# Pillow warns above half of its own limit; ImageLimits decides here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class DownscaledImage:
    """An image that may have been decoded at a fraction of its size.

    Attributes:
        image: RGB, upright.
        width: of the full-size upright image, in pixels.
        height: of the full-size upright image, in pixels.
    """

    image: Image.Image
    width: int
    height: int

    @property
    def pixels(self) -> Pixels:
        """A copy of the image as an array ``uint8 [H, W, 3]``."""
        return to_pixels(self.image)

    @property
    def scale(self) -> float:
        """Pixels of the full-size image per pixel of ``image``, along a side."""
        return max(self.width, self.height) / float(max(self.image.size))


def decode(data: bytes, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> Pixels:
    """Decode an image file completely.

    The format is detected from the content. The orientation in EXIF or XMP is applied; colors are
    converted to sRGB if a profile is embedded; of several frames the first one that shows something
    is taken; transparent pixels become white; gray becomes three equal channels; 16 bits become 8.
    Of camera raw the largest embedded preview is decoded.

    Args:
        data: the content of the file.
        limits: maximum size of the image.

    Returns:
        ``uint8 [H, W, 3]``, RGB, upright, owned by the caller.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, or over a limit.
    """
    try:
        return _decode(data, None, limits, None).pixels
    except MemoryError:
        raise UnreadableImageError(_TOO_LARGE) from None


def decode_downscaled(
    data: bytes, long_side: int | None, limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> DownscaledImage:
    """Decode an image file as :func:`decode` does, a large JPEG at 1/2, 1/4 or 1/8 of its size.

    Args:
        data: the content of the file.
        long_side: minimum long side in pixels, if the image is that large; None decodes at full
            size.
        limits: maximum size of the image.

    Raises:
        UnreadableImageError: as :func:`decode`.
    """
    return _decode(data, long_side, limits, None)


def decode_resized(
    data: bytes, resize: Resize, limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> DownscaledImage:
    """Decode an image file and resize it to a network's input size, without a copy to an array.

    A large JPEG is decoded at a fraction that has at least twice the input size.

    Args:
        data: the content of the file.
        resize: size and mode.
        limits: maximum size of the image.

    Raises:
        UnreadableImageError: as :func:`decode`.
    """
    return _decode(data, 2 * max(resize.width, resize.height), limits, resize)


def _decode(
    data: bytes, long_side: int | None, limits: ImageLimits, resize: Resize | None
) -> DownscaledImage:
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    if Image.MAX_IMAGE_PIXELS is not None and limits.pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.pixels  # else Pillow refuses what the limits allow
    try:
        opened = open_image(data, long_side, limits)
        width, height, image = opened.width, opened.height, opened.image
        upright = to_rgb(image, opened.format, opened.orientation)
        is_transposed = upright.size != image.size and upright.width == image.height
        decoded = upright if resize is None else resize_image(upright, resize)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image in a known format") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"over the limit of {limits.pixels:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError(_TOO_LARGE) from None
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise UnreadableImageError(f"cannot be decoded: {error}") from error
    if is_transposed:  # by EXIF
        width, height = height, width
    return DownscaledImage(decoded, width, height)


def from_pil_image(image: Image.Image) -> Pixels:
    """Convert a Pillow image of any mode to pixels, by the rules of :func:`decode`.

    Args:
        image: an open image; its current frame is used, the image is not changed.

    Returns:
        ``uint8 [H, W, 3]``, RGB, upright, owned by the caller.

    Raises:
        UnreadableImageError: the pixels cannot be read, or there are none.
    """
    try:
        image.load()
        return to_pixels(to_rgb(image, image.format))
    except UnreadableImageError:
        raise
    except Exception as error:  # a lazily opened file is decoded only here
        raise UnreadableImageError(f"cannot be decoded: {error}") from error
