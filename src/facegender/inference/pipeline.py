"""Files -> a stream of result rows.

Three stages, in :func:`_answers`: pictures are read a bounded way ahead, in other processes; their
faces are gathered into runs of one size, which the network answers side by side in threads; rows
leave in the order in which the files came.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from facegender.errors import FacegenderError, UnreadablePictureError
from facegender.images.formats import LIMITS, Limits
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.inference.journal import Journal, Kept
from facegender.inference.preprocess import Reader, Reading, get_ready, read_picture
from facegender.inference.worker_pool import DiedError, Pool
from facegender.inputs.paths import Inputs, Item, gather
from facegender.model.runtime import BATCH, cores
from facegender.results.predictions import Prediction, Status

LOOK_AHEAD = 64
"""Pictures that are read ahead of the network, and pictures whose answers are waited for (on more
than one core three groups a core); with their bytes it bounds the memory."""

BYTES_AHEAD = 64 * 2**20
"""Most bytes of pictures out of archives that wait to be decoded, and as many that wait for their
answers."""

GROUP = 16
"""Most pictures that go to a reading process together."""

GROUP_BYTES = 512 * 2**10
"""Bytes of files at which a group is full: large photos go one by one, to whichever is free."""

SECONDS = 60.0
"""How long the reading of one picture may take."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A file with its rows: one for each face, or one that says why there is none."""

    item: Item
    rows: tuple[Prediction, ...]
    thumbnail: bytes = b""
    is_kept: bool = False
    """From an earlier run's journal."""

    @property
    def is_new(self) -> bool:
        """Tell whether a file was read for it now."""
        return self.item.is_picture and not self.item.problem and not self.is_kept


def predict_folder(
    path: str | os.PathLike[str],
    *,
    recursive: bool = False,
    classifier: Classifier | None = None,
    faces: str = "auto",
    unknown_below: float | None = None,
) -> Iterator[Prediction]:
    """Answer for every face in a folder's pictures, in natural order of names.

    Example:
        >>> for row in predict_folder("faces"):
        ...     if row.label == "female":
        ...         print(row.file, row.face, row.status.value)
        eileen_collins.jpg 0 ok

    Args:
        path: the folder (or an archive, a list, a single picture); nothing in it is changed.
        recursive: also what is in its folders (links to folders are not followed).
        classifier: the network; None loads the one that ships.
        faces: ``detect`` finds every face, ``whole`` takes each picture as one face, as it is;
            ``auto`` finds them and leaves out what stands beside a face that fills the picture.
        unknown_below: answers less probable than this are ``unknown``; None takes the network's
            own threshold.

    Returns:
        A row for each face, the one that the picture shows first; one without an answer where
        there is no face (``no_face``), the picture cannot be read (``unreadable``, with the
        reason) or the file is none (``skipped``). Memory does not grow with the folder, but for
        its names.

    Raises:
        InputError: the folder is not there or cannot be listed, or another word for ``faces``.
        ModelFileError: the network that ships cannot be loaded.
        ValueError: a threshold outside 0.5 to 1.
    """
    inputs = gather([path], recursive=recursive)
    answered = predict_items(
        inputs, classifier or Classifier.load(), faces=faces, unknown_below=unknown_below
    )
    return (row for each in answered for row in each.rows)


def predict_items(
    items: Iterable[Item],
    classifier: Classifier,
    *,
    faces: str = "auto",
    unknown_below: float | None = None,
    limits: Limits = LIMITS,
    detector: Path | None = None,
    has_thumbnails: bool = False,
    seconds: float = SECONDS,
    journal: Journal | None = None,
    retry_errors: bool = False,
    pool: Pool | None = None,
) -> Iterator[Answered]:
    """Answer for files, in the order given, one after the other.

    Args:
        items: the files; see :func:`facegender.inputs.paths.gather`.
        classifier: the network.
        faces: see :func:`predict_folder`.
        unknown_below: likewise.
        limits: what a picture may cost.
        detector: a YuNet file for OpenCV instead of the detector that ships.
        has_thumbnails: make a small JPEG of each picture, for the report.
        seconds: how long the reading of one picture may take.
        journal: where answers are kept and, of an earlier run, found.
        retry_errors: read those again that an earlier run could not.
        pool: processes to read in that serve several calls; None starts some for this one.

    Raises:
        InputError: another word for ``faces``.
        ValueError: a threshold outside 0.5 to 1.
    """
    described = classifier.description
    reader = Reader(described.crop, described.resize, faces, limits, detector, has_thumbnails)
    threshold = classifier.threshold(unknown_below)
    total = items.total if isinstance(items, Inputs) else length_hint(items, -1)
    pools: Callable[[], AbstractContextManager[Pool]] = partial(
        start_reading, None if total == -1 else total, seconds
    )
    if pool is not None:
        pools = lambda: nullcontext(pool)  # noqa: E731
    return _answers(iter(items), classifier, threshold, reader, pools, journal, retry_errors)


