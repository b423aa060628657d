"""``facegender predict``: classify every face in what the user names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

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
from facegender.errors import InputError, OutputError

if TYPE_CHECKING:
    from facegender.results.summary import RunSummary

BROKEN_PIPE = 141
"""Exit code if the reader of the output closes it: that of a command that SIGPIPE ends."""

Inputs: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Folders, images, .tar, .tar.gz or .zip files, .txt lists of names, or '-' for "
        "names on standard input. They are never changed.",
        show_default=False,
    ),
]
Lists: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="Read the images whose paths are in FILE, one per line; a pipe or '-' works, too. "
        "May be repeated.",
        show_default=False,
    ),
]
Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out files and folders whose name or path inside the input matches, such as "
        "'*_edited.jpg'. May be repeated.",
        show_default=False,
    ),
]
Output: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help='Write {"photo.jpg": "male", ...}; \'-\' is standard output.',
    ),
]
Details: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write one row per face: status, probability, box, error; '-' is standard output.",
    ),
]
DetailsFormat: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="json|jsonl|csv|parquet",
        help="Format of the details.",
        show_default="by the suffix; jsonl without one",
    ),
]
Report: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        help="Write a page to browse the results offline and to mark errors.",
    ),
]
Annotate: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write JPEG copies with boxes and labels."),
]
Anonymize: TypeAlias = Annotated[
    bool, typer.Option("--anonymize", help="Pixelate the faces in the copies.")
]
Recursive: TypeAlias = Annotated[
    bool, typer.Option("--recursive", help="Include subfolders; keys are paths with '/'.")
]
Detector: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.onnx",
        help="Detect faces with OpenCV and this YuNet file.",
        show_default="the detector that ships",
    ),
]
Unknown: TypeAlias = Annotated[
    bool,
    typer.Option("--unknown", help="Write 'unknown' to the results instead of a guess."),
]
RetryErrors: TypeAlias = Annotated[
    bool,
    typer.Option("--retry-errors", help="Read again only what an earlier run could not read."),
]
Cluster: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="Run on all machines of a Ray cluster; --output then names a folder for "
        "Parquet shards. Inputs may be URLs (s3://, gs://).",
    ),
]
ShardSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Files per shard, with --cluster; an archive is always one shard.",
        show_default="2000",
    ),
]


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
    inputs: Inputs = None,
    output: Output = Path("process_results.json"),
    details: Details = None,
    details_format: DetailsFormat = None,
    report: Report = None,
    annotate: Annotate = None,
    anonymize: Anonymize = False,
    faces: Faces = "auto",
    recursive: Recursive = False,
    exclude: Exclude = None,
    lists: Lists = None,
    model: Model = None,
    detector: Detector = None,
    runtime: Runtime = "auto",
    min_confidence: MinConfidence = None,
    unknown: Unknown = False,
    retry_errors: RetryErrors = False,
    max_pixels: MaxPixels = None,
    max_bytes: MaxBytes = None,
    timeout: Timeout = 60.0,
    cluster: Cluster = None,
    shard_size: ShardSize = None,
    quiet: Quiet = False,
) -> int:
    """Classify every face in photos as male or female.

    If an image has several faces, FILE has the main one and the details have all.
    A run that was stopped resumes with the same command.

    Exit codes: 0, every image was read; 1, some could not be read, the
    results are written; 2, wrong use or no images, nothing was written.
    """
    if not inputs and not lists:
        raise InputError("Missing argument INPUT...: name a folder or images, or give --list FILE")
    inputs, lists = inputs or [], lists or []
    # Before NumPy is imported, whose threads would spin for 50 ms of a core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
    from facegender.inference.pipeline import PredictOptions

    limits = ImageLimits(
        max_pixels or DEFAULT_IMAGE_LIMITS.pixels, max_bytes or DEFAULT_IMAGE_LIMITS.bytes
    )
    options = PredictOptions(
        faces=faces,
        min_confidence=min_confidence,
        recursive=recursive,
        retry_errors=retry_errors,
        limits=limits,
        detector=detector,
        timeout=timeout,
        exclude=tuple(exclude or ()),
    )
    if cluster is not None:
        refused = {
            "--list": lists,
            "--exclude": exclude,
            "--details": details,
            "--format": details_format,
            "--report": report,
            "--annotate": annotate,
            "--anonymize": anonymize,
            "--detector": detector,
            "--unknown": unknown,
        }
        if given := [option for option, value in refused.items() if value]:
            raise InputError(f"{given[0]} does not go with --cluster")
        from facegender.cli.cluster import predict_on_cluster

        return predict_on_cluster(cluster, inputs, output, options, model, shard_size, quiet=quiet)
    if shard_size is not None:
        raise InputError("--shard-size needs --cluster")
    from facegender.inference.outputs import PredictOutputs
    from facegender.inference.predict import predict_to_files

    outputs = PredictOutputs(
        output, details, details_format, report, annotate, anonymize, write_unknown=unknown
    )
    try:
        summary = predict_to_files(
            inputs,
            outputs,
            options,
            lists=lists,
            model=model,
            runtime=runtime,
            progress=None if quiet else with_progress,
            on_message=None if quiet else lambda text: typer.echo(text, err=True),
        )
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError) and outputs.has_only_streams:
            return BROKEN_PIPE  # the reader has what it wanted, and no file is missing
        raise
    if not quiet:
        _print_summary(summary, [*inputs, *map(str, lists)], err=outputs.has_standard_output)
    return 1 if summary.has_failures else 0


def _print_summary(summary: RunSummary, inputs: list[str], *, err: bool) -> None:
    show_summary(summary, ", ".join(inputs), err=err)
    with suppress(BrokenPipeError):
        for name in summary.not_annotated:
            typer.echo(f"No annotated copy: {printable(name)}", err=err)
        if summary.journal:
            typer.echo(
                "To retry only what was not read, run it again with --retry-errors (it uses "
                f"{printable(summary.journal)}; you may delete that file)",
                err=err,
            )
