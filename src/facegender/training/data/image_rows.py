"""Rows of images: arrays in memory, memory-mapped files, or encoded images decoded on access."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.images.decode import decode
from facegender.images.pixels import Pixels, Resize

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Images that are decoded when they are read, in place of pixels ``uint8 [N, H, W, 3]``.

    Attributes:
        files: the bytes of all files, concatenated, ``uint8``; may be memory-mapped.
        ends: the end of each file in ``files``, ``int64 [N]``; unreadable images have no bytes.
        size: H and W.
        transform: brings a decoded image to that size.
    """

    files: NDArray[np.uint8]
    ends: NDArray[np.int64]
    size: Resize
    transform: Callable[[Pixels], Pixels]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the decoded pixels."""
        return len(self.ends), self.size.height, self.size.width, 3

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return int(self.files.nbytes)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ends)

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        """Decode some images on all cores: ``uint8 [n, H, W, 3]``; unreadable ones are zeros."""
        pixels = np.zeros((len(rows), *self.shape[1:]), np.uint8)

        def decode_row(index: int) -> None:
            row = int(rows[index])
            data = self.files[self.ends[row - 1] if row else 0 : self.ends[row]].tobytes()
            if data:
                pixels[index] = self.transform(decode(data))

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(decode_row, range(len(rows))):
                pass
        return pixels


ImageRows: TypeAlias = Pixels | EncodedImages
"""Pixels ``uint8 [N, H, W, 3]``: in memory, memory-mapped, or encoded."""


@overload
def read_rows(values: EncodedImages, rows: NDArray[np.int64]) -> Pixels: ...


@overload
def read_rows(values: NDArray[Number], rows: NDArray[np.int64]) -> NDArray[Number]: ...


def read_rows(values: NDArray[Any] | EncodedImages, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copy some rows of an array; a memory-mapped one is read as a file, row by row.

    Access through the mapping would load each page of 4 kB on its own, count as memory of the
    process as long as it is mapped, and block the other threads while the disk is read.

    Args:
        values: ``[N, ...]``, for instance a cache's ``pixels``: in memory, a whole ``np.memmap``
            (not a slice of one) in C order, or encoded.
        rows: indices from 0, ``int64 [n]``.

    Returns:
        ``[n, ...]``, in memory.

    Raises:
        InputError: the file is shorter than the array.
    """
    if isinstance(values, EncodedImages):
        return values.read(rows)
    if isinstance(values, np.memmap) and values.filename is not None:
        with suppress(FileNotFoundError):  # the file was deleted; its mapping still works
            return _read_file_rows(values, rows)
    return np.asarray(values)[rows]


def _read_file_rows(mapped: np.memmap[Any, Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    copied = np.empty((len(rows), *mapped.shape[1:]), mapped.dtype)
    with Path(str(mapped.filename)).open("rb", buffering=0) as file:
        for target, row in zip(copied, rows, strict=True):
            file.seek(mapped.offset + int(row) * target.nbytes)
            if file.readinto(target.data) != target.nbytes:
                raise InputError(
                    f"{mapped.filename} is too short. Delete its folder and run again."
                )
    return copied
