"""The command line: one verb, one function; parse, call, print.

A verb's libraries are imported inside it, so that ``--help`` is quick and torch is asked for only
by the verbs that need it. Every verb is registered with :func:`verb`, the one place where an
error becomes a line on stderr and an exit code.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import wraps
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from facegender.errors import FacegenderError, OutputError

if TYPE_CHECKING:
    from facegender.results import Prediction

P = ParamSpec("P")

REASONS_SHOWN = 5
"""Unreadable pictures that the summary names."""

app = typer.Typer(
    name="facegender",
    help="Tells from a picture of a face whether people would label it male or female.",
    epilog="The answer is a guess at a label that people gave, not a fact about a person.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends with ``SystemExit``.

    Exit codes: 0 all is well, 1 done but some pictures could not be read, 2 wrong use or nothing
    could be done (and nothing was written), 130 stopped with Ctrl-C.
    """
    app(args=None if arguments is None else list(arguments), prog_name="facegender")


def verb(*, examples: Sequence[str]) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Register a function as a verb: it returns its exit code, or raises a FacegenderError.

    Args:
        examples: command lines that the help shows.
    """
    epilog = "[bold]Examples[/bold]\n\n" + "\n\n".join(f"[cyan]{line}[/cyan]" for line in examples)

    def register(function: Callable[P, int]) -> Callable[P, None]:
        @wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except FacegenderError as error:
                typer.echo(f"error: {_printable(str(error))}", err=True)
                code = 2
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)
                code = 130
            raise typer.Exit(code)

        app.command(epilog=epilog)(command)
        return command

    return register


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from facegender import __version__

        typer.echo(f"facegender {__version__}")
        raise typer.Exit(0)


@verb(
    examples=(
        "facegender predict faces",
        "facegender predict photos --recursive -o answers.json --details details.jsonl",
        "facegender predict photos --model runs/mine --unknown-below 0.8",
    )
)
def predict(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder with pictures. Nothing in it is changed."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help='Where to write {"photo.jpg": "male", ...}.'
        ),
    ] = Path("process_results.json"),
    details: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write a JSON line per face: status, probability, box, error."
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Also the folders inside; keys are paths with '/'.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|RUN",
            help="A model file or run folder of your own.",
            show_default="the one shipped",
        ),
    ] = None,
    unknown_below: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0.5,
            max=1.0,
            help="Answers with a probability below this are 'unknown'.",
            show_default="the model's own",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> int:
    """Answer male or female for every picture in a folder.

    Exit codes: 0, every picture was read; 1, some could not be, and the
    results are written all the same; 2, wrong use, and nothing was written.
    """
    import warnings

    from facegender.classifier import Classifier
    from facegender.model_file import MODEL_NAME
    from facegender.predict import list_files, predict_files
    from facegender.results import DetailsWriter, check_output, write_process_results

    warnings.filterwarnings("ignore", module=r"PIL\.")  # a bad file is a row, not a warning
    started = time.perf_counter()
    names = list_files(folder, recursive=recursive)
    in_run = None if model is None else model / MODEL_NAME
    _check_distinct(
        {"--output": output, "--details": details, "--model": model, "--model's file": in_run}
    )
    for path in (output, details):
        if path is not None:
            check_output(path)
    classifier = Classifier.load(model)

    summary = _Summary()
    with ExitStack() as stack:
        writer = None if details is None else stack.enter_context(DetailsWriter(details))
        rows = predict_files(folder, names, classifier=classifier, unknown_below=unknown_below)

        def watched() -> Iterator[Prediction]:
            for row in _with_progress(rows, len(names), quiet=quiet):
                summary.add(row)
                if writer is not None:
                    writer.append(row)
                yield row

        write_process_results(output, watched())
    if not quiet:
        summary.show(folder, output, details, time.perf_counter() - started)
    return 1 if summary.counts["unreadable"] else 0


class _Summary:
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
            typer.echo(_printable(line))


def _check_distinct(paths: dict[str, Path | None]) -> None:
    """Refuse two options that name one file, for one would be written over the other.

    Raises:
        OutputError: two of them are the same file.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (other := seen.setdefault(realpath(path), option)) != option:
            raise OutputError(f"{other} and {option} are the same file, {path}. Name two files")


def _with_progress(rows: Iterable[Prediction], total: int, *, quiet: bool) -> Iterator[Prediction]:
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


def _printable(text: str) -> str:
    """Make any file name fit for a terminal: no control characters, no lone surrogates."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
