"""The command line: one verb, one function; parse, call, print.

A verb's libraries are imported inside it, so that ``--help`` is quick and torch is asked for only
by the verbs that need it. Every verb is registered with :func:`verb`, the one place where an
error becomes a line on stderr and an exit code.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from facegender.errors import (
    FacegenderError,
    InputError,
    MissingExtraError,
    StoppedError,
)
from facegender.progress import Summary, printable, with_progress

if TYPE_CHECKING:
    from facegender.results import Prediction

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends with ``SystemExit``.

    Exit codes: 0 all is well, 1 done but some pictures could not be read, 2 wrong use or nothing
    could be done (and nothing was written), 130 stopped with Ctrl-C, 143 stopped with SIGTERM.
    """
    signal.signal(signal.SIGTERM, _end)  # so that half-written files are removed
    app(args=None if arguments is None else list(arguments), prog_name="facegender")


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


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
    from facegender.results import (
        DetailsWriter,
        check_distinct,
        check_output,
        write_process_results,
    )

    warnings.filterwarnings("ignore", module=r"PIL\.")  # a bad file is a row, not a warning
    started = time.perf_counter()
    names = list_files(folder, recursive=recursive)
    in_run = None if model is None else model / MODEL_NAME
    check_distinct(
        {"--output": output, "--details": details, "--model": model, "--model's file": in_run}
    )
    for path in (output, details):
        if path is not None:
            check_output(path)
    classifier = Classifier.load(model)

    summary = Summary()
    with ExitStack() as stack:
        writer = None if details is None else stack.enter_context(DetailsWriter(details))
        rows = predict_files(folder, names, classifier=classifier, unknown_below=unknown_below)

        def watched() -> Iterator[Prediction]:
            for row in with_progress(rows, len(names), quiet=quiet):
                summary.add(row)
                if writer is not None:
                    writer.append(row)
                yield row

        write_process_results(output, watched())
    if not quiet:
        summary.show(folder, output, details, time.perf_counter() - started)
    return 1 if summary.counts["unreadable"] else 0


