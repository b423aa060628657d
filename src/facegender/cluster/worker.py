"""Worker: predicts shards and writes each as a Parquet file. Runs on every machine, without Ray."""

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
from facegender.cluster.storage import OutputLocation, fetch, is_url, open_file
from facegender.errors import FacegenderError, InputError, OutputError
from facegender.images.formats import HEAD_BYTES, ImageLimits, describe_excess, looks_like_image
from facegender.inference.classifier import Classifier
from facegender.inference.pipeline import FileResult, PredictOptions, predict_files
from facegender.inference.worker_pool import WorkerPool
from facegender.inputs.archives import list_archive_members
from facegender.inputs.sources import Archive, Folder, InputFile, archive_files, with_content
from facegender.model.model_file import MODEL_NAME
from facegender.results.details import parquet_rows
from facegender.results.predictions import Status
from facegender.results.summary import RunSummary, SummaryCounter

RUN_FILE = "run.json"
"""The file in an output folder that describes its run: written first."""

METADATA_KEY = "facegender"
"""Key in the Parquet metadata of a shard's file; the value is a :class:`ShardResult` as JSON."""

_FETCH_FILES = 64
_FETCH_BYTES = 32 * 2**20
_ASSUMED_FILE_BYTES = 2 * 2**20  # of a file whose size is unknown


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a machine needs to give the same results as all others.

    Attributes:
        output: where shards are written.
        run_id: digest of the model and the options; see :meth:`Shard.file_name`.
        model: the content of the model file, so that no machine needs it on its disk.
        digest: the SHA-256 in the model file's metadata.
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
        number: its index among the shards.
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
        """Return it as JSON, for the metadata of the shard's file."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardResult:
        """Read it from JSON.

        Raises:
            ValueError, TypeError, KeyError: the text is something else.
        """
        raw: dict[str, Any] = json.loads(text)
        summary: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in raw.pop("summary").items()
        }
        return cls(summary=RunSummary(**summary), **raw)


class Worker:
    """Predicts shards one after the other; a context manager."""

    def __init__(self, job: Job) -> None:
        """Load the model and start the processes that read images.

        Raises:
            FacegenderError: this machine has another version, or got a damaged model.
            OutputError: this machine does not see the output folder.
        """
        self._job = job
        self._machine = socket.gethostname()
        if job.version != __version__:
            raise FacegenderError(
                f"{self._machine} has facegender {__version__}, but the run was started with "
                f"{job.version}. Install the same version on all machines"
            )
        run = job.output.read(RUN_FILE)
        if run is None or json.loads(run)["run_id"] != job.run_id:
            raise OutputError(
                f"{self._machine} does not see the output folder {job.output.address} of this run. "
                "Use a folder that all machines share, or an object store"
            )
        with tempfile.TemporaryDirectory(prefix="facegender-") as folder:
            path = Path(folder) / MODEL_NAME
            path.write_bytes(job.model)
            self._classifier = Classifier.load(path, threads=job.cores)
        if self._classifier.digest != job.digest:
            raise FacegenderError(f"The model arrived damaged at {self._machine}. Run it again")
        self._pool = WorkerPool(job.cores, timeout=job.options.timeout)

    def __enter__(self) -> Worker:
        """Return the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes that read images."""
        self._pool.__exit__(None, None, None)

    def run(self, shard: Shard) -> ShardResult:
        """Predict a shard and write its file, unless the file exists.

        Raises:
            InputError: this machine does not see the files of the shard.
            OutputError: the file cannot be written.
        """
        job = self._job
        name = shard.file_name(job.run_id)
        earlier = _earlier_result(job.output, name)
        if earlier is not None:
            counts = earlier.summary.counts
            has_failures = counts["unreadable"] + counts.get("unsupported", 0) > 0
            if not (job.options.retry_errors and has_failures):
                return replace(earlier, is_cached=True)
        if not is_url(shard.root) and shard.root and not Path(shard.root).exists():
            raise InputError(
                f"{self._machine} does not see {shard.root}. Put the images in a folder that all "
                "machines share, or in an object store"
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
        add_metadata({METADATA_KEY: shard_result.to_json()})
    return file.getvalue(), shard_result


def _earlier_result(location: OutputLocation, name: str) -> ShardResult | None:
    """Read the result in the metadata of a shard's file; None if there is no valid file."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    data = location.read(name)
    if data is None:
        return None
    try:
        metadata = read_metadata(pyarrow.BufferReader(data)).metadata
        return ShardResult.from_json(metadata[METADATA_KEY.encode()])
    except (pyarrow.ArrowException, KeyError, ValueError, TypeError):
        return None


