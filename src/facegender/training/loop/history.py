"""The metrics of a run by epoch: ``history.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.training.renamed import HISTORY_COLUMNS, refuse_renamed

HISTORY_NAME = "history.csv"

_COUNTS = ("epoch", "validation_count")


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """Metrics of one epoch, from 0; accuracies are correct images over images."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_count: int
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Progress after a step: images of this epoch done and in total, running loss and accuracy."""

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float


def write_history(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Write a row for each epoch atomically."""
    with atomic_write(path) as file:
        rows = csv.DictWriter(file, [item.name for item in fields(EpochMetrics)])
        rows.writeheader()
        rows.writerows(asdict(metrics) for metrics in history)


def read_history(path: Path) -> list[EpochMetrics]:
    """Read what :func:`write_history` wrote; an empty list if there is no such file.

    Raises:
        InputError: the file is damaged, or an earlier version wrote it.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            refuse_renamed(path, rows.fieldnames or (), HISTORY_COLUMNS)
            return [_parse_row(row) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def add_to_history(path: Path, metrics: EpochMetrics) -> list[EpochMetrics]:
    """Add an epoch to the file; rows of it and of later epochs, from before a resume, are removed.

    Returns:
        All rows.
    """
    history = [row for row in read_history(path) if row.epoch < metrics.epoch] + [metrics]
    write_history(path, history)
    return history


def _parse_row(row: Mapping[str, str]) -> EpochMetrics:
    values: dict[str, Any] = {
        name: int(text) if name in _COUNTS else float(text) for name, text in row.items()
    }
    return EpochMetrics(**values)
