"""The command line: a file for each verb; each parses, calls, prints.

A verb's libraries are imported inside it, so that ``--help`` is quick and torch is asked for only
by the verbs that need it.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Annotated

import typer

# isort: off
# in the order of the help
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

    Exit codes: 0 all is well, 1 done but some pictures could not be read, 2 wrong use or nothing
    could be done (and nothing was written), 130 stopped with Ctrl-C, 143 stopped with SIGTERM.
    """
    signal.signal(signal.SIGTERM, _end)  # so that half-written files are removed
    app(args=None if arguments is None else list(arguments), prog_name="facegender")


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from facegender import __version__

        typer.echo(f"facegender {__version__}")
        raise typer.Exit(0)
