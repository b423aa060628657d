"""AnnotatedCopies: draws the annotated copies of a run, in processes of its own."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from facegender.errors import FacegenderError, OutputError, UnreadableImageError
from facegender.images.formats import ImageLimits
from facegender.inference.pipeline import FileResult
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool
from facegender.results.annotate import annotate_file

_MAX_PENDING = 16
_PROCESSES = 2
_ERRORS_OF_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class AnnotatedCopies(AbstractContextManager["AnnotatedCopies"]):
    """Writes annotated copies of images with faces into a folder; a context manager.

    Attributes:
        failed: names of images that were classified but have no copy: they could not be read a
            second time, or their copy could not be written.
    """

    def __init__(self, folder: Path, anonymize: bool, limits: ImageLimits, timeout: float) -> None:
        """Start the processes; the folder is created with the first copy.

        Args:
            folder: folder of the copies.
            anonymize: pixelate the faces.
            limits: maximum size of an image.
            timeout: seconds for one image.
        """
        self._folder, self._anonymize, self._limits = folder, anonymize, limits
        self._pool = WorkerPool(_PROCESSES, timeout=timeout)
        self._pending: deque[tuple[str, Future[bool]]] = deque()
        self.failed: list[str] = []

    def add(self, result: FileResult) -> None:
        """Draw the copy of an image, if it has a face; waits while many are pending.

        A copy that cannot be drawn or written, for a reason that concerns only this image, is
        listed in :attr:`failed`.

        Raises:
            OutputError: no copy can be written: the disk is full, or the folder cannot be created.
        """
        source = result.file.data or result.file.path
        if result.rows[0].face_index is None or source is None:
            return
        rows = [row.to_dict() for row in result.rows]
        copy = self._pool.submit(
            _annotate, source, rows, self._folder, self._anonymize, self._limits
        )
        self._pending.append((result.file.key, copy))
        while len(self._pending) > _MAX_PENDING:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        name, copy = self._pending.popleft()
        try:
            is_written = copy.result()
        except (UnreadableImageError, WorkerDiedError):
            is_written = False
        except FacegenderError:
            raise
        except Exception:  # an unexpected decoder error costs one copy, not the run
            is_written = False
        if not is_written:
            self.failed.append(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the pending copies, unless an error ended the block."""
        with self._pool:
            while self._pending and error is None:
                self._wait_for_one()


def _annotate(
    source: Path | bytes,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    anonymize: bool,
    limits: ImageLimits,
) -> bool:
    """Write the copy of one image; return whether it is written.

    Raises:
        OutputError: no copy can be written.
        UnreadableImageError: the image cannot be read any more.
    """
    try:
        annotate_file(source, rows, folder, anonymize=anonymize, limits=limits)
    except OutputError as error:
        reason = getattr(error.__cause__, "errno", None)
        if reason in _ERRORS_OF_ALL or not folder.is_dir():
            raise
        return False  # its name is too long, or something else has its place
    return True
