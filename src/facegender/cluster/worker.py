"""One part -> a Parquet file with its rows. Runs on every machine; knows nothing of Ray."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from facegender import __version__
from facegender.cluster.shards import Shard
from facegender.cluster.storage import OutputLocation, fetch, is_address, open_file
from facegender.errors import FacegenderError, InputError, OutputError
from facegender.images.formats import ImageLimits, looks_like_image
from facegender.inference.classifier import Classifier
from facegender.inference.pipeline import FileResult, PredictOptions, predict_files
from facegender.inference.worker_pool import WorkerPool
from facegender.inputs.archives import list_packed
from facegender.inputs.paths import (
    Archive,
    Folder,
    InputFile,
    archive_items,
    is_image_file,
    over_limit,
)
from facegender.results.details import parquet_rows
from facegender.results.predictions import Status
from facegender.results.summary import RunSummary, SummaryCounter

RUN_FILE = "run.json"
"""What a folder of answers belongs to: written first."""

METADATA = "facegender"
"""Key in a part's Parquet metadata; the value is JSON, see :class:`ShardResult`."""

_FETCHED_AT_ONCE = 64
_BYTES_AT_ONCE = 32 * 2**20
_UNKNOWN_BYTES = 2 * 2**20
_HEAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Job:
    """What every machine has to know to give the same answers as all others.

    Attributes:
        output: where shards are written.
        run_id: digest of the network and the options; see :meth:`Shard.file_name`.
        model: the bytes of the model file, so that no machine needs it on its disk.
        digest: the SHA-256 that the model file states of itself.
        options: how to predict.
        cores: cores of one worker.
        version: of facegender.
    """

    output: OutputLocation
    run_id: str
    model: bytes
    digest: str
    options: PredictOptions
    cores: int
    version: str = __version__


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A shard that was predicted.

    Attributes:
        name: of its file.
        number: its position among the shards.
        rows: number of rows in the file.
        summary: counts, first errors and time.
        machine: the host that predicted it.
        is_cached: an earlier run had written it.
    """

    name: str
    number: int
    rows: int
    summary: RunSummary
    machine: str = ""
    is_cached: bool = False

    def to_json(self) -> str:
        """Write it as JSON, for the metadata of the shard's file."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardResult:
        """Read it from JSON.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        raw: dict[str, Any] = json.loads(text)
        summary: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in raw.pop("summary").items()
        }
        return cls(summary=RunSummary(**summary), **raw)


class Worker:
    """A classifier that answers for one part after the other; a context manager."""

    def __init__(self, job: Job) -> None:
        """Take the network up.

        Raises:
            FacegenderError: this machine has another version, or does not see the output.
        """
        self._job = job
        self._machine = socket.gethostname()
        if job.version != __version__:
            raise FacegenderError(
                f"{self._machine} has facegender {__version__}, and the machine that asks has "
                f"{job.version}. Install the same version on all machines"
            )
        run = job.output.read(RUN_FILE)
        if run is None or json.loads(run)["run_id"] != job.run_id:
            raise OutputError(
                f"{self._machine} does not see the folder {job.output.address} as the machine "
                "that asks does. Give one that all machines share, or one in an object store"
            )
        with tempfile.TemporaryDirectory(prefix="facegender-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(job.model)
            self._classifier = Classifier.load(path, threads=job.cores)
        if self._classifier.digest != job.digest:
            raise FacegenderError(f"the network came to {self._machine} damaged. Run it again")
        self._pool = WorkerPool(job.cores, timeout=job.options.timeout)

    def __enter__(self) -> Worker:
        """Give the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the reading processes."""
        self._pool.__exit__(None, None, None)

    def do(self, shard: Shard) -> ShardResult:
        """Answer for a part and write its file, or find that it is written.

        Raises:
            InputError: this machine does not see what the part is in.
            OutputError: the file cannot be written.
        """
        job = self._job
        name = shard.file_name(job.run_id)
        earlier = _earlier_result(job.output, name)
        if earlier is not None:
            is_to_retry = job.options.retry_errors and earlier.summary.counts["unreadable"]
            if not is_to_retry:
                return replace(earlier, is_cached=True)
        if not is_address(shard.root) and shard.root and not Path(shard.root).exists():
            raise InputError(
                f"{self._machine} does not see {shard.root}. Put the images where all machines "
                "see them, in a shared folder or an object store"
            )
        files = shard_files(shard, job.options.limits)
        results = predict_files(files, self._classifier, job.options, pool=self._pool)
        data, result = _to_parquet(results, name, shard.number, self._machine)
        job.output.write(name, data)
        return result


def _to_parquet(
    results: Iterable[FileResult], name: str, number: int, machine: str
) -> tuple[bytes, ShardResult]:
    """Write results as Parquet, with the shard's own result in the metadata."""
    started = time.perf_counter()
    counter, rows = SummaryCounter(), 0
    file = io.BytesIO()
    with parquet_rows(file) as (write, add_metadata):
        for result in results:
            counter.add(result.rows)
            for row in result.rows:
                if row.status != Status.SKIPPED:
                    write(row)
                    rows += 1
        summary = counter.summary(seconds=round(time.perf_counter() - started, 3))
        shard_result = ShardResult(name, number, rows, summary, machine)
        add_metadata({METADATA: shard_result.to_json()})
    return file.getvalue(), shard_result


