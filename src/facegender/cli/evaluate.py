"""``facegender evaluate``: measure a network on labeled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.options import Archives, Classes, Corrections, Metadata, Quiet, check_exists
from facegender.cli.progress import printable
from facegender.cli.verb import load_training, verb

_UNREADABLE_SHOWN = 5


@verb(
    examples=(
        "facegender evaluate runs/mine internship_data.tar.gz",
        "facegender evaluate runs/mine internship_data.tar.gz --subset validation --report out",
        "facegender evaluate runs/mine internship_data.tar.gz --subset test --output test.json",
        "facegender evaluate model.onnx other_faces/ --robustness 500 --report other.html",
    )
)
def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model file.")
    ],
    archives: Archives,
    metadata: Metadata = None,
    classes: Classes = None,
    subset: Annotated[
        str | None,
        typer.Option(
            metavar="SUBSET",
            help="train, validation, test, or new (not in the run's split).",
            show_default="all but test",
        ),
    ] = None,
    corrections: Corrections = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the metrics here."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the probability of every image here."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html|FOLDER",
            help="Write a page with metrics, plots and example images; in a folder, write "
            "metrics.json and predictions.csv beside it.",
        ),
    ] = None,
    robustness: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Classify N images again, rotated, downscaled, blurred and compressed "
            "(17 times each).",
        ),
    ] = 0,
    grad_cam: Annotated[
        bool,
        typer.Option("--grad-cam", help="Show Grad-CAM heatmaps in the report; needs a run."),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Measure a network on labeled images, by subset, source, label and group.

    Proportions are shown with counts and 95% intervals. Images of the run's test
    subset are left out unless --subset test asks for them. Exit code 1: some images
    are unreadable.
    """
    check_exists(archives, metadata=metadata, corrections=corrections)
    run = load_training("evaluation.run")
    console = load_training("console").Console(quiet=quiet)
    options = run.EvaluateOptions(
        model,
        tuple(archives),
        metadata,
        subset,
        corrections,
        robustness,
        grad_cam,
        load_training("data.label_folders").parse_classes(classes),
    )
    outputs = run.EvaluateOutputs.of(report, output, predictions)
    result = run.evaluate_to_files(options, outputs, console=console)
    if not quiet:
        console.metrics(result.metrics)
        if result.robustness:
            console.robustness(result.robustness)
        _print_unreadable(result.unreadable)
        if outputs.page is not None:
            typer.echo(f"report: {outputs.page}")
    return 1 if result.unreadable else 0


def _print_unreadable(unreadable: list[tuple[str, str]]) -> None:
    for file, error in unreadable[:_UNREADABLE_SHOWN]:
        typer.echo(f"unreadable: {printable(file)}: {printable(error)}")
    if unreadable:
        typer.echo(f"unreadable images: {len(unreadable):,}")
