"""The score table: a row for each picture that was judged; every figure is computed from it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample

PREDICTIONS_NAME = "predictions.csv"
"""What the table is called in a run folder."""

_DIGITS = 6
_COLUMNS = ("archive", "file", "label", "subset", "source", "age", "race", "p_male")
_NEEDED = ("file", "label", "p_male")


@dataclass(frozen=True, slots=True)
class PredictionsTable:
    """Answers for labelled pictures, side by side: sample, part of the split, P(male).

    ``p_male`` is ``float64 [N]``, rounded to what the table shows, so that figures computed before
    it was written are those computed from the file. An answer is ``male`` above 0.5.
    """

    samples: list[Sample]
    subsets: list[str]
    p_male: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index into ``LABELS`` of every sample, ``int64 [N]``."""
        return np.array([LABELS.index(sample.label) for sample in self.samples], np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """``float64 [N, 2]`` in the order of ``LABELS``."""
        return np.stack([1.0 - self.p_male, self.p_male], 1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which answers are the label, ``bool [N]``."""
        return np.asarray((self.p_male > 0.5) == (self.labels == 1))

    def pick(self, rows: Sequence[int] | NDArray[np.int64]) -> PredictionsTable:
        """Give some rows, in the order asked for."""
        return PredictionsTable(
            [self.samples[row] for row in rows],
            [self.subsets[row] for row in rows],
            self.p_male[np.asarray(rows, np.int64)],
        )

    def of_subset(self, subset: str) -> PredictionsTable:
        """Give the rows of one part of the split."""
        return self.pick([row for row, name in enumerate(self.subsets) if name == subset])


def make_predictions(
    samples: Sequence[Sample], subsets: Sequence[str], probabilities: NDArray[np.floating]
) -> PredictionsTable:
    """Put a table together.

    Args:
        samples: ``N`` samples.
        parts: each one's part of the split, or ``new``.
        probabilities: ``float [N, 2]`` in the order of ``LABELS``.
    """
    p_male: NDArray[np.float64] = probabilities[:, 1].astype(np.float64).round(_DIGITS)
    return PredictionsTable(list(samples), list(subsets), p_male)


def write_predictions(path: Path, scores: PredictionsTable) -> None:
    """Save the table as CSV, whole or not at all."""
    with atomic_write(path, "surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        for sample, subset, p in zip(scores.samples, scores.subsets, scores.p_male, strict=True):
            groups = (sample.source, sample.age, sample.race)
            rows.writerow(
                [sample.archive, sample.file, sample.label, subset, *groups, f"{p:.{_DIGITS}f}"]
            )


def read_predictions(path: Path) -> PredictionsTable:
    """Read a table: ``file``, ``label`` and ``p_male``, and what it has of the other columns.

    Args:
        path: the CSV file, or a run folder that holds one.

    Raises:
        InputError: it cannot be read, a line is wrong (the line is named), or it names one picture
            twice.
    """
    path = path / PREDICTIONS_NAME if path.is_dir() else path
    samples: list[Sample] = []
    subsets: list[str] = []
    p_male: list[float] = []
    names = {item.name for item in fields(Sample)} & set(_COLUMNS)
    seen: dict[tuple[str, str], int] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in _NEEDED if name not in (rows.fieldnames or ())]:
                raise InputError(
                    f"{path} is no table of scores: it has no column {', '.join(missing)}. "
                    "'facegender evaluate ... --scores FILE.csv' writes one"
                )
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                sample = Sample(**{"archive": ""} | {name: row.get(name) or "" for name in names})
                if sample.label not in LABELS:
                    raise InputError(f"{where}: label {sample.label!r} is not male or female")
                first = seen.setdefault((sample.archive, sample.file), rows.line_num)
                if first != rows.line_num:
                    raise InputError(f"{where}: {sample.file} was already on line {first}")
                samples.append(sample)
                subsets.append(row.get("subset") or "")
                p_male.append(_probability(row["p_male"], where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the scores {path}: {error}") from error
    if not samples:
        raise InputError(f"the table of scores {path} has no rows")
    return PredictionsTable(samples, subsets, np.array(p_male))


def _probability(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{where}: p_male {text!r} is no probability from 0 to 1")
    return value
