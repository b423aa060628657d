"""What all verbs share: the application, and the one place where an error becomes an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec

import typer

from facegender.cli.progress import printable
from facegender.errors import FacegenderError, MissingExtraError, StoppedError

P = ParamSpec("P")

app = typer.Typer(
    name="facegender",
    help="Tells from a picture of a face whether people would label it male or female.",
    epilog="The answer is a guess at a label that people gave, not a fact about a person.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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
            except StoppedError as error:
                typer.echo(printable(str(error)), err=True)
                code = error.code
            except FacegenderError as error:
                typer.echo(f"error: {printable(str(error))}", err=True)
                code = 2
            except OSError as error:  # a full disk, a vanished folder
                place = f": {error.filename}" if error.filename else ""
                reason = printable(f"{error.strerror or error}{place}")
                typer.echo(f"error: {reason}", err=True)
                code = 2
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)
                code = 130
            raise typer.Exit(code)

        app.command(epilog=epilog)(command)
        return command

    return register


def load_training(module: str) -> Any:
    """Import a module of the training part, or say how to install what it needs.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """
    try:
        return import_module(f"facegender.training.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("facegender"):
            raise
        raise MissingExtraError("train", error.name) from error
