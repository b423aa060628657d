"""Open an image file of any format as one still image.

What one format needs is imported when an image of it comes: a process starts sooner.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache

from PIL import Image

from facegender.errors import UnreadableImageError, UnsupportedImageError
from facegender.images import signatures
from facegender.images.formats import ImageLimits, check_content
from facegender.images.frames import first_shown
from facegender.images.png import without_metadata
from facegender.images.raw import find_preview

# Only formats whose decoder is part of Pillow itself: none that starts another program (EPS, PDF).
# MPO is opened as JPEG; naming it makes Image.open fail.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A decoded image file.

    Attributes:
        image: in any mode, as it is stored.
        width: of the full-size stored image in pixels.
        height: of the full-size stored image in pixels.
        format: Pillow's name of the format.
        orientation: the one that counts if the image states none, 1 to 8.
    """

    image: Image.Image
    width: int
    height: int
    format: str | None
    orientation: int = 1


def open_image(data: bytes, long_side: int | None, limits: ImageLimits) -> OpenedImage:
    """Open and decode an image file.

    Args:
        data: the content of the file.
        long_side: a JPEG may be decoded at a fraction that has at least this long side; None
            decodes at full size.
        limits: maximum size of the image.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, or over a limit.
        UnsupportedImageError: an image of a kind that is not read.
        Exception: any other error of a decoder, on a damaged file.
    """
    head = data[:_HEAD_BYTES]
    check_content(head)
    preview = find_preview(data)
    if preview is not None:
        opened = _open_with_pillow(preview.data, ("JPEG",), long_side, limits)
        return replace(opened, orientation=preview.orientation)
    if head.startswith(signatures.JXL):
        from facegender.images.jxl import open_jxl

        image = open_jxl(data, limits)
        return OpenedImage(image, *image.size, "JXL")
    if head.startswith(signatures.TIFF):
        image = _open_tiff(data, limits)
        return OpenedImage(image, *image.size, "TIFF")
    if head.startswith(b"\x89PNG"):
        return _open_png(data, limits)
    if head[4:8] == b"ftyp":
        return _open_with_pillow(*_heif_format(data, head), long_side, limits)
    return _open_with_pillow(data, _formats(head), long_side, limits)


def _open_png(data: bytes, limits: ImageLimits) -> OpenedImage:
    try:
        return _open_with_pillow(data, ("PNG",), None, limits)
    except UnreadableImageError:
        raise
    except Exception:
        cleaned = without_metadata(data)
        if cleaned is None:
            raise
        return _open_with_pillow(cleaned, ("PNG",), None, limits)


def _formats(head: bytes) -> tuple[str, ...]:
    """Return the formats that are tried; those without a signature only if the header fits."""
    if signatures.is_icon(head):
        return ("ICO",) if head[2] == 1 else ("CUR",)
    if signatures.is_pcx(head):
        return ("PCX",)
    if signatures.is_tga(head) and not signatures.is_dib(head):
        return (*_FORMATS, "TGA")
    return _FORMATS


def _heif_format(data: bytes, head: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a HEIF or AVIF file as its decoder takes it, and the format.

    Raises:
        UnsupportedImageError: HEIC without its extra.
    """
    if signatures.heif_kind(head) == "AVIF":
        if head[8:12] not in signatures.AVIF_BRANDS:
            data = data[:8] + b"avif" + data[12:]
        return data, ("AVIF",)
    if not _can_read_heic():
        raise UnsupportedImageError(signatures.missing_extra("HEIC", "heif"))
    return data, ("HEIF",)


@cache
def _can_read_heic() -> bool:
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _open_with_pillow(
    data: bytes, formats: tuple[str, ...], long_side: int | None, limits: ImageLimits
) -> OpenedImage:
    file = Image.open(io.BytesIO(data), formats=formats)
    (width, height), image_format = file.size, file.format
    check_size(width, height, limits)
    if image_format == "JPEG":
        from facegender.images.jpeg import load_complete, set_draft_size

        if long_side is not None:
            set_draft_size(file, long_side)
        load_complete(file, data, width)
    else:
        file.load()
    image: Image.Image = file
    if image_format in _ANIMATED and getattr(file, "is_animated", False):
        image = first_shown(file.copy(), lambda number: _frame(file, number))
    return OpenedImage(image, width, height, image_format)


def _frame(image: Image.Image, number: int) -> Image.Image | None:
    """Return a copy of a frame; None after the last one."""
    try:
        image.seek(number)
    except EOFError:
        return None
    return image.copy()


def _open_tiff(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode the first page of a TIFF that shows something."""
    from facegender.images.tiff import describe, open_page, read_pages

    pages = read_pages(data)

    def page(number: int) -> Image.Image | None:
        if number >= len(pages):
            return None
        ifd = pages[number]
        image = open_page(data, ifd, limits)
        if image is not None:
            return image
        try:
            return _open_tiff_with_pillow(data, ifd.page or 0, limits)
        except UnreadableImageError:
            raise
        except Exception as error:
            reason = f"TIFF cannot be decoded: {describe(ifd)}"
            raise UnreadableImageError(f"{reason} ({error})") from error

    first = page(0)
    if first is None:
        raise UnreadableImageError("damaged: the TIFF has no image")
    return first_shown(first, page) if len(pages) > 1 else first


def _open_tiff_with_pillow(data: bytes, number: int, limits: ImageLimits) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("TIFF",))
    image.seek(number)
    check_size(image.width, image.height, limits)
    image.info.pop("xmp", None)  # else Pillow turns by it, and the default of the tag is upright
    image.load()
    return image.copy()


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Check an image's size.

    Raises:
        UnreadableImageError: it is over the limit.
    """
    if width * height > limits.pixels:
        raise UnreadableImageError(
            f"{width}x{height} is over the limit of {limits.pixels:,} pixels"
        )