def start_reading(total: int | None, seconds: float = SECONDS) -> Pool:
    """Start processes that read for :func:`predict_items`; they get ready beside what comes next.

    Args:
        total: how many files there are; None where that is not known.
        seconds: how long the reading of one picture may take.
    """
    processes = cores() if total is None else min(cores(), 1 + total // BATCH)
    pool = Pool(processes, seconds=seconds)
    for _ in range(pool.processes):
        pool.submit(get_ready)
    return pool


def _answers(
    coming: Iterator[Item],
    classifier: Classifier,
    threshold: float,
    reader: Reader,
    make_pool: Callable[[], AbstractContextManager[Pool]],
    journal: Journal | None,
    retry_errors: bool,
) -> Iterator[Answered]:
    """Read in other processes, run the network in threads, answer in order; see the module."""
    known = partial(_known, journal=journal, retry_errors=retry_errors)
    most = max(LOOK_AHEAD, 3 * GROUP * classifier.threads)
    waiting: deque[_Waiting] = deque()
    held = 0  # bytes of files out of archives among those that wait
    with make_pool() as pool, _Network(classifier) as network:

        def first() -> Answered:
            nonlocal held
            held -= len(waiting[0].item.data)
            answered = _answered(waiting.popleft(), network, classifier, threshold)
            if journal is not None and answered.is_new:
                journal.add(answered.item, answered.rows, answered.thumbnail)
            return answered

        for item, read in _read_ahead(coming, known, pool, reader, most):
            frames = read.frames if isinstance(read, Reading) else ()
            waiting.append(_Waiting(item, read, [network.ask(frame.pixels) for frame in frames]))
            held += len(item.data)
            while waiting and (
                network.is_busy
                or len(waiting) >= most
                or held > BYTES_AHEAD
                or waiting[0].is_answered
            ):
                yield first()
        while waiting:
            yield first()


_Settled = Kept | Prediction


def _known(item: Item, journal: Journal | None, retry_errors: bool) -> _Settled | None:
    """Tell what needs no reading: what an earlier run answered, and what cannot be read at all."""
    if not item.is_picture:
        return Prediction(item.key, Status.SKIPPED)
    if item.problem:
        return Prediction(item.key, Status.UNREADABLE, error=item.problem)
    return None if journal is None else journal.kept(item, with_bad=not retry_errors)


@dataclass(frozen=True, slots=True)
class _Group:
    """Files in a row, with what is known of them; what is not known is being read."""

    files: list[tuple[Item, _Settled | None]]
    readings: Future[list[Reading | Exception | None]]

    @property
    def bytes_held(self) -> int:
        return sum(len(item.data) for item, _ in self.files)


def _read_ahead(
    coming: Iterator[Item],
    known: Callable[[Item], _Settled | None],
    pool: Pool,
    reader: Reader,
    most: int,
) -> Iterator[tuple[Item, Kept | Reading | Prediction]]:
    """Have files read in other processes, ``most`` of them ahead; give them in their order."""
    pending: deque[_Group] = deque()
    for files in _grouped((item, known(item)) for item in coming):
        unread = [
            item.data if item.path is None else item.path for item, kept in files if kept is None
        ]
        pending.append(_Group(files, pool.submit_group(read_picture, unread, reader)))
        while pending and (
            sum(len(group.files) for group in pending) >= most
            or sum(group.bytes_held for group in pending) > BYTES_AHEAD
        ):
            yield from _outcomes(pending.popleft())
    while pending:
        yield from _outcomes(pending.popleft())


def _grouped(
    files: Iterable[tuple[Item, _Settled | None]],
) -> Iterator[list[tuple[Item, _Settled | None]]]:
    """Gather files that are small into groups, for each group costs two changes of process."""
    group: list[tuple[Item, _Settled | None]] = []
    size = 0
    for item, kept in files:
        group.append((item, kept))
        size += item.size if kept is None else 0
        if len(group) == GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _outcomes(group: _Group) -> Iterator[tuple[Item, Kept | Reading | Prediction]]:
    """Wait for a group that is being read; what cannot be read is a row that says why."""
    readings = iter(group.readings.result())
    for item, kept in group.files:
        reading = kept or next(readings)
        if reading is None:
            yield item, Prediction(item.key, Status.SKIPPED)
        elif isinstance(reading, (UnreadablePictureError, DiedError)):
            yield item, Prediction(item.key, Status.UNREADABLE, error=str(reading))
        elif isinstance(reading, FacegenderError):  # of all pictures, such as a missing library
            raise reading
        elif isinstance(reading, Exception):
            reason = f"{type(reading).__name__}: {reading}"
            yield item, Prediction(item.key, Status.UNREADABLE, error=reason)
        else:
            yield item, reading


@dataclass(slots=True)
class _Run:
    """One run of the network: its pictures so far, and its answers once it is begun."""

    pixels: Pixels
    count: int = 0
    answers: Future[NDArray[np.float32]] | None = None

    @property
    def is_done(self) -> bool:
        return self.answers is not None and self.answers.done()


class _Network:
    """Gathers faces into runs of one size, and has the network answer them side by side.

    A picture's faces may lie in two runs. A run begins when it is full, or when an answer out of
    it is waited for.
    """

    def __init__(self, classifier: Classifier) -> None:
        resize = classifier.description.resize
        self._shape = (BATCH, resize.height, resize.width, 3)
        self._classifier = classifier
        self._most = 2 * classifier.threads
        self._threads = ThreadPoolExecutor(classifier.threads, "facegender-network")
        self._filling: _Run | None = None
        self._begun: deque[_Run] = deque()

    def ask(self, pixels: Pixels) -> tuple[_Run, int]:
        """Take a face; give the run that it is part of, and its place there."""
        run = self._filling = self._filling or _Run(np.empty(self._shape, np.uint8))
        run.pixels[run.count] = pixels
        run.count += 1
        if run.count == BATCH:
            self._begin(run)
        return run, run.count - 1

    def answer(self, run: _Run, place: int) -> NDArray[np.float32]:
        """Wait for one face's probabilities, ``float32 [2]``."""
        if run.answers is None:
            self._begin(run)
        assert run.answers is not None
        answers = run.answers.result()
        both: NDArray[np.float32] = answers[place]
        return both

    @property
    def is_busy(self) -> bool:
        """Whether enough runs are on their way to keep all threads at work."""
        while self._begun and self._begun[0].is_done:
            self._begun.popleft()
        return len(self._begun) >= self._most

    def _begin(self, run: _Run) -> None:
        filled = run.pixels[: run.count]
        run.answers = self._threads.submit(self._classifier.probabilities, filled)
        self._begun.append(run)
        self._filling = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file that was read, and where the answers for its faces will be."""

    item: Item
    read: Kept | Reading | Prediction
    faces: list[tuple[_Run, int]]

    @property
    def is_answered(self) -> bool:
        return all(run.is_done for run, _ in self.faces)


def _answered(
    waiting: _Waiting, network: _Network, classifier: Classifier, threshold: float
) -> Answered:
    """Wait for a file's answers and make them rows."""
    item, read = waiting.item, waiting.read
    if isinstance(read, Kept):
        return Answered(item, read.rows, read.thumbnail, is_kept=True)
    if isinstance(read, Prediction):
        return Answered(item, (read,))
    found = (network.answer(*face) for face in waiting.faces)
    return Answered(item, classifier.rows(item.key, read, found, threshold), read.thumbnail)
