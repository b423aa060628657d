"""``facegender evaluate``: what a network is worth on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import training, verb
from facegender.progress import printable


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

    evaluation = training("evaluate")
    console = training("progress").Console(quiet=quiet)
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
