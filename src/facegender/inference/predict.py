"""Predict for folders, files and archives: as a stream of rows, or to files with resume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import __version__ as pillow_version

from facegender import __version__
from facegender.errors import InputError, StoppedError
from facegender.inference.classifier import Classifier
from facegender.inference.journal import Journal, current_time
from facegender.inference.outputs import OutputWriters, PredictOutputs, check_outputs
from facegender.inference.pipeline import (
    FileResult,
    PredictOptions,
    predict_files,
    start_workers,
)
from facegender.inputs.paths import Inputs, collect_inputs
from facegender.results.output_file import is_stream
from facegender.results.predictions import Prediction
from facegender.results.summary import (
    MAX_IN_SUBFOLDERS,
    RunSummary,
    SummaryCounter,
    count_of,
    describe_skipped,
    describe_subfolders,
)

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
        no face (``no_face``), the image cannot be read (``unreadable``, with the reason), its
        format is not read here (``unsupported``) or the file is no image (``skipped``). Memory does
        not grow with the folder, except for its names.

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
    lists: Sequence[str | PathLike[str]] = (),
    model: str | PathLike[str] | None = None,
    runtime: str = "auto",
    progress: ProgressWrapper | None = None,
    on_message: Callable[[str], None] | None = None,
) -> RunSummary:
    """Classify every face in folders, files and archives, and write the results to files.

    A run that was stopped resumes: call it again with the same arguments; not if the results go to
    standard output or a pipe. Every file is written under a temporary name and renamed when it is
    complete. If no image can be read, earlier results stay.

    Example:
        >>> summary = predict_to_files("faces", PredictOutputs(Path("answers.json")))
        >>> summary.images, summary.counts["unreadable"]
        (6, 0)

    Args:
        inputs: folders, images, archives, lists or patterns; see the guide of ``predict``.
        outputs: the files to write; None writes ``process_results.json``.
        options: how to predict.
        lists: files of any name with the path of one image per line, pipes, or ``-`` for standard
            input.
        model: a model file or run folder; None takes the model that ships.
        runtime: one of :data:`facegender.model.runtime.RUNTIMES`.
        progress: wraps the stream of results, as tqdm does.
        on_message: called with messages for the user.

    Returns:
        Counts, reasons of failures and the paths written.

    Raises:
        InputError: a missing input, inputs without any image (earlier outputs stay), an unknown
            option value, or options that exclude each other.
        OutputError: an output cannot be written or would overwrite an input.
        ModelFileError: the model cannot be loaded.
        StoppedError: Ctrl-C, or SystemExit from a signal handler (the command has one for
            SIGTERM); results so far are kept, and the same call resumes.
        MissingExtraError: a format or detector whose library is not installed.
        ValueError: ``min_confidence`` outside 0.5 to 1.
    """
    started = time.perf_counter()
    names = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    outputs, options = outputs or PredictOutputs(), options or PredictOptions()
    files = collect_inputs(
        names,
        lists=lists,
        exclude=options.exclude,
        recursive=options.recursive,
        limits=options.limits,
    )
    model = None if model is None else Path(model)
    check_outputs(outputs, files, model, options.detector)
    _check_detector(options.detector)
    counter = SummaryCounter()
    run = _Run([*names, *lists], files, outputs, options, counter, progress, on_message)
    try:
        summary = run.predict(model, runtime)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else 130
        resume = "" if is_stream(outputs.results) else ". To resume, run the same command"
        raise StoppedError(
            f"Stopped after {count_of(counter.images, 'image')}{resume}",
            code if isinstance(code, int) else 130,
        ) from stop
    return replace(summary, seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of :func:`predict_to_files` whose arguments have been checked."""

    names: Sequence[str | PathLike[str]]
    files: Inputs
    outputs: PredictOutputs
    options: PredictOptions
    counter: SummaryCounter
    progress: ProgressWrapper | None
    on_message: Callable[[str], None] | None

    def predict(self, model: Path | None, runtime: str) -> RunSummary:
        """Predict and write every output."""
        outputs, options, counter = self.outputs, self.options, self.counter
        with ExitStack() as stack:
            # the processes start while the network loads
            pool = stack.enter_context(start_workers(self.files.total, options.timeout))
            classifier = Classifier.load(model, runtime=runtime)
            journal = self._open_journal(classifier, stack)
            about = _report_info(classifier, self.names, journal) if outputs.report else None
            writers = stack.enter_context(OutputWriters(outputs, options, about))
            results = predict_files(
                self.files,
                classifier,
                options,
                has_thumbnails=outputs.report is not None,
                pool=pool,
                journal=journal,
            )
            for result in self.progress(results, self.files.total) if self.progress else results:
                written = writers.write(result)
                counter.add(written.rows, is_cached=written.is_cached)
            if not counter.images:
                raise InputError(_describe_nothing(self.names, counter, self.files))
            paths = outputs.paths
            if not counter.has_read_any and _has_content(outputs.results):
                writers.results.discard()
                paths = tuple(path for path in paths if path != str(outputs.results))
                self._tell(f"No image could be read: {outputs.results} is left as it was")
        kept_journal = ""
        if journal is not None and counter.has_failed_any:
            is_beside = not outputs.results.is_symlink()
            path = outputs.results.with_name(journal.path.name) if is_beside else journal.path
            kept_journal = str(path)
        elif journal is not None:
            journal.remove()
        return counter.summary(
            outputs=paths,
            not_annotated=writers.not_annotated,
            journal=kept_journal,
            in_subfolders=self.files.count_in_subfolders(MAX_IN_SUBFOLDERS),
        )

    def _open_journal(self, classifier: Classifier, stack: ExitStack) -> Journal | None:
        """Open the journal beside the results; None if they go to a stream."""
        if is_stream(self.outputs.results):
            return None
        depends_on = _answers_depend_on(classifier, self.options, self.outputs.report is not None)
        journal = stack.enter_context(Journal(self.outputs.results, depends_on))
        if journal.starts_over:
            self._tell("Starting over: the earlier run used another model or other options")
        return journal

    def _tell(self, message: str) -> None:
        if self.on_message:
            self.on_message(message)


