"""history.csv, and TensorBoard's event files, read back by TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.training.loop.history import (
    EpochMetrics,
    StepProgress,
    add_to_history,
    read_history,
    write_history,
)
from facegender.training.loop.tensorboard import TensorBoard


def metrics(epoch: int, loss: float = 0.5) -> EpochMetrics:
    return EpochMetrics(epoch, loss, 0.75, loss / 3, 0.8, 30, 1e-3, 99.5)


def test_history_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    history = [metrics(0, 1 / 3), metrics(1, 1e-9)]
    write_history(tmp_path / "history.csv", history)
    assert read_history(tmp_path / "history.csv") == history
    assert read_history(tmp_path / "none.csv") == []


def test_epochs_are_added_and_a_resume_replaces_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for epoch in range(3):
        add_to_history(path, metrics(epoch))
    assert add_to_history(path, metrics(1, 0.4)) == [metrics(0), metrics(1, 0.4)]
    assert read_history(path) == [metrics(0), metrics(1, 0.4)]


@pytest.mark.parametrize("text", ["epoch,loss\n0,0.5\n", "epoch\nx\n"])
def test_a_damaged_history_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        read_history(tmp_path / "history.csv")


def test_a_history_of_an_earlier_version_is_refused_with_the_present_name(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [metrics(0)])
    text = (tmp_path / "history.csv").read_text()
    old = text.replace("images_per_second", "pictures_per_second")
    (tmp_path / "history.csv").write_text(old)
    with pytest.raises(InputError, match="pictures_per_second -> images_per_second"):
        read_history(tmp_path / "history.csv")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard(tmp_path / "tensorboard") as board:
        for epoch in range(2):
            for done in range(10, 110, 10):
                board.step(StepProgress(epoch, 2, done, 100, 0.6 - epoch / 10, 0.7))
            board.epoch(metrics(epoch, 0.5 - epoch / 4))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss/train")] == [(1, 0.5), (2, 0.25)]
    assert [one.step for one in events.Scalars("running/loss")] == [100, 200]
    assert {"accuracy/validation", "rate/learning_rate", "speed/images_per_second"} <= set(
        events.Tags()["scalars"]
    )
