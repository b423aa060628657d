"""``facegender train``: train a network on archives of labeled faces."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from facegender.cli.options import Classes, Corrections, Metadata, Quiet, check_exists
from facegender.cli.verb import load_training, verb
from facegender.errors import InputError

_RESUME_OPTIONS = {"output", "resume", "quiet", "sanity_check"}

Archives: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="ARCHIVE...",
        help="Folders, .tar, .tar.gz or .zip files with male/ and female/ anywhere inside.",
    ),
]
Output: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", metavar="RUN", help="The run folder; a new one.")
]
Recipe: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="best, fast, quick, classic, or a TOML file.")
]
Validation: TypeAlias = Annotated[
    float, typer.Option(metavar="FRACTION", help="Fraction of the images for validation.")
]
Test: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="FRACTION", help="Fraction of the images for test: no run trains or tunes on it."
    ),
]
Split: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE.csv", help="Use the split.csv of another run.")
]
Teacher: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="PREDICTIONS.csv",
        help="Another network's predictions for the training images, from evaluate --predictions; "
        "for a recipe with train.distillation_weight.",
    ),
]
Audit: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Use this audit: duplicates are not split across training and validation, and images "
        "that it drops are left out.",
        show_default="made first, once per archive",
    ),
]
NoAudit: TypeAlias = Annotated[
    bool,
    typer.Option("--no-audit", help="Make no audit; near duplicates may be split."),
]
Pretrained: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none|dlib|timm|shipped",
        help="Initial weights: a safetensors, torch or model file, none (random), dlib's face "
        "network, timm's download, or the network that ships (shipped).",
        show_default="the recipe's",
    ),
]
OpenNetworks: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of the published network, for a recipe with an [ensemble] such as best.",
        show_default="the run ends with the single network",
    ),
]
Epochs: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Number of epochs.", show_default="the recipe's"),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Seed of split, order, augmentation and random weights.",
        show_default="the recipe's",
    ),
]
Devices: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Number of devices.", show_default="all CUDA devices, or 1 CPU"),
]
Terms: TypeAlias = Annotated[
    str, typer.Option(metavar="TEXT", help="Terms of the data, for the model file.")
]
TensorBoard: TypeAlias = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write curves for TensorBoard to RUN/tensorboard too."),
]
SanityCheck: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--sanity-check/--no-sanity-check",
        help="First overfit a copy of the network to 16 images (seconds).",
    ),
]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Continue the run in RUN from its checkpoint.")
]


@verb(
    examples=(
        "facegender train internship_data.tar.gz -o runs/mine",
        "facegender train faces.zip more/ --metadata persons.csv --recipe classic -o runs/classic",
        "facegender train --resume -o runs/mine",
    )
)
def train(
    context: typer.Context,
    output: Output,
    archives: Archives = None,
    recipe: Recipe = "best",
    metadata: Metadata = None,
    classes: Classes = None,
    validation: Validation = 0.2,
    test: Test = 0.0,
    split: Split = None,
    corrections: Corrections = None,
    teacher: Teacher = None,
    audit: Audit = None,
    no_audit: NoAudit = False,
    pretrained: Pretrained = None,
    open_networks: OpenNetworks = None,
    epochs: Epochs = None,
    seed: Seed = None,
    devices: Devices = None,
    terms: Terms = "",
    tensorboard: TensorBoard = False,
    sanity_check: SanityCheck = True,
    resume: Resume = False,
    quiet: Quiet = False,
) -> int:
    """Train a network on labeled faces, export it as a model file and evaluate that.

    RUN gets the split, history, report, saved_model and model.onnx, which
    'facegender predict FOLDER --model RUN' uses. Ctrl-C writes a checkpoint.
    """
    if not resume:
        check_exists(
            archives or (),
            metadata=metadata,
            split=split,
            corrections=corrections,
            teacher=teacher,
        )
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of the frameworks; -W shows them
    training, recipes = load_training("train"), load_training("recipe")
    console = load_training("console").Console(quiet=quiet)
    request = chosen = None
    if resume:
        _check_resume(context, output)
    else:
        if audit and no_audit:
            raise InputError("--audit and --no-audit exclude each other. Leave one out.")
        chosen = recipes.with_changes(recipes.read_recipe(recipe), epochs=epochs, seed=seed)
        request = load_training("run_folder").TrainRequest(
            inputs=tuple(str(path.absolute()) for path in archives or ()),
            metadata=_absolute(metadata),
            split=_absolute(split),
            corrections=_absolute(corrections),
            teacher=_absolute(teacher),
            audit="" if no_audit else _absolute(audit),
            validation=validation,
            test=test,
            pretrained=_absolute_file(pretrained),
            open_networks=_absolute(open_networks),
            devices=devices,
            terms=terms,
            classes=classes or "",
            tensorboard=tensorboard,
        )
    metrics = training.train(
        request, chosen, output, resume=resume, sanity_check=sanity_check, console=console
    )
    if metrics is not None and not quiet:
        console.metrics({"validation": metrics.validation})
        typer.echo(f"model file: {output / training.MODEL_NAME}")
        typer.echo(f"report:     {output / training.REPORT_NAME}")
        typer.echo(f"try it:     facegender predict FOLDER --model {output}")
    return 0


def _check_resume(context: typer.Context, output: Path) -> None:
    """Check that a resume has no options that would change the run.

    Raises:
        InputError: it has.
    """
    given = [
        "ARCHIVE" if name == "archives" else f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _RESUME_OPTIONS and _is_given(context, name)
    ]
    if given:
        raise InputError(
            f"--resume continues {output} as it was started. Leave out {', '.join(given)}."
        )


def _is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _absolute(path: Path | None) -> str | None:
    """Return an absolute path, so that a resume finds the file from any folder."""
    return None if path is None else str(path.absolute())


def _absolute_file(pretrained: str | None) -> str | None:
    """Return the absolute path of a weight file; other words stay as they are."""
    if pretrained is None or not Path(pretrained).is_file():
        return pretrained
    return str(Path(pretrained).absolute())
