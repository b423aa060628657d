"""``facegender predict``: classify every face in what the user names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facegender.cli.options import (
    Faces,
    MaxBytes,
    MaxPixels,
    MinConfidence,
    Model,
    Quiet,
    Runtime,
    Timeout,
)
from facegender.cli.progress import printable, show_summary, with_progress
from facegender.cli.verb import verb
from facegender.errors import InputError

if TYPE_CHECKING:
    from facegender.inference.pipeline import PredictOptions
    from facegender.results.summary import RunSummary


@verb(
    examples=(
        "facegender predict faces",
        "facegender predict photos --recursive --details details.csv --report report.html",
        "facegender predict album.zip more/*.jpg -o answers.json --faces detect",
        "find /photos -name '*.jpg' | facegender predict - --min-confidence 0.9 --unknown",
        "facegender predict --cluster auto 's3://bucket/photos/*.tar' --output s3://bucket/answers",
    )
)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, images, .tar, .tar.gz or .zip files, .txt lists of names, or '-' for "
            "names on standard input. They are never changed.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help='Write {"photo.jpg": "male", ...}.'),
    ] = Path("process_results.json"),
    details: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write one row per face: status, probability, box, error."
        ),
    ] = None,
    details_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="json|jsonl|csv|parquet",
            help="Format of the details.",
            show_default="by the suffix, else jsonl",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page to browse the results offline and to mark errors.",
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write JPEG copies with boxes and labels."),
    ] = None,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Pixelate the faces in the copies.")
    ] = False,
    faces: Faces = "auto",
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Include subfolders; keys are paths with '/'.")
    ] = False,
    model: Model = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="Detect faces with OpenCV and this YuNet file.",
            show_default="the detector that ships",
        ),
    ] = None,
    runtime: Runtime = "auto",
    min_confidence: MinConfidence = None,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Write 'unknown' to the results instead of a guess."),
    ] = False,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Read again only what an earlier run could not read."),
    ] = False,
    max_pixels: MaxPixels = None,
    max_bytes: MaxBytes = None,
    timeout: Timeout = 60.0,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Run on all machines of a Ray cluster; --output then names a folder for "
            "Parquet shards. Inputs may be addresses (s3://, gs://).",
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Images per shard, with --cluster; an archive is always one shard.",
            show_default="2000",
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Classify every face in photos as male or female.

    If an image has several faces, FILE has the main one and the details have all.
    A run that was stopped resumes with the same command.

    Exit codes: 0, every image was read; 1, some could not be read, the
    results are written; 2, wrong use, nothing was written.
    """
    # Before NumPy is imported: the threads that it would start only spin, for 50 ms of a core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options = _options(
        faces=faces,
        min_confidence=min_confidence,
        recursive=recursive,
        retry_errors=retry_errors,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        detector=detector,
        timeout=timeout,
    )
    if cluster is not None:
        refused = {
            "--details": details,
            "--format": details_format,
            "--report": report,
            "--annotate": annotate,
            "--anonymize": anonymize,
            "--detector": detector,
            "--unknown": unknown,
        }
        if given := [option for option, value in refused.items() if value]:
            raise InputError(f"{given[0]} does not go with --cluster, which writes Parquet shards")
        from facegender.cli.cluster import predict_on_cluster

        return predict_on_cluster(cluster, inputs, output, options, model, shard_size, quiet=quiet)
    if shard_size is not None:
        raise InputError("--shard-size goes with --cluster: give that too, or leave it out")
    from facegender.inference.outputs import PredictOutputs
    from facegender.inference.predict import predict_to_files

    summary = predict_to_files(
        inputs,
        PredictOutputs(
            output, details, details_format, report, annotate, anonymize, write_unknown=unknown
        ),
        options,
        model=model,
        runtime=runtime,
        progress=None if quiet else with_progress,
        on_message=None if quiet else lambda text: typer.echo(text, err=True),
    )
    if not quiet:
        _show(summary, inputs)
    return 1 if summary.has_failures else 0


def _options(*, max_pixels: int | None, max_bytes: int | None, **options: object) -> PredictOptions:
    from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
    from facegender.inference.pipeline import PredictOptions

    limits = ImageLimits(
        max_pixels or DEFAULT_IMAGE_LIMITS.pixels, max_bytes or DEFAULT_IMAGE_LIMITS.bytes
    )
    return PredictOptions(limits=limits, **options)  # type: ignore[arg-type]


def _show(summary: RunSummary, inputs: list[str]) -> None:
    show_summary(summary, ", ".join(inputs))
    with suppress(BrokenPipeError):
        for name in summary.not_annotated:
            typer.echo(f"No copy could be drawn: {printable(name)}")
        if summary.counts["unreadable"]:
            typer.echo("To retry only the unreadable images, run it again with --retry-errors")