@verb(
    examples=(
        "facegender train internship_data.tar.gz -o runs/mine",
        "facegender train faces.zip more/ --table persons.csv --recipe classic -o runs/classic",
        "facegender train --resume -o runs/mine",
    )
)
def train(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN", help="The run folder, a new one.")
    ],
    archives: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ARCHIVE...",
            help="Folders, .tar, .tar.gz or .zip files with male/ and female/ anywhere inside.",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="best, fast, quick, classic, or a TOML file.")
    ] = "best",
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Joined on its column 'file': person, source, age, race; 'gender' is the label.",
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the pictures for validation.")
    ] = 0.2,
    test: Annotated[
        float, typer.Option(metavar="SHARE", help="Share that no run learns from or tunes on.")
    ] = 0.0,
    split: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Use the split of an earlier run.")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Labels to learn and choose by instead: sha256 and label, empty to leave out.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|none|dlib|timm",
            help="Starting weights: a safetensors or torch file, none, dlib's face network, or "
            "timm's download.",
            show_default="the recipe's",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs.", show_default="the recipe's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of split, order and augmentation.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="How many.", show_default="all CUDA devices, or 1 CPU")
    ] = None,
    terms: Annotated[
        str, typer.Option(metavar="TEXT", help="Terms of the data; goes into the model file.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN where it was stopped.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Train a network on labelled faces, evaluate and export it.

    The run folder gets the split, curves, figures, saved_model and model.onnx;
    'facegender predict FOLDER --model RUN' uses it. Ctrl-C leaves a checkpoint.
    """
    run = _training("run")
    recipes = _training("recipe")
    console = _training("progress").Console(quiet=quiet)
    if resume:
        kept = {"output", "resume", "quiet"}
        given = [name for name in context.params if _is_given(context, name)]
        if surplus := [name for name in given if name not in kept]:
            raise InputError(
                f"--resume goes on as {output} was begun: leave out {', '.join(surplus)}"
            )
        metrics = run.train(None, None, output, resume=True, console=console)
    else:
        request = _training("run_folder").Request(
            inputs=tuple(str(path.absolute()) for path in archives or ()),
            table=None if table is None else str(table.absolute()),
            split=None if split is None else str(split.absolute()),
            corrections=None if corrections is None else str(corrections.absolute()),
            validation=validation,
            test=test,
            start=_start(pretrained),
            devices=devices,
            terms=terms,
        )
        chosen = recipes.with_changes(recipes.read_recipe(recipe), epochs=epochs, seed=seed)
        metrics = run.train(request, chosen, output, console=console)
    if metrics and not quiet:
        console.figures({"validation": metrics["validation"]})
        typer.echo(f"model file: {output / run.MODEL_NAME}")
        typer.echo(f"try it:     facegender predict FOLDER --model {output}")
    return 0


@verb(
    examples=(
        "facegender evaluate runs/mine internship_data.tar.gz",
        "facegender evaluate runs/mine internship_data.tar.gz --part test --output test.json",
        "facegender evaluate model.onnx other_faces/",
    )
)
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run or a model file.")],
    archives: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Labelled pictures, as for train.")
    ],
    table: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="As for train; its groups are reported.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="train, validation, test, or new (not in the run's split).",
            show_default="all but test",
        ),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Labels to measure by instead, as for train."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Where to write the figures."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Where to write the score of every picture."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> int:
    """Measure a network on labelled pictures, by part, source, label and group.

    Every share stands with its count and 95 % interval. The test part is only
    looked at when asked for by --part test. Exit code 1: some were unreadable.
    """
    from facegender.model_file import MODEL_NAME
    from facegender.results import check_distinct, check_output

    evaluation = _training("evaluate")
    console = _training("progress").Console(quiet=quiet)
    named = {f"ARCHIVE {path}": path for path in archives}
    own = {"RUN|MODEL": model, "its model file": model / MODEL_NAME, "--table": table}
    own["--corrections"] = corrections
    check_distinct(named | own | {"--output": output, "--scores": scores})
    for path in (output, scores):
        if path is not None:
            check_output(path)
    with console.counting("evaluating") as count:
        result = evaluation.evaluate(
            model,
            archives,
            table,
            part=part,
            corrections=corrections,
            on_picture=count,
            on_skip=console.skipped,
        )
    figures = result.figures()
    if output is not None:
        evaluation.write_json(output, figures)
    if scores is not None:
        evaluation.write_scores(scores, result.samples, result.parts, result.probabilities)
    if not quiet:
        console.figures(figures)
        for file, error in result.unreadable[:5]:
            typer.echo(f"unreadable: {printable(file)}: {printable(error)}")
        if result.unreadable:
            typer.echo(f"{len(result.unreadable):,} pictures could not be read")
    return 1 if result.unreadable else 0


@verb(examples=("facegender export runs/mine -o model.onnx",))
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the model file goes.")
    ],
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence that the file states.")
    ] = None,
    terms: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Terms of the data that the file states.")
    ] = None,
) -> int:
    """Write a run's network as one model file, compared with torch on real pictures.

    Refused where a probability differs by more than 0.001 or a label flips.
    """
    from facegender.results import check_distinct, check_output

    files = _training("run_folder").files_of(run_folder)
    inputs = {f"the run's input {path}": path for path in files}
    check_distinct(inputs | {"--output": output})
    check_output(output)
    _training("run").export_run(run_folder, output, licence=licence, terms=terms)
    typer.echo(f"model file: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def _is_given(context: typer.Context, name: str) -> bool:
    """Tell whether a parameter stood on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _start(pretrained: str | None) -> str | None:
    """Give a file's whole path, so that a resume finds it from any folder; words stay words."""
    if pretrained is None or not Path(pretrained).is_file():
        return pretrained
    return str(Path(pretrained).absolute())


def _training(module: str) -> Any:
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
