"""The prediction pipeline: from files to a stream of results, one per file, in order.

Three stages, in :func:`_predict`: images are preprocessed ahead of time in other processes; their
crops are collected into batches, which the network classifies concurrently in threads; results are
yielded in the order of the files. All three are bounded, so memory does not grow with the number
of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import length_hint
from pathlib import Path
from typing import TypeAlias

import numpy as np

from facegender.errors import FacegenderError, UnreadableImageError
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
from facegender.images.pixels import Pixels
from facegender.inference.batched_network import BatchedNetwork, Slot
from facegender.inference.face_classifier import FaceClassifier
from facegender.inference.journal import CachedResult, Journal
from facegender.inference.preprocess import (
    PreprocessedImage,
    PreprocessOptions,
    check_face_mode,
    preprocess_file,
    warm_up,
)
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool
from facegender.inputs.paths import Inputs
from facegender.inputs.sources import InputFile
from facegender.model.runtime import BATCH_SIZE, count_cores
from facegender.results.predictions import Prediction, Status, unreadable_row

READ_AHEAD = 64
"""Maximum number of files preprocessed ahead of the network, and of files waiting for it; with
several cores, three groups per core."""

READ_AHEAD_BYTES = 64 * 2**20
"""Maximum bytes of archive members waiting to be preprocessed, and of those waiting for the
network."""

TASK_FILES = 16
"""Maximum number of files in one group, which is one round trip to a worker process."""

TASK_BYTES = 512 * 2**10
"""Maximum bytes of files in one group: large images are sent one by one to any idle process."""

TIMEOUT_SECONDS = 60.0
"""Default time to read one image."""


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
        exclude: shell patterns of files and folders that are left out, besides the litter of
            systems and photo servers.
    """

    faces: str = "auto"
    min_confidence: float | None = None
    recursive: bool = False
    retry_errors: bool = False
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS
    detector: Path | None = None
    timeout: float = TIMEOUT_SECONDS
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the face mode.

        Raises:
            InputError: an unknown value of ``faces``.
        """
        check_face_mode(self.faces)


@dataclass(frozen=True, slots=True)
class PixelsFile(InputFile):
    """An image that is already decoded.

    Attributes:
        pixels: ``uint8 [H, W, 3]``, RGB, upright.
    """

    pixels: Pixels = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result for one file.

    Attributes:
        file: the file.
        rows: one for each face, the main face first, or one without an answer.
        thumbnail: a small JPEG; empty if none was asked for.
        is_cached: the result is from an earlier run's journal.
    """

    file: InputFile
    rows: tuple[Prediction, ...]
    thumbnail: bytes = b""
    is_cached: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the file was read in this run, and a resumed run need not read it again."""
        is_read = self.file.is_image and not self.file.problem and not self.is_cached
        # an unsupported image may be read when an extra is installed
        return is_read and self.rows[0].status not in (Status.SKIPPED, Status.UNSUPPORTED)


def predict_files(
    files: Iterable[InputFile],
    classifier: FaceClassifier,
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
        journal: where results are stored and found again.

    Raises:
        InputError: an unknown value of ``faces``.
        ValueError: ``min_confidence`` outside 0.5 to 1.
    """
    options = options or PredictOptions()
    description = classifier.description
    preprocess = PreprocessOptions(
        description.crop,
        description.resize,
        options.faces,
        options.limits,
        options.detector,
        has_thumbnails,
    )
    threshold = classifier.threshold(options.min_confidence)
    total = files.total if isinstance(files, Inputs) else length_hint(files, -1)
    make_pool: Callable[[], AbstractContextManager[WorkerPool]] = partial(
        start_workers, None if total == -1 else total, options.timeout
    )
    if pool is not None:
        make_pool = lambda: nullcontext(pool)  # noqa: E731
    return _predict(
        iter(files), classifier, threshold, preprocess, make_pool, journal, options.retry_errors
    )


