"""``facegender compare``: whether one network is really better than another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import load_training, verb


@verb(
    examples=(
        "facegender compare runs/first runs/second",
        "facegender compare first.csv second.csv --output difference.json",
    )
)
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN|SCORES", help="A run, or a table of --scores.")
    ],
    second: Annotated[
        Path, typer.Argument(metavar="RUN|SCORES", help="Another, on the same pictures.")
    ],
    subset: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Only pictures that both have in this part.",
            show_default="all that neither learned from",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Where to write the figures."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table.")] = False,
) -> int:
    """Say whether the difference of two networks is real, on the same pictures.

    McNemar's exact test, and a paired bootstrap interval of the difference;
    overall and by source.
    """
    from facegender.files import check_distinct_paths, check_output_path

    scores = load_training("evaluation.predictions_table")
    tables = [path / scores.SCORES_NAME if path.is_dir() else path for path in (first, second)]
    check_distinct_paths({"the first": tables[0], "the second": tables[1], "--output": output})
    if output is not None:
        check_output_path(output)
    found = load_training("evaluation.compare").compare(
        *map(scores.read_scores, tables), subset=subset
    )
    if output is not None:
        names = {"first": str(first), "second": str(second)}
        load_training("evaluation.evaluate").write_json(output, names | asdict(found))
    if not quiet:
        load_training("console").Console().comparison(found, str(first), str(second))
    return 0
