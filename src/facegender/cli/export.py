"""``facegender export``: write the network of a run as one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import load_training, verb

_FORMATS = ("onnx", "openvino", "onnx-int8")


@verb(
    examples=(
        "facegender export runs/mine -o model.onnx",
        "facegender export runs/mine -o small.onnx --to onnx-int8",
        "facegender export runs/mine -o model.xml --to openvino",
    )
)
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the model file here.")
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="|".join(_FORMATS),
            help="onnx: a model file in full precision. onnx-int8: a quantized one. "
            "openvino: NAME.xml and NAME.bin.",
        ),
    ] = "onnx",
    license: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="License in the file.", show_default="the run's"),
    ] = None,
    terms: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Terms of the data in the file.", show_default="the run's"
        ),
    ] = None,
) -> int:
    """Write the network of a run as one model file, compared with torch on real images.

    Refused if a probability differs by more than 0.001. int8 and OpenVINO are refused
    if accuracy on the validation images of the run falls by more than 0.1 points, or
    if the fraction of unknown changes by more than 1 point.
    """
    from facegender.errors import InputError
    from facegender.files import check_distinct_paths, check_output_path

    if to not in _FORMATS:
        raise InputError(f"--to {to!r} is not one of {', '.join(_FORMATS)}")
    if to == "openvino" and output.suffix != ".xml":
        raise InputError(f"--to openvino writes NAME.xml and NAME.bin: name an .xml, not {output}")
    files = load_training("run_folder").protected_files(run_folder)
    inputs = {f"the run's input {path}": path for path in files}
    check_distinct_paths(inputs | {"--output": output})
    check_output_path(output)
    if to == "onnx":
        load_training("export_run").export_run(run_folder, output, license=license, terms=terms)
    else:
        convert_run = load_training("export.quantize").convert_run
        loss = convert_run(run_folder, output, to, license=license, terms=terms)
        typer.echo(
            f"validation, {loss.images:,} images: accuracy {loss.accuracy_before:.2f}% -> "
            f"{loss.accuracy_after:.2f}%, unknown {loss.unknown_before:.2f}% -> "
            f"{loss.unknown_after:.2f}%, {loss.flipped} labels changed"
        )
    typer.echo(f"model file: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
