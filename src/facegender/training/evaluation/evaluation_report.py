"""The evaluation report: one self-contained HTML page with metrics, plots and example images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import nn

from facegender.files import atomic_write
from facegender.images.pixels import Pixels
from facegender.model.model_file import MODEL_NAME, read_model_file
from facegender.training.evaluation import plots
from facegender.training.evaluation.evaluate import Evaluation
from facegender.training.evaluation.gallery import EXAMPLE_KINDS, Example, Gallery
from facegender.training.evaluation.grad_cam import explain
from facegender.training.evaluation.intervals import Interval
from facegender.training.evaluation.metrics import (
    MIN_GROUP_SIZE,
    Disparity,
    Metrics,
    Proportion,
)
from facegender.training.evaluation.robustness import Robustness
from facegender.training.loop.history import HISTORY_NAME, EpochMetrics, read_history
from facegender.training.recipe import Recipe
from facegender.training.run_folder import AUDIT_FOLDER

REPORT_NAME = "report.html"
"""Name of the page in a run folder or a report folder."""

_KIND_TITLES = {
    "errors": "Most confident errors",
    "uncertain": "Least confident",
    "correct": "Most confident correct",
}
_QUALITY = 80


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What the page shows.

    Attributes:
        title: of the page.
        metrics: by subset.
        facts: names and values for the top of the page.
        galleries: example images by subset.
        heatmaps: Grad-CAM of the example images by subset and kind, in the same order.
        robustness: None if it was not measured.
        history: epochs of the run; empty for a model file.
        training: names and values of the run's settings, for the folded part on training.
        audit_hint: what to do about wrong labels among the most confident errors, or "".
    """

    title: str
    metrics: Mapping[str, Metrics]
    facts: Mapping[str, str] = field(default_factory=dict)
    galleries: Mapping[str, Gallery] = field(default_factory=dict)
    heatmaps: Mapping[str, Mapping[str, Sequence[Pixels]]] = field(default_factory=dict)
    robustness: Robustness | None = None
    history: Sequence[EpochMetrics] = ()
    training: Mapping[str, str] = field(default_factory=dict)
    audit_hint: str = ""


