"""TIFF of kinds that Pillow does not open, or opens with wrong or cut-off values.

libtiff unpacks the rows of any kind without a loss: the file is described to it as 8-bit gray
images that are as wide as a row has bytes. What the bytes mean is decided here: bits, numbers,
planes, photometric interpretation and range. Source: TIFF Revision 6.0 and its Technical Note 3.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import UnreadableImageError
from facegender.images.formats import ImageLimits
from facegender.images.ifd import Ifd, read_ifds
from facegender.images.orientation import turn
from facegender.images.tiff_samples import Samples, to_8_bits, value_range

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS = 266, 273, 274, 277, 278
_STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOR_MAP = 279, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _EXTRA = 322, 323, 324, 325, 338
_FORMAT, _PROFILE = 339, 34675
_MIN_VALUES, _MAX_VALUES = (340, 280), (341, 281)

_LOSSLESS = frozenset((1, 5, 8, 32773, 32946, 34925, 50000))
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
_COMPRESSION_NAMES = {
    1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_INTEGER, _SIGNED, _FLOAT = 1, 2, 3
_BLOCK_SAMPLES = 1 << 22


@dataclass(frozen=True, slots=True)
class _Layout:
    """What one page is made of."""

    width: int
    height: int
    samples: int
    bits: int
    number: int
    compression: int
    photometric: int
    is_planar: bool
    predictor: int


def read_pages(data: bytes) -> list[Ifd]:
    """Return the pages of a file, those that are smaller copies of others last."""
    pages = [ifd for ifd in read_ifds(data) if ifd.page is not None]
    return sorted(pages, key=lambda ifd: ifd.number(_SUBFILE, 0) & 1)


def describe(ifd: Ifd) -> str:
    """Describe a page, for a message."""
    compression = ifd.number(_COMPRESSION, 1)
    bits = "/".join(map(str, dict.fromkeys(ifd.numbers(_BITS) or (1,))))
    return (
        f"compression {_COMPRESSION_NAMES.get(compression, compression)}, photometric "
        f"{ifd.number(_PHOTOMETRIC, 0)}, {ifd.number(_SAMPLES, 1)} samples of {bits} bits"
    )


def open_page(data: bytes, ifd: Ifd, limits: ImageLimits) -> Image.Image | None:
    """Decode a page that Pillow does not read right.

    Args:
        data: the file.
        ifd: the page.
        limits: maximum size of the image.

    Returns:
        The upright page: 8-bit gray, RGB, RGBA or CMYK. None if Pillow reads it right, or if
        neither does.

    Raises:
        UnreadableImageError: truncated, damaged, or over the limit.
    """
    layout = _layout(ifd)
    if layout is None or layout.compression not in _LOSSLESS or _reads_pillow(ifd, layout):
        return None
    if layout.photometric not in _COLORS or layout.samples < _COLORS[layout.photometric]:
        return None
    if layout.width * layout.height > limits.pixels:
        raise UnreadableImageError(
            f"{layout.width}x{layout.height} is over the limit of {limits.pixels:,} pixels"
        )
    samples = Samples(
        _unpack(data, ifd, layout), layout.width, layout.samples, layout.bits, layout.number,
        layout.predictor, layout.is_planar, ifd.order, ifd.number(_TILE_WIDTH, 0),
    )  # fmt: skip
    image = _to_image(samples, ifd, layout)
    if profile := ifd.content(_PROFILE):
        image.info["icc_profile"] = profile
    return turn(image, ifd.number(_ORIENTATION, 1))


def _layout(ifd: Ifd) -> _Layout | None:
    """Read the tags of a page; None if its samples differ from each other, or a tag is missing."""
    samples = ifd.number(_SAMPLES, 1)
    bits = ifd.numbers(_BITS)[:samples] or (1,)
    numbers = ifd.numbers(_FORMAT)[:samples] or (_INTEGER,)
    width, height = ifd.number(_WIDTH, 0), ifd.number(_HEIGHT, 0)
    if len({*bits}) > 1 or len({*numbers}) > 1 or min(width, height, samples, bits[0]) < 1:
        return None
    number = _INTEGER if numbers[0] == 4 else numbers[0]  # 4: undefined
    is_whole = number in (_INTEGER, _SIGNED) and bits[0] <= 64
    if samples > 64 or not (is_whole or (number == _FLOAT and bits[0] in (16, 32, 64))):
        return None
    return _Layout(
        width, height, samples, bits[0], number, ifd.number(_COMPRESSION, 1),
        ifd.number(_PHOTOMETRIC, 0), ifd.number(_PLANAR, 1) == 2 and samples > 1,
        ifd.number(_PREDICTOR, 1),
    )  # fmt: skip


def _reads_pillow(ifd: Ifd, layout: _Layout) -> bool:
    """Tell whether Pillow reads a page right."""
    if layout.number != _INTEGER or layout.is_planar:
        return False
    if layout.photometric == _RGB:
        is_known = layout.samples == 3 or len(ifd.numbers(_EXTRA)) == layout.samples - 3 == 1
        return layout.bits == 8 and is_known
    if layout.photometric == _CMYK:
        return layout.bits == 8 and layout.samples == 4
    return layout.bits in (1, 2, 4, 8) and layout.samples == 1


def _unpack(data: bytes, ifd: Ifd, layout: _Layout) -> list[NDArray[np.uint8]]:
    """Return the bytes of each row, ``uint8 [H, tiles, bytes]``, of each plane."""
    in_row = 1 if layout.is_planar else layout.samples
    width, height = ifd.number(_TILE_WIDTH, 0), ifd.number(_TILE_HEIGHT, 0)
    is_tiled = bool(width and height and ifd.numbers(_TILE_OFFSETS))
    if not is_tiled:
        width, height = layout.width, min(ifd.number(_ROWS, layout.height), layout.height)
    across = -(-layout.width // width)
    row_bytes = -(-width * in_row * layout.bits // 8)
    offsets = ifd.numbers(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS)
    sizes = ifd.numbers(_TILE_BYTES if is_tiled else _STRIP_BYTES)
    count = across * -(-layout.height // max(height, 1))
    planes = []
    for plane in range(layout.samples if layout.is_planar else 1):
        part = slice(plane * count, (plane + 1) * count)
        tags: dict[int, tuple[int, ...]] = {
            _WIDTH: (across * row_bytes,),
            _HEIGHT: (layout.height,),
            _BITS: (8,),
            _COMPRESSION: (layout.compression,),
            _PHOTOMETRIC: (_BLACK_IS_ZERO,),
            _FILL_ORDER: (ifd.number(_FILL_ORDER, 1),),
            _SAMPLES: (1,),
        }
        if is_tiled:
            tags |= {_TILE_WIDTH: (row_bytes,), _TILE_HEIGHT: (height,)}
            tags |= {_TILE_OFFSETS: offsets[part], _TILE_BYTES: sizes[part]}
        else:
            tags |= {_ROWS: (height,), _STRIP_OFFSETS: offsets[part], _STRIP_BYTES: sizes[part]}
        if len(offsets[part]) < count:
            raise UnreadableImageError("truncated: parts of the image are missing")
        rows = _decode_bytes(data, {tag: values for tag, values in tags.items() if values})
        planes.append(rows.reshape(layout.height, across, row_bytes))
    return planes


def _decode_bytes(data: bytes, tags: dict[int, tuple[int, ...]]) -> NDArray[np.uint8]:
    """Let Pillow and libtiff unpack a file as the 8-bit gray image that the tags describe."""
    start = len(data) + len(data) % 2
    entries, values = [], b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack("<I", after + len(values)), values + packed
        entries.append(struct.pack("<HHI", tag, 4, len(numbers)) + packed)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + values
    head = b"II*\0" + struct.pack("<I", start)
    file = b"".join((head, data[8:], bytes(len(data) % 2), directory))
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return np.asarray(image)


def _to_image(samples: Samples, ifd: Ifd, layout: _Layout) -> Image.Image:
    """Convert the samples of a page to an 8-bit image."""
    colors = _COLORS[layout.photometric]
    if layout.photometric == _PALETTE:
        return _apply_palette(samples, ifd, layout)
    stated = [_stated_value(ifd, tags) for tags in (_MIN_VALUES, _MAX_VALUES)]
    alpha_at = _alpha_at(ifd, colors, layout.samples)
    black, white = value_range(samples, colors, *stated)
    values = np.empty((layout.height, layout.width, colors), np.uint8)
    alpha = None if alpha_at is None else np.empty((layout.height, layout.width), np.uint8)
    for rows in _blocks(layout):
        block = samples.rows(rows)
        values[rows] = to_8_bits(block[..., :colors], black, white)
        if alpha is not None:
            full = 1.0 if layout.number == _FLOAT else float(2**layout.bits - 1)
            alpha[rows] = to_8_bits(block[..., alpha_at], 0.0, full)
    if layout.photometric == _WHITE_IS_ZERO:
        np.subtract(255, values, out=values)
    if layout.photometric == _CMYK:
        return Image.fromarray(values, "CMYK")
    image = Image.fromarray(values[..., 0] if colors == 1 else values)
    if alpha is None or not alpha.any():
        return image
    is_premultiplied = ifd.numbers(_EXTRA)[alpha_at - colors] == 1 if alpha_at else False
    if is_premultiplied:  # the colors are brought back by Pillow
        merged = Image.merge("RGBX", (*image.convert("RGB").split(), Image.fromarray(alpha)))
        return Image.frombytes("RGBa", image.size, merged.tobytes()).convert("RGBA")
    image = image.convert("RGB")
    image.putalpha(Image.fromarray(alpha))
    return image


def _apply_palette(samples: Samples, ifd: Ifd, layout: _Layout) -> Image.Image:
    palette = np.array(ifd.numbers(_COLOR_MAP)).reshape(3, -1).T
    is_8_bit = palette.max(initial=0) <= 255
    colors = (palette if is_8_bit else palette // 256).astype(np.uint8)
    values = np.empty((layout.height, layout.width, 3), np.uint8)
    for rows in _blocks(layout):
        values[rows] = colors[samples.rows(rows)[..., 0].astype(np.int64)]
    return Image.fromarray(values)


def _alpha_at(ifd: Ifd, colors: int, samples: int) -> int | None:
    """Return the index of the sample that is the alpha channel."""
    for number, meaning in enumerate(ifd.numbers(_EXTRA)[: samples - colors]):
        if meaning in (1, 2):
            return colors + number
    return None


def _stated_value(ifd: Ifd, tags: tuple[int, int]) -> float | None:
    """Return the value of the first of these tags that the file has."""
    for tag in tags:
        values: Any = ifd.tags.get(tag, ())
        if values and not isinstance(values[0], bytes):
            return float(max(values))
    return None


def _blocks(layout: _Layout) -> Iterator[slice]:
    """Divide the rows, so that wide numbers take little memory at a time."""
    count = max(1, _BLOCK_SAMPLES // (layout.width * layout.samples))
    for start in range(0, layout.height, count):
        yield slice(start, min(start + count, layout.height))
