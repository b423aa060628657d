"""``facegender evaluate``: what a network is worth on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from facegender.cli.progress import printable
from facegender.cli.verb import load_training, verb
from facegender.errors import InputError, OutputError

_PAGE_SUFFIXES = (".html", ".htm")


@verb(
    examples=(
        "facegender evaluate runs/mine internship_data.tar.gz",
        "facegender evaluate runs/mine internship_data.tar.gz --part validation --report judged",
        "facegender evaluate runs/mine internship_data.tar.gz --part test --output test.json",
        "facegender evaluate model.onnx other_faces/ --robustness 500 --report other.html",
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
    subset: Annotated[
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
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html|FOLDER",
            help="One page with figures, plots and pictures; a folder gets figures and scores too.",
        ),
    ] = None,
    robustness: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Judge N pictures again turned, small, blurred and compressed (17 times each).",
        ),
    ] = 0,
    grad_cam: Annotated[
        bool,
        typer.Option(
            "--grad-cam", help="Show in the page where answers came from; needs a run folder."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> int:
    """Measure a network on labelled pictures, by part, source, label and group.

    Every share stands with its count and 95 % interval. The test part is only
    looked at when asked for by --part test. Exit code 1: some were unreadable.
    """
    from facegender.files import check_distinct_paths, check_output_path
    from facegender.model.model_file import MODEL_NAME

    evaluation = load_training("evaluation.evaluate")
    console = load_training("console").Console(quiet=quiet)
    if grad_cam and report is None:
        raise InputError("--grad-cam shows pictures: say by --report where the page goes")
    page = report
    if report is not None and report.suffix.lower() not in _PAGE_SUFFIXES:
        page, output, scores = _in_folder(report, output, scores)
    named = {f"ARCHIVE {path}": path for path in archives}
    own = {"RUN|MODEL": model, "its model file": model / MODEL_NAME, "--metadata": table}
    own["--corrections"] = corrections
    check_distinct_paths(named | own | {"--output": output, "--scores": scores, "--report": page})
    network = load_training("evaluation.grad_cam").load_network(model) if grad_cam else None
    if report is not None and page != report:
        _make_folder(report)
    for path in (output, scores, page):
        if path is not None:
            check_output_path(path)
    with console.counting("evaluating") as count:
        result = evaluation.evaluate(
            model,
            archives,
            table,
            subset=subset,
            corrections=corrections,
            on_image=count,
            on_skip=console.skipped,
        )
    console.note("measuring")
    metrics = result.metrics()
    if scores is not None:
        load_training("evaluation.predictions_table").write_scores(scores, result.scores)
    worse = None
    if robustness:
        worse = _worse(model, archives, table, result.scores, robustness, console)
    if output is not None:
        evaluation.write_json(output, metrics | ({"robustness": worse} if worse else {}))
    if page is not None:
        judged = load_training("evaluation.evaluation_report").judge(
            model, result, metrics, robustness=worse, network=network
        )
        load_training("evaluation.evaluation_report").write_report(page, judged)
    if not quiet:
        console.metrics(metrics)
        if worse:
            console.robustness(worse)
        for file, error in result.unreadable[:5]:
            typer.echo(f"unreadable: {printable(file)}: {printable(error)}")
        if result.unreadable:
            typer.echo(f"{len(result.unreadable):,} pictures could not be read")
        if page is not None:
            typer.echo(f"report: {page}")
    return 1 if result.unreadable else 0


def _in_folder(folder: Path, output: Path | None, scores: Path | None) -> tuple[Path, Path, Path]:
    """Name the files of a report folder; one that was named by itself stays where it was put.

    Raises:
        OutputError: the folder holds a run, whose own files would be written over.
    """
    from facegender.model.model_file import MODEL_NAME

    if (folder / MODEL_NAME).exists() or (
        folder / load_training("run_folder").REQUEST_NAME
    ).exists():
        raise OutputError(f"--report {folder} is a run folder: name another, or a .html file")
    return (
        folder / load_training("evaluation.evaluation_report").REPORT_NAME,
        output or folder / "figures.json",
        scores or folder / load_training("evaluation.predictions_table").SCORES_NAME,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _worse(
    model: Path, archives: list[Path], table: Path | None, scores: Any, count: int, console: Any
) -> Any:
    """Judge some of the pictures again, made worse."""
    from facegender.inference.classifier import Classifier

    module = load_training("evaluation.robustness")
    chosen = module.choose(scores, count)
    with console.counting("making pictures worse", len(chosen.samples)) as on_image:
        return module.robustness(
            Classifier.load(model), archives, chosen, table=table, on_image=on_image
        )