@dataclass(frozen=True, slots=True)
class _Plot:
    title: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class _Tile:
    """One metric at the top of a subset, and its interval or count below."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class _GroupRow:
    name: str
    accuracy: Proportion
    bootstrap: Interval
    recall: Mapping[str, Proportion]
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class _GroupTable:
    """Groups of one kind; ``disparity`` is what the page says of their difference."""

    title: str
    plot: Markup
    rows: list[_GroupRow]
    disparity: str


@dataclass(frozen=True, slots=True)
class _Figure:
    """One example image; ``image`` and ``heatmap`` are data URLs."""

    example: Example
    image: str
    heatmap: str | None


@dataclass(frozen=True, slots=True)
class _Sheet:
    title: str
    has_heatmaps: bool
    figures: list[_Figure]


@dataclass(frozen=True, slots=True)
class _Section:
    """What the page shows of one subset."""

    name: str
    metrics: Metrics
    tiles: list[_Tile]
    plots: list[_Plot]
    groups: list[_GroupTable]
    sheets: list[_Sheet]


def write_evaluation_report(path: Path, report: EvaluationReport) -> None:
    """Write the page atomically.

    Raises:
        OutputError: it cannot be written there.
    """
    environment = Environment(
        loader=PackageLoader("facegender.training.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["interval"] = _percent_interval
    page = environment.get_template("report.html.jinja").render(
        report=report,
        sections=[_section(report, name) for name in report.metrics],
        history=_history_plots(report.history),
        robustness=_robustness_plots(report.robustness),
    )
    with atomic_write(path, "replace") as file:
        file.write(page)


def build_report(
    model: Path,
    evaluation: Evaluation,
    metrics: Mapping[str, Metrics],
    *,
    robustness: Robustness | None = None,
    network: tuple[nn.Module, Recipe] | None = None,
) -> EvaluationReport:
    """Collect what the page shows of an evaluation.

    Args:
        model: the model file or run folder; of a run the learning curves are shown, too.
        evaluation: what :func:`facegender.training.evaluation.evaluate.evaluate` returned.
        metrics: its metrics by subset.
        robustness: what ``measure_robustness`` returned.
        network: what ``grad_cam.load_network`` returned; None for no Grad-CAM.
    """
    description = read_model_file(model).description
    counts = [f"{name} {one.accuracy.count:,}" for name, one in metrics.items()]
    facts = {
        "model": f"{description.name} ({model.name})",
        "images": ", ".join(counts),
        "unreadable": f"{len(evaluation.unreadable):,}",
        "pretrained": description.pretrained,
        "trained on": f"{description.data.get('train', 0):,} images",
        "terms": description.terms,
    }
    heatmaps: dict[str, dict[str, Sequence[Pixels]]] = {}
    if network is not None:
        for subset, gallery in evaluation.galleries.items():
            heatmaps[subset] = {
                kind: list(explain(*network, np.stack([one.pixels for one in shown])))
                for kind, shown in gallery.kinds.items()
                if shown
            }
    size = model / MODEL_NAME if model.is_dir() else model
    facts["model size"] = f"{size.stat().st_size / 1e6:.1f} MB"
    title = f"Evaluation report: {description.name}"
    history = read_history(model / HISTORY_NAME) if model.is_dir() else []
    if history:
        title = f"{model.absolute().name}: recipe {description.name}"
    return EvaluationReport(
        title=title,
        metrics=metrics,
        facts={name: text for name, text in facts.items() if text},
        galleries=evaluation.galleries,
        heatmaps=heatmaps,
        robustness=robustness,
        history=history,
        training=_settings(description.recipe) if history else {},
        audit_hint=_audit_hint(model),
    )


def _settings(recipe: Mapping[str, Any]) -> dict[str, str]:
    """List the settings of a recipe, a line for each of its sections."""
    settings = {}
    for section, values in recipe.items():
        if isinstance(values, Mapping):
            settings[section] = ", ".join(f"{key} {value}" for key, value in values.items())
    return settings


def _audit_hint(model: Path) -> str:
    """Say where wrong labels can be reviewed: a confident error is often one."""
    page = model / AUDIT_FOLDER / "audit.html"
    if page.is_file():
        return f"Some of these labels may be wrong. Review them in {page}."
    return (
        "Some of these labels may be wrong. Review them on the page of "
        "'facegender audit ARCHIVE -o FOLDER', and train with --corrections."
    )


def _section(report: EvaluationReport, name: str) -> _Section:
    metrics, gallery = report.metrics[name], report.galleries.get(name)
    return _Section(
        name=name,
        metrics=metrics,
        tiles=list(_tiles(metrics)),
        plots=list(_plots(metrics)),
        groups=list(_group_tables(metrics)),
        sheets=list(_sheets(gallery, report.heatmaps.get(name, {}))) if gallery else [],
    )


def _tiles(metrics: Metrics) -> Iterator[_Tile]:
    proportions = {"accuracy": metrics.accuracy}
    proportions |= {f"recall, {name}": one for name, one in metrics.recall.items()}
    for name, one in proportions.items():
        note = f"{_percent_interval(one.interval)}%, {one.correct:,} of {one.count:,}"
        yield _Tile(name, f"{_percent(one.value)}%", note)
    intervals = metrics.intervals
    note = ""
    if "balanced_accuracy" in intervals:
        note = f"{_percent_interval(intervals['balanced_accuracy'])}%"
    yield _Tile("balanced accuracy", f"{_percent(metrics.balanced_accuracy)}%", note)
    scores = {"ROC AUC": ("roc_auc", metrics.ranking.roc_auc)} if metrics.ranking else {}
    scores["Brier score"] = ("brier", metrics.brier)
    for name, (key, value) in scores.items():
        low, high = intervals[key]
        yield _Tile(name, f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    error = f"{_percent(metrics.calibration_error)}%"
    yield _Tile("calibration error (ECE)", error, "15 bins of equal mass")


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _percent_interval(ends: Interval) -> str:
    return f"{_percent(ends[0])} to {_percent(ends[1])}"


def _plots(metrics: Metrics) -> Iterator[_Plot]:
    if metrics.ranking:
        yield _Plot("ROC", Markup(plots.roc(metrics.ranking)))
        yield _Plot("Precision and recall", Markup(plots.precision_recall(metrics.ranking)))
    yield _Plot("Reliability", Markup(plots.reliability(metrics.reliability)))
    yield _Plot("Accuracy and coverage", Markup(plots.coverage(metrics.coverage)))


def _group_tables(metrics: Metrics) -> Iterator[_GroupTable]:
    intervals = metrics.intervals
    rows = [
        _GroupRow(name, one, intervals.get(f"recall_{name}", intervals["accuracy"]), {name: one})
        for name, one in metrics.recall.items()
    ]
    yield _group_table("label", rows, metrics.disparities.get("labels"))
    for kind, groups in metrics.groups.items():
        rows = [
            _GroupRow(
                name,
                one.accuracy,
                one.bootstrap["accuracy"],
                one.recall,
                one.balanced_accuracy,
                one.balanced_accuracy_interval,
            )
            for name, one in groups.items()
        ]
        yield _group_table(kind.removesuffix("s"), rows, metrics.disparities.get(kind))


def _group_table(name: str, rows: list[_GroupRow], disparity: Disparity | None) -> _GroupTable:
    accuracies = {row.name: row.accuracy for row in rows}
    return _GroupTable(
        title=f"By {name}",
        plot=Markup(plots.groups(accuracies)),
        rows=rows,
        disparity=_describe(disparity, accuracies),
    )


def _describe(disparity: Disparity | None, accuracies: Mapping[str, Proportion]) -> str:
    """Say how far the best and the worst group differ, or why no gap is reported."""
    large = sum(one.count >= MIN_GROUP_SIZE for one in accuracies.values())
    if disparity is None and large < 2:
        return f"No gap reported: fewer than two groups have {MIN_GROUP_SIZE} images or more."
    if disparity is None:
        return f"No gap: the {large} groups of {MIN_GROUP_SIZE} images or more do not differ."
    text = (
        f"Widest gap: {_percent(disparity.value)} points between {disparity.best} and "
        f"{disparity.worst} (95% interval {_percent_interval(disparity.interval)}, bootstrap "
        f"{_percent_interval(disparity.bootstrap)}), among {disparity.groups} groups of "
        f"{MIN_GROUP_SIZE} images or more"
    )
    if disparity.groups_too_small:
        text += f"; smaller groups left out: {disparity.groups_too_small}"
    return f"{text}."


def _sheets(gallery: Gallery, heatmaps: Mapping[str, Sequence[Pixels]]) -> Iterator[_Sheet]:
    for kind in EXAMPLE_KINDS:
        examples = gallery.kinds[kind]
        if not examples:
            continue
        maps: Sequence[Pixels | None] = heatmaps.get(kind) or [None] * len(examples)
        figures = [
            _Figure(one, _data_url(one.pixels), None if heatmap is None else _data_url(heatmap))
            for one, heatmap in zip(examples, maps, strict=True)
        ]
        yield _Sheet(_KIND_TITLES[kind], kind in heatmaps, figures)


def _robustness_plots(result: Robustness | None) -> list[_Plot]:
    if result is None:
        return []
    return [
        _Plot(curve.name, Markup(plots.robustness(result.clean, curve))) for curve in result.curves
    ]


def _history_plots(rows: Sequence[EpochMetrics]) -> list[_Plot]:
    if not rows:
        return []
    return [_Plot(name, Markup(plots.history(rows, name))) for name in ("loss", "accuracy")]


def _data_url(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
