r"""Result rows, and the plain file that they go to: ``process_results.json``.

Every file is written under a temporary name beside its place and renamed when it is whole.
Names that are no valid Unicode (Linux allows any bytes) are written with JSON's own escapes of
their surrogates, such as ``\udcff``: Python's ``json`` reads them back to the very same name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from natsort import natsort_keygen

from facegender.files import atomic_write, natural_sort
from facegender.results.predictions import Prediction, Status


class ProcessResultsWriter(AbstractContextManager["ProcessResultsWriter"]):
    """Writes ``{"photo.jpg": "male", ...}``, in natural order of names, when all rows are there.

    Of several faces in one picture the first counts, the one that the picture shows. Only names
    and labels are kept in memory.
    """

    def __init__(self, path: Path, *, has_unknown: bool = False) -> None:
        """Choose the file; an older one is replaced once the new one is whole.

        Args:
            path: where to.
            has_unknown: write ``unknown`` instead of the better guess where an answer is less
                sure than the threshold.
        """
        self._replacing = atomic_write(path)
        self._has_unknown = has_unknown
        self._answers: dict[str, str] = {}
        self._key = natsort_keygen()
        self._last: tuple[Any, str] | None = None
        self._is_in_order = True
        self._file: TextIO | None = None

    def __enter__(self) -> ProcessResultsWriter:
        """Start the file under a temporary name.

        Raises:
            OutputError: it cannot be written there.
        """
        self._file = self._replacing.__enter__()
        return self

    @property
    def count(self) -> int:
        """How many pictures have an answer so far."""
        return len(self._answers)

    def append(self, row: Prediction) -> None:
        """Take up one row; those without an answer change nothing."""
        if row.file is None or row.label is None or row.file in self._answers:
            return
        is_unknown = self._has_unknown and row.status == Status.UNKNOWN
        self._answers[row.file] = "unknown" if is_unknown else row.label
        place = (self._key(row.file), row.file)
        self._is_in_order = self._is_in_order and (self._last is None or self._last <= place)
        self._last = place

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Write the file and rename it to its place, or remove it where an error ended the block.

        Raises:
            OutputError: the disk is full.
        """
        if error is None and self._file is not None:
            names = self._answers if self._is_in_order else natural_sort(self._answers)
            try:
                self._file.write("{")
                for at, name in enumerate(names):
                    label = json.dumps(self._answers[name])
                    before = ",\n  " if at else "\n  "
                    self._file.write(f"{before}{json.dumps(name, ensure_ascii=False)}: {label}")
                self._file.write("\n}\n" if self._answers else "}\n")
            except OSError as full:
                self._replacing.__exit__(type(full), full, full.__traceback__)
        return self._replacing.__exit__(kind, error, trace)


def write_process_results(
    path: Path, rows: Iterable[Prediction], *, has_unknown: bool = False
) -> int:
    """Write ``{"photo.jpg": "male", ...}`` for rows, in natural order of names.

    Of several faces in one picture the first counts, the one that the picture shows.

    Example:
        >>> write_process_results(Path("answers.json"), predict_folder("faces"))
        6

    Args:
        path: where to; an older file there is replaced once the new one is whole.
        rows: may be a stream; only names and labels are kept.
        has_unknown: write ``unknown`` instead of a guess that is less sure than the threshold.

    Returns:
        How many pictures are in the file.

    Raises:
        OutputError: it cannot be written there.
    """
    with ProcessResultsWriter(path, has_unknown=has_unknown) as results:
        for row in rows:
            results.append(row)
        return results.count
