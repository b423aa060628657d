"""How a run went, epoch by epoch: ``history.csv``, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from facegender.errors import InputError
from facegender.files import atomic_write

HISTORY_NAME = "history.csv"

_COUNTS = ("epoch", "validation_count")


def write_history(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Write a row for each epoch, whole or not at all."""
    with atomic_write(path) as file:
        rows = csv.DictWriter(file, [item.name for item in fields(EpochMetrics)])
        rows.writeheader()
        rows.writerows(asdict(metrics) for metrics in history)


def read_history(path: Path) -> list[EpochMetrics]:
    """Read what :func:`write_history` wrote; nothing where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_figures(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def _figures(row: Mapping[str, str]) -> EpochMetrics:
    values: dict[str, Any] = {
        name: int(text) if name in _COUNTS else float(text) for name, text in row.items()
    }
    return EpochMetrics(**values)


def add_to_history(path: Path, metrics: EpochMetrics) -> list[EpochMetrics]:
    """Put an epoch behind those before it; what a stopped run wrote of later ones goes."""
    history = [row for row in read_history(path) if row.epoch < metrics.epoch] + [metrics]
    write_history(path, history)
    return history


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one epoch gave; accuracies are shares of pictures, whatever the batches were."""

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
    """Where the loop is, told after every step; counts are of pictures in this epoch."""

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float
