"""``facegender predict``: answers for every face in what a person names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facegender.cli.progress import printable, show_summary, with_progress
from facegender.cli.verb import verb
from facegender.errors import InputError, OutputError, StoppedError
from facegender.results.summary import Summary

if TYPE_CHECKING:
    from facegender.inference.classifier import Classifier
    from facegender.inference.pipeline import Answered
    from facegender.results.report import About, ReportPicture


@verb(
    examples=(
        "facegender predict faces",
        "facegender predict photos --recursive --details details.csv --report report.html",
        "facegender predict album.zip more/*.jpg -o answers.json --faces detect",
        "find /photos -name '*.jpg' | facegender predict - --unknown-below 0.9 --unknown",
        "facegender predict --cluster auto 's3://bucket/photos/*.tar' --output s3://bucket/answers",
    )
)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, pictures, .tar, .tar.gz or .zip files, .txt lists of names, or '-' for "
            "names on standard input. Nothing in them is changed.",
        ),
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
            metavar="FILE", help="Also write a row per face: status, probability, box, error."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="json|jsonl|csv|parquet",
            help="Of the details.",
            show_default="by the name, else jsonl",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write a page to look through, offline, and to mark wrong answers in.",
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write copies with boxes and answers drawn in, as JPEG."
        ),
    ] = None,
    blur: Annotated[bool, typer.Option("--blur", help="Hide the faces in the copies.")] = False,
    faces: Annotated[
        str,
        typer.Option(
            metavar="auto|detect|whole",
            help="Find every face (detect), take each picture as one face (whole), or find them "
            "and leave out what stands beside a face that fills the picture (auto).",
        ),
    ] = "auto",
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
    detector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="A YuNet file of your own to find faces with, by OpenCV.",
            show_default="the one shipped",
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="auto|onnxruntime|openvino|cuda|tensorrt",
            help="What runs the network: the first that is there of CUDA, OpenVINO where it is "
            "faster, and ONNX Runtime (auto), or one of them.",
        ),
    ] = "auto",
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
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Write 'unknown' to the results instead of a guess."),
    ] = False,
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors", help="Read again what the run before could not; keep the rest."
        ),
    ] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most pixels of a picture.", show_default="179e6"),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most bytes of a file.", show_default="1 GiB"),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="For the reading of one picture.")
    ] = 60.0,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Answer on all machines of a Ray cluster; --output then names a folder for "
            "Parquet parts. Addresses (s3://, gs://) can be given.",
        ),
    ] = None,
    part: Annotated[
        int | None,
        typer.Option(
            "--part",
            metavar="N",
            min=1,
            help="Pictures in a part, with --cluster; an archive is always one.",
            show_default="2000",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> int:
    """Answer male or female for every face in a folder's pictures.

    Of several faces in a picture FILE names the largest, the details have all.
    A run that was stopped goes on with the same command.

    Exit codes: 0, every picture was read; 1, some could not be, and the
    results are written all the same; 2, wrong use, and nothing was written.
    """
    if cluster is not None:
        from facegender.cli.cluster import predict_on_cluster

        return predict_on_cluster(
            cluster,
            inputs,
            output,
            refused={
                "--details": details,
                "--format": form,
                "--report": report,
                "--annotate": annotate,
                "--blur": blur,
                "--detector": detector,
                "--unknown": unknown,
            },
            faces=faces,
            recursive=recursive,
            model=model,
            unknown_below=unknown_below,
            retry_errors=retry_errors,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            time_limit=time_limit,
            part=part,
            quiet=quiet,
        )
    if part is not None:
        raise InputError("--part cuts the work for --cluster: give that too, or leave it out")
    import os
    import warnings

    # Before NumPy is there: the threads that it would start only spin, for 50 ms of a core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from PIL import __version__ as pillow_version

    from facegender import __version__
    from facegender.files import check_distinct, check_output, remove_leftovers
    from facegender.images.formats import LIMITS, Limits
    from facegender.inference.classifier import Classifier
    from facegender.inference.journal import Journal
    from facegender.inference.pipeline import predict_items, start_reading
    from facegender.inference.preprocess import check_faces
    from facegender.inputs.paths import gather
    from facegender.model.model_file import MODEL_NAME
    from facegender.results.details import DetailsWriter, format_of
    from facegender.results.process_results import ProcessResultsWriter

    warnings.filterwarnings("ignore", module=r"PIL\.")  # a bad file is a row, not a warning
    started = time.perf_counter()
    limits = Limits(max_pixels or LIMITS.pixels, max_bytes or LIMITS.bytes)
    if form is not None and details is None:
        raise InputError("--format is the format of the details: name a file with --details too")
    if blur and annotate is None:
        raise InputError("--blur hides faces in copies: name their folder with --annotate too")
    check_faces(faces)
    found = gather(inputs, recursive=recursive, limits=limits)
    in_run = None if model is None else model / MODEL_NAME
    outputs = {"--output": output, "--details": details, "--report": report}
    given: dict[str, Path | None] = {f"the input {file}": file for file in found.files()}
    given |= {"--model": model, "--model's file": in_run, "--detector": detector}
    check_distinct(outputs | {"--annotate": annotate} | given)
    if annotate is not None:
        _check_copies(annotate, found.folders())
    if details is not None:
        format_of(details, form)
    for path in outputs.values():
        if path is not None:
            check_output(path)
    if detector is not None:
        from facegender.faces.opencv import OpenCVYuNet

        OpenCVYuNet(detector)  # said now, not by every picture
    summary = Summary()
    with ExitStack() as starting:  # the processes start while the network is loaded
        pool = starting.enter_context(start_reading(found.total, time_limit))
        classifier = Classifier.load(model, runtime=runtime)
        options = {
            "versions": [__version__, pillow_version],
            "model": classifier.digest,
            "runtime": classifier.runtime,
            "faces": faces,
            "unknown_below": classifier.threshold(unknown_below),
            "limits": [limits.pixels, limits.bytes],
            "detector": None if detector is None else _state(detector),
            "thumbnails": report is not None,
        }
        reading = starting.pop_all()
    try:
        with ExitStack() as stack:
            stack.enter_context(reading)
            journal = stack.enter_context(Journal(output, options))
            for path in (details, report):
                if path is not None:  # no other run may write these either
                    stack.enter_context(Journal(path, {}))
            for path in outputs.values():
                if path is not None:
                    remove_leftovers(path)
            if journal.is_fresh and not quiet:
                typer.echo(
                    "the run before had another model or other options: begun anew", err=True
                )
            writers: list[ProcessResultsWriter | DetailsWriter] = [
                stack.enter_context(ProcessResultsWriter(output, has_unknown=unknown))
            ]
            if details is not None:
                writers.append(stack.enter_context(DetailsWriter(details, form)))
            copies = None
            if annotate is not None:
                from facegender.inference.annotated_copies import Copies

                copies = stack.enter_context(Copies(annotate, blur, limits, time_limit))
            answered = predict_items(
                found,
                classifier,
                faces=faces,
                unknown_below=unknown_below,
                limits=limits,
                detector=detector,
                has_thumbnails=report is not None,
                seconds=time_limit,
                pool=pool,
                journal=journal,
                retry_errors=retry_errors,
            )

            def watched() -> Iterator[Answered]:
                for each in with_progress(answered, found.total, quiet=quiet):
                    summary.add(each.rows, is_kept=each.is_kept)
                    for row in each.rows:
                        for writer in writers:
                            writer.append(row)
                    if copies is not None:
                        copies.add(each)
                    yield each

            if report is None:
                for _ in watched():
                    pass
            else:
                from facegender.results.report import write_report

                pictures = (_in_report(each, report) for each in watched())
                write_report(report, pictures, _about(classifier, inputs, journal.begun))
        if not summary.counts["unreadable"]:
            journal.remove()
    except (KeyboardInterrupt, SystemExit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else 130
        raise StoppedError(
            f"stopped after {summary.pictures:,} pictures; what is answered is kept, and "
            "the same command goes on from there",
            code if isinstance(code, int) else 130,
        ) from stop
    undrawn = copies.failed if copies is not None else []
    if not quiet:
        written = [path for path in (*outputs.values(), annotate) if path is not None]
        show_summary(summary, ", ".join(inputs), written, time.perf_counter() - started)
        with suppress(BrokenPipeError):
            for name in undrawn:
                typer.echo(f"no copy could be drawn of {printable(name)}")
            if summary.counts["unreadable"]:
                typer.echo("the same command with --retry-errors reads only these again")
    return 1 if summary.counts["unreadable"] or undrawn else 0


def _check_copies(folder: Path, inputs: set[Path]) -> None:
    """Refuse a folder for copies that is none, or from which they would be read as photos.

    Raises:
        InputError: it is part of an input.
        OutputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write copies into {folder}: it is a file; name a folder")
    for read in inputs:
        if folder.resolve().is_relative_to(read.resolve()):
            raise InputError(
                f"--annotate {folder} is part of the input {read}, where the copies would be "
                "taken for photos. Name another folder"
            )


def _in_report(answered: Answered, report: Path) -> ReportPicture:
    """Give a picture as the report's page shows it."""
    from facegender.results.report import ReportPicture, link_to

    path = answered.item.path
    rows = tuple(row.to_dict() for row in answered.rows)
    return ReportPicture(
        rows, answered.thumbnail or None, None if path is None else link_to(path, report)
    )


def _about(classifier: Classifier, inputs: list[str], begun: str) -> About:
    """Say on the report's page how it was made."""
    from facegender import __version__
    from facegender.results.report import About

    described = classifier.description
    return About(
        model=described.name,
        fingerprint=classifier.digest[:16],
        version=__version__,
        created=begun,
        input=", ".join(inputs),
        terms=" ".join(filter(None, (described.licence, described.terms))),
    )


def _state(path: Path) -> list[str | int]:
    """Tell one state of a file from another, by its size and time.

    Raises:
        InputError: it is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"cannot read the detector {path}: {error.strerror or error}") from error
    return [str(path), found.st_size, found.st_mtime_ns]
