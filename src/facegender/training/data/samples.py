"""Labelled samples, streamed out of folders, tar and zip archives without unpacking them to disk.

Every input is read once, front to back, and a picture's bytes exist only in memory, so no name in
an archive can lead outside it. Whatever is no picture of ours is reported and never read.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import InputError
from facegender.inputs.archives import (
    ENCRYPTED,
    FOLDER,
    LAYOUT,
    list_members,
    name_problem,
    read_member,
)
from facegender.model.model_file import LABELS

_GENDERS = {
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("male", "m", "man"), "male"),
    "": "",
}


_FACTS = ("person", "source", "age", "race")
_NOT_MORE = frozenset({"", "archive", "file", "gender", *_FACTS})


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture: where it came from and what is known of it; (archive, file) is unique.

    `archive` is the name (not the path) of the archive or folder, `file` the "/"-separated name in
    it, `label` one of LABELS; the rest is the table's and empty where it says nothing.
    """

    archive: str
    file: str
    label: str
    person: str = ""
    source: str = ""
    age: str = ""
    race: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """What else a table says of samples, in their order.

    `lines` are the lines of the table that they stand on (0: on none), `values` the texts of every
    column that no Sample has.
    """

    lines: list[int]
    values: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much is read before an input is taken for an archive bomb, over all inputs together."""

    members: int = 5_000_000
    member_bytes: int = 256 << 20
    total_bytes: int = 1 << 40


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


def stream_samples(
    inputs: Sequence[Path],
    table: Path | None = None,
    limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
    on_skip: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[Sample, bytes]]:
    """Yield each labelled picture's sample and file bytes, so that nothing is unpacked to disk.

    The label is the innermost folder named male or female, unless the table's `gender` says
    otherwise. `on_skip(name, reason)` hears of every file that came to nothing, and at the end how
    many rows of the table did. Bytes are not decoded here: a sample may turn out to be no picture.

    Raises InputError: for a missing input, two inputs of one name, or a wrong table at the call;
    for a damaged or encrypted archive, a passed limit, no sample at all, or a table of which no
    row matched, while iterating.
    """
    if not inputs:
        raise InputError(f"No input was given. {LAYOUT}")
    paths: dict[str, Path] = {}
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path of the folder or archive.")
        name = _input_name(path)
        if name in paths:
            raise InputError(
                f"{paths[name]} and {path} have the same name, {name}, which must tell samples "
                "apart. Rename one of them, or give it once."
            )
        paths[name] = path
    rows = {} if table is None else _read_table(table)
    return _stream(paths, table, rows, limits, on_skip or (lambda _name, _reason: None))


def read_columns(table: Path, samples: Sequence[Sample]) -> Columns:
    """Read the columns of a table that no Sample has, whatever they are called.

    Raises InputError if the table is wrong.
    """
    rows = _read_table(table)
    strays = _strays(rows, {sample.archive for sample in samples})
    found = [rows.get(_row_key(sample.archive, sample.file, rows, strays)) for sample in samples]
    names = {name: None for row in found if row for name in row.more}
    return Columns(
        [row.line if row else 0 for row in found],
        {name: [row.more.get(name, "") if row else "" for row in found] for name in names},
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table.

    `facts` are person, source, age and race, as in a Sample; `more` the columns besides.
    """

    line: int
    gender: str
    facts: tuple[str, ...]
    more: dict[str, str]


def _stream(
    paths: dict[str, Path],
    table: Path | None,
    rows: dict[tuple[str, str], _Row],
    limits: ArchiveLimits,
    on_skip: Callable[[str, str], None],
) -> Iterator[tuple[Sample, bytes]]:
    """Do the work of `stream_samples` once its arguments are known to be good."""
    matched: set[tuple[str, str]] = set()
    strays = _strays(rows, paths)
    found = members = total_bytes = 0
    for archive, path in paths.items():
        seen: set[str] = set()
        for member in list_members(archive, path):
            members += 1
            total_bytes += member.size
            shown = f"{archive}/{member.name}"
            if members > limits.members:
                raise _limit_error(archive, "members", limits.members, "files and folders")
            if total_bytes > limits.total_bytes:
                raise _limit_error(archive, "total_bytes", limits.total_bytes, "bytes in all")
            if member.problem == FOLDER:
                continue
            if member.problem == ENCRYPTED:
                raise InputError(
                    f"{archive} is encrypted ({member.name} needs a password). Unpack it yourself "
                    "and give the folder, or pack it again without a password."
                )
            if reason := member.problem or name_problem(member.name):
                on_skip(shown, reason)
                continue
            file = _plain_name(member.name)
            key = _row_key(archive, file, rows, strays)
            row = rows.get(key)
            label = (row.gender if row else "") or _folder_label(file)
            if row:
                matched.add(key)
            if not label:
                on_skip(shown, "not in a folder named male or female, and no gender in a table")
                continue
            if file in seen:
                on_skip(shown, "a second file of this name; the first one counts")
                continue
            seen.add(file)
            if member.size > limits.member_bytes:
                raise _limit_error(shown, "member_bytes", limits.member_bytes, "bytes in a file")
            data = read_member(archive, member)
            found += 1
            yield Sample(archive, file, label, *(row.facts if row else ())), data
    if not found:
        given = ", ".join(map(str, paths.values()))
        hint = f" No row of {table} matched a file either." if rows and not matched else ""
        raise InputError(f"No labelled picture in {given}.{hint} {LAYOUT}")
    if rows and not matched:
        raise InputError(
            f"Not one row of {table} matches a file. Its `file` must be the name inside the "
            f"archive or folder, and its `archive` empty or one of: {', '.join(paths)}."
        )
    if unmatched := [row.line for key, row in rows.items() if key not in matched]:
        on_skip(
            str(table), f"rows that match no file: {len(unmatched):,} (first: line {unmatched[0]})"
        )


