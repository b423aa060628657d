"""One part -> a Parquet file with its rows. Runs on every machine; knows nothing of Ray."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from facegender import __version__
from facegender.cluster.shards import Part
from facegender.cluster.storage import Place, fetch, is_address, open_file
from facegender.errors import FacegenderError, InputError, OutputError
from facegender.images.formats import Limits, looks_like_picture
from facegender.inference.classifier import Classifier
from facegender.inference.pipeline import Answered, predict_items
from facegender.inference.worker_pool import Pool
from facegender.inputs.archives import list_packed
from facegender.inputs.paths import (
    Archive,
    Folder,
    Item,
    archive_items,
    is_picture_file,
    over_limit,
)
from facegender.results.details import parquet_rows
from facegender.results.predictions import Status
from facegender.results.summary import Summary

RUN_FILE = "run.json"
"""What a folder of answers belongs to: written first."""

METADATA = "facegender"
"""Key in a part's Parquet metadata; the value is JSON, see :class:`Done`."""

_FETCHED_AT_ONCE = 64
_BYTES_AT_ONCE = 32 * 2**20
_UNKNOWN_BYTES = 2 * 2**20
_HEAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Task:
    """What every machine has to know to answer as all the others do.

    Attributes:
        output: where the parts are written.
        binding: a digest of the network and the options; see :meth:`Part.file_name`.
        model: the model file itself, so that no machine needs it on its disk.
        digest: the SHA-256 that it states of itself.
        faces: see :func:`facegender.inference.pipeline.predict_folder`.
        unknown_below: the threshold.
        limits: what a picture may cost.
        seconds: how long the reading of one picture may take.
        cores: how many to use.
        retry_errors: do parts again in which something could not be read.
        version: of facegender.
    """

    output: Place
    binding: str
    model: bytes
    digest: str
    faces: str
    unknown_below: float
    limits: Limits
    seconds: float
    cores: int
    retry_errors: bool = False
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Done:
    """A part that was answered.

    Attributes:
        name: of its file.
        number: its place among the parts.
        rows: in the file.
        counts: pictures by what became of them, as in the summary of ``predict``.
        faces: in all pictures.
        reasons: of the first pictures that could not be read.
        seconds: that it took.
        machine: that did it.
        is_kept: it was there already.
    """

    name: str
    number: int
    rows: int
    counts: dict[str, int]
    faces: int
    reasons: tuple[str, ...] = field(default=())
    seconds: float = 0.0
    machine: str = ""
    is_kept: bool = False

    @property
    def pictures(self) -> int:
        """How many pictures there were."""
        return sum(self.counts.values()) - self.counts["skipped"]

    def to_json(self) -> str:
        """Write it as it is kept in the part's metadata."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Done:
        """Read it back.

        Raises:
            ValueError, TypeError: it is none.
        """
        raw: dict[str, Any] = json.loads(text)
        return cls(**(raw | {"reasons": tuple(raw["reasons"])}))


class Worker:
    """A classifier that answers for one part after the other; a context manager."""

    def __init__(self, task: Task) -> None:
        """Take the network up.

        Raises:
            FacegenderError: this machine has another version, or does not see the output.
        """
        self._task = task
        self._machine = socket.gethostname()
        if task.version != __version__:
            raise FacegenderError(
                f"{self._machine} has facegender {__version__}, and the machine that asks has "
                f"{task.version}. Install the same version on all machines"
            )
        run = task.output.read(RUN_FILE)
        if run is None or json.loads(run)["binding"] != task.binding:
            raise OutputError(
                f"{self._machine} does not see the folder {task.output.address} as the machine "
                "that asks does. Give one that all machines share, or one in an object store"
            )
        with tempfile.TemporaryDirectory(prefix="facegender-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(task.model)
            self._classifier = Classifier.load(path, threads=task.cores)
        if self._classifier.digest != task.digest:
            raise FacegenderError(f"the network came to {self._machine} damaged. Run it again")
        self._pool = Pool(task.cores, seconds=task.seconds)

    def __enter__(self) -> Worker:
        """Give the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the reading processes."""
        self._pool.__exit__(None, None, None)

    def do(self, part: Part) -> Done:
        """Answer for a part and write its file, or find that it is written.

        Raises:
            InputError: this machine does not see what the part is in.
            OutputError: the file cannot be written.
        """
        task, started = self._task, time.perf_counter()
        name = part.file_name(task.binding)
        kept = _kept(task.output, name)
        if kept is not None and not (task.retry_errors and kept.counts["unreadable"]):
            return replace(kept, is_kept=True)
        if not is_address(part.root) and part.root and not Path(part.root).exists():
            raise InputError(
                f"{self._machine} does not see {part.root}. Put the pictures where all machines "
                "see them, in a shared folder or an object store"
            )
        answered = predict_items(
            items_of(part, task.limits),
            self._classifier,
            faces=task.faces,
            unknown_below=task.unknown_below,
            limits=task.limits,
            seconds=task.seconds,
            pool=self._pool,
        )
        data, done = _as_parquet(answered, Done(name, part.number, 0, {}, 0, (), 0.0), started)
        task.output.write(name, data)
        return replace(done, machine=self._machine)


def _as_parquet(answered: Iterable[Answered], done: Done, started: float) -> tuple[bytes, Done]:
    summary, rows = Summary(), 0
    file = io.BytesIO()
    with parquet_rows(file) as (write, add_metadata):
        for each in answered:
            summary.add(each.rows)
            for row in each.rows:
                if row.status != Status.SKIPPED:
                    write(row)
                    rows += 1
        done = replace(
            done,
            rows=rows,
            counts=summary.counts,
            faces=summary.faces,
            reasons=tuple(summary.reasons),
            seconds=round(time.perf_counter() - started, 3),
        )
        add_metadata({METADATA: done.to_json()})
    return file.getvalue(), done


def _kept(place: Place, name: str) -> Done | None:
    """Find what a part's file says of itself; what is no such file is done again."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    data = place.read(name)
    if data is None:
        return None
    try:
        metadata = read_metadata(pyarrow.BufferReader(data)).metadata
        return Done.from_json(metadata[METADATA.encode()])
    except (pyarrow.ArrowException, KeyError, ValueError, TypeError):
        return None


