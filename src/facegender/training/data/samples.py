"""Labeled samples, streamed from folders, tar and zip archives without unpacking them to disk.

Every input is read once, from start to end, and an image's bytes exist only in memory, so no name
in an archive can lead outside of it. Files that are not samples are reported and not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import InputError
from facegender.inputs.archives import LAYOUT, list_members, name_problem, read_member
from facegender.inputs.member import ENCRYPTED, FOLDER
from facegender.training.data.label_folders import LABEL_FOLDERS, FolderCounts, folder_label
from facegender.training.data.metadata import Key, Metadata, plain_name, read_metadata


@dataclass(frozen=True, slots=True)
class Sample:
    """One labeled image; (archive, file) is unique.

    Attributes:
        archive: name (not path) of the archive or folder.
        file: name in it, separated by "/".
        label: one of ``LABELS``.
        person: from the metadata table, as all that follow; "" if it is not known.
        source: dataset that the image is from.
        age: in years, or a band such as ``(25, 32)``.
        race: any group that the table names.
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
    """The columns of a metadata table that are not fields of :class:`Sample`, in samples' order.

    Attributes:
        lines: line of each sample in the table, 0 if it has none.
        values: each column's texts, by name.
    """

    lines: list[int]
    values: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much is read, over all inputs together, before an input counts as an archive bomb."""

    members: int = 5_000_000
    member_bytes: int = 256 << 20
    total_bytes: int = 1 << 40


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


def stream_samples(
    inputs: Sequence[Path],
    metadata: Path | None = None,
    limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
    on_skip: Callable[[str, str], None] | None = None,
    classes: Mapping[str, str] = LABEL_FOLDERS,
) -> Iterator[tuple[Sample, bytes]]:
    """Yield each labeled image's sample and file bytes.

    The label is that of the innermost folder named male or female (or as ``classes`` says), unless
    the metadata table has another one. Bytes are not decoded here: a sample may turn out to be
    unreadable.

    Args:
        inputs: archives or folders with different names.
        metadata: metadata table, or None.
        limits: when to stop reading.
        on_skip: called with the name and reason of each file that is not a sample, and at the end
            with the number of rows of the table that match no file.
        classes: labels by folder name, from ``parse_classes``.

    Raises:
        InputError: at the call, an input is missing, two inputs have one name, or the table is
            wrong; while iterating, an archive is damaged or encrypted, a limit is exceeded, there
            is no sample, or no row of the table matches.
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
                f"{paths[name]} and {path} have the same name, {name}, which must identify their "
                "samples. Rename one of them, or give it once."
            )
        paths[name] = path
    table = read_metadata(metadata, paths)
    on_skip = on_skip or (lambda _name, _reason: None)
    return _stream(paths, metadata, table, limits, on_skip, classes)


def read_columns(metadata: Path, samples: Sequence[Sample]) -> Columns:
    """Read the columns of a metadata table that are not fields of :class:`Sample`.

    Raises:
        InputError: the table is wrong.
    """
    table = read_metadata(metadata, {sample.archive for sample in samples})
    found = [table.rows.get(table.key(sample.archive, sample.file)) for sample in samples]
    names = {name: None for row in found if row for name in row.extra}
    return Columns(
        [row.line if row else 0 for row in found],
        {name: [row.extra.get(name, "") if row else "" for row in found] for name in names},
    )


def _stream(
    paths: dict[str, Path],
    metadata: Path | None,
    table: Metadata,
    limits: ArchiveLimits,
    on_skip: Callable[[str, str], None],
    classes: Mapping[str, str],
) -> Iterator[tuple[Sample, bytes]]:
    """Yield the samples of inputs that were checked."""
    matched: set[Key] = set()
    folders = FolderCounts()
    unlabeled = f"not in a folder named {' or '.join(sorted(classes, reverse=True))}"
    found = members = total_bytes = 0
    for archive, path in paths.items():
        seen: set[str] = set()
        for member in list_members(archive, path):
            members += 1
            total_bytes += member.size
            full_name = f"{archive}/{member.name}"
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
                on_skip(full_name, reason)
                continue
            file = plain_name(member.name)
            key = table.key(archive, file)
            row = table.rows.get(key)
            label = (row.label if row else "") or folder_label(file, classes)
            if row:
                matched.add(key)
            if not label:
                folders.add(file)
                on_skip(full_name, f"{unlabeled}, and no label in a table")
                continue
            if file in seen:
                on_skip(full_name, "a second file of this name; the first one counts")
                continue
            seen.add(file)
            if member.size > limits.member_bytes:
                raise _limit_error(
                    full_name, "member_bytes", limits.member_bytes, "bytes in a file"
                )
            data = read_member(archive, member)
            found += 1
            yield Sample(archive, file, label, *(row.groups if row else ())), data
    if not found:
        given = ", ".join(map(str, paths.values()))
        hint = f" No row of {metadata} matched a file either." if table.rows and not matched else ""
        advice = f"{LAYOUT} {folders.describe()}".rstrip()
        raise InputError(f"No labeled image in {given}.{hint} {advice}")
    if table.rows and not matched:
        raise InputError(
            f"Not one row of {metadata} matches a file. Its `file` must be the name inside the "
            f"archive or folder, and its `archive` empty or one of: {', '.join(paths)}."
        )
    if unmatched := [row.line for key, row in table.rows.items() if key not in matched]:
        on_skip(
            str(metadata),
            f"rows that match no file: {len(unmatched):,} (first: line {unmatched[0]})",
        )


def _limit_error(where: str, limit: str, value: int, unit: str) -> InputError:
    """Name the limit that was exceeded, and how to go on if the input can be trusted."""
    return InputError(
        f"{where}: more than {value:,} {unit}, which looks like an archive bomb. If the data is "
        f"sound, raise the limit `{limit}`."
    )


def _input_name(path: Path) -> str:
    """Return the last part of a path, also for "." and ".."."""
    name = path.absolute().name
    return name if name not in ("", "..") else path.resolve().name or "/"


_AGES = ((0, 3), (4, 12), (13, 20), (21, 60), (61, 150))


def age_in_years(age: str) -> float | None:
    """Return an age in years, or the middle of a band such as ``(25, 32)``; None if it has none."""
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", age)[:2]]
    return sum(numbers) / len(numbers) if numbers else None


def age_group(age: str) -> str:
    """Return the age group of an age in a metadata table, such as ``21-60``; "" if it has none."""
    years = age_in_years(age)
    if years is None:
        return ""
    for low, high in _AGES:
        if years <= high:
            return f"{low:02d}-{high}" if high < 150 else f"{low}+"
    return ""
