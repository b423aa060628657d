"""``facegender compare``: test whether the difference between two networks is significant."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.options import Quiet
from facegender.cli.verb import load_training, verb


@verb(
    examples=(
        "facegender compare runs/first runs/second",
        "facegender compare runs/first runs/second --subset test",
        "facegender compare first.csv second.csv --output difference.json",
    )
)
def compare(
    first: Annotated[
        Path,
        typer.Argument(metavar="RUN|CSV", help="A run, or a file of evaluate --predictions."),
    ],
    second: Annotated[
        Path, typer.Argument(metavar="RUN|CSV", help="Another one, on the same images.")
    ],
    subset: Annotated[
        str | None,
        typer.Option(
            metavar="SUBSET",
            help="Only images that are in this subset in both.",
            show_default="all that neither network was trained on",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the comparison here."),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Test whether two networks differ significantly in accuracy on the same images.

    McNemar's exact test, with a paired bootstrap interval of the difference,
    overall and by source.
    """
    from facegender.files import check_distinct_paths, check_output_path, write_json

    tables = load_training("evaluation.predictions_table")
    paths = [path / tables.PREDICTIONS_NAME if path.is_dir() else path for path in (first, second)]
    check_distinct_paths({"the first": paths[0], "the second": paths[1], "--output": output})
    if output is not None:
        check_output_path(output)
    found = load_training("evaluation.compare").compare(
        *map(tables.read_predictions, paths), subset=subset
    )
    if output is not None:
        write_json(output, {"first": str(first), "second": str(second)} | asdict(found))
    if not quiet:
        load_training("console").Console().comparison(found, str(first), str(second))
    return 0
