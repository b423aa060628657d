"""Samples -> pixels at the network's size, decoded once and kept memory-mapped."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError, OutputError, UnreadablePictureError
from facegender.images import Pixels, Resize, decode, fit
from facegender.model_file import LABELS
from facegender.training.samples import Sample, stream_samples

_STORE_VERSION = 1
_SPARE_BYTES = 1 << 30
_STALE_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Store:
    """Every picture of some archives at the network's size, as ``fit`` brings it there.

    ``samples``, ``digests`` (SHA-256 of the files) and ``errors`` ("" where readable) run parallel
    to ``pixels``, ``uint8 [N, H, W, 3]``, memory-mapped; an unreadable picture's pixels are zeros.
    """

    samples: list[Sample]
    digests: list[str]
    errors: list[str]
    pixels: Pixels

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index into ``LABELS`` of every sample, ``int64 [N]``."""
        return np.array([LABELS.index(sample.label) for sample in self.samples], np.int64)


def store_folder(run: Path) -> Path:
    """Folder of the stores that all runs beside ``run`` share; it may be deleted at any time."""
    return run.absolute().parent / ".store"


def open_store(
    inputs: Sequence[Path],
    table: Path | None,
    resize: Resize,
    folder: Path,
    *,
    on_picture: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Store:
    """Decode all pictures of some archives into a store, or open the one made before.

    The store's name is a fingerprint of the inputs (names, sizes, times), the table's content and
    the resize rule, so another input makes another store.

    Args:
        inputs: archives or folders.
        table: CSV joined on the path inside the archive, or None.
        resize: how pictures are brought to the network's size.
        folder: where stores are kept; made when missing.
        on_picture: called with the number of pictures done so far.
        on_skip: called with the name and reason of a member that was passed over.

    Raises:
        InputError: no samples, a damaged archive, a wrong table.
        OutputError: not enough space.
    """
    place = folder / _fingerprint(inputs, table, resize)
    if not place.is_dir():
        _build_store(place, stream_samples(inputs, table, on_skip=on_skip), resize, on_picture)
    with (place / "samples.csv").open(
        encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    names = [item.name for item in fields(Sample)]
    shape = (len(rows), resize.height, resize.width, 3)
    return Store(
        [Sample(**{name: row[name] for name in names}) for row in rows],
        [row["sha256"] for row in rows],
        [row["error"] for row in rows],
        np.memmap(place / "pixels.u8", np.uint8, "r", shape=shape),
    )


def _fingerprint(inputs: Sequence[Path], table: Path | None, resize: Resize) -> str:
    """Name a store by what went into it."""
    digest = hashlib.blake2b(digest_size=8)
    facts: list[Any] = [_STORE_VERSION, asdict(resize)]
    for path in inputs:
        if not path.exists():
            raise InputError(f"there is no {path}")
        paths = sorted(path.rglob("*")) if path.is_dir() else [path]
        for item in paths:
            stat = item.stat() if item == path else item.lstat()  # links inside are not followed
            facts.append([str(item.relative_to(path.parent)), stat.st_size, stat.st_mtime_ns])
    if table is not None:
        try:
            facts.append(hashlib.sha256(table.read_bytes()).hexdigest())
        except OSError as error:
            raise InputError(f"cannot read the table {table}: {error.strerror}") from error
    digest.update(json.dumps(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _build_store(
    place: Path,
    stream: Iterator[tuple[Sample, bytes]],
    resize: Resize,
    on_picture: Callable[[int], None] | None,
) -> None:
    """Write a store under a temporary name and rename it when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for stale in place.parent.glob("*.tmp"):  # of processes that were killed
        if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(stale, ignore_errors=True)
    unfinished = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process with the same number
    unfinished.mkdir()
    blank = np.zeros((resize.height, resize.width, 3), np.uint8)
    try:
        with (
            (unfinished / "pixels.u8").open("wb") as pixels,
            (unfinished / "samples.csv").open(
                "w", encoding="utf-8", errors="surrogateescape", newline=""
            ) as table,
        ):
            rows = csv.writer(table)
            rows.writerow([*(item.name for item in fields(Sample)), "sha256", "error"])
            for done, (sample, digest, picture, error) in enumerate(decoded(stream, resize), 1):
                values = [getattr(sample, item.name) for item in fields(Sample)]
                rows.writerow([*values, digest, error])
                pixels.write((blank if picture is None else picture).tobytes())
                if done % 256 == 0:
                    if on_picture:
                        on_picture(done)
                    if shutil.disk_usage(unfinished).free < _SPARE_BYTES:
                        raise OutputError(
                            f"less than 1 GiB is free at {place.parent}: the pictures are kept "
                            f"there at {blank.nbytes:,} bytes each; free some space or use "
                            "another output folder"
                        )
        try:
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():  # else another run was quicker
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def decoded(
    stream: Iterator[tuple[Sample, bytes]], resize: Resize
) -> Iterator[tuple[Sample, str, Pixels | None, str]]:
    """Decode in threads, a few pictures ahead, in the stream's order.

    Returns:
        For each sample: itself, the SHA-256 of its bytes, its pixels at the network's size or None,
        and why it cannot be read or "".
    """

    def work(data: bytes) -> tuple[str, Pixels | None, str]:
        digest = hashlib.sha256(data).hexdigest()
        try:
            return digest, fit(decode(data), resize), ""
        except UnreadablePictureError as error:
            return digest, None, str(error)

    threads = os.cpu_count() or 1
    pending: deque[tuple[Sample, Future[tuple[str, Pixels | None, str]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for sample, data in stream:
            pending.append((sample, pool.submit(work, data)))
            if len(pending) > 8 * threads:
                done, future = pending.popleft()
                yield done, *future.result()
        while pending:
            done, future = pending.popleft()
            yield done, *future.result()
