"""``facegender train``: an archive of labelled faces becomes a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import load_training, verb
from facegender.errors import InputError


@verb(
    examples=(
        "facegender train internship_data.tar.gz -o runs/mine",
        "facegender train faces.zip more/ --metadata persons.csv --recipe classic -o runs/classic",
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
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="SCORES.csv",
            help="Another network's scores of the training pictures, for a recipe with "
            "train.distillation_weight: archive, file, label, p_male.",
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="What facegender audit found: copies stay on one side of the split, and what it "
            "was told to drop is left out.",
            show_default="made first, once for all runs on the same archives",
        ),
    ] = None,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Make no audit first; near copies may then be apart.")
    ] = False,
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
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Curves for TensorBoard too, in RUN/tensorboard."),
    ] = False,
    sanity_check: Annotated[
        bool,
        typer.Option(
            "--sanity-check/--no-sanity-check",
            help="First let a copy learn 16 pictures by heart; seconds.",
        ),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN where it was stopped.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Train a network on labelled faces, evaluate and export it.

    The run folder gets the split, curves, report, saved_model and model.onnx;
    'facegender predict FOLDER --model RUN' uses it. Ctrl-C leaves a checkpoint.
    """
    run = load_training("train")
    recipes = load_training("recipe")
    console = load_training("console").Console(quiet=quiet)
    if resume:
        kept = {"output", "resume", "quiet", "self_check"}
        given = [name for name in context.params if _is_given(context, name)]
        if surplus := [name for name in given if name not in kept]:
            raise InputError(
                f"--resume goes on as {output} was begun: leave out {', '.join(surplus)}"
            )
        metrics = run.train(None, None, output, resume=True, console=console)
    else:
        if audit and no_audit:
            raise InputError("--audit and --no-audit exclude each other: leave one out")
        request = load_training("run_folder").Request(
            inputs=tuple(str(path.absolute()) for path in archives or ()),
            table=None if table is None else str(table.absolute()),
            split=None if split is None else str(split.absolute()),
            corrections=None if corrections is None else str(corrections.absolute()),
            teacher=None if teacher is None else str(teacher.absolute()),
            audit="" if no_audit else None if audit is None else str(audit.absolute()),
            validation=validation,
            test=test,
            start=_start(pretrained),
            devices=devices,
            terms=terms,
            tensorboard=tensorboard,
        )
        chosen = recipes.with_changes(recipes.read_recipe(recipe), epochs=epochs, seed=seed)
        metrics = run.train(request, chosen, output, sanity_check=sanity_check, console=console)
    if metrics and not quiet:
        console.metrics({"validation": metrics["validation"]})
        typer.echo(f"model file: {output / run.MODEL_NAME}")
        typer.echo(f"report:     {output / run.REPORT_NAME}")
        typer.echo(f"try it:     facegender predict FOLDER --model {output}")
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
