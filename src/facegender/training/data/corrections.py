"""Corrected labels: a CSV file with the columns ``sha256`` and ``label``, and maybe ``reviewed``.

``sha256`` is the first 16 or more hexadecimal digits of the SHA-256 of an image's file, so that a
table says nothing else of it; ``label`` is the correct label, or empty to leave the image out.
``reviewed`` is ``yes`` or empty: a line that nobody reviewed is a proposal of the audit. It
applies to training only, and with an empty label to nothing. Without the column all lines count as
reviewed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from facegender.errors import InputError
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample

DIGITS = 16
"""Hexadecimal digits of a digest that identify an image."""

REVIEWED = "yes"
"""What the column ``reviewed`` says of a line that a person has checked."""

_REVIEWED_VALUES = {
    **dict.fromkeys((REVIEWED, "y", "true", "1", "x"), True),
    **dict.fromkeys(("", "no", "n", "false", "0"), False),
}


@dataclass(frozen=True, slots=True)
class Corrections:
    """Labels by the first ``DIGITS`` digits of each image's digest.

    Attributes:
        reviewed: ``male``, ``female``, or "" to leave the image out.
        proposed: labels of lines that nobody reviewed, for training only.
        unreviewed: number of images that nobody reviewed, with and without a proposed label.
    """

    reviewed: dict[str, str] = field(default_factory=dict)
    proposed: dict[str, str] = field(default_factory=dict)
    unreviewed: int = 0


def read_corrections(path: Path) -> Corrections:
    """Read a table of corrections.

    Raises:
        InputError: the file cannot be read, or a line is wrong (the line is named).
    """
    reviewed: dict[str, str] = {}
    proposals: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            if missing := {"sha256", "label"} - columns:
                raise InputError(f"{path}, line 1: no column {', '.join(sorted(missing))}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                digest, label = _read_line(row, where)
                is_reviewed = "reviewed" not in columns or _is_reviewed(row["reviewed"], where)
                found = reviewed if is_reviewed else proposals
                if found.setdefault(digest, label) != label:
                    raise InputError(f"{where}: another line has another label for this image")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"Cannot read the corrections {path}: {error}") from error
    unreviewed = {digest: label for digest, label in proposals.items() if digest not in reviewed}
    proposed = {digest: label for digest, label in unreviewed.items() if label}
    return Corrections(reviewed, proposed, len(unreviewed))


def _read_line(row: Mapping[str, str | None], where: str) -> tuple[str, str]:
    """Check the digest and the label of a line, and shorten the digest to ``DIGITS`` digits."""
    digest, label = (row["sha256"] or "").lower(), row["label"]
    if len(digest) < DIGITS or set(digest) - set("0123456789abcdef"):
        raise InputError(f"{where}: {digest!r} is not a SHA-256 of {DIGITS} digits or more")
    if label not in (*LABELS, ""):
        raise InputError(f"{where}: label {label!r} is none of {', '.join(LABELS)}, and not empty")
    return digest[:DIGITS], label


def _is_reviewed(value: str | None, where: str) -> bool:
    is_reviewed = _REVIEWED_VALUES.get((value or "").strip().lower())
    if is_reviewed is None:
        raise InputError(f"{where}: reviewed {value!r} is neither {REVIEWED} nor empty")
    return is_reviewed


def apply_corrections(
    samples: Sequence[Sample], digests: Sequence[str], labels: Mapping[str, str]
) -> list[Sample | None]:
    """Return the samples with corrected labels; None in place of one that is left out.

    Args:
        samples: with their original labels.
        digests: SHA-256 of the files.
        labels: as in :class:`Corrections`.
    """
    corrected: list[Sample | None] = []
    for sample, digest in zip(samples, digests, strict=True):
        label = labels.get(digest[:DIGITS], sample.label)
        corrected.append(replace(sample, label=label) if label else None)
    return corrected
