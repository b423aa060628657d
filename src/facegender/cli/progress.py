"""What the terminal shows of a run: a progress bar, and text fit for a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from facegender.inference.pipeline import Answered
    from facegender.results.summary import Summary

_SHOWN_SECONDS = 0.1  # between two looks of the bar


@contextmanager
def bar(words: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[float | None], None]]:
    """Show how far a run is on stderr, where that is a terminal.

    Args:
        words: what stands beside the bar, as a format of ``speed``.
        total: how many steps there are; None where that is not known.
        quiet: show nothing.

    Yields:
        What to call after each step: with the speed, or None for steps a second.
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

    shown = TextColumn(words.replace("{speed", "{task.fields[speed]"))
    columns = (BarColumn(), MofNCompleteColumn(), shown, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, speed=0.0)
        waiting, shown_at = 0, 0.0

        def step(speed: float | None) -> None:
            nonlocal waiting, shown_at
            waiting += 1
            if time.monotonic() < shown_at + _SHOWN_SECONDS:
                return
            now = progress.tasks[0].speed or 0.0 if speed is None else speed
            progress.update(task, advance=waiting, speed=now)
            waiting, shown_at = 0, time.monotonic()

        yield step


def with_progress(
    answered: Iterable[Answered], total: int | None, *, quiet: bool
) -> Iterator[Answered]:
    """Hand pictures on and show how far they are."""
    with bar("{speed:.1f} pictures/s", total, quiet=quiet) as step:
        for each in answered:
            step(None)
            yield each


def printable(text: str) -> str:
    """Make any file name fit for a terminal: no control characters, no lone surrogates."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # None: closed
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def show_summary(
    summary: Summary, named: str, places: Sequence[Path | str], seconds: float
) -> None:
    """Print how many of each, why some were not read, and where the results are.

    Args:
        summary: the counts.
        named: what was read, as it was given.
        places: the files that were written.
        seconds: how long it took.
    """
    lines = [f"{name:<11}{count:>8,}" for name, count in summary.counts.items()]
    if not summary.pictures:
        lines = [f"no pictures found in {named}"]
        if summary.counts["skipped"]:
            lines.append(f"skipped    {summary.counts['skipped']:>8,}")
    else:
        at = lines.index(f"{'unreadable':<11}{summary.counts['unreadable']:>8,}") + 1
        more = summary.counts["unreadable"] - len(summary.reasons)
        rest = [f"and {more:,} more"] if more else []
        lines[at:at] = [f"    {reason}" for reason in summary.reasons + rest]
        faces = f" with {summary.faces:,} faces" if summary.faces > summary.pictures else ""
        rate = f"{(summary.pictures - summary.kept) / seconds:.1f} a second"
        lines.append(f"{summary.pictures:,} pictures{faces} in {seconds:.1f} s, {rate}")
        if summary.kept:
            lines.append(f"{summary.kept:,} of them were answered by the run before")
    lines.append(f"results: {', '.join(map(str, places))}")
    with suppress(BrokenPipeError):  # nobody listens any more; the results are there
        for line in lines:
            typer.echo(printable(line))
