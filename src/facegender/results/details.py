"""Result rows -> a file with everything that is known of them: JSON, JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TextIO

from facegender.errors import InputError, MissingExtraError
from facegender.files import atomic_write
from facegender.results.predictions import Prediction, Status

COLUMNS = {
    "file": "string",
    "face_index": "int32",
    "status": "string",
    "label": "string",
    "probability": "float64",
    "box_x": "int32",
    "box_y": "int32",
    "box_width": "int32",
    "box_height": "int32",
    "detection_score": "float64",
    "crop": "string",
    "width": "int32",
    "height": "int32",
    "error": "string",
}
"""Names and types in CSV and Parquet. JSON and JSONL have ``box`` as one object of four numbers."""

_ROWS_AT_ONCE = 4096


class DetailsWriter(AbstractContextManager["DetailsWriter"]):
    """Writes rows as they come; the file appears when all went well.

    Example:
        >>> with DetailsWriter(Path("details.jsonl")) as details:
        ...     details.append(Prediction("a.jpg", Status.NO_FACE, width=90, height=120))
    """

    def __init__(self, path: Path, kind: str | None = None) -> None:
        """Choose the format; nothing is written before ``with``.

        Args:
            path: where to.
            kind: ``json``, ``jsonl``, ``csv`` or ``parquet``; None goes by the name's suffix,
                JSONL where that says nothing.

        Raises:
            InputError: another format.
            MissingExtraError: Parquet without pyarrow.
        """
        self._form = _FORMS[format_of(path, kind)](path)
        self._write: Callable[[Prediction], None] | None = None

    def __enter__(self) -> DetailsWriter:
        """Start the file under a temporary name.

        Raises:
            OutputError: it cannot be written there.
        """
        self._write = self._form.__enter__()
        return self

    def append(self, row: Prediction) -> None:
        """Write one row; a skipped file is no picture and gets none.

        Raises:
            ValueError: outside of ``with``.
        """
        if self._write is None:
            raise ValueError("append() needs the writer to be open: use it in a 'with'")
        if row.status != Status.SKIPPED:
            self._write(row)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Rename the file to its place, or remove it where an error ended the block."""
        self._write = None
        return self._form.__exit__(kind, error, trace)


def format_of(path: Path, kind: str | None = None) -> str:
    """Tell a details file's format: the one asked for, or by its name.

    Raises:
        InputError: not one of those known.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower().removeprefix(".")
    kind = kind or (suffix if suffix in _FORMS else "jsonl")
    if kind not in _FORMS:
        raise InputError(f"the format {kind!r} is not one of {', '.join(_FORMS)}")
    if kind == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("parquet", "pyarrow") from None
    return kind


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with atomic_write(path) as file:
        yield lambda row: _put(file, json.dumps(row.to_dict(), ensure_ascii=False) + "\n")


@contextmanager
def _json(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with atomic_write(path) as file:
        before = "[\n"

        def write(row: Prediction) -> None:
            nonlocal before
            file.write(before + json.dumps(row.to_dict(), ensure_ascii=False))
            before = ",\n"

        yield write
        file.write("[]\n" if before == "[\n" else "\n]\n")


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with atomic_write(path) as file:
        # with both characters at the ends of lines, both are quoted in names
        table = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
        table.writeheader()
        yield lambda row: table.writerow(_flat(row))


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with atomic_write(path) as file, parquet_rows(file.buffer) as (write, _):
        yield write


@contextmanager
def parquet_rows(
    file: IO[bytes],
) -> Iterator[tuple[Callable[[Prediction], None], Callable[[dict[str, str]], None]]]:
    """Write rows as Parquet; the file is whole when the block ends.

    Args:
        file: where to.

    Returns:
        What takes a row, and what takes texts to be kept beside them in the file's metadata.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema(
        [(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()]
    )
    with ParquetWriter(file, schema) as table:
        waiting: list[dict[str, Any]] = []

        def flush() -> None:
            table.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(row: Prediction) -> None:
            values = _flat(row)
            for name in ("file", "error"):  # Parquet's strings are UTF-8
                text = values[name]
                values[name] = text and text.encode("utf-8", "backslashreplace").decode()
            waiting.append(values)
            if len(waiting) == _ROWS_AT_ONCE:
                flush()

        yield write, table.add_key_value_metadata
        flush()


def _put(file: TextIO, text: str) -> None:
    file.write(text)


def _flat(row: Prediction) -> dict[str, Any]:
    """Give a row's values by :data:`COLUMNS`."""
    values = row.to_dict()
    box = values.pop("box") or {}
    return values | {f"box_{side}": box.get(side) for side in ("x", "y", "width", "height")}


_FORMS: dict[str, Callable[[Path], AbstractContextManager[Callable[[Prediction], None]]]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
