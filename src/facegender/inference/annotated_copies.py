"""Annotated copies of a whole run, drawn in processes of their own beside it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from facegender.errors import FacegenderError, UnreadableImageError
from facegender.images.formats import ImageLimits
from facegender.inference.pipeline import FileResult
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool
from facegender.results.annotate import annotate_file

_AHEAD = 16
_PROCESSES = 2


class AnnotatedCopies(AbstractContextManager["AnnotatedCopies"]):
    """Writes the copies of pictures with faces into a folder; a context manager.

    Attributes:
        failed: names of pictures that were answered for but could not be read a second time.
    """

    def __init__(self, folder: Path, anonymize: bool, limits: ImageLimits, timeout: float) -> None:
        """Choose the folder; nothing is written before the first picture.

        Args:
            folder: where to.
            anonymize: hide the faces.
            limits: what a picture may cost.
            timeout: how long one may take.
        """
        self._folder, self._blur, self._limits = folder, anonymize, limits
        self._pool = WorkerPool(_PROCESSES, timeout=timeout)
        self._pending: deque[tuple[str, Future[Path]]] = deque()
        self.failed: list[str] = []

    def add(self, answered: FileResult) -> None:
        """Have a picture's copy drawn, where it shows a face; waits where many are under way.

        Raises:
            OutputError: a copy cannot be written.
        """
        source = answered.item.data or answered.item.path
        if answered.rows[0].face_index is None or source is None:
            return
        rows = [row.to_dict() for row in answered.rows]
        work = self._pool.submit(
            annotate_file, source, rows, self._folder, anonymize=self._blur, limits=self._limits
        )
        self._pending.append((answered.item.key, work))
        while len(self._pending) > _AHEAD:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        name, work = self._pending.popleft()
        try:
            work.result()
        except (UnreadableImageError, WorkerDiedError):
            self.failed.append(name)
        except FacegenderError:
            raise
        except Exception:  # whatever a decoder may raise costs one copy
            self.failed.append(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is under way, but not where an error ended the block."""
        with self._pool:
            while self._pending and error is None:
                self._wait_for_one()
