"""What a person sees of ``predict``: a bar while it runs, a summary when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from facegender.results import Prediction

REASONS_SHOWN = 5
"""Unreadable pictures that the summary names."""


class Summary:
    """Counts of what became of the pictures, and the first reasons of those not read."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("male", "female", "unknown", "unreadable", "skipped"), 0)
        self.reasons: list[str] = []

    def add(self, row: Prediction) -> None:
        """Count one row."""
        self.counts[row.label or row.status.value] += 1
        if row.error is not None and len(self.reasons) < REASONS_SHOWN:
            self.reasons.append(f"{row.file}: {row.error}")

    def show(self, folder: Path, output: Path, details: Path | None, seconds: float) -> None:
        """Print how many of each, why some were not read, and where the results are."""
        pictures = sum(self.counts.values()) - self.counts["skipped"]
        lines = [f"{name:<11}{count:>8,}" for name, count in self.counts.items()]
        if not pictures:
            lines = [f"no pictures found in {folder}"]
            if self.counts["skipped"]:
                lines.append(f"skipped    {self.counts['skipped']:>8,}")
        else:
            at = lines.index(f"{'unreadable':<11}{self.counts['unreadable']:>8,}") + 1
            more = self.counts["unreadable"] - len(self.reasons)
            rest = [f"and {more:,} more"] if more else []
            lines[at:at] = [f"    {reason}" for reason in self.reasons + rest]
            lines.append(
                f"{pictures:,} pictures in {seconds:.1f} s, {pictures / seconds:.1f} a second"
            )
        places = [str(path) for path in (output, details) if path is not None]
        lines.append(f"results: {', '.join(places)}")
        for line in lines:
            typer.echo(printable(line))


def with_progress(rows: Iterable[Prediction], total: int, *, quiet: bool) -> Iterator[Prediction]:
    """Hand rows on and show how far they are on stderr, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from rows
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    speed = TextColumn("{task.fields[speed]:.1f} pictures/s")
    columns = (BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, speed=0.0)
        for row in rows:
            progress.update(task, advance=1, speed=progress.tasks[0].speed or 0.0)
            yield row


def printable(text: str) -> str:
    """Make any file name fit for a terminal: no control characters, no lone surrogates."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
