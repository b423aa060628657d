"""Paths -> a stream of result rows: read ahead, batch, classify."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from facegender.classifier import BATCH, Classifier
from facegender.errors import InputError, UnreadablePictureError
from facegender.faces import Framed, Framer
from facegender.images import decode, read_file
from facegender.results import Prediction, Status, in_natural_order

LOOK_AHEAD = 4 * BATCH
"""Files read ahead of the network; with the threads it bounds the memory."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A picture as the network sees it, with its own size in pixels."""

    file: str
    framed: Framed
    width: int
    height: int


def predict_folder(
    path: str | os.PathLike[str],
    *,
    recursive: bool = False,
    classifier: Classifier | None = None,
    unknown_below: float | None = None,
) -> Iterator[Prediction]:
    """Answer for every picture in a folder, one row at a time, in natural order of names.

    Example:
        >>> for row in predict_folder("faces"):  # doctest: +SKIP
        ...     print(row.file, row.label, row.probability)

    Args:
        path: the folder; nothing in it is changed.
        recursive: also what is in its folders (links to folders are not followed).
        classifier: the network; None loads the one that ships.
        unknown_below: answers less probable than this are ``unknown``; None takes the network's
            own threshold.

    Returns:
        A row for each file: a picture's answer, ``unreadable`` with the reason, or ``skipped``
        for what is no picture. Memory does not grow with the folder, but for its names.

    Raises:
        InputError: the folder is not there or cannot be listed.
        ModelFileError: the network that ships cannot be loaded.
        ValueError: a threshold outside 0.5 to 1.
    """
    folder = Path(path)
    names = list_files(folder, recursive=recursive)
    return predict_files(
        folder, names, classifier=classifier or Classifier.load(), unknown_below=unknown_below
    )


def list_files(folder: Path, *, recursive: bool = False) -> list[str]:
    """List what may be a picture in a folder: all but folders, in natural order.

    Returns:
        Names, or paths inside ``folder`` with ``/`` between. A folder inside that cannot be
        listed is named too, with a ``/`` at the end, and gets a row that says so.

    Raises:
        InputError: the folder is not there or cannot be listed.
    """
    names: list[str] = []
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif not _leads_to_folder(entry):
                        names.append(name)
        except OSError as error:
            if not inside:
                raise InputError(_why_no_folder(folder, error)) from error
            names.append(f"{inside}/")
        if not recursive:
            break
    return in_natural_order(names)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether a link leads to a folder; one to nothing or in a circle does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _why_no_folder(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the folder {folder} is not there. Give a folder with pictures in it"
    if isinstance(error, NotADirectoryError):
        return f"{folder} is not a folder. Give a folder with pictures in it"
    return f"cannot list the folder {folder}: {error.strerror or error}"


def predict_files(
    folder: Path,
    names: Sequence[str],
    *,
    classifier: Classifier,
    unknown_below: float | None = None,
) -> Iterator[Prediction]:
    """Answer for the named files of a folder, in the order given; see :func:`predict_folder`.

    Raises:
        ValueError: a threshold outside 0.5 to 1.
    """
    return _rows(folder, names, classifier, classifier.threshold(unknown_below))


def _rows(
    folder: Path, names: Sequence[str], classifier: Classifier, threshold: float
) -> Iterator[Prediction]:
    """Decode in threads, a bounded way ahead, while the network answers in this one."""
    framer = classifier.framer
    coming = iter(names)
    pool = ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 1)), "facegender-decode")
    try:
        pending: deque[Future[_Frame | Prediction]] = deque(
            pool.submit(_read, folder, name, framer) for name in islice(coming, LOOK_AHEAD)
        )
        window: list[_Frame | Prediction] = []
        frames = 0
        while pending:
            window.append(pending.popleft().result())
            frames += isinstance(window[-1], _Frame)
            pending.extend(pool.submit(_read, folder, name, framer) for name in islice(coming, 1))
            if frames == BATCH or len(window) == LOOK_AHEAD or not pending:
                yield from _answer(window, classifier, threshold)
                window, frames = [], 0
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(
    window: Sequence[_Frame | Prediction], classifier: Classifier, threshold: float
) -> Iterator[Prediction]:
    """Answer for the frames of a window, with the rows that are no frames in their places."""
    pixels = [item.framed.pixels for item in window if isinstance(item, _Frame)]
    found = iter(classifier.probabilities(np.stack(pixels)) if pixels else ())
    for item in window:
        if isinstance(item, _Frame):
            yield classifier.answer(
                item.file, next(found), item.width, item.height, threshold, item.framed.face
            )
        else:
            yield item


def _read(folder: Path, name: str, framer: Framer) -> _Frame | Prediction:
    """Read one file and bring it before the network, or say why there is nothing to answer."""
    if name.endswith("/"):
        return Prediction(name, Status.UNREADABLE, error="the folder cannot be listed")
    try:
        data = read_file(folder / name)
        if data is None:
            return Prediction(name, Status.SKIPPED)
        pixels = decode(data)
    except UnreadablePictureError as error:
        return Prediction(name, Status.UNREADABLE, error=str(error))
    height, width = pixels.shape[:2]
    return _Frame(name, framer(pixels), width, height)
