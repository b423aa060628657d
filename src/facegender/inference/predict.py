"""Predict for folders, files and archives: as a stream of rows, or to files with resume."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import __version__ as pillow_version

from facegender import __version__
from facegender.errors import InputError, StoppedError
from facegender.inference.classifier import Classifier
from facegender.inference.journal import Journal
from facegender.inference.outputs import (
    OutputWriters,
    PredictOutputs,
    check_outputs,
    to_report_images,
)
from facegender.inference.pipeline import (
    FileResult,
    PredictOptions,
    predict_files,
    start_workers,
)
from facegender.inputs.paths import collect_inputs
from facegender.results.predictions import Prediction
from facegender.results.summary import RunSummary, SummaryCounter

if TYPE_CHECKING:  # loaded only by a run that writes a report
    from facegender.results.report import ReportInfo

ProgressWrapper: TypeAlias = Callable[[Iterator[FileResult], int | None], Iterator[FileResult]]
"""Wraps the stream of results, as tqdm does: takes it and the number of files (None if unknown)."""


def predict_folder(
    path: str | PathLike[str],
    *,
    recursive: bool = False,
    classifier: Classifier | None = None,
    faces: str = "auto",
    min_confidence: float | None = None,
) -> Iterator[Prediction]:
    """Classify every face in a folder's images, in natural order of names.

    Example:
        >>> for row in predict_folder("faces"):
        ...     if row.label == "female":
        ...         print(row.file, row.face_index, row.status.value)
        eileen_collins.jpg 0 ok

    Args:
        path: the folder (or an archive, a list, a single image); nothing in it is changed.
        recursive: include subfolders (links to folders are not followed).
        classifier: the network; None loads the one that ships.
        faces: ``detect`` finds every face, ``whole`` takes each image as one face, ``auto`` finds
            faces and, in a close-up, ignores extra detections.
        min_confidence: answers below it are ``unknown``; None takes the model's own.

    Returns:
        One row per face, the main face of an image first; one row without an answer if there is
        no face (``no_face``), the image cannot be read (``unreadable``, with the reason) or the
        file is no image (``skipped``). Memory does not grow with the folder, except for its names.

    Raises:
        InputError: the folder is missing or cannot be listed, or an unknown value of ``faces``.
        ModelFileError: the model that ships cannot be loaded.
        ValueError: ``min_confidence`` outside 0.5 to 1.
    """
    options = PredictOptions(faces=faces, min_confidence=min_confidence, recursive=recursive)
    inputs = collect_inputs([path], recursive=recursive)
    results = predict_files(inputs, classifier or Classifier.load(), options)
    return (row for result in results for row in result.rows)


def predict_to_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    outputs: PredictOutputs | None = None,
    options: PredictOptions | None = None,
    *,
    model: str | PathLike[str] | None = None,
    runtime: str = "auto",
    progress: ProgressWrapper | None = None,
    on_message: Callable[[str], None] | None = None,
) -> RunSummary:
    """Classify every face in folders, files and archives, and write the results to files.

    A run that was stopped resumes: call it again with the same arguments. Every file is written
    under a temporary name and renamed when it is complete.

    Example:
        >>> summary = predict_to_files("faces", PredictOutputs(Path("answers.json")))
        >>> summary.images, summary.counts["unreadable"]
        (6, 0)

    Args:
        inputs: folders, images, archives, lists or patterns; see the guide of ``predict``.
        outputs: the files to write; None writes ``process_results.json``.
        options: how to predict.
        model: a model file or run folder; None takes the model that ships.
        runtime: one of :data:`facegender.model.runtime.RUNTIMES`.
        progress: wraps the stream of results, as tqdm does.
        on_message: called with messages for the user.

    Returns:
        Counts, reasons of failures and the paths written.

    Raises:
        InputError: a missing input, an unknown option value, or options that exclude each other.
        OutputError: an output cannot be written or would overwrite an input.
        ModelFileError: the model cannot be loaded.
        StoppedError: Ctrl-C or SIGTERM; answers so far are kept and the same call resumes.
        ValueError: ``min_confidence`` outside 0.5 to 1.
    """
    started = time.perf_counter()
    names = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    outputs, options = outputs or PredictOutputs(), options or PredictOptions()
    files = collect_inputs(names, recursive=options.recursive, limits=options.limits)
    model = None if model is None else Path(model)
    check_outputs(outputs, files, model, options.detector)
    _check_detector(options.detector)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # a damaged file is a row, not a warning
    counter = SummaryCounter()
    has_report = outputs.report is not None
    try:
        with ExitStack() as stack:
            # the processes start while the network loads
            pool = stack.enter_context(start_workers(files.total, options.timeout))
            classifier = Classifier.load(model, runtime=runtime)
            depends_on = _answers_depend_on(classifier, options, has_report)
            journal = stack.enter_context(Journal(outputs.results, depends_on))
            if journal.is_fresh and on_message:
                on_message("Starting over: the earlier run used another model or other options")
            writers = stack.enter_context(OutputWriters(outputs, options))
            results = predict_files(
                files,
                classifier,
                options,
                has_thumbnails=has_report,
                pool=pool,
                journal=journal,
            )
            if progress:
                results = progress(results, files.total)
            recorded = _record(results, writers, counter)
            if outputs.report is None:
                for _ in recorded:
                    pass
            else:
                from facegender.results.report import write_report

                info = _report_info(classifier, names, journal.begun)
                write_report(outputs.report, to_report_images(recorded, outputs.report), info)
        if not counter.counts["unreadable"]:
            journal.remove()
    except (KeyboardInterrupt, SystemExit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else 130
        raise StoppedError(
            f"Stopped after {counter.summary().images:,} images. To resume, run the same command",
            code if isinstance(code, int) else 130,
        ) from stop
    return counter.summary(
        outputs=outputs.paths,
        not_annotated=writers.not_annotated,
        seconds=time.perf_counter() - started,
    )


def _record(
    results: Iterator[FileResult], writers: OutputWriters, counter: SummaryCounter
) -> Iterator[FileResult]:
    """Count and write each result, then hand it on."""
    for result in results:
        counter.add(result.rows, is_cached=result.is_cached)
        writers.write(result)
        yield result


def _check_detector(detector: Path | None) -> None:
    """Load a detector file once here, so that a wrong one is one error, not one per image."""
    if detector is not None:
        from facegender.faces.opencv import OpenCVYuNet

        OpenCVYuNet(detector)


def _answers_depend_on(
    classifier: Classifier, options: PredictOptions, has_thumbnails: bool
) -> dict[str, Any]:
    """List everything besides the image that an answer depends on: the journal's key."""
    return {
        "versions": [__version__, pillow_version],
        "model": classifier.digest,
        "runtime": classifier.runtime,
        "faces": options.faces,
        "min_confidence": classifier.threshold(options.min_confidence),
        "limits": [options.limits.pixels, options.limits.bytes],
        "detector": None if options.detector is None else _file_state(options.detector),
        "thumbnails": has_thumbnails,
    }


def _file_state(path: Path) -> list[str | int]:
    """Path, size and time: another state of the file has others.

    Raises:
        InputError: it is missing.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"cannot read the detector {path}: {error.strerror or error}") from error
    return [str(path), found.st_size, found.st_mtime_ns]


def _report_info(
    classifier: Classifier, inputs: Sequence[str | PathLike[str]], begun: str
) -> ReportInfo:
    """Say in the report how it was made."""
    from facegender.results.report import ReportInfo

    description = classifier.description
    return ReportInfo(
        model=description.name,
        fingerprint=classifier.digest[:16],
        version=__version__,
        created=begun,
        input=", ".join(os.fspath(name) for name in inputs),
        terms=" ".join(filter(None, (description.license, description.terms))),
    )
