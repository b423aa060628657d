"""What an audit leaves for a training: which pictures are copies, and which to leave out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.training.data.samples import Sample

DUPLICATE_GROUPS_NAME = "duplicate_groups.csv"
"""What the list is called in an audit's folder."""

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """What ``duplicate_groups.csv`` says: groups of copies, and what to leave out.

    Both by archive, file, and SHA-256 of the file.
    """

    groups: dict[Key, str]
    left_out: dict[Key, str]

    def of(self, samples: Sequence[Sample], digests: Sequence[str]) -> list[str]:
        """Give each sample's group of copies, "" where it has none."""
        return [self.groups.get(key, "") for key in _keys(samples, digests)]

    def keeps(self, samples: Sequence[Sample], digests: Sequence[str]) -> list[bool]:
        """Tell which samples stay."""
        return [key not in self.left_out for key in _keys(samples, digests)]

    def is_of(self, samples: Sequence[Sample], digests: Sequence[str]) -> bool:
        """Tell whether it names any of the samples, or nothing at all."""
        named = {*self.groups, *self.left_out}
        return not named or not named.isdisjoint(_keys(samples, digests))


def _keys(samples: Sequence[Sample], digests: Sequence[str]) -> list[Key]:
    return [
        (sample.archive, sample.file, digest)
        for sample, digest in zip(samples, digests, strict=True)
    ]


def read_duplicate_groups(folder: Path) -> DuplicateGroups:
    """Read the groups that an audit left in a folder.

    Raises:
        InputError: the folder holds no audit, or its file is damaged.
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
            f"{folder} holds no audit ({error}): make one with facegender audit ARCHIVE -o {folder}"
        ) from error
    return DuplicateGroups(groups, left_out)


def write_duplicate_groups(
    path: Path,
    samples: Sequence[Sample],
    digests: Sequence[str],
    groups: Mapping[int, str],
    left_out: Mapping[int, str],
) -> None:
    """Write the list.

    Args:
        path: where to.
        samples: all pictures.
        digests: SHA-256 of each one's file.
        groups: each copy's group, by its place among the samples.
        left_out: why a picture should be left out, likewise.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path, "surrogateescape") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(["archive", "file", "sha256", "group", "left_out"])
        for row in sorted({*groups, *left_out}):
            sample = samples[row]
            facts = [sample.archive, sample.file, digests[row]]
            writer.writerow([*facts, groups.get(row, ""), left_out.get(row, "")])
