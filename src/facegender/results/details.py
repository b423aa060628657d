"""The details file: all result rows with all fields, as JSON, JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from facegender.errors import InputError, MissingExtraError, OutputError
from facegender.results.output_file import is_stream, open_output
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
"""Columns and types in CSV and Parquet. In JSON and JSONL ``box`` is one object of four numbers."""

_ROWS_PER_GROUP = 4096


class DetailsWriter(AbstractContextManager["DetailsWriter"]):
    """Writes rows to a details file, which appears when the block ends without an error.

    Example:
        >>> with DetailsWriter(Path("details.jsonl")) as details:
        ...     details.append(Prediction("a.jpg", Status.NO_FACE, width=90, height=120))
    """

    def __init__(self, path: Path, file_format: str | None = None) -> None:
        """Choose the format; nothing is written before ``with``.

        Args:
            path: the file to write; an earlier one is replaced.
            file_format: see :func:`resolve_format`.

        Raises:
            InputError: an unknown format.
            MissingExtraError: Parquet without pyarrow.
        """
        self._file = _WRITERS[resolve_format(path, file_format)](path)
        self._write: Callable[[Prediction], None] | None = None

    def __enter__(self) -> DetailsWriter:
        """Create the file under a temporary name.

        Raises:
            OutputError: it cannot be written.
        """
        self._write = self._file.__enter__()
        return self

    def append(self, row: Prediction) -> None:
        """Write one row; rows of skipped files are ignored.

        Raises:
            ValueError: outside ``with``.
        """
        if self._write is None:
            raise ValueError("The details file is not open: use append() inside 'with'")
        if row.status != Status.SKIPPED:
            self._write(row)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Rename the file to its final name, or remove it after an error."""
        self._write = None
        return self._file.__exit__(kind, error, trace)


def resolve_format(path: Path, file_format: str | None = None) -> str:
    """Return the format of a details file.

    Args:
        path: the file.
        file_format: ``json``, ``jsonl``, ``csv`` or ``parquet``; None goes by the suffix, and is
            ``jsonl`` for a name without a suffix, standard output and pipes.

    Raises:
        InputError: an unknown format, or no format and an unknown suffix.
        MissingExtraError: Parquet without pyarrow.
    """
    if file_format is None:
        suffix = path.suffix.lower().removeprefix(".")
        if suffix in _WRITERS:
            file_format = suffix
        elif not suffix or is_stream(path):
            file_format = "jsonl"
        else:
            known = ", ".join(f".{name}" for name in _WRITERS)
            raise InputError(
                f"The format of {path} is unknown. Use one of the suffixes {known}, or name the "
                f"format with --format {'|'.join(_WRITERS)}"
            )
    if file_format not in _WRITERS:
        raise InputError(f"The format {file_format!r} is not one of {', '.join(_WRITERS)}")
    if file_format == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("parquet", "pyarrow") from None
    return file_format


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with open_output(path) as file:

        def write(row: Prediction) -> None:
            file.write(json.dumps(row.to_dict(), ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _json(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with open_output(path) as file:
        separator = "[\n"

        def write(row: Prediction) -> None:
            nonlocal separator
            file.write(separator + json.dumps(row.to_dict(), ensure_ascii=False))
            separator = ",\n"

        yield write
        file.write("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with open_output(path) as file:
        # names with either character are quoted only if the line end has both
        table = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
        table.writeheader()
        yield lambda row: table.writerow(_flat(row))


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Prediction], None]]:
    with open_output(path) as file:
        binary = getattr(file, "buffer", None)
        if binary is None:  # standard output that the caller has replaced
            raise OutputError(f"Cannot write Parquet to {path}: it takes only text")
        with parquet_rows(binary) as (write, _):
            yield write


@contextmanager
def parquet_rows(
    file: IO[bytes],
) -> Iterator[tuple[Callable[[Prediction], None], Callable[[dict[str, str]], None]]]:
    """Write rows as Parquet; the file is complete when the block ends.

    Args:
        file: a binary file.

    Yields:
        A function that writes a row, and one that adds texts to the file's metadata.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema(
        [(name, pyarrow.type_for_alias(alias)) for name, alias in COLUMNS.items()]
    )
    with ParquetWriter(file, schema) as table:
        group: list[dict[str, Any]] = []
        integers = [name for name, alias in COLUMNS.items() if alias == "int32"]

        def flush() -> None:
            table.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()

        def write(row: Prediction) -> None:
            values = _flat(row)
            for name in integers:  # here, and not with a group of rows
                if values[name] is not None and not 0 <= values[name] < 2**31:
                    raise ValueError(f"{name} {values[name]} is not within 0 to 2^31")
            for name in ("file", "error"):  # Parquet's strings are UTF-8
                text = values[name]
                values[name] = text and text.encode("utf-8", "backslashreplace").decode()
            group.append(values)
            if len(group) == _ROWS_PER_GROUP:
                flush()

        yield write, table.add_key_value_metadata
        flush()


def _flat(row: Prediction) -> dict[str, Any]:
    """Return the values of a row by :data:`COLUMNS`."""
    values = row.to_dict()
    box = values.pop("box") or {}
    return values | {f"box_{side}": box.get(side) for side in ("x", "y", "width", "height")}


_WRITERS: dict[str, Callable[[Path], AbstractContextManager[Callable[[Prediction], None]]]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
