r"""``process_results.json``: the label of every image, in natural order of names.

A name that is not valid Unicode (Linux allows any bytes) is written with JSON escapes of its
surrogates, such as ``\udcff``, which Python's ``json`` reads back unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from natsort import natsort_keygen

from facegender.files import natural_sort
from facegender.results.output_file import open_output
from facegender.results.predictions import Prediction, Status


class _DiscardedError(Exception):
    """Ends an output that is not to be written."""


class ProcessResultsWriter(AbstractContextManager["ProcessResultsWriter"]):
    """Collects labels and writes ``{"photo.jpg": "male", ...}`` when the block ends.

    An image with several faces gets the label of its main face. Only names and labels are held in
    memory.
    """

    def __init__(self, path: Path, *, write_unknown: bool = False) -> None:
        """Choose the file; nothing is written before ``with``.

        Args:
            path: the file to write; an earlier one is replaced when the new one is complete.
            write_unknown: write ``unknown`` for a probability below the threshold, instead of the
                more probable label.
        """
        self._output = open_output(path)
        self._write_unknown = write_unknown
        self._labels: dict[str, str] = {}
        self._sort_key = natsort_keygen()
        self._last: tuple[Any, str] | None = None
        self._is_sorted = True
        self._file: TextIO | None = None
        self._is_discarded = False

    def __enter__(self) -> ProcessResultsWriter:
        """Create the file under a temporary name.

        Raises:
            OutputError: it cannot be written.
        """
        self._file = self._output.__enter__()
        return self

    @property
    def count(self) -> int:
        """Number of images with a label so far."""
        return len(self._labels)

    def discard(self) -> None:
        """Write nothing at the end: an earlier file stays."""
        self._is_discarded = True

    def append(self, row: Prediction) -> None:
        """Add one row; a row without a label is ignored, as are further faces of an image."""
        if row.file is None or row.label is None or row.file in self._labels:
            return
        is_unknown = self._write_unknown and row.status == Status.UNKNOWN
        self._labels[row.file] = "unknown" if is_unknown else row.label
        key = (self._sort_key(row.file), row.file)
        self._is_sorted = self._is_sorted and (self._last is None or self._last <= key)
        self._last = key

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Write the file and rename it to its final name, or remove it after an error.

        Raises:
            OutputError: the disk is full.
        """
        if error is None and self._is_discarded:
            with suppress(_DiscardedError):
                self._output.__exit__(_DiscardedError, _DiscardedError(), None)
            return None
        if error is None and self._file is not None:
            names = self._labels if self._is_sorted else natural_sort(self._labels)
            try:
                self._file.write("{")
                for number, name in enumerate(names):
                    label = json.dumps(self._labels[name])
                    separator = ",\n  " if number else "\n  "
                    self._file.write(f"{separator}{json.dumps(name, ensure_ascii=False)}: {label}")
                self._file.write("\n}\n" if self._labels else "}\n")
            except OSError as failure:
                self._output.__exit__(type(failure), failure, failure.__traceback__)
        return self._output.__exit__(kind, error, trace)


def write_process_results(
    path: Path, rows: Iterable[Prediction], *, write_unknown: bool = False
) -> int:
    """Write ``{"photo.jpg": "male", ...}``, in natural order of names.

    An image with several faces gets the label of its main face.

    Example:
        >>> write_process_results(Path("answers.json"), predict_folder("faces"))
        6

    Args:
        path: the file to write; an earlier one is replaced when the new one is complete.
        rows: may be a stream; only names and labels are held in memory.
        write_unknown: write ``unknown`` for a probability below the threshold, instead of the
            more probable label.

    Returns:
        Number of images in the file.

    Raises:
        OutputError: the file cannot be written.
    """
    with ProcessResultsWriter(path, write_unknown=write_unknown) as results:
        for row in rows:
            results.append(row)
        return results.count
