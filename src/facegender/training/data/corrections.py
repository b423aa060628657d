"""Corrections of labels: pictures named by their content, so that a list says nothing else of them.

A correction is one line of a CSV file: the first 16 or more hexadecimal digits of the SHA-256 of a
picture's file, and the label it should have had, or nothing where it should be left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from facegender.errors import InputError
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample

DIGITS = 16
"""Hexadecimal digits of a digest that name a picture."""


def read_corrections(path: Path) -> dict[str, str]:
    """Read a list of corrections.

    Returns:
        The first ``DIGITS`` digits of each digest -> ``male``, ``female``, or "" to leave it out.

    Raises:
        InputError: it cannot be read, or a line is wrong (the line is named).
    """
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            if missing := {"sha256", "label"} - set(rows.fieldnames or ()):
                raise InputError(f"{path}, line 1: no column {', '.join(sorted(missing))}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                digest, label = (row["sha256"] or "").lower(), row["label"]
                if len(digest) < DIGITS or set(digest) - set("0123456789abcdef"):
                    raise InputError(
                        f"{where}: {digest!r} is no SHA-256 of {DIGITS} digits or more"
                    )
                if label not in (*LABELS, ""):
                    raise InputError(
                        f"{where}: label {label!r} is none of {', '.join(LABELS)}, and not empty"
                    )
                if found.setdefault(digest[:DIGITS], label) != label:
                    raise InputError(f"{where}: another line gives this picture another label")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot read the corrections {path}: {error}") from error
    return found


def apply_corrections(
    samples: Sequence[Sample], digests: Sequence[str], corrections: Mapping[str, str]
) -> list[Sample | None]:
    """Give every sample its corrected label; None where it should be left out.

    Args:
        samples: as they were listed.
        digests: SHA-256 of each one's file.
        corrections: what :func:`read_corrections` gives.
    """
    corrected: list[Sample | None] = []
    for sample, digest in zip(samples, digests, strict=True):
        label = corrections.get(digest[:DIGITS], sample.label)
        corrected.append(replace(sample, label=label) if label else None)
    return corrected
