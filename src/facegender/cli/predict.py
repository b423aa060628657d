"""``facegender predict``: answers for every picture in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facegender.cli.verb import verb
from facegender.progress import Summary, with_progress

if TYPE_CHECKING:
    from facegender.results import Prediction


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