def _describe_nothing(
    names: Sequence[str | PathLike[str]], counter: SummaryCounter, files: Inputs
) -> str:
    """Say that no image was found, what was found instead, and where there are images."""
    skipped = describe_skipped(counter.skipped)
    found = f" (skipped {counter.counts['skipped']:,}: {skipped})" if skipped else ""
    message = f"No images found in {', '.join(os.fspath(name) for name in names)}{found}"
    if inside := describe_subfolders(files.count_in_subfolders(MAX_IN_SUBFOLDERS)):
        return f"{message}. There {inside}; --recursive includes them"
    return f"{message}. --exclude may leave them out" if files.exclude else message


def _has_content(path: Path) -> bool:
    """Tell whether an earlier run wrote labels to a results file."""
    try:
        return not is_stream(path) and path.stat().st_size > len("{}\n")
    except OSError:
        return False


def _check_detector(detector: Path | None) -> None:
    """Load a detector file here, so that a wrong one is one error, not one per image."""
    if detector is not None:
        from facegender.faces.opencv import OpenCVYuNet

        OpenCVYuNet(detector)


def _answers_depend_on(
    classifier: Classifier, options: PredictOptions, has_thumbnails: bool
) -> dict[str, Any]:
    """Return everything besides the image that an answer depends on, for the journal."""
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
    """Return path, size and time of a file, which change with its content.

    Raises:
        InputError: it is missing.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"Cannot read the detector {path}: {error.strerror or error}") from error
    return [str(path), found.st_size, found.st_mtime_ns]


def _report_info(
    classifier: Classifier, inputs: Sequence[str | PathLike[str]], journal: Journal | None
) -> ReportInfo:
    """Describe the run in its report."""
    from facegender.results.report import ReportInfo

    description = classifier.description
    return ReportInfo(
        model=description.name,
        fingerprint=classifier.digest[:16],
        version=__version__,
        created=current_time() if journal is None else journal.started,
        input=", ".join(os.fspath(name) for name in inputs),
        terms=" ".join(
            f"{text.rstrip('.')}." for text in (description.license, description.terms) if text
        ),
    )