def items_of(part: Part, limits: Limits) -> Iterator[Item]:
    """Give a part's files; those of a store are fetched ahead of their use.

    A file that cannot be had is an item that says why.
    """
    if part.is_archive and is_address(part.root):
        return _ahead(_in_batches(_remote_archive(part, limits)))
    if part.is_archive:
        return iter(Archive(Path(part.root), part.prefix, limits))
    if is_address(part.root or part.names[0]):
        return _ahead(_remote_files(part, limits))
    return iter(Folder(Path(part.root), part.names, part.prefix, part.is_list))


def _remote_archive(part: Part, limits: Limits) -> Iterator[Item]:
    members = list_packed(part.root, partial(open_file, part.root))
    return archive_items(part.root, members, part.state, part.prefix, limits)


def _in_batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data)
        if len(batch) == _FETCHED_AT_ONCE or size > _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    yield batch


def _remote_files(part: Part, limits: Limits) -> Iterator[list[Item]]:
    """Fetch files so many at a time that their bytes stay within bounds."""
    batch: list[tuple[str, int | None]] = []
    size = 0
    for name, length in zip(part.names, part.sizes, strict=True):
        batch.append((name, length))
        size += _UNKNOWN_BYTES if length is None else length
        if len(batch) == _FETCHED_AT_ONCE or size > _BYTES_AT_ONCE:
            yield _fetched(part, batch, limits)
            batch, size = [], 0
    yield _fetched(part, batch, limits)


def _fetched(part: Part, batch: list[tuple[str, int | None]], limits: Limits) -> list[Item]:
    addresses = {name: part.root + name for name, _ in batch}
    heads = {
        addresses[name]: _HEAD_BYTES
        for name, length in batch
        if length != 0 and not looks_like_picture(name, b"")
    }
    too_large = {name: n for name, n in batch if n is not None and n > limits.bytes}
    wanted = [addresses[name] for name, _ in batch if name not in too_large]
    got = dict(zip(wanted, fetch(wanted, heads), strict=True))
    more = [
        address
        for address in heads
        if isinstance(head := got.get(address), bytes) and is_picture_file(address, head)
    ]
    got |= zip(more, fetch(more), strict=True)
    items = []
    for name, _ in batch:
        key, data = part.prefix + name, got.get(addresses[name])
        if data is None:
            items.append(Item(key, problem=over_limit(too_large[name], limits)))
        elif isinstance(data, str):
            items.append(Item(key, problem=data))
        elif len(data) > limits.bytes:
            items.append(Item(key, problem=over_limit(len(data), limits)))
        else:
            is_picture = is_picture_file(name, data)
            items.append(Item(key, data=data if is_picture else b"", is_picture=is_picture))
    return items


def _ahead(batches: Iterator[list[Item]]) -> Iterator[Item]:
    """Fetch a batch while the one before it is answered."""
    with ThreadPoolExecutor(1, "facegender-fetch") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield from batch