def _earlier_result(location: OutputLocation, name: str) -> ShardResult | None:
    """Find what a part's file says of itself; what is no such file is done again."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    data = location.read(name)
    if data is None:
        return None
    try:
        metadata = read_metadata(pyarrow.BufferReader(data)).metadata
        return ShardResult.from_json(metadata[METADATA.encode()])
    except (pyarrow.ArrowException, KeyError, ValueError, TypeError):
        return None


def shard_files(shard: Shard, limits: ImageLimits) -> Iterator[InputFile]:
    """Give a part's files; those of a store are fetched ahead of their use.

    A file that cannot be had is an item that says why.
    """
    if shard.is_archive and is_address(shard.root):
        return _ahead(_in_batches(_remote_archive(shard, limits)))
    if shard.is_archive:
        return iter(Archive(Path(shard.root), shard.prefix, limits))
    if is_address(shard.root or shard.names[0]):
        return _ahead(_remote_files(shard, limits))
    return iter(Folder(Path(shard.root), shard.names, shard.prefix, shard.is_list))


def _remote_archive(shard: Shard, limits: ImageLimits) -> Iterator[InputFile]:
    members = list_packed(shard.root, partial(open_file, shard.root))
    return archive_items(shard.root, members, shard.state, shard.prefix, limits)


def _in_batches(items: Iterator[InputFile]) -> Iterator[list[InputFile]]:
    batch: list[InputFile] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data)
        if len(batch) == _FETCHED_AT_ONCE or size > _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    yield batch


def _remote_files(shard: Shard, limits: ImageLimits) -> Iterator[list[InputFile]]:
    """Fetch files so many at a time that their bytes stay within bounds."""
    batch: list[tuple[str, int | None]] = []
    size = 0
    for name, length in zip(shard.names, shard.sizes, strict=True):
        batch.append((name, length))
        size += _UNKNOWN_BYTES if length is None else length
        if len(batch) == _FETCHED_AT_ONCE or size > _BYTES_AT_ONCE:
            yield _fetched(shard, batch, limits)
            batch, size = [], 0
    yield _fetched(shard, batch, limits)


def _fetched(
    shard: Shard, batch: list[tuple[str, int | None]], limits: ImageLimits
) -> list[InputFile]:
    addresses = {name: shard.root + name for name, _ in batch}
    heads = {
        addresses[name]: _HEAD_BYTES
        for name, length in batch
        if length != 0 and not looks_like_image(name, b"")
    }
    too_large = {name: n for name, n in batch if n is not None and n > limits.bytes}
    wanted = [addresses[name] for name, _ in batch if name not in too_large]
    got = dict(zip(wanted, fetch(wanted, heads), strict=True))
    more = [
        address
        for address in heads
        if isinstance(head := got.get(address), bytes) and is_image_file(address, head)
    ]
    got |= zip(more, fetch(more), strict=True)
    items = []
    for name, _ in batch:
        key, data = shard.prefix + name, got.get(addresses[name])
        if data is None:
            items.append(InputFile(key, problem=over_limit(too_large[name], limits)))
        elif isinstance(data, str):
            items.append(InputFile(key, problem=data))
        elif len(data) > limits.bytes:
            items.append(InputFile(key, problem=over_limit(len(data), limits)))
        else:
            is_image = is_image_file(name, data)
            items.append(InputFile(key, data=data if is_image else b"", is_image=is_image))
    return items


def _ahead(batches: Iterator[list[InputFile]]) -> Iterator[InputFile]:
    """Fetch a batch while the one before it is answered."""
    with ThreadPoolExecutor(1, "facegender-fetch") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield from batch
