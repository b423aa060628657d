"""The predictions table: a row per evaluated image; every metric is computed from it."""

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
from facegender.training.renamed import PREDICTIONS_COLUMNS, refuse_renamed, refuse_renamed_file

PREDICTIONS_NAME = "predictions.csv"
"""Name of the table in a run folder."""

_DIGITS = 6
_COLUMNS = ("archive", "file", "label", "subset", "source", "age", "race", "p_male")
_REQUIRED = ("file", "label", "p_male")


@dataclass(frozen=True, slots=True)
class PredictionsTable:
    """Predictions for ``N`` labeled images.

    Attributes:
        samples: the images.
        subsets: subset of each one: ``train``, ``validation``, ``test`` or ``new``.
        p_male: probability of male, ``float64 [N]``, rounded as in the CSV file, so that metrics
            are the same before it is written and after it is read. The answer is male above 0.5.
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
    def correct(self) -> NDArray[np.bool_]:
        """Which answers are the label, ``bool [N]``."""
        return np.asarray((self.p_male > 0.5) == (self.labels == 1))

    def pick(self, rows: Sequence[int] | NDArray[np.int64]) -> PredictionsTable:
        """Select rows, in the given order."""
        return PredictionsTable(
            [self.samples[row] for row in rows],
            [self.subsets[row] for row in rows],
            self.p_male[np.asarray(rows, np.int64)],
        )

    def of_subset(self, subset: str) -> PredictionsTable:
        """Select the rows of one subset."""
        return self.pick([row for row, name in enumerate(self.subsets) if name == subset])


def make_predictions(
    samples: Sequence[Sample], subsets: Sequence[str], probabilities: NDArray[np.floating]
) -> PredictionsTable:
    """Make a table from probabilities.

    Args:
        samples: ``N`` samples.
        subsets: subset of each sample.
        probabilities: ``float [N, 2]`` in the order of ``LABELS``.
    """
    p_male: NDArray[np.float64] = probabilities[:, 1].astype(np.float64).round(_DIGITS)
    return PredictionsTable(list(samples), list(subsets), p_male)


def write_predictions(path: Path, predictions: PredictionsTable) -> None:
    """Write the table as CSV, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    table = predictions
    with atomic_write(path, "surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        for sample, subset, p_male in zip(table.samples, table.subsets, table.p_male, strict=True):
            groups = (sample.source, sample.age, sample.race)
            rows.writerow(
                [
                    sample.archive,
                    sample.file,
                    sample.label,
                    subset,
                    *groups,
                    f"{p_male:.{_DIGITS}f}",
                ]
            )


def read_predictions(path: Path) -> PredictionsTable:
    """Read a table; the columns ``file``, ``label`` and ``p_male`` are required.

    Args:
        path: the CSV file, or a run folder that holds one.

    Raises:
        InputError: it cannot be read, a line is invalid (the message names the line), or an image
            occurs twice.
    """
    path = path / PREDICTIONS_NAME if path.is_dir() else path
    refuse_renamed_file(path)
    samples: list[Sample] = []
    subsets: list[str] = []
    p_male: list[float] = []
    names = {item.name for item in fields(Sample)} & set(_COLUMNS)
    seen: dict[tuple[str, str], int] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            _check_columns(path, rows.fieldnames or ())
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
                p_male.append(_parse_probability(row["p_male"], where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Cannot read the predictions {path}: {error}") from error
    if not samples:
        raise InputError(f"{path} has no rows")
    return PredictionsTable(samples, subsets, np.array(p_male))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if missing := [name for name in _REQUIRED if name not in columns]:
        raise InputError(
            f"{path} is not a predictions table: it has no column {', '.join(missing)}. "
            "'facegender evaluate ... --predictions FILE.csv' writes one"
        )
    refuse_renamed(path, columns, PREDICTIONS_COLUMNS)


def _parse_probability(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{where}: p_male {text!r} is not a probability from 0 to 1")
    return value
