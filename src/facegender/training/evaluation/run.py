"""Run an evaluation and write its files: metrics, predictions, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from facegender.errors import InputError, OutputError
from facegender.files import check_distinct_paths, check_output_path, write_json
from facegender.inference.classifier import Classifier
from facegender.model.model_file import MODEL_NAME
from facegender.training.console import Console
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.evaluation.evaluate import evaluate
from facegender.training.evaluation.evaluation_report import (
    REPORT_NAME,
    build_report,
    write_evaluation_report,
)
from facegender.training.evaluation.grad_cam import load_network
from facegender.training.evaluation.metrics import Metrics
from facegender.training.evaluation.predictions_table import (
    PREDICTIONS_NAME,
    PredictionsTable,
    write_predictions,
)
from facegender.training.evaluation.robustness import (
    Robustness,
    choose_samples,
    measure_robustness,
)
from facegender.training.run_folder import METRICS_NAME, REQUEST_NAME

_PAGE_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate; see :func:`facegender.training.evaluation.evaluate.evaluate`.

    Attributes:
        model: a model file or a run folder.
        inputs: archives or folders.
        metadata: the metadata table, or None.
        subset: only images of this subset; None is all but ``test``.
        corrections: a CSV of corrected labels, or None.
        robustness: how many images are classified again under corruption.
        grad_cam: whether the report shows Grad-CAM heatmaps; needs a run folder.
        classes: labels by folder name.
    """

    model: Path
    inputs: tuple[Path, ...]
    metadata: Path | None = None
    subset: str | None = None
    corrections: Path | None = None
    robustness: int = 0
    grad_cam: bool = False
    classes: Mapping[str, str] = field(default_factory=lambda: LABEL_FOLDERS)


@dataclass(frozen=True, slots=True)
class EvaluateOutputs:
    """Where results are written; None for what is not written.

    Attributes:
        metrics: JSON file.
        predictions: CSV file.
        page: HTML file.
        folder: folder that is created for them.
    """

    metrics: Path | None = None
    predictions: Path | None = None
    page: Path | None = None
    folder: Path | None = None

    @classmethod
    def of(
        cls, report: Path | None, metrics: Path | None, predictions: Path | None
    ) -> EvaluateOutputs:
        """Name the files; in a report folder, each that was not named gets its usual name.

        Args:
            report: an HTML file, or a folder for all files.
            metrics: JSON file.
            predictions: CSV file.

        Raises:
            OutputError: the report folder is a run folder, whose files would be overwritten.
        """
        if report is None or report.suffix.lower() in _PAGE_SUFFIXES:
            return cls(metrics, predictions, report)
        if any((report / name).exists() for name in (MODEL_NAME, REQUEST_NAME)):
            raise OutputError(f"--report {report} is a run folder: name another, or a .html file")
        return cls(
            metrics=metrics or report / METRICS_NAME,
            predictions=predictions or report / PREDICTIONS_NAME,
            page=report / REPORT_NAME,
            folder=report,
        )


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """Metrics by subset, robustness if it was measured, and unreadable files with the reason."""

    metrics: Mapping[str, Metrics]
    robustness: Robustness | None
    unreadable: list[tuple[str, str]]


def evaluate_to_files(
    options: EvaluateOptions, outputs: EvaluateOutputs, *, console: Console | None = None
) -> EvaluateResult:
    """Evaluate a model and write the results.

    Args:
        options: what to evaluate.
        outputs: where results are written; checked before any work.
        console: where progress is shown.

    Raises:
        FacegenderError: the model or an archive is missing, the subset has no image, or an output
            cannot be written.
    """
    console = console or Console()
    if options.grad_cam and outputs.page is None:
        raise InputError("--grad-cam needs a page to show heatmaps in: add --report")
    _check_paths(options, outputs)
    network = load_network(options.model) if options.grad_cam else None
    _prepare(outputs)
    with console.counting("evaluating") as count:
        evaluation = evaluate(
            options.model,
            options.inputs,
            options.metadata,
            subset=options.subset,
            corrections=options.corrections,
            classes=options.classes,
            on_image=count,
            on_skip=console.skipped,
        )
    console.note("computing metrics")
    metrics = evaluation.metrics()
    if outputs.predictions is not None:
        write_predictions(outputs.predictions, evaluation.predictions)
    robustness = _measure_robustness(options, evaluation.predictions, console)
    if outputs.metrics is not None:
        stored = {name: one.to_dict() for name, one in metrics.items()}
        if robustness:
            stored["robustness"] = robustness.to_dict()
        write_json(outputs.metrics, stored)
    if outputs.page is not None:
        report = build_report(
            options.model, evaluation, metrics, robustness=robustness, network=network
        )
        write_evaluation_report(outputs.page, report)
    return EvaluateResult(metrics, robustness, evaluation.unreadable)


def _check_paths(options: EvaluateOptions, outputs: EvaluateOutputs) -> None:
    """Refuse outputs that would overwrite an input or each other."""
    paths: dict[str, Path | None] = {f"ARCHIVE {path}": path for path in options.inputs}
    paths |= {"RUN|MODEL": options.model, "its model file": options.model / MODEL_NAME}
    paths |= {"--metadata": options.metadata, "--corrections": options.corrections}
    paths |= {"--output": outputs.metrics, "--predictions": outputs.predictions}
    check_distinct_paths(paths | {"--report": outputs.page})


def _prepare(outputs: EvaluateOutputs) -> None:
    """Create the folder, and check that every file can be written."""
    if outputs.folder is not None:
        try:
            outputs.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Cannot create the folder {outputs.folder}: {error.strerror}"
            ) from error
    for path in (outputs.metrics, outputs.predictions, outputs.page):
        if path is not None:
            check_output_path(path)


def _measure_robustness(
    options: EvaluateOptions, predictions: PredictionsTable, console: Console
) -> Robustness | None:
    if not options.robustness:
        return None
    chosen = choose_samples(predictions, options.robustness)
    with console.counting("measuring robustness", len(chosen.samples)) as on_image:
        return measure_robustness(
            Classifier.load(options.model),
            options.inputs,
            chosen,
            metadata=options.metadata,
            classes=options.classes,
            on_image=on_image,
        )
