"""Files -> a stream of result rows.

Three stages, in :func:`_answers`: pictures are read a bounded way ahead, in other processes; their
faces are gathered into runs of one size, which the network answers side by side in threads; rows
leave in the order in which the files came.
"""

from __future__ import annotations

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

from facegender.errors import FacegenderError, UnreadableImageError
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.inference.journal import CachedResult, Journal
from facegender.inference.preprocess import (
    PreprocessedImage,
    PreprocessOptions,
    check_face_mode,
    preprocess_file,
    warm_up,
)
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool
from facegender.inputs.paths import InputFile, Inputs
from facegender.model.runtime import BATCH_SIZE, count_cores
from facegender.results.predictions import Prediction, Status

READ_AHEAD = 64
"""Pictures that are read ahead of the network, and pictures whose answers are waited for (on more
than one core three groups a core); with their bytes it bounds the memory."""

READ_AHEAD_BYTES = 64 * 2**20
"""Most bytes of pictures out of archives that wait to be decoded, and as many that wait for their
answers."""

TASK_FILES = 16
"""Most pictures that go to a reading process together."""

TASK_BYTES = 512 * 2**10
"""Bytes of files at which a group is full: large photos go one by one, to whichever is free."""

TIMEOUT_SECONDS = 60.0
"""How long the reading of one picture may take."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How files are predicted.

    Attributes:
        faces: ``detect`` finds every face, ``whole`` takes each image as one face, ``auto`` finds
            faces and, in a close-up, ignores extra detections.
        min_confidence: answers below it are ``unknown``, 0.5 to 1; None takes the model's own.
        recursive: include subfolders.
        retry_errors: read again the images that an earlier run could not read.
        limits: maximum pixels and bytes per image.
        detector: a YuNet file for OpenCV instead of the detector that ships.
        timeout: seconds to read one image.
    """

    faces: str = "auto"
    min_confidence: float | None = None
    recursive: bool = False
    retry_errors: bool = False
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS
    detector: Path | None = None
    timeout: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        """Check the face mode.

        Raises:
            InputError: an unknown value of ``faces``.
        """
        check_face_mode(self.faces)


@dataclass(frozen=True, slots=True)
class FileResult:
    """A file with its rows: one for each face, or one that says why there is none."""

    item: InputFile
    rows: tuple[Prediction, ...]
    thumbnail: bytes = b""
    is_cached: bool = False
    """From an earlier run's journal."""

    @property
    def is_new(self) -> bool:
        """Tell whether a file was read for it now."""
        return self.item.is_image and not self.item.problem and not self.is_cached


def predict_files(
    files: Iterable[InputFile],
    classifier: Classifier,
    options: PredictOptions | None = None,
    *,
    has_thumbnails: bool = False,
    pool: WorkerPool | None = None,
    journal: Journal | None = None,
) -> Iterator[FileResult]:
    """Classify files one after the other, in the given order.

    Args:
        files: see :func:`facegender.inputs.paths.collect_inputs`.
        classifier: the network.
        options: how to predict.
        has_thumbnails: make a small JPEG of each image, for the report.
        pool: processes shared by several calls; None starts some for this one.
        journal: where answers are kept and found again.

    Raises:
        InputError: an unknown value of ``faces``.
        ValueError: ``min_confidence`` outside 0.5 to 1.
    """
    options = options or PredictOptions()
    described = classifier.description
    preprocess = PreprocessOptions(
        described.crop,
        described.resize,
        options.faces,
        options.limits,
        options.detector,
        has_thumbnails,
    )
    threshold = classifier.threshold(options.min_confidence)
    total = files.total if isinstance(files, Inputs) else length_hint(files, -1)
    pools: Callable[[], AbstractContextManager[WorkerPool]] = partial(
        start_workers, None if total == -1 else total, options.timeout
    )
    if pool is not None:
        pools = lambda: nullcontext(pool)  # noqa: E731
    return _answers(
        iter(files), classifier, threshold, preprocess, pools, journal, options.retry_errors
    )