def shard_files(shard: Shard, limits: ImageLimits) -> Iterator[InputFile]:
    """Yield the files of a shard; files in a store are fetched ahead.

    A file that cannot be read has a problem that says why.

    Args:
        shard: the shard.
        limits: maximum size of a file.
    """
    if shard.is_archive and is_url(shard.root):
        return _prefetch(_in_batches(_remote_archive(shard, limits)))
    if shard.is_archive:
        return iter(Archive(Path(shard.root), shard.prefix, limits))
    if is_url(shard.root or shard.names[0]):
        return _prefetch(_remote_files(shard, limits))
    return iter(Folder(Path(shard.root), shard.names, shard.prefix, shard.is_list))


def _remote_archive(shard: Shard, limits: ImageLimits) -> Iterator[InputFile]:
    members = list_archive_members(shard.root, partial(open_file, shard.root))
    return archive_files(shard.root, members, shard.state, shard.prefix, limits)


def _in_batches(files: Iterator[InputFile]) -> Iterator[list[InputFile]]:
    batch: list[InputFile] = []
    size = 0
    for file in files:
        batch.append(file)
        size += len(file.data)
        if len(batch) == _FETCH_FILES or size > _FETCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _remote_files(shard: Shard, limits: ImageLimits) -> Iterator[list[InputFile]]:
    """Fetch the files of a store in batches of bounded size."""
    batch: list[tuple[str, int | None]] = []
    size = 0
    for name, length in zip(shard.names, shard.sizes, strict=True):
        batch.append((name, length))
        size += _ASSUMED_FILE_BYTES if length is None else length
        if len(batch) == _FETCH_FILES or size > _FETCH_BYTES:
            yield _fetch_batch(shard, batch, limits)
            batch, size = [], 0
    yield _fetch_batch(shard, batch, limits)


def _fetch_batch(
    shard: Shard, batch: list[tuple[str, int | None]], limits: ImageLimits
) -> list[InputFile]:
    """Fetch files; without an image suffix first the head, then the file if it is an image."""
    urls = {name: shard.root + name for name, _ in batch}
    head_sizes = {
        urls[name]: HEAD_BYTES
        for name, length in batch
        if length != 0 and not looks_like_image(name, b"")
    }
    too_large = {name: n for name, n in batch if n is not None and n > limits.bytes}
    wanted = [urls[name] for name, _ in batch if name not in too_large]
    contents = dict(zip(wanted, fetch(wanted, head_sizes), strict=True))
    images = [
        url
        for url in head_sizes
        if isinstance(head := contents.get(url), bytes) and looks_like_image(url, head)
    ]
    contents |= zip(images, fetch(images), strict=True)
    files = []
    for name, _ in batch:
        key, data = shard.prefix + name, contents.get(urls[name])
        if data is None:
            files.append(InputFile(key, problem=describe_excess(too_large[name], limits)))
        elif isinstance(data, str):
            files.append(InputFile(key, problem=data))
        elif len(data) > limits.bytes:
            files.append(InputFile(key, problem=describe_excess(len(data), limits)))
        else:
            files.append(with_content(InputFile(key), name, data))
    return files


def _prefetch(batches: Iterator[list[InputFile]]) -> Iterator[InputFile]:
    """Fetch the next batch while the current one is predicted."""
    with ThreadPoolExecutor(1, "facegender-fetch") as thread:
        upcoming = thread.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = thread.submit(next, batches, None)
            yield from batch
