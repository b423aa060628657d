"""The split: ``split.csv``, the subset (training, validation or test) of every sample of a run."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample
from facegender.training.renamed import SPLIT_COLUMNS, refuse_renamed

SUBSETS = ("train", "validation", "test")
SPLIT_NAME = "split.csv"
"""The split's file name in a run folder."""

_SAMPLE_COLUMNS = ("archive", "file", "label", "person", "source", "age", "race")
_COLUMNS = (*_SAMPLE_COLUMNS[:3], "subset", "group", *_SAMPLE_COLUMNS[3:], "sha256", "error")


@dataclass(frozen=True, slots=True)
class Assignment:
    """The subset of one sample.

    Attributes:
        sample: the sample.
        sha256: digest of the file's bytes in hexadecimal.
        group: id that all images of one person and all copies share; "" if it is unreadable.
        subset: one of :data:`SUBSETS`; "" if it is unreadable.
        error: why it is unreadable, or "".
    """

    sample: Sample
    sha256: str
    group: str
    subset: str
    error: str = ""


def write_split(path: Path, assignments: Sequence[Assignment]) -> None:
    """Write a split atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    # names in an archive need not be UTF-8; surrogateescape keeps their bytes
    with atomic_write(path, "surrogateescape") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(_COLUMNS)
        for item in assignments:
            sample = item.sample
            row = [sample.archive, sample.file, sample.label, item.subset, item.group]
            row += [sample.person, sample.source, sample.age, sample.race]
            row += [item.sha256, item.error]
            # csv does not quote a single carriage return, and then reads two lines
            (quoting if any("\r" in cell for cell in row) else plain).writerow(row)


def read_split(path: Path) -> list[Assignment]:
    """Read a split and check all of it, because it may have been edited by hand.

    Raises:
        InputError: an unknown subset or label, a missing or renamed column, a sample on two lines,
            or a group in two subsets; the line is named.
    """
    assignments: list[Assignment] = []
    line_of_key: dict[tuple[str, str], int] = {}
    subset_of_group: dict[str, tuple[str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, [])
            refuse_renamed(path, columns, SPLIT_COLUMNS)
            if missing := [column for column in _COLUMNS if column not in columns]:
                raise InputError(
                    f"{path}, line 1: no column {', '.join(missing)}. Make the split again."
                )
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                item = _parse_row(where, columns, values)
                key = (item.sample.archive, item.sample.file)
                first = line_of_key.setdefault(key, reader.line_num)
                if first != reader.line_num:
                    raise InputError(
                        f"{where}: {'/'.join(key)} was already on line {first}. Remove one."
                    )
                subset, first = subset_of_group.setdefault(
                    item.group, (item.subset, reader.line_num)
                )
                if item.subset and subset != item.subset:
                    raise InputError(
                        f"{where}: group {item.group} is in {item.subset} here and in {subset} on "
                        f"line {first}. Give the whole group one subset."
                    )
                assignments.append(item)
    except (OSError, csv.Error) as error:
        raise InputError(f"The split {path} cannot be read ({error}). Make it again.") from error
    return assignments


def match_split(
    rows: Sequence[Assignment],
    samples: Sequence[Sample],
    digests: Sequence[str],
    errors: Sequence[str],
    path: Path,
) -> list[Assignment]:
    """Put the rows of a split into the order of samples.

    Labels and metadata are those of the samples, subsets and groups those of the split. Rows for
    images that are not among the samples are left out; an unreadable sample gets no subset.

    Args:
        rows: the split.
        samples: ``N`` samples.
        digests: SHA-256 of each sample's bytes.
        errors: why each sample is unreadable, or "".
        path: where the split was read from, for messages.

    Returns:
        ``N`` rows.

    Raises:
        InputError: a readable image is not in the split, or its content differs.
    """
    known = {(row.sample.archive, row.sample.file): row for row in rows}
    matched = []
    for sample, digest, error in zip(samples, digests, errors, strict=True):
        row = known.get((sample.archive, sample.file))
        if row is None and not error:
            raise InputError(
                f"{sample.archive}: {sample.file} is not in the split {path}. To make a new split, "
                "leave out --split."
            )
        if row is not None and row.sha256 != digest:
            raise InputError(
                f"{sample.archive}: {sample.file} has other content than in the split {path}"
            )
        matched.append(
            Assignment(sample, digest, "", "", error)
            if row is None or error
            else replace(row, sample=sample)
        )
    return matched


def _parse_row(where: str, columns: list[str], values: list[str]) -> Assignment:
    """Check one line of a split."""
    if len(values) != len(columns):
        raise InputError(f"{where}: {len(values)} values for {len(columns)} columns.")
    cells = dict(zip(columns, values, strict=True))
    subset, group, error = cells["subset"], cells["group"], cells["error"]
    if cells["label"] not in LABELS:
        raise InputError(f"{where}: label {cells['label']!r} is none of {', '.join(LABELS)}.")
    if subset not in (*SUBSETS, ""):
        raise InputError(f"{where}: subset {subset!r} is none of {', '.join(SUBSETS)}.")
    if bool(subset) == bool(error) or bool(subset) != bool(group):
        raise InputError(f"{where}: give a subset and a group, or an error and neither of them.")
    sample = Sample(*(cells[name] for name in _SAMPLE_COLUMNS))
    return Assignment(sample, cells["sha256"], group, subset, error)
