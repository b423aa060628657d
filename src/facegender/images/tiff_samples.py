"""The samples of a TIFF: numbers of any width out of the bytes of its rows, and their range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[Any]

_SIGNED, _FLOAT = 2, 3
_RANGE_BITS = (8, 10, 12, 14, 16, 24, 32, 64)
_BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one page.

    Attributes:
        planes: the bytes of each row, ``uint8 [H, tiles, bytes]``; one plane for each sample of a
            pixel if ``is_planar``, else one for all.
        width: in pixels.
        count: samples of a pixel.
        bits: of one sample, 1 to 64.
        number: 1 unsigned, 2 signed, 3 floating point.
        predictor: 1 none, 2 horizontal differencing, 3 floating point.
        is_planar: each sample has a plane of its own.
        order: ``<`` or ``>``.
        tile_width: of one tile in pixels; 0 if the image is not tiled.
    """

    planes: list[NDArray[np.uint8]]
    width: int
    count: int
    bits: int
    number: int
    predictor: int
    is_planar: bool
    order: str
    tile_width: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.planes[0])

    def rows(self, rows: slice) -> Numbers:
        """Return some rows as numbers ``[rows, width, count]``."""
        planes = [self._unpack(plane[rows]) for plane in self.planes]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)

    def _unpack(self, rows: NDArray[np.uint8]) -> Numbers:
        height, tiles, row_bytes = rows.shape
        in_row = 1 if self.is_planar else self.count
        width = self.tile_width if tiles > 1 or self.tile_width else self.width
        flat = rows.reshape(height * tiles, row_bytes)
        values = self._numbers(flat, width * in_row, in_row).reshape(height, tiles, width, in_row)
        if self.predictor == 2:
            values = np.cumsum(values, axis=2, dtype=values.dtype)
        return values.reshape(height, tiles * width, in_row)[:, : self.width]

    def _numbers(self, rows: NDArray[np.uint8], count: int, in_row: int) -> Numbers:
        """Convert the bytes of rows to ``count`` numbers each."""
        size = self.bits // 8
        if self.bits not in (8, 16, 32, 64):
            values = _unpack_bits(rows, count, self.bits)
            return _sign(values, self.bits) if self.number == _SIGNED else values
        rows = np.ascontiguousarray(rows[:, : count * size])
        kind = {_SIGNED: "i", _FLOAT: "f"}.get(self.number, "u")
        if self.predictor == 3:  # differences of bytes, the highest byte of all numbers first
            planes = rows.reshape(len(rows), -1, in_row)
            planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(len(rows), size, count)
            return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">{kind}{size}")[..., 0]
        order = self.order if size > 1 else ""
        return rows.view(f"{order}{kind}{size}").astype(f"{kind}{size}")


def _unpack_bits(rows: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint64]:
    """Read numbers of any width, the highest bit first; rows begin at a byte."""
    weights = np.uint64(1) << np.arange(bits - 1, -1, -1, dtype=np.uint64)
    values = np.empty((len(rows), count), np.uint64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        single = np.unpackbits(rows[block], axis=1)[:, : count * bits]
        values[block] = single.reshape(-1, count, bits) @ weights
    return values


def _sign(values: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    signed = values.astype(np.int64)
    return np.where(signed >= 1 << (bits - 1), signed - (1 << bits), signed)


def value_range(
    samples: Samples, colors: int, stated_black: float | None, stated_white: float | None
) -> tuple[float, float]:
    """Return the values that are shown as black and white.

    The file's own statement counts, if no value is above it. Else the bits of a sample, or the
    largest value: 10, 12 or 14 bits are often stored in 16, and float is 0 to 1, to 255 or more.

    Args:
        samples: the samples.
        colors: number of samples of a pixel that are colors.
        stated_black: the file's minimum, if it states one.
        stated_white: the file's maximum, if it states one.
    """
    low, high = 0.0, 0.0
    for start in range(0, samples.height, _BLOCK_ROWS):
        block = samples.rows(slice(start, start + _BLOCK_ROWS))[..., :colors]
        if samples.number == _FLOAT:
            block = block[np.isfinite(block)]
        high = max(high, float(block.max(initial=0)))
        low = min(low, float(block.min(initial=0)))
    if samples.number == _FLOAT:
        if stated_white and stated_white >= high:
            return min(stated_black or 0.0, stated_white / 2), stated_white
        return 0.0, next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    bits = samples.bits
    if samples.number == _SIGNED:
        if low < 0:
            return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
        bits -= 1
    if stated_white and stated_white >= high and stated_white < 2**bits:
        return 0.0, stated_white
    if samples.bits in (16, 32, 64):
        bits = next((width for width in _RANGE_BITS if high < 2**width), bits)
    return 0.0, 2.0**bits - 1


def to_8_bits(values: Numbers, black: float, white: float) -> NDArray[np.uint8]:
    """Scale numbers to 0 to 255; what is no number is black."""
    wide = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    scaled = (np.nan_to_num(wide, posinf=white, neginf=black) - black) * (255.0 / (white - black))
    eight_bits: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return eight_bits
