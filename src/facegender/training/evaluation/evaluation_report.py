"""The judgement as one HTML page that needs nothing else: figures, plots and pictures."""

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
from facegender.model.model_file import read_model_file
from facegender.training.evaluation import plots
from facegender.training.evaluation.evaluate import Evaluation
from facegender.training.evaluation.gallery import EXAMPLE_KINDS, Gallery
from facegender.training.evaluation.grad_cam import explain
from facegender.training.evaluation.metrics import GROUPINGS, MIN_GROUP_SIZE
from facegender.training.evaluation.robustness import CORRUPTIONS
from facegender.training.loop.history import HISTORY_NAME, EpochMetrics, read_history
from facegender.training.recipe import Recipe

REPORT_NAME = "report.html"

_KIND_TITLES = {
    "wrong": "Most surely wrong",
    "unsure": "Least sure",
    "right": "Most surely right",
}
_QUALITY = 80


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What the page shows.

    ``figures``: part -> what ``measure`` gives. ``galleries``: part -> pictures worth a look;
    ``heats``: the same pictures under Grad-CAM, in the same order, by part and kind.
    ``robustness``: what ``robustness`` gives, or None. ``history``: epochs of the run. ``facts``:
    rows of name and value for the head of the page.
    """

    title: str
    metrics: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, str] = field(default_factory=dict)
    galleries: Mapping[str, Gallery] = field(default_factory=dict)
    heats: Mapping[str, Mapping[str, Sequence[Pixels]]] = field(default_factory=dict)
    robustness: Mapping[str, Any] | None = None
    history: Sequence[EpochMetrics] = ()


def write_evaluation_report(path: Path, report: EvaluationReport) -> None:
    """Write the page, whole or not at all.

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
    environment.filters["percent"] = lambda value: f"{100 * value:.2f}"
    page = environment.get_template("report.html.jinja").render(
        report=report,
        subsets=[_part(report, name) for name in report.metrics],
        history=_history(report.history),
        robustness=_robustness(report.robustness),
        gap_least=MIN_GROUP_SIZE,
    )
    with atomic_write(path, "replace") as file:
        file.write(page)


def build_report(
    model: Path,
    evaluation: Evaluation,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    robustness: Mapping[str, Any] | None = None,
    network: tuple[nn.Module, Recipe] | None = None,
) -> EvaluationReport:
    """Put together what the page shows of an evaluation.

    Args:
        model: the model file or run folder that was judged; a run's curves are shown too.
        evaluation: what came of it.
        metrics: its figures.
        robustness: what ``robustness.robustness`` gave.
        network: what ``grad_cam.load_network`` gave; None for no Grad-CAM.
    """
    description = read_model_file(model).description
    counts = [f"{name} {one['accuracy']['count']:,}" for name, one in metrics.items()]
    facts = {
        "network": f"{description.name}, {model.name}",
        "pictures": ", ".join(counts),
        "unreadable": f"{len(evaluation.unreadable):,}",
        "started from": description.pretrained,
        "learned from": f"{description.data.get('train', 0):,} pictures",
        "terms": description.terms,
    }
    heats: dict[str, dict[str, Sequence[Pixels]]] = {}
    if network is not None:
        for subset, gallery in evaluation.galleries.items():
            heats[subset] = {
                kind: list(explain(*network, np.stack([one.pixels for one in shown])))
                for kind, shown in gallery.kinds.items()
                if shown
            }
    return EvaluationReport(
        title=f"{description.name}: judged on labelled pictures",
        metrics=metrics,
        facts={name: text for name, text in facts.items() if text},
        galleries=evaluation.galleries,
        heats=heats,
        robustness=robustness,
        history=read_history(model / HISTORY_NAME) if model.is_dir() else [],
    )


def _part(report: EvaluationReport, name: str) -> dict[str, Any]:
    """Gather what the page shows of one part of the split."""
    metrics = report.metrics[name]
    gallery = report.galleries.get(name)
    return {
        "name": name,
        "metrics": metrics,
        "tiles": list(_tiles(metrics)),
        "plots": list(_plots(metrics)),
        "groups": list(_groups(metrics)),
        "sheets": list(_sheets(gallery, report.heats.get(name, {}))) if gallery else [],
    }


