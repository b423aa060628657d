"""Pictures -> a stream of result rows: read ahead in other processes, batch, classify."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from pathlib import Path

import numpy as np

from facegender.classifier import BATCH, Classifier
from facegender.errors import UnreadablePictureError
from facegender.images import LIMITS, Limits
from facegender.inputs import Inputs, Item, gather
from facegender.isolated import DiedError, Pool
from facegender.journal import Journal, Kept
from facegender.reading import Reader, Reading, read_picture
from facegender.results import Prediction, Status

LOOK_AHEAD = 4 * BATCH
"""Pictures read ahead of the network; with their bytes it bounds the memory."""

BYTES_AHEAD = 64 * 2**20
"""Most bytes of pictures out of archives that wait to be decoded."""

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
        items: the files; see :func:`facegender.inputs.gather`.
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
    total = items.total if isinstance(items, Inputs) else length_hint(items, LOOK_AHEAD)
    total = LOOK_AHEAD if total is None else total
    processes = min(os.cpu_count() or 1, 16, 1 + total // BATCH)
    pools: Callable[[], AbstractContextManager[Pool]] = partial(Pool, processes, seconds=seconds)
    if pool is not None:
        pools = lambda: nullcontext(pool)  # noqa: E731
    return _answers(iter(items), classifier, threshold, reader, pools, journal, retry_errors)


def _known(item: Item, journal: Journal | None, retry_errors: bool) -> Kept | None:
    """Tell what needs no reading: what an earlier run answered, and what cannot be read at all."""
    if not item.is_picture:
        return Kept((Prediction(item.key, Status.SKIPPED),), b"")
    if item.problem:
        return Kept((Prediction(item.key, Status.UNREADABLE, error=item.problem),), b"")
    return None if journal is None else journal.kept(item, with_bad=not retry_errors)


def _answers(
    coming: Iterator[Item],
    classifier: Classifier,
    threshold: float,
    reader: Reader,
    make_pool: Callable[[], AbstractContextManager[Pool]],
    journal: Journal | None,
    retry_errors: bool,
) -> Iterator[Answered]:
    """Read a bounded way ahead in other processes, while the network answers in this one."""
    pending: deque[tuple[Item, Kept | Future[Reading | None]]] = deque()
    bytes_pending = frames = 0
    is_at_end = False
    window: list[tuple[Item, Kept | Reading | Prediction]] = []
    with make_pool() as pool:
        while True:
            while len(pending) < LOOK_AHEAD and bytes_pending <= BYTES_AHEAD:
                item = next(coming, None)
                if item is None:
                    is_at_end = True
                    break
                bytes_pending += len(item.data)
                work: Kept | Future[Reading | None] | None = _known(item, journal, retry_errors)
                if work is None:
                    source = item.data if item.path is None else item.path
                    work = pool.submit(read_picture, source, reader)
                pending.append((item, work))
            if pending:
                item, work = pending.popleft()
                bytes_pending -= len(item.data)
                read = work if isinstance(work, Kept) else _outcome(item.key, work)
                window.append((item, read))
                frames += len(read.frames) if isinstance(read, Reading) else 0
            is_last = is_at_end and not pending
            if frames >= BATCH or len(window) == LOOK_AHEAD or is_last:
                for answered in _answer(window, classifier, threshold):
                    if journal is not None and answered.is_new:
                        journal.add(answered.item, answered.rows, answered.thumbnail)
                    yield answered
                window, frames = [], 0
            if is_last:
                return


def _outcome(key: str, work: Future[Reading | None]) -> Reading | Prediction:
    """Wait for a picture that is being read; what cannot be read is a row that says why."""
    try:
        reading = work.result()
    except (UnreadablePictureError, DiedError) as error:
        return Prediction(key, Status.UNREADABLE, error=str(error))
    return Prediction(key, Status.SKIPPED) if reading is None else reading


def _answer(
    window: Sequence[tuple[Item, Kept | Reading | Prediction]],
    classifier: Classifier,
    threshold: float,
) -> Iterator[Answered]:
    """Answer for the faces of a window, with the rows that have none in their places."""
    readings = [read for _, read in window if isinstance(read, Reading)]
    pixels = [frame.pixels for reading in readings for frame in reading.frames]
    found = iter(classifier.probabilities(np.stack(pixels)) if pixels else ())
    for item, read in window:
        if isinstance(read, Kept):
            is_file = item.is_picture and not item.problem
            yield Answered(item, read.rows, read.thumbnail, is_kept=is_file)
        elif isinstance(read, Prediction):
            yield Answered(item, (read,))
        else:
            rows = classifier.rows(item.key, read, found, threshold)
            yield Answered(item, rows, read.thumbnail)
