"""How a run went, epoch by epoch: ``history.csv``, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from facegender.errors import InputError, MissingExtraError
from facegender.results import replacing
from facegender.training.checkpoint import EpochFigures
from facegender.training.fit import Progress

HISTORY_NAME = "history.csv"
TENSORBOARD_NAME = "tensorboard"

_COUNTS = ("epoch", "validation_count")
_EVERY_STEPS = 20


def write_history(path: Path, history: Sequence[EpochFigures]) -> None:
    """Write a row for each epoch, whole or not at all."""
    with replacing(path) as file:
        rows = csv.DictWriter(file, [item.name for item in fields(EpochFigures)])
        rows.writeheader()
        rows.writerows(asdict(figures) for figures in history)


def read_history(path: Path) -> list[EpochFigures]:
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


def _figures(row: Mapping[str, str]) -> EpochFigures:
    values: dict[str, Any] = {
        name: int(text) if name in _COUNTS else float(text) for name, text in row.items()
    }
    return EpochFigures(**values)


def add_to_history(path: Path, figures: EpochFigures) -> list[EpochFigures]:
    """Put an epoch behind those before it; what a stopped run wrote of later ones goes."""
    history = [row for row in read_history(path) if row.epoch < figures.epoch] + [figures]
    write_history(path, history)
    return history


class TensorBoard:
    """Writes a run's curves for TensorBoard; leaves what was written before a resume in place.

    Example:
        >>> with TensorBoard(folder / "tensorboard") as board:  # doctest: +SKIP
        ...     board.epoch(figures)
    """

    def __init__(self, folder: Path) -> None:
        """Open the event file.

        Raises:
            MissingExtraError: the package ``tensorboard`` is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer: Any = SummaryWriter(str(folder))
        self._steps = 0

    def __enter__(self) -> TensorBoard:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left."""
        self._writer.close()

    def step(self, at: Progress) -> None:
        """Write the running loss and accuracy of an epoch, now and then, by pictures seen."""
        self._steps += 1
        if self._steps % _EVERY_STEPS == 0 or at.done == at.total:
            seen = at.epoch * at.total + at.done
            self._writer.add_scalar("running/loss", at.loss, seen)
            self._writer.add_scalar("running/accuracy", at.accuracy, seen)

    def epoch(self, figures: EpochFigures) -> None:
        """Write an epoch's figures, numbered from 1 as the console does."""
        values = asdict(figures)
        for group, names in {
            "loss": {"train": "loss", "validation": "validation_loss"},
            "accuracy": {"train": "accuracy", "validation": "validation_accuracy"},
            "speed": {"pictures_per_second": "pictures_per_second"},
            "rate": {"learning_rate": "learning_rate"},
        }.items():
            for shown, name in names.items():
                self._writer.add_scalar(f"{group}/{shown}", values[name], figures.epoch + 1)
        self._writer.flush()