def _tiles(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give the figures at the head: name, value, and what stands under it."""
    shares = {"accuracy": metrics["accuracy"]}
    shares |= {f"recall, {name}": one for name, one in metrics["recall"].items()}
    for name, one in shares.items():
        low, high = (f"{100 * end:.2f}" for end in one["interval"])
        under = f"{low} to {high} %, {one['correct']:,} of {one['count']:,}"
        yield name, f"{100 * one['share']:.2f} %", under
    intervals = metrics["intervals"]
    for key, name in (
        ("balanced_accuracy", "balanced accuracy"),
        ("roc_auc", "ROC AUC"),
        ("brier", "Brier score"),
        ("calibration_error", "calibration error (ECE)"),
    ):
        if key not in metrics:
            continue
        is_percent = key in ("balanced_accuracy", "calibration_error")
        ends = [_shown(end, is_percent) for end in intervals.get(key, ())]
        under = f"{ends[0]} to {ends[1]}" if ends else "15 bins of equal mass"
        yield name, _shown(metrics[key], is_percent), under


def _shown(value: float, is_percent: bool) -> str:
    return f"{100 * value:.2f} %" if is_percent else f"{value:.4f}"


def _plots(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Markup]]:
    """Give the plots of a part: title and SVG."""
    if "curves" in metrics:
        yield "ROC", Markup(plots.roc(metrics))
        yield "Precision and recall", Markup(plots.precision_recall(metrics))
    yield "Reliability", Markup(plots.reliability(metrics))
    yield "Accuracy against coverage", Markup(plots.coverage(metrics))


def _groups(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give each kind of groups: its plot, its rows and the worst gap."""
    intervals = metrics["intervals"]
    yield {
        "title": "By label",
        "plot": Markup(plots.groups(metrics["recall"])),
        "rows": [
            {
                "name": name,
                "accuracy": one,
                "bootstrap": intervals.get(f"recall {name}", intervals["accuracy"]),
                "recall": {name: one},
                "balanced": None,
            }
            for name, one in metrics["recall"].items()
        ],
        "gap": metrics["disparities"].get("labels"),
    }
    for kind in GROUPINGS:
        if kind in metrics:
            shares = {name: one["accuracy"] for name, one in metrics[kind].items()}
            yield {
                "title": f"By {kind[:-1]}",
                "plot": Markup(plots.groups(shares)),
                "rows": [
                    {
                        "name": name,
                        "accuracy": one["accuracy"],
                        "bootstrap": one["bootstrap"]["accuracy"],
                        "recall": one["recall"],
                        "balanced": one.get("balanced_accuracy"),
                        "balanced_interval": one.get("balanced_accuracy_interval"),
                    }
                    for name, one in metrics[kind].items()
                ],
                "gap": metrics["disparities"].get(kind),
            }


def _sheets(gallery: Gallery, heats: Mapping[str, Sequence[Pixels]]) -> Iterator[dict[str, Any]]:
    """Give each kind of pictures with what was answered; with Grad-CAM beside, where there is."""
    for kind in EXAMPLE_KINDS:
        shown = gallery.kinds[kind]
        if not shown:
            continue
        hot: Sequence[Pixels | None] = heats.get(kind) or [None] * len(shown)
        yield {
            "title": _KIND_TITLES[kind],
            "has_heat": kind in heats,
            "pictures": [
                {
                    "source": _embedded(one.pixels),
                    "heat": None if its_heat is None else _embedded(its_heat),
                    "file": one.sample.file,
                    "archive": one.sample.archive,
                    "label": one.sample.label,
                    "answer": one.answer,
                    "confidence": f"{100 * one.confidence:.1f} %",
                }
                for one, its_heat in zip(shown, hot, strict=True)
            ],
        }


def _robustness(result: Mapping[str, Any] | None) -> list[tuple[str, Markup]]:
    if result is None:
        return []
    return [(one.name, Markup(plots.robustness(result, one.name))) for one in CORRUPTIONS]


def _history(rows: Sequence[EpochMetrics]) -> list[tuple[str, Markup]]:
    if not rows:
        return []
    return [(what, Markup(plots.history(rows, what))) for what in ("loss", "accuracy")]


def _embedded(pixels: Pixels) -> str:
    """Write a picture into its own address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
