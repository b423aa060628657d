"""What the terminal shows of a run: progress, summary, and text that is safe to print."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from facegender.inference.pipeline import FileResult
    from facegender.results.summary import RunSummary

_REFRESH_SECONDS = 0.1


@contextmanager
def progress_bar(
    text: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[float | None], None]]:
    """Show a progress bar on standard error, if that is a terminal.

    Args:
        text: the text beside the bar, a format of ``speed``.
        total: number of steps; None if unknown.
        quiet: show nothing.

    Yields:
        A function to call after each step: with the speed, or None for steps per second.
    """
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda speed: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    shown = TextColumn(text.replace("{speed", "{task.fields[speed]"))
    columns = (BarColumn(), MofNCompleteColumn(), shown, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, speed=0.0)
        waiting, shown_at = 0, 0.0

        def step(speed: float | None) -> None:
            nonlocal waiting, shown_at
            waiting += 1
            if time.monotonic() < shown_at + _REFRESH_SECONDS:
                return
            now = progress.tasks[0].speed or 0.0 if speed is None else speed
            progress.update(task, advance=waiting, speed=now)
            waiting, shown_at = 0, time.monotonic()

        yield step


def with_progress(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
    """Hand results on and show how many there are."""
    with progress_bar("{speed:.1f} images/s", total) as step:
        for result in results:
            step(None)
            yield result


def show_summary(summary: RunSummary, inputs: str) -> None:
    """Print the counts, the first reasons of unreadable images, and the outputs.

    Args:
        summary: of the run.
        inputs: what was read, as the user named it.
    """
    if summary.images:
        lines = []
        for name, count in summary.counts.items():
            lines.append(f"{name:<11}{count:>8,}")
            if name == "unreadable":
                more = count - len(summary.errors)
                lines += [f"    {reason}" for reason in summary.errors]
                lines += [f"    and {more:,} more"] if more else []
        faces = f" with {summary.faces:,} faces" if summary.faces > summary.images else ""
        rate = (summary.images - summary.resumed) / summary.seconds
        lines.append(
            f"{summary.images:,} images{faces} in {summary.seconds:.1f} s, {rate:.1f} images/s"
        )
        if summary.resumed:
            lines.append(f"{summary.resumed:,} of them were answered by an earlier run")
    else:
        lines = [f"No images found in {inputs}"]
        if summary.counts["skipped"]:
            lines.append(f"skipped    {summary.counts['skipped']:>8,}")
    lines.append(f"results: {', '.join(summary.outputs)}")
    with suppress(BrokenPipeError):  # nobody reads any more; the results are written
        for line in lines:
            typer.echo(printable(line))


def printable(text: str) -> str:
    """Make any file name safe for a terminal: no control characters, no lone surrogates."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # None: closed
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
