"""``facegender export``: a run's network as one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import training, verb


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

    files = training("run_folder").files_of(run_folder)
    inputs = {f"the run's input {path}": path for path in files}
    check_distinct(inputs | {"--output": output})
    check_output(output)
    training("run").export_run(run_folder, output, licence=licence, terms=terms)
    typer.echo(f"model file: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