def start_workers(total: int | None, timeout: float = TIMEOUT_SECONDS) -> WorkerPool:
    """Start the processes that preprocess images; they start up in the background.

    Args:
        total: number of files; None if unknown.
        timeout: seconds to read one image.
    """
    processes = count_cores() if total is None else min(count_cores(), 1 + total // BATCH_SIZE)
    pool = WorkerPool(processes, timeout=timeout)
    for _ in range(pool.processes):
        pool.submit(warm_up)
    return pool


def _predict(
    files: Iterator[InputFile],
    classifier: FaceClassifier,
    threshold: float,
    preprocess: PreprocessOptions,
    make_pool: Callable[[], AbstractContextManager[WorkerPool]],
    journal: Journal | None,
    retry_errors: bool,
) -> Iterator[FileResult]:
    """Preprocess in other processes, run the network in threads, yield results in order."""
    find_ready = partial(_find_ready, journal=journal, retry_errors=retry_errors)
    max_files = max(READ_AHEAD, 3 * TASK_FILES * classifier.threads)
    pending: deque[_PendingFile] = deque()
    pending_bytes = 0  # of archive members
    with make_pool() as pool, BatchedNetwork(classifier) as network:

        def finish_first() -> FileResult:
            nonlocal pending_bytes
            first = pending.popleft()
            pending_bytes -= _data_bytes(first.file)
            try:
                result = _finish(first, network, classifier, threshold)
            except FacegenderError:  # concerns every file: the network cannot be run
                raise
            except Exception as error:  # whatever it is, it costs this file's rows, not the run
                result = FileResult(first.file, (unreadable_row(first.file.key, error),))
            if journal is not None and result.is_new:
                _store(journal, result)
            return result

        for file, outcome in _read_ahead(files, find_ready, pool, preprocess, max_files):
            pending.append(_queue_crops(file, outcome, network))
            pending_bytes += _data_bytes(file)
            while pending and (
                network.is_busy
                or len(pending) >= max_files
                or pending_bytes > READ_AHEAD_BYTES
                or pending[0].is_done
            ):
                yield finish_first()
        while pending:
            yield finish_first()


_Ready: TypeAlias = CachedResult | Prediction
"""The result for a file that need not be read."""

_Outcome: TypeAlias = CachedResult | Prediction | PreprocessedImage
"""What the first stage found for a file: its result, or the inputs of the network."""


def _find_ready(file: InputFile, journal: Journal | None, retry_errors: bool) -> _Ready | None:
    """Return the result for a file that need not be read: skipped, unreadable, or cached."""
    if not file.is_image:
        return Prediction(file.key, Status.SKIPPED)
    if file.unsupported:
        return Prediction(file.key, Status.UNSUPPORTED, error=file.unsupported)
    if file.problem:
        return unreadable_row(file.key, file.problem)
    if journal is None:
        return None
    try:
        return journal.find(file, retry_errors=retry_errors)
    except FacegenderError:
        raise
    except Exception:  # whatever it is, the file is read again
        return None


def _store(journal: Journal, result: FileResult) -> None:
    """Store a result, unless the journal cannot store it: a resumed run reads the file again.

    Raises:
        OutputError: the journal cannot be written: the disk is full, say.
    """
    try:
        journal.add(result.file, result.rows, result.thumbnail)
    except FacegenderError:
        raise
    except Exception:  # the answer stands: only resuming needs the journal
        return


def _source(file: InputFile) -> Path | bytes | Pixels:
    """Return what a worker process reads."""
    if isinstance(file, PixelsFile):
        return file.pixels
    return file.data if file.path is None else file.path


def _data_bytes(file: InputFile) -> int:
    """Return the memory that a file takes until it is read."""
    return len(file.data) + (file.pixels.nbytes if isinstance(file, PixelsFile) else 0)


@dataclass(frozen=True, slots=True)
class _FileGroup:
    """Consecutive files, each with its result if it need not be read; the others are being read."""

    files: list[tuple[InputFile, _Ready | None]]
    images: Future[list[PreprocessedImage | Exception | None]]

    @property
    def data_bytes(self) -> int:
        return sum(_data_bytes(file) for file, _ in self.files)


def _read_ahead(
    files: Iterator[InputFile],
    find_ready: Callable[[InputFile], _Ready | None],
    pool: WorkerPool,
    preprocess: PreprocessOptions,
    max_files: int,
) -> Iterator[tuple[InputFile, _Outcome]]:
    """Preprocess up to ``max_files`` files ahead in other processes; yield them in order."""
    pending: deque[_FileGroup] = deque()
    for group in _group_small((file, find_ready(file)) for file in files):
        unread = [_source(file) for file, ready in group if ready is None]
        pending.append(_FileGroup(group, pool.submit_group(preprocess_file, unread, preprocess)))
        while pending and (
            sum(len(group.files) for group in pending) >= max_files
            or sum(group.data_bytes for group in pending) > READ_AHEAD_BYTES
        ):
            yield from _outcomes(pending.popleft())
    while pending:
        yield from _outcomes(pending.popleft())


def _group_small(
    files: Iterable[tuple[InputFile, _Ready | None]],
) -> Iterator[list[tuple[InputFile, _Ready | None]]]:
    """Group files by number and bytes, because every group costs one round trip to a process."""
    group: list[tuple[InputFile, _Ready | None]] = []
    size = 0
    for file, ready in files:
        group.append((file, ready))
        size += file.size if ready is None else 0
        if len(group) == TASK_FILES or size >= TASK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _outcomes(group: _FileGroup) -> Iterator[tuple[InputFile, _Outcome]]:
    """Wait for a group; a file that cannot be read becomes a row with the reason."""
    images: Iterator[PreprocessedImage | Exception | None]
    try:
        images = iter(group.images.result())
    except (FacegenderError, OSError):  # concerns every file: no process can be started
        raise
    except Exception as error:  # the group could not be sent or received
        images = repeat(error)
    for file, ready in group.files:
        outcome = ready or next(images)
        if outcome is None:
            yield file, Prediction(file.key, Status.SKIPPED)
        elif isinstance(outcome, WorkerDiedError):
            yield file, unreadable_row(file.key, str(outcome))
        elif isinstance(outcome, FacegenderError) and not isinstance(outcome, UnreadableImageError):
            raise outcome  # concerns every file: a missing library, say
        elif isinstance(outcome, Exception):
            yield file, unreadable_row(file.key, outcome)
        else:
            yield file, outcome


@dataclass(frozen=True, slots=True)
class _PendingFile:
    """A file that is waiting for the network's results for its crops."""

    file: InputFile
    outcome: _Outcome
    slots: list[Slot]

    @property
    def is_done(self) -> bool:
        return all(batch.is_done for batch, _ in self.slots)


def _queue_crops(file: InputFile, outcome: _Outcome, network: BatchedNetwork) -> _PendingFile:
    """Give a file's crops to the network."""
    crops = outcome.crops if isinstance(outcome, PreprocessedImage) else ()
    try:
        return _PendingFile(file, outcome, [network.add(crop.pixels) for crop in crops])
    except Exception as error:  # crops of another shape, say
        return _PendingFile(file, unreadable_row(file.key, error), [])


def _finish(
    pending: _PendingFile, network: BatchedNetwork, classifier: FaceClassifier, threshold: float
) -> FileResult:
    """Wait for a file's probabilities and make its rows."""
    file, outcome = pending.file, pending.outcome
    if isinstance(outcome, CachedResult):
        return FileResult(file, outcome.rows, outcome.thumbnail, is_cached=True)
    if isinstance(outcome, Prediction):
        return FileResult(file, (outcome,))
    probabilities = (network.wait_for(*slot) for slot in pending.slots)
    rows = classifier.rows(file.key, outcome, probabilities, threshold)
    return FileResult(file, rows, outcome.thumbnail)
