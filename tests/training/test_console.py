"""Progress on a terminal and in a log: nothing is shown that is not known yet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from facegender.training.console import Console
from facegender.training.loop.history import StepProgress


def at(done: int, epoch: int = 0) -> StepProgress:
    return StepProgress(epoch, 2, done, 100, loss=0.5, accuracy=0.75)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that ``time.monotonic`` gives to the console."""
    now = [0.0]
    monkeypatch.setattr("facegender.training.console.time.monotonic", lambda: now[0])
    return now


def terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Console, io.StringIO]:
    """A console on a terminal of 200 columns, and all that it writes."""
    written = io.StringIO()
    rich = RichConsole(file=written, force_terminal=True, width=200, highlight=False)
    monkeypatch.setattr("facegender.training.console.RichConsole", lambda **_: rich)
    return Console(), written


def test_an_epoch_begins_without_a_rate_and_a_time_left(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    console, written = terminal(monkeypatch)
    try:
        for epoch in (0, 1):
            start = written.tell()
            console.step(at(10, epoch))
            assert console._bar is not None
            console._bar.refresh()
            first = written.getvalue()[start:]
            assert f"epoch {epoch + 1}/2" in first and "loss 0.500  accuracy 75.0%" in first
            for unknown in ("images/s", "min left", "-:--", "0/s"):
                assert unknown not in first
            clock[0] += 60
            console.step(at(40, epoch))
            console._bar.refresh()
            then = written.getvalue()[start:]
            assert f"0.5 images/s  {(5, 2)[epoch]} min left" in then
    finally:
        console.close()


def test_a_log_gets_a_line_a_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    for done, seconds in ((10, 0), (20, 30), (70, 61), (80, 70), (90, 122)):
        clock[0] = seconds
        console.step(at(done))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/2: 70 of 100  loss 0.500  accuracy 75.0%  1.0 images/s  2 min left",
        "epoch 1/2: 90 of 100  loss 0.500  accuracy 75.0%  0.7 images/s  3 min left",
    ]
