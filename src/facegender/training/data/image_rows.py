"""Kept pictures: in memory, as pixels in a file, or as the files that they came in; read alike."""

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
    """Stands for pixels ``uint8 [N, H, W, 3]`` that are decoded whenever rows of them are read.

    Attributes:
        files: the bytes of all files, one behind the other, ``uint8``; may be memory-mapped.
        ends: where each ends, ``int64 [N]``; of an unreadable picture nothing is kept.
        size: H and W.
        work: brings a decoded picture to that size.
    """

    files: NDArray[np.uint8]
    ends: NDArray[np.int64]
    size: Resize
    work: Callable[[Pixels], Pixels]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the pixels that it stands for."""
        return len(self.ends), self.size.height, self.size.width, 3

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return int(self.files.nbytes)

    def __len__(self) -> int:
        """How many pictures it holds."""
        return len(self.ends)

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        """Decode some pictures, on all cores: ``uint8 [n, H, W, 3]``; unreadable ones are zeros."""
        some = np.zeros((len(rows), *self.shape[1:]), np.uint8)

        def make(place: int) -> None:
            row = int(rows[place])
            data = self.files[self.ends[row - 1] if row else 0 : self.ends[row]].tobytes()
            if data:
                some[place] = self.work(decode(data))

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(make, range(len(rows))):
                pass
        return some


ImageRows: TypeAlias = Pixels | EncodedImages
"""Pixels ``uint8 [N, H, W, 3]``, in memory or memory-mapped, or what stands for them."""


@overload
def read_rows(values: EncodedImages, rows: NDArray[np.int64]) -> Pixels: ...


@overload
def read_rows(values: NDArray[Number], rows: NDArray[np.int64]) -> NDArray[Number]: ...


def read_rows(values: NDArray[Any] | EncodedImages, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copy some rows of an array; one that is memory-mapped is read as a file, row by row.

    Through the mapping every page of 4 kB would be asked for singly, count as the process's own
    memory for as long as it is mapped, and hold up the other threads while the disk answers.

    Args:
        values: ``[N, ...]``, for instance a store's ``pixels``: in memory, a whole ``np.memmap``
            (not a part of one), in C order, or encoded.
        rows: indices from 0, ``int64 [n]``.

    Returns:
        ``[n, ...]``, in memory.

    Raises:
        InputError: the file has become shorter.
    """
    if isinstance(values, EncodedImages):
        return values.read(rows)
    if isinstance(values, np.memmap) and values.filename is not None:
        with suppress(FileNotFoundError):  # deleted meanwhile: what is mapped is still there
            return _rows_of_file(values, rows)
    return np.asarray(values)[rows]


def _rows_of_file(mapped: np.memmap[Any, Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    some = np.empty((len(rows), *mapped.shape[1:]), mapped.dtype)
    with Path(str(mapped.filename)).open("rb", buffering=0) as file:
        for into, row in zip(some, rows, strict=True):
            file.seek(mapped.offset + int(row) * into.nbytes)
            if file.readinto(into.data) != into.nbytes:
                raise InputError(f"{mapped.filename} ends too early: delete its folder, run again")
    return some