def start_workers(total: int | None, timeout: float = TIMEOUT_SECONDS) -> WorkerPool:
    """Start processes that read for :func:`predict_files`; they get ready beside what comes next.

    Args:
        total: how many files there are; None where that is not known.
        timeout: how long the reading of one picture may take.
    """
    processes = count_cores() if total is None else min(count_cores(), 1 + total // BATCH_SIZE)
    pool = WorkerPool(processes, timeout=timeout)
    for _ in range(pool.processes):
        pool.submit(warm_up)
    return pool


def _answers(
    coming: Iterator[InputFile],
    classifier: Classifier,
    threshold: float,
    reader: PreprocessOptions,
    make_pool: Callable[[], AbstractContextManager[WorkerPool]],
    journal: Journal | None,
    retry_errors: bool,
) -> Iterator[FileResult]:
    """Read in other processes, run the network in threads, answer in order; see the module."""
    known = partial(_known, journal=journal, retry_errors=retry_errors)
    most = max(READ_AHEAD, 3 * TASK_FILES * classifier.threads)
    waiting: deque[_Waiting] = deque()
    held = 0  # bytes of files out of archives among those that wait
    with make_pool() as pool, _Network(classifier) as network:

        def first() -> FileResult:
            nonlocal held
            held -= len(waiting[0].item.data)
            answered = _answered(waiting.popleft(), network, classifier, threshold)
            if journal is not None and answered.is_new:
                journal.add(answered.item, answered.rows, answered.thumbnail)
            return answered

        for item, read in _read_ahead(coming, known, pool, reader, most):
            crops = read.crops if isinstance(read, PreprocessedImage) else ()
            waiting.append(_Waiting(item, read, [network.ask(crop.pixels) for crop in crops]))
            held += len(item.data)
            while waiting and (
                network.is_busy
                or len(waiting) >= most
                or held > READ_AHEAD_BYTES
                or waiting[0].is_answered
            ):
                yield first()
        while waiting:
            yield first()


_Settled = CachedResult | Prediction


def _known(item: InputFile, journal: Journal | None, retry_errors: bool) -> _Settled | None:
    """Tell what needs no reading: what an earlier run answered, and what cannot be read at all."""
    if not item.is_image:
        return Prediction(item.key, Status.SKIPPED)
    if item.problem:
        return Prediction(item.key, Status.UNREADABLE, error=item.problem)
    return None if journal is None else journal.cached(item, with_bad=not retry_errors)


@dataclass(frozen=True, slots=True)
class _Group:
    """Files in a row, with what is known of them; what is not known is being read."""

    files: list[tuple[InputFile, _Settled | None]]
    readings: Future[list[PreprocessedImage | Exception | None]]

    @property
    def bytes_held(self) -> int:
        return sum(len(item.data) for item, _ in self.files)


def _read_ahead(
    coming: Iterator[InputFile],
    known: Callable[[InputFile], _Settled | None],
    pool: WorkerPool,
    reader: PreprocessOptions,
    most: int,
) -> Iterator[tuple[InputFile, CachedResult | PreprocessedImage | Prediction]]:
    """Have files read in other processes, ``most`` of them ahead; give them in their order."""
    pending: deque[_Group] = deque()
    for files in _grouped((item, known(item)) for item in coming):
        unread = [
            item.data if item.path is None else item.path
            for item, cached in files
            if cached is None
        ]
        pending.append(_Group(files, pool.submit_group(preprocess_file, unread, reader)))
        while pending and (
            sum(len(group.files) for group in pending) >= most
            or sum(group.bytes_held for group in pending) > READ_AHEAD_BYTES
        ):
            yield from _outcomes(pending.popleft())
    while pending:
        yield from _outcomes(pending.popleft())


def _grouped(
    files: Iterable[tuple[InputFile, _Settled | None]],
) -> Iterator[list[tuple[InputFile, _Settled | None]]]:
    """Gather files that are small into groups, for each group costs two changes of process."""
    group: list[tuple[InputFile, _Settled | None]] = []
    size = 0
    for item, cached in files:
        group.append((item, cached))
        size += item.size if cached is None else 0
        if len(group) == TASK_FILES or size >= TASK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _outcomes(
    group: _Group,
) -> Iterator[tuple[InputFile, CachedResult | PreprocessedImage | Prediction]]:
    """Wait for a group that is being read; what cannot be read is a row that says why."""
    readings = iter(group.readings.result())
    for item, cached in group.files:
        reading = cached or next(readings)
        if reading is None:
            yield item, Prediction(item.key, Status.SKIPPED)
        elif isinstance(reading, (UnreadableImageError, WorkerDiedError)):
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
        self._shape = (BATCH_SIZE, resize.height, resize.width, 3)
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
        if run.count == BATCH_SIZE:
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

    item: InputFile
    read: CachedResult | PreprocessedImage | Prediction
    faces: list[tuple[_Run, int]]

    @property
    def is_answered(self) -> bool:
        return all(run.is_done for run, _ in self.faces)


def _answered(
    waiting: _Waiting, network: _Network, classifier: Classifier, threshold: float
) -> FileResult:
    """Wait for a file's answers and make them rows."""
    item, read = waiting.item, waiting.read
    if isinstance(read, CachedResult):
        return FileResult(item, read.rows, read.thumbnail, is_cached=True)
    if isinstance(read, Prediction):
        return FileResult(item, (read,))
    found = (network.answer(*face) for face in waiting.faces)
    return FileResult(item, classifier.rows(item.key, read, found, threshold), read.thumbnail)
