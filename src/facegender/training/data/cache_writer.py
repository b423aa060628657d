"""Writing the image cache: a folder that appears when it is complete, or not at all."""

from __future__ import annotations

import csv
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from facegender.errors import OutputError
from facegender.images.pixels import Pixels
from facegender.training.data.samples import Sample

SAMPLES_NAME, MATRICES_NAME = "samples.csv", "crop_matrices.f32"
PIXELS_NAME, CONTEXT_NAME = "pixels.u8", "context_pixels.u8"
FILES_NAME, ENDS_NAME = "files.bin", "ends.i64"

_RESERVED_BYTES = 1 << 30
_STALE_SECONDS = 86_400
_CHECK_EVERY = 256


@dataclass(frozen=True, slots=True)
class CachedImage:
    """One image of a cache; see :class:`facegender.training.data.image_cache.ImageCache`."""

    pixels: Pixels
    context_pixels: Pixels
    crop_matrix: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A sample that was read: its digest, file, and either its image or the reason of an error."""

    sample: Sample
    sha256: str
    data: bytes
    image: CachedImage | None
    error: str


class DiskFullError(OutputError):
    """The disk has too little free space."""


@contextmanager
def build_atomically(folder: Path) -> Iterator[Path]:
    """Yield a new folder that is renamed to ``folder`` at the end, and removed after an error.

    If another process has made ``folder`` meanwhile, that one stays.
    """
    unfinished = folder.with_name(f"{folder.name}.{secrets.token_hex(6)}.tmp")
    try:
        unfinished.mkdir()
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_cache(
    folder: Path,
    decoded: Iterator[DecodedSample],
    *,
    shape: tuple[int, int],
    context_shape: tuple[int, int] | None,
    on_image: Callable[[int], None] | None = None,
    is_encoded: bool = False,
) -> None:
    """Write a cache.

    Args:
        folder: of this cache, in the folder of all caches.
        decoded: all samples.
        shape: height and width of the images.
        context_shape: height and width of the full images; None if images are not cropped.
        on_image: called now and then with the number of images done.
        is_encoded: write the files instead of pixels.

    Raises:
        DiskFullError: less than 1 GiB is free.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    no_crop = np.full((2, 3), np.nan, np.float32)
    with (
        build_atomically(folder) as unfinished,
        ExitStack() as stack,
        (unfinished / MATRICES_NAME).open("wb") as matrices,
        (unfinished / SAMPLES_NAME).open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as table,
    ):
        write_image = (
            _open_files(unfinished, stack)
            if is_encoded
            else _open_pixels(unfinished, shape, context_shape, stack)
        )
        rows = csv.writer(table)
        names = [item.name for item in fields(Sample)]
        rows.writerow([*names, "sha256", "error"])
        for done, item in enumerate(decoded, 1):
            values = [getattr(item.sample, name) for name in names]
            rows.writerow([*values, item.sha256, item.error])
            matrices.write((item.image.crop_matrix if item.image else no_crop).tobytes())
            write_image(item)
            if done % _CHECK_EVERY == 0:
                if on_image:
                    on_image(done)
                if shutil.disk_usage(unfinished).free < _RESERVED_BYTES:
                    raise DiskFullError(
                        f"Less than 1 GiB is free at {folder.parent}, where decoded images are "
                        "cached. Free some space, or use another output folder."
                    )


_WriteImage: TypeAlias = Callable[[DecodedSample], None]


def _open_pixels(
    folder: Path,
    shape: tuple[int, int],
    context_shape: tuple[int, int] | None,
    stack: ExitStack,
) -> _WriteImage:
    """Open the files of pixels, and return the function that writes an image to them."""
    blank = np.zeros((*shape, 3), np.uint8)
    blank_context = np.zeros((*(context_shape or (0, 0)), 3), np.uint8)
    pixels = stack.enter_context((folder / PIXELS_NAME).open("wb"))
    context_pixels = stack.enter_context((folder / CONTEXT_NAME).open("wb"))

    def write_image(item: DecodedSample) -> None:
        image = item.image
        pixels.write((image.pixels if image else blank).tobytes())
        if context_shape:
            context_pixels.write((image.context_pixels if image else blank_context).tobytes())

    return write_image


def _open_files(folder: Path, stack: ExitStack) -> _WriteImage:
    """Open the files of encoded images, and return the function that writes an image to them."""
    files = stack.enter_context((folder / FILES_NAME).open("wb"))
    ends = stack.enter_context((folder / ENDS_NAME).open("wb"))

    def write_image(item: DecodedSample) -> None:
        files.write(item.data if item.image else b"")
        ends.write(np.int64(files.tell()).tobytes())

    return write_image


def _remove_stale(caches: Path) -> None:
    """Remove the unfinished folders of processes that were killed."""
    for stale in caches.glob("*.tmp"):
        with suppress(OSError):  # removed meanwhile
            newest = max(each.stat().st_mtime for each in (stale, *stale.iterdir()))
            if time.time() - newest > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
