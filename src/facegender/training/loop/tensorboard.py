"""Training curves for TensorBoard."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from facegender.errors import MissingExtraError
from facegender.training.loop.history import EpochMetrics, StepProgress

TENSORBOARD_NAME = "tensorboard"
_EVERY_STEPS = 20


class TensorBoard:
    """Writes the curves of a run for TensorBoard; curves from before a resume stay.

    Example:
        >>> with TensorBoard(folder / "tensorboard") as board:  # doctest: +SKIP
        ...     board.epoch(metrics)
    """

    def __init__(self, folder: Path) -> None:
        """Create the event file.

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
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write all that is pending and close the file."""
        self._writer.close()

    def step(self, at: StepProgress) -> None:
        """Write running loss and accuracy every 20 steps, by the number of images seen."""
        self._steps += 1
        if self._steps % _EVERY_STEPS == 0 or at.done == at.total:
            seen = at.epoch * at.total + at.done
            self._writer.add_scalar("running/loss", at.loss, seen)
            self._writer.add_scalar("running/accuracy", at.accuracy, seen)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Write the metrics of an epoch, numbered from 1 as on the console."""
        values = asdict(metrics)
        for group, names in {
            "loss": {"train": "loss", "validation": "validation_loss"},
            "accuracy": {"train": "accuracy", "validation": "validation_accuracy"},
            "speed": {"images_per_second": "images_per_second"},
            "rate": {"learning_rate": "learning_rate"},
        }.items():
            for shown, name in names.items():
                self._writer.add_scalar(f"{group}/{shown}", values[name], metrics.epoch + 1)
        self._writer.flush()
