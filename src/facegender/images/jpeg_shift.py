"""Find where damage has shifted the colors of a JPEG from one block on.

A block stores its mean as the difference to the block before it. Damaged data can be a valid
JPEG with the right number of blocks; then all blocks after the damage are lighter or darker by one
amount. The step runs along the upper side of the blocks from the damage to the end of their row,
and goes on one row of blocks below; no edge in a scene does that.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Lines: TypeAlias = NDArray[np.float32]

_SKIPPED = 4  # blocks after the damage that may be damaged themselves
_MIN_COLUMNS = 14
_MIN_BLOCK_SIDE = 4
_MIN_STEP = 3.0
_MIN_SAMPLE = 2.0
_MIN_SAMPLES = 0.95
_MIN_TEXTURE = 6.0
_MIN_LASTING = 0.6
_MIN_PART_PIXELS = 48
_MAX_SPREAD = 0.45
# For a step that runs along one row of blocks only, as some edges do.
_MIN_PIXELS_OF_ROW = 192
_MIN_STEP_OF_ROW = 6.0
_MIN_TEXTURE_OF_ROW = 2.0
_MAX_SPREAD_OF_ROW = 0.33


def is_shifted(image: Image.Image, block_width: int, block_height: int) -> bool:
    """Tell whether the colors are shifted from some block to the end of the image.

    The limits were chosen so that none of 4,946 photos of faces counts as damaged.

    Args:
        image: a decoded JPEG without restart markers.
        block_width: of its minimum coded units in pixels of ``image``.
        block_height: of its minimum coded units.
    """
    if min(block_width, block_height) < _MIN_BLOCK_SIDE:
        return False
    columns, rows = image.width // block_width, image.height // block_height - 1
    if columns < _MIN_COLUMNS or rows < 2:
        return False
    box = (image, columns, rows, block_width, block_height)
    if not _has_long_step(_lines(*box, is_sample=True)):
        return False
    far, above, below, near = _lines(*box).reshape(4, rows * columns, -1)
    # What is left of the step when the gradient on both sides is taken off
    steps = 1.5 * (below - above) - 0.5 * (near - far)
    size = columns - _SKIPPED
    step, spread = _windows(steps, size)
    texture = _windows(above, size)[1]
    ratio = spread / np.maximum(np.abs(step), 1e-6)
    is_step = (np.abs(step) >= _MIN_STEP) & (texture >= _MIN_TEXTURE)
    # A thin line is no step: on its other side the colors are as before
    is_step &= _windows(near - far, size)[0] * np.sign(step) >= _MIN_LASTING * np.abs(step)
    in_first_row = np.minimum(columns - np.arange(len(step)) % columns, size)
    part = np.minimum(in_first_row, size - in_first_row)
    goes_on_below = (part * block_width >= _MIN_PART_PIXELS)[:, None]
    if bool((is_step & goes_on_below & (ratio < _MAX_SPREAD)).any()):
        return True
    is_clear = (np.abs(step) >= _MIN_STEP_OF_ROW) & (ratio < _MAX_SPREAD_OF_ROW)
    is_clear &= texture >= _MIN_TEXTURE_OF_ROW * np.abs(step)
    return size * block_width >= _MIN_PIXELS_OF_ROW and bool((is_step & is_clear).any())


def _has_long_step(lines: Lines) -> bool:
    """Tell whether two rows of blocks together have a step in most of their columns.

    It takes few samples, and rules out nearly all images.
    """
    far, above, below, near = lines[..., 0]
    steps = 1.5 * (below - above) - 0.5 * (near - far)
    for is_step in (steps >= _MIN_SAMPLE, steps <= -_MIN_SAMPLE):
        count = is_step.sum(axis=1)
        pairs = count + np.append(count[1:], 0)
        if int(pairs.max()) >= _MIN_SAMPLES * steps.shape[1]:
            return True
    return False


def _lines(
    image: Image.Image, columns: int, rows: int, width: int, height: int, *, is_sample: bool = False
) -> Lines:
    """Return the two lines of pixels above and below the upper side of each row of blocks.

    Args:
        image: the image.
        columns: number of blocks in a row.
        rows: number of rows, without the first.
        width: of a block in pixels.
        height: of a block in pixels.
        is_sample: take the brightness of two pixels in each block instead of the mean colors.

    Returns:
        ``float32 [4, rows, columns, bands]``.
    """
    found = []
    for offset in range(-2, 2):
        top = height / 2 + offset
        box = (0, top, columns * width, min(top + rows * height, image.height))
        size = (columns * (2 if is_sample else width), rows)
        lines = image.resize(size, Image.Resampling.NEAREST, box)
        lines = lines.convert("L") if is_sample else lines.reduce((width, 1))
        found.append(np.asarray(lines, np.float32))
    return np.stack(found).reshape(4, rows, found[0].shape[1], -1)


def _windows(values: Lines, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of ``size`` values in a row, from each value on."""
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate((zero, np.cumsum(values, axis=0, dtype=np.float64)))
    squares = np.concatenate((zero, np.cumsum(values * values, axis=0, dtype=np.float64)))
    mean = (total[size:] - total[:-size]) / size
    variance = (squares[size:] - squares[:-size]) / size - mean * mean
    return mean, np.sqrt(np.maximum(variance, 0.0))
