"""The command line: one module per verb, which parses options, calls a function and prints.

The libraries of a verb are imported inside it, so that ``--help`` is fast and only the verbs of
training need torch.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Annotated

import typer

# isort: off
# in the order of --help
from facegender.cli import predict, serve, page, audit, show_batch, train, evaluate, compare, export
from facegender.cli.verb import app, verb
# isort: on

__all__ = [
    "app",
    "audit",
    "compare",
    "evaluate",
    "export",
    "main",
    "page",
    "predict",
    "serve",
    "show_batch",
    "train",
    "verb",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends with ``SystemExit``.

    Exit codes: 0, success; 1, done, but some images could not be read; 2, an error, and nothing
    was written; 130, stopped by Ctrl-C; 143, stopped by SIGTERM.

    Args:
        arguments: the command line without the program's name; None takes that of the process.
    """
    signal.signal(signal.SIGTERM, _raise_exit)  # so that temporary files are removed
    app(args=None if arguments is None else list(arguments), prog_name="facegender")


def _raise_exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@app.callback(invoke_without_command=True)
def _global_options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from facegender import __version__

        typer.echo(f"facegender {__version__}")
        raise typer.Exit(0)
