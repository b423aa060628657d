"""The application, and the decorator that turns a verb's errors into messages and exit codes."""

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
    help="Classifies faces in photos as male or female.",
    epilog="The answer is a guess at a label that people gave, not a fact about a person.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def verb(*, examples: Sequence[str]) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Register a function as a verb; it returns its exit code or raises a FacegenderError.

    Args:
        examples: command lines that the help shows.

    Returns:
        The decorator.
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
                file = f": {error.filename}" if error.filename else ""
                reason = printable(f"{error.strerror or error}{file}")
                typer.echo(f"error: {reason}", err=True)
                code = 2
            except KeyboardInterrupt:
                typer.echo("Stopped", err=True)
                code = 130
            raise typer.Exit(code)

        app.command(epilog=epilog)(command)
        return command

    return register


def load_training(module: str) -> Any:
    """Import a module of :mod:`facegender.training`.

    Args:
        module: its name inside that package.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """
    try:
        return import_module(f"facegender.training.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("facegender"):
            raise
        raise MissingExtraError("train", error.name) from error
