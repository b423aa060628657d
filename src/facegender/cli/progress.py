"""Terminal output of a run: progress bar, summary, and text that is safe to print."""

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
        text: shown beside the bar; a format string with ``speed``.
        total: number of steps; None if unknown.
        quiet: show nothing.

    Yields:
        A function to call after each step: with the speed, or with None for steps per second.
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
        unshown, shown_at = 0, 0.0

        def step(speed: float | None) -> None:
            nonlocal unshown, shown_at
            unshown += 1
            if time.monotonic() < shown_at + _REFRESH_SECONDS:
                return
            now = progress.tasks[0].speed or 0.0 if speed is None else speed
            progress.update(task, advance=unshown, speed=now)
            unshown, shown_at = 0, time.monotonic()

        yield step


def with_progress(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
    """Yield results and show their number."""
    with progress_bar("{speed:.1f} images/s", total) as step:
        for result in results:
            step(None)
            yield result


def show_summary(summary: RunSummary, inputs: str, *, err: bool = False) -> None:
    """Print the first answers, the counts, the first failures with reasons, and the outputs.

    Args:
        summary: of the run.
        inputs: as the user named them.
        err: print to standard error.
    """
    from facegender.results.summary import count_of, describe_subfolders

    images = summary.images
    lines = [] if images else [f"No images found in {inputs}"]
    lines += summary.answers
    more = images - summary.counts["unreadable"] - summary.counts["unsupported"]
    lines += _describe_more(more - len(summary.answers), "")
    if images > 1 or summary.counts["skipped"]:
        lines += _count_lines(summary)
    else:
        lines += [f"unreadable: {reason}" for reason in summary.errors]
        lines += [f"unsupported: {reason}" for reason in summary.unsupported]
    if images:
        faces = f" with {count_of(summary.faces, 'face')}" if summary.faces > images else ""
        rate = f", {(images - summary.resumed) / summary.seconds:.1f} images/s"
        lines.append(
            f"{count_of(images, 'image')}{faces} in {summary.seconds:.1f} s"
            f"{rate if images > 1 else ''}"
        )
    if summary.resumed:
        verb = "is" if summary.resumed == 1 else "are"
        lines.append(f"{summary.resumed:,} of them {verb} from an earlier run")
    if inside := describe_subfolders(summary.in_subfolders):
        lines.append(f"Left out: there {inside}; --recursive includes them")
    if summary.outputs:
        names = ("standard output" if name == "-" else name for name in summary.outputs)
        lines.append(f"results: {', '.join(names)}")
    with suppress(BrokenPipeError):  # the reader is gone; the results are written
        for line in lines:
            typer.echo(printable(line), err=err)


def _count_lines(summary: RunSummary) -> list[str]:
    """Return the counts, with the first reasons of failures and the suffixes of skipped files."""
    from facegender.results.summary import describe_skipped

    reasons = {"unreadable": summary.errors, "unsupported": summary.unsupported}
    lines = []
    for name, count in summary.counts.items():
        suffixes = describe_skipped(summary.skipped) if name == "skipped" else ""
        lines.append(f"{name:<11}{count:>8,}" + (f" ({suffixes})" if suffixes else ""))
        if name in reasons:
            lines += [f"    {reason}" for reason in reasons[name]]
            lines += _describe_more(count - len(reasons[name]), "    ")
    return lines


def _describe_more(number: int, indent: str) -> list[str]:
    return [f"{indent}and {number:,} more"] if number > 0 else []


def printable(text: str) -> str:
    """Make text with file names safe to print: no control characters, no lone surrogates."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # closed: None
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
