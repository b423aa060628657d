"""The output files of a run: which ones, the checks before it starts, and their writers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from facegender.errors import FacegenderError, InputError, OutputError
from facegender.files import check_distinct_paths, check_output_path, remove_temporary_files
from facegender.inference.journal import Journal
from facegender.inference.pipeline import FileResult, PredictOptions
from facegender.inputs.paths import Inputs
from facegender.model.model_file import MODEL_NAME
from facegender.results.details import DetailsWriter, resolve_format
from facegender.results.output_file import is_standard_output, is_stream
from facegender.results.predictions import unreadable_row
from facegender.results.process_results import ProcessResultsWriter

if TYPE_CHECKING:  # loaded only by the runs that write them
    from facegender.inference.annotated_copies import AnnotatedCopies
    from facegender.results.report import ReportInfo, ReportWriter


@dataclass(frozen=True, slots=True)
class PredictOutputs:
    """The files that :func:`facegender.predict_to_files` writes. None leaves one out.

    ``-`` is standard output. It, pipes and devices such as ``/dev/stdout`` are written directly;
    every other file appears when it is complete.

    Attributes:
        results: ``{"photo.jpg": "male", ...}`` as JSON, in natural order of names.
        details: one row per face; ``.json``, ``.jsonl``, ``.csv`` or ``.parquet``.
        details_format: ``json``, ``jsonl``, ``csv`` or ``parquet``; None goes by the suffix.
        report: one HTML page that opens offline.
        annotate: folder for JPEG copies with boxes and labels.
        anonymize: pixelate the faces in these copies.
        write_unknown: write ``unknown`` to ``results`` instead of the more probable label.
    """

    results: Path = Path("process_results.json")
    details: Path | None = None
    details_format: str | None = None
    report: Path | None = None
    annotate: Path | None = None
    anonymize: bool = False
    write_unknown: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files by the option of the command that names them."""
        named = {"--output": self.results, "--details": self.details, "--report": self.report}
        return {option: path for option, path in named.items() if path is not None}

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths that are written, the folder of annotated copies last."""
        last = [] if self.annotate is None else [self.annotate]
        return tuple(str(path) for path in [*self.files.values(), *last])

    @property
    def has_only_streams(self) -> bool:
        """Whether no file or folder is written, only standard output, pipes and devices."""
        return self.annotate is None and all(map(is_stream, self.files.values()))

    @property
    def has_standard_output(self) -> bool:
        """Whether one of them is standard output."""
        return any(is_standard_output(path) for path in self.files.values())


def check_outputs(
    outputs: PredictOutputs, inputs: Inputs, model: Path | None, detector: Path | None
) -> None:
    """Check before any work that every output can be written and overwrites nothing of value.

    Args:
        outputs: the files to write.
        inputs: the files to read.
        model: a model file or run folder that is used.
        detector: a detector file that is used.

    Raises:
        InputError: an option without the one that it belongs to, or annotated copies that would
            be read as inputs.
        OutputError: a path that cannot be written, or that names an input or another output.
        MissingExtraError: Parquet without pyarrow.
    """
    if outputs.details_format is not None and outputs.details is None:
        raise InputError("--format needs --details FILE")
    if outputs.anonymize and outputs.annotate is None:
        raise InputError("--anonymize needs --annotate DIR")
    read: dict[str, Path | None] = {f"the input {file}": file for file in inputs.files()}
    model_file = None if model is None else model / MODEL_NAME
    read |= {"--model": model, "the file of --model": model_file, "--detector": detector}
    written = {
        option: Path("-") if is_standard_output(path) else path
        for option, path in outputs.files.items()
    }
    check_distinct_paths({**written, "--annotate": outputs.annotate, **read})
    if outputs.annotate is not None:
        _check_annotate_folder(outputs.annotate, inputs.folders())
    if outputs.details is not None:
        resolve_format(outputs.details, outputs.details_format)
    for path in outputs.files.values():
        if not is_stream(path):
            check_output_path(path)


def _check_annotate_folder(folder: Path, inputs: set[Path]) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"Cannot write copies into {folder}: it is not a folder")
    for read in inputs:
        if folder.resolve().is_relative_to(read.resolve()):
            raise InputError(
                f"--annotate {folder} is part of the input {read}, where the copies would be "
                "read as images. Use another folder"
            )


class OutputWriters:
    """All open outputs of a run; a context manager.

    The files appear under their names when the block ends without an error.
    """

    def __init__(
        self, outputs: PredictOutputs, options: PredictOptions, about: ReportInfo | None = None
    ) -> None:
        """Choose the outputs; nothing is opened before ``with``.

        Args:
            outputs: the files to write.
            options: of the run.
            about: what the report says about the run.
        """
        self._outputs, self._options, self._about = outputs, options, about
        self._stack = ExitStack()
        self._writers: list[Callable[[FileResult], None]] = []
        self._copies: AnnotatedCopies | None = None
        self.results = ProcessResultsWriter(outputs.results, write_unknown=outputs.write_unknown)
        """The writer of the labels."""

    @property
    def not_annotated(self) -> list[str]:
        """Files whose annotated copy could not be drawn."""
        return [] if self._copies is None else self._copies.failed

    def __enter__(self) -> Self:
        """Open every output under a temporary name.

        Raises:
            OutputError: another run is writing it, or it cannot be written.
        """
        outputs, options = self._outputs, self._options
        with self._stack as stack:
            for path in (outputs.details, outputs.report):
                if path is not None and not is_stream(path):  # lock it: no other run may write it
                    stack.enter_context(Journal(path, {}))
            for path in outputs.files.values():
                if not is_stream(path):
                    remove_temporary_files(path)
            stack.enter_context(self.results)
            if outputs.details is not None:
                details = DetailsWriter(outputs.details, outputs.details_format)
                self._writers.append(partial(_append_rows, stack.enter_context(details)))
            if outputs.report is not None and self._about is not None:
                from facegender.results.report import ReportWriter

                report = stack.enter_context(ReportWriter(outputs.report, self._about))
                self._writers.append(partial(_append_to_report, report, outputs.report))
            self._writers.append(partial(_append_rows, self.results))
            if outputs.annotate is not None:
                from facegender.inference.annotated_copies import AnnotatedCopies

                copies = AnnotatedCopies(
                    outputs.annotate, outputs.anonymize, options.limits, options.timeout
                )
                self._copies = stack.enter_context(copies)
            self._stack = stack.pop_all()
        return self

    def write(self, result: FileResult) -> FileResult:
        """Write one file's rows to every output.

        A fault that concerns only this file costs its rows: the output that meets it, and those
        after it, get one row with the reason instead.

        Returns:
            The result as it was written.

        Raises:
            OutputError, OSError: an output cannot be written at all: the disk is full, say.
        """
        for write in self._writers:
            error = _try(write, result)
            if error is not None:
                result = FileResult(result.file, (unreadable_row(result.file.key, error),))
                _try(write, result)  # if this fails too, only the summary has the row
        if self._copies is not None:
            self._copies.add(result)
        return result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Finish every file, or remove it if an error ended the block."""
        return self._stack.__exit__(kind, error, trace)


def _try(write: Callable[[FileResult], None], result: FileResult) -> Exception | None:
    """Write a result; return an error that concerns only its file."""
    try:
        write(result)
    except (OSError, FacegenderError):  # concerns every file
        raise
    except Exception as error:  # whatever it is, it costs this file's rows, not the run
        return error
    return None


def _append_rows(writer: DetailsWriter | ProcessResultsWriter, result: FileResult) -> None:
    for row in result.rows:
        writer.append(row)


def _append_to_report(writer: ReportWriter, report: Path, result: FileResult) -> None:
    from facegender.results.report import ReportImage, relative_url

    path = result.file.path
    url = None if path is None else relative_url(path, report)
    rows = tuple(row.to_dict() for row in result.rows)
    writer.append(ReportImage(rows, result.thumbnail or None, url))
