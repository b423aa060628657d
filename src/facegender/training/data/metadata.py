"""The metadata table: a CSV file with the label, person, source, age and race of images."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import InputError

GROUP_COLUMNS = ("person", "source", "age", "race")
"""Columns that become fields of a sample, in this order."""

_LABEL_COLUMNS = ("label", "gender")  # datasets of the field call it gender
_LABEL_TEXTS = {
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("male", "m", "man"), "male"),
    "": "",
}
_KNOWN_COLUMNS = frozenset({"", "archive", "file", *_LABEL_COLUMNS, *GROUP_COLUMNS})

Key = tuple[str, str]
"""Archive, or "" for any, and the file's name in it."""


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """One row of the table.

    Attributes:
        line: its line in the file.
        label: ``male``, ``female``, or "" to keep the folder's label.
        groups: the texts of :data:`GROUP_COLUMNS`.
        extra: the texts of all other columns, by name.
    """

    line: int
    label: str
    groups: tuple[str, ...]
    extra: dict[str, str]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The rows of a table, and how files find theirs.

    Attributes:
        rows: by key.
        by_file: keys of rows for archives that are not among the inputs, by file: the table of a
            dataset that was renamed or unpacked. Only files that the table names once are here.
    """

    rows: dict[Key, MetadataRow]
    by_file: dict[str, Key]

    def key(self, archive: str, file: str) -> Key:
        """Return the key under which a file would be in the table."""
        exact = (archive, file)
        return exact if exact in self.rows else self.by_file.get(file, ("", file))


def read_metadata(path: Path | None, archives: Iterable[str]) -> Metadata:
    """Read a metadata table.

    Args:
        path: the CSV file; None returns an empty table.
        archives: names of the inputs.

    Raises:
        InputError: the file cannot be read, or a line is wrong (the line is named).
    """
    rows = {} if path is None else _read_rows(path)
    given = {"", *archives}
    times = Counter(file for _, file in rows)
    return Metadata(
        rows, {key[1]: key for key in rows if key[0] not in given and times[key[1]] == 1}
    )


def plain_name(name: str) -> str:
    """Drop a leading "./" and other empty steps, so that table and archive spell names alike."""
    return "/".join(step for step in name.split("/") if step not in ("", "."))


def _read_rows(path: Path) -> dict[Key, MetadataRow]:
    rows: dict[Key, MetadataRow] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = [column.strip().lower() for column in next(reader, [])]
            if "file" not in columns:
                raise InputError(
                    f"{path}, line 1: no column named `file` among {columns}. Give a "
                    "comma-separated table with a heading; its `file` is the name in the archive."
                )
            for values in reader:
                if values:
                    key, row = _parse_row(path, reader.line_num, columns, values)
                    if key in rows:
                        raise InputError(
                            f"{path}, line {row.line}: {key[1]} was already on line "
                            f"{rows[key].line}. Keep one of the two."
                        )
                    rows[key] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The metadata table {path} cannot be read ({error}). Give a CSV file in UTF-8."
        ) from error
    return rows


def _parse_row(
    path: Path, line: int, columns: list[str], values: list[str]
) -> tuple[Key, MetadataRow]:
    """Check one line of the table and return its key and content."""
    where = f"{path}, line {line}"
    if len(values) > len(columns):
        raise InputError(
            f"{where}: {len(values)} values for {len(columns)} columns. Put values "
            "with commas in double quotes."
        )
    cells = dict(zip(columns, values, strict=False))
    file = plain_name(cells.get("file", ""))
    if not file:
        raise InputError(f"{where}: `file` is empty. Fill it in or remove the line.")
    groups = tuple(cells.get(name, "").strip() for name in GROUP_COLUMNS)
    extra = {name: text.strip() for name, text in cells.items() if name not in _KNOWN_COLUMNS}
    archive = cells.get("archive", "").strip()
    return (archive, file), MetadataRow(line, _parse_label(where, cells), groups, extra)


def _parse_label(where: str, cells: dict[str, str]) -> str:
    """Read the label from the column ``label`` or ``gender``; "" if both are empty."""
    labels = {}
    for column in _LABEL_COLUMNS:
        text = cells.get(column, "").strip()
        label = _LABEL_TEXTS.get(text.lower())
        if label is None:
            raise InputError(
                f"{where}: {column} {text!r} is not known. Write male or female, or leave "
                "it empty to keep the folder's label."
            )
        if label:
            labels[column] = label
    if len(set(labels.values())) > 1:
        both = " and ".join(f"{column} {label!r}" for column, label in labels.items())
        raise InputError(f"{where}: {both} differ. Keep one of the two columns.")
    return next(iter(labels.values()), "")
