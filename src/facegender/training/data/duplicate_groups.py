"""Duplicate groups: the images that an audit found to be copies, and those to leave out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.training.data.samples import Sample

DUPLICATE_GROUPS_NAME = "duplicate_groups.csv"
"""The file's name in an audit's folder."""

Key = tuple[str, str, str]
"""Archive, file, SHA-256 of the file."""


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """The content of ``duplicate_groups.csv``.

    Attributes:
        groups: the group of each copy.
        left_out: why an image is left out of training and validation.
    """

    groups: dict[Key, str]
    left_out: dict[Key, str]

    def of(self, samples: Sequence[Sample], digests: Sequence[str]) -> list[str]:
        """Return each sample's group, "" if it has no copies."""
        return [self.groups.get(key, "") for key in _keys(samples, digests)]

    def keeps(self, samples: Sequence[Sample], digests: Sequence[str]) -> list[bool]:
        """Return which samples are not left out."""
        return [key not in self.left_out for key in _keys(samples, digests)]

    def is_of(self, samples: Sequence[Sample], digests: Sequence[str]) -> bool:
        """Return whether any of the samples is in the file, or the file is empty."""
        named = {*self.groups, *self.left_out}
        return not named or not named.isdisjoint(_keys(samples, digests))


def _keys(samples: Sequence[Sample], digests: Sequence[str]) -> list[Key]:
    return [
        (sample.archive, sample.file, digest)
        for sample, digest in zip(samples, digests, strict=True)
    ]


def read_duplicate_groups(folder: Path) -> DuplicateGroups:
    """Read the duplicate groups of an audit.

    Args:
        folder: of the audit.

    Raises:
        InputError: the folder contains no audit, or its file is damaged.
    """
    path = folder / DUPLICATE_GROUPS_NAME
    groups: dict[Key, str] = {}
    left_out: dict[Key, str] = {}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in csv.DictReader(stream, strict=True):
                key = (row["archive"], row["file"], row["sha256"])
                if row["group"]:
                    groups[key] = row["group"]
                if row["left_out"]:
                    left_out[key] = row["left_out"]
    except (OSError, KeyError, csv.Error) as error:
        raise InputError(
            f"{folder} contains no audit ({error}). To make one:  "
            f"facegender audit ARCHIVE -o {folder}"
        ) from error
    return DuplicateGroups(groups, left_out)


def write_duplicate_groups(
    path: Path,
    samples: Sequence[Sample],
    digests: Sequence[str],
    groups: Mapping[int, str],
    left_out: Mapping[int, str],
) -> None:
    """Write duplicate groups.

    Args:
        path: the file.
        samples: all samples.
        digests: SHA-256 of their files.
        groups: the group of each copy, by its index among the samples.
        left_out: why an image is left out, by its index.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path, "surrogateescape") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(["archive", "file", "sha256", "group", "left_out"])
        for row in sorted({*groups, *left_out}):
            sample = samples[row]
            key = [sample.archive, sample.file, digests[row]]
            writer.writerow([*key, groups.get(row, ""), left_out.get(row, "")])