def _row_key(
    archive: str,
    file: str,
    rows: dict[tuple[str, str], _Row],
    strays: dict[str, tuple[str, str]],
) -> tuple[str, str]:
    """Say under which key a file would stand in the table."""
    return (archive, file) if (archive, file) in rows else strays.get(file, ("", file))


def _strays(
    rows: dict[tuple[str, str], _Row], archives: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Rows for archives that were not given, by file: those of a set that was unpacked or renamed.

    Only a file named once in the table can be told without its archive.
    """
    given = {"", *archives}
    times = Counter(file for _, file in rows)
    return {key[1]: key for key in rows if key[0] not in given and times[key[1]] == 1}


def _limit_error(where: str, limit: str, value: int, unit: str) -> InputError:
    """Say which limit was passed, and how to go on if the input is to be trusted."""
    return InputError(
        f"{where}: more than {value:,} {unit}, which looks like an archive bomb. If the data is "
        f"sound, raise the limit `{limit}`."
    )


def _input_name(path: Path) -> str:
    """Give the last part of a path, also for "." and ".."."""
    name = path.absolute().name
    return name if name not in ("", "..") else path.resolve().name or "/"


def _plain_name(name: str) -> str:
    """Drop a leading "./" and other empty steps, so that table and archive spell names alike."""
    return "/".join(subset for subset in name.split("/") if subset not in ("", "."))


def _folder_label(file: str) -> str:
    """Find the innermost folder that is named as a label; empty if none is."""
    folders = (subset.lower() for subset in reversed(file.split("/")[:-1]))
    return next((subset for subset in folders if subset in LABELS), "")


def _read_table(path: Path) -> dict[tuple[str, str], _Row]:
    """Read the table of corrections, keyed by (archive or "", file)."""
    rows: dict[tuple[str, str], _Row] = {}
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
            f"The table {path} cannot be read ({error}). Give a CSV file in UTF-8."
        ) from error
    return rows


def _parse_row(
    path: Path, line: int, columns: list[str], values: list[str]
) -> tuple[tuple[str, str], _Row]:
    """Check one line of the table and give its key and content."""
    if len(values) > len(columns):
        raise InputError(
            f"{path}, line {line}: {len(values)} values for {len(columns)} columns. Put values "
            "with commas in double quotes."
        )
    cells = dict(zip(columns, values, strict=False))
    file = _plain_name(cells.get("file", ""))
    if not file:
        raise InputError(f"{path}, line {line}: `file` is empty. Fill it in or remove the line.")
    said = cells.get("gender", "").strip()
    gender = _GENDERS.get(said.lower())
    if gender is None:
        raise InputError(
            f"{path}, line {line}: gender {said!r} is not known. Write male or female, or leave "
            "it empty to keep the folder's label."
        )
    facts = tuple(cells.get(name, "").strip() for name in _FACTS)
    more = {name: text.strip() for name, text in cells.items() if name not in _NOT_MORE}
    archive = cells.get("archive", "").strip()
    return (archive, file), _Row(line, gender, facts, more)


_AGES = ((0, 3), (4, 12), (13, 20), (21, 60), (61, 150))


def age_in_years(age: str) -> float | None:
    """Read an age in years, or the middle of a band such as ``(25, 32)``; None if there is none."""
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", age)[:2]]
    return sum(numbers) / len(numbers) if numbers else None


def age_group(age: str) -> str:
    """Name the group of an age as a table says it; "" where it says none."""
    years = age_in_years(age)
    if years is None:
        return ""
    for low, high in _AGES:
        if years <= high:
            return f"{low:02d}-{high}" if high < 150 else f"{low}+"
    return ""
