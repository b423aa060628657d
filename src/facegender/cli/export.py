"""``facegender export``: a run's network as one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import load_training, verb

TO = ("onnx", "openvino", "onnx-int8")


@verb(
    examples=(
        "facegender export runs/mine -o model.onnx",
        "facegender export runs/mine -o small.onnx --to onnx-int8",
    )
)
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the model file goes.")
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="|".join(TO),
            help="A model file in full precision (onnx), one in int8, or OpenVINO's two files.",
        ),
    ] = "onnx",
    license: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence that the file states.")
    ] = None,
    terms: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Terms of the data that the file states.")
    ] = None,
) -> int:
    """Write a run's network as one model file, compared with torch on real pictures.

    Refused where a probability differs by more than 0.001;
    in reduced precision where accuracy on the run's validation pictures falls
    by more than 0.1 points or the share of unknown moves by more than 1.
    """
    from facegender.errors import InputError
    from facegender.files import check_distinct_paths, check_output_path

    if to not in TO:
        raise InputError(f"--to {to!r} is not one of {', '.join(TO)}")
    if to == "openvino" and output.suffix != ".xml":
        raise InputError(f"OpenVINO's files are NAME.xml and NAME.bin: name an .xml, not {output}")
    files = load_training("run_folder").files_of(run_folder)
    inputs = {f"the run's input {path}": path for path in files}
    check_distinct_paths(inputs | {"--output": output})
    check_output_path(output)
    if to == "onnx":
        load_training("train").export_run(run_folder, output, license=license, terms=terms)
    else:
        convert = load_training("export.quantize").convert_run
        loss = convert(run_folder, output, to, license=license, terms=terms)
        typer.echo(
            f"validation, {loss.images:,} pictures: accuracy {loss.accuracy_before:.2f} % -> "
            f"{loss.accuracy_after:.2f} %, unknown {loss.unknown_before:.2f} % -> "
            f"{loss.unknown_after:.2f} %, {loss.flipped} labels changed"
        )
    typer.echo(f"model file: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
