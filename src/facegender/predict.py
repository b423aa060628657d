"""Pictures -> a stream of result rows: read ahead in other processes, batch, classify."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
        >>> for row in predict_folder("faces"):  # doctest: +SKIP
        ...     print(row.file, row.face, row.label, row.probability)

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
    thumbnail: int = 0,
    seconds: float = SECONDS,
    journal: Journal | None = None,
    retry_errors: bool = False,
) -> Iterator[Answered]:
    """Answer for files, in the order given, one after the other.

    Args:
        items: the files; see :func:`facegender.inputs.gather`.
        classifier: the network.
        faces: see :func:`predict_folder`.
        unknown_below: likewise.
        limits: what a picture may cost.
        detector: a YuNet file for OpenCV instead of the detector that ships.
        thumbnail: long side in pixels of a small JPEG to make of each picture; 0 for none.
        seconds: how long the reading of one picture may take.
        journal: where answers are kept and, of an earlier run, found.
        retry_errors: read those again that an earlier run could not.

    Raises:
        InputError: another word for ``faces``.
        ValueError: a threshold outside 0.5 to 1.
    """
    described = classifier.description
    reader = Reader(described.crop, described.resize, faces, limits, detector, thumbnail)
    threshold = classifier.threshold(unknown_below)
    total = items.total if isinstance(items, Inputs) else length_hint(items, LOOK_AHEAD)
    total = LOOK_AHEAD if total is None else total
    processes = min(os.cpu_count() or 1, 16, 1 + total // BATCH)
    coming = ((item, _known(item, journal, retry_errors)) for item in items)
    return _answers(coming, classifier, threshold, reader, processes, seconds, journal)


def _known(item: Item, journal: Journal | None, retry_errors: bool) -> Kept | None:
    """Tell what needs no reading: what an earlier run answered, and what cannot be read at all."""
    if not item.is_picture:
        return Kept((Prediction(item.key, Status.SKIPPED),), b"")
    if item.problem:
        return Kept((Prediction(item.key, Status.UNREADABLE, error=item.problem),), b"")
    return None if journal is None else journal.kept(item, with_bad=not retry_errors)


_Pending = tuple[Item, Kept | Future[Reading | None]]


def _answers(
    coming: Iterable[tuple[Item, Kept | None]],
    classifier: Classifier,
    threshold: float,
    reader: Reader,
    processes: int,
    seconds: float,
    journal: Journal | None,
) -> Iterator[Answered]:
    """Read a bounded way ahead in other processes, while the network answers in this one."""
    coming = iter(coming)
    pending: deque[_Pending] = deque()
    waiting_bytes = 0
    with Pool(processes, seconds=seconds) as pool:

        def read_ahead() -> int:
            read = 0
            while len(pending) < LOOK_AHEAD and waiting_bytes + read <= BYTES_AHEAD:
                if (found := next(coming, None)) is None:
                    break
                item, kept = found
                source = item.data or item.path
                if kept is None and source is None:  # an empty member of an archive
                    source = b""
                if kept is None and source is not None:
                    pending.append((item, pool.submit(read_picture, source, reader)))
                    read += len(item.data)
                elif kept is not None:
                    pending.append((item, kept))
            return read

        window: list[tuple[Item, Kept | Reading | Prediction]] = []
        frames = 0
        waiting_bytes += read_ahead()
        while pending:
            item, work = pending.popleft()
            waiting_bytes -= len(item.data)
            read = work if isinstance(work, Kept) else _outcome(item.key, work)
            window.append((item, read))
            frames += len(read.frames) if isinstance(read, Reading) else 0
            waiting_bytes += read_ahead()
            if frames >= BATCH or len(window) == LOOK_AHEAD or not pending:
                for answered in _answer(window, classifier, threshold):
                    if journal is not None and not answered.is_kept:
                        journal.add(answered.item, answered.rows, answered.thumbnail)
                    yield answered
                window, frames = [], 0


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
