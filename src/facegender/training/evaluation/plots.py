"""Plots of metrics as SVG with the colors of the page, in light and dark mode."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from facegender.model.model_file import LABELS
from facegender.training.evaluation.calibration import ReliabilityBin
from facegender.training.evaluation.metrics import CoverageRow, Proportion, Ranking
from facegender.training.evaluation.robustness import RobustnessCurve
from facegender.training.loop.history import EpochMetrics

# Placeholder colors that matplotlib writes -> CSS variables of the page.
_INK, _FAINT, _FIRST, _SECOND = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
}
_STYLE: Any = {  # matplotlib spells out every allowed key in its type
    "svg.fonttype": "none",
    "svg.hashsalt": "facegender",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_SIZE = (4.3, 3.1)
_SHADE = 0.15
_NAME = 24


def roc(ranking: Ranking) -> str:
    """Plot the ROC curve with male as the positive class, with the area under it."""

    def draw(axes: Axes) -> None:
        curve = ranking.roc_curve
        axes.plot([0, 1], [0, 1], ":", color=_INK, linewidth=0.8)
        label = f"AUC {ranking.roc_auc:.4f}"
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=_FIRST, label=label)
        axes.set_xlabel("false positive rate (female answered male)")
        axes.set_ylabel("true positive rate (male answered male)")
        axes.legend(loc="lower right")

    return _svg(draw)


def precision_recall(ranking: Ranking) -> str:
    """Plot precision against recall of each label, with the average precision."""

    def draw(axes: Axes) -> None:
        lowest = 1.0
        for name, color in zip(LABELS, (_SECOND, _FIRST), strict=True):
            curve = ranking.precision_recall_curves[name]
            label = f"{name}, AP {ranking.average_precision[name]:.4f}"
            axes.plot(curve.recall, curve.precision, color=color, label=label)
            lowest = min(lowest, *curve.precision)
        axes.set_ylim(max(0.0, lowest - 0.05), 1.01)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.legend(loc="lower left")

    return _svg(draw)


def reliability(bins: Sequence[ReliabilityBin]) -> str:
    """Plot accuracy against confidence (a reliability diagram)."""

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], ":", color=_INK, linewidth=0.8, label="perfect calibration")
        axes.plot(
            [one.confidence for one in bins],
            [one.accuracy for one in bins],
            "o-",
            color=_FIRST,
            markersize=4,
            label=f"{len(bins)} bins of equal mass",
        )
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.legend(loc="lower right")

    return _svg(draw)


def coverage(rows: Sequence[CoverageRow]) -> str:
    """Plot the accuracy of the most confident answers against their fraction of all."""

    def draw(axes: Axes) -> None:
        _band(axes, [100 * row.answered for row in rows], [row.accuracy for row in rows])
        axes.xaxis.set_major_locator(MultipleLocator(5))
        axes.set_xlabel("coverage (%)")
        axes.set_ylabel("accuracy (%)")

    return _svg(draw)


def groups(accuracies: Mapping[str, Proportion]) -> str:
    """Plot the accuracy of groups with intervals; names have the counts beside them."""

    def draw(axes: Axes) -> None:
        members = accuracies.values()
        values = [100 * one.value for one in members]
        below = [100 * (one.value - one.interval[0]) for one in members]
        above = [100 * (one.interval[1] - one.value) for one in members]
        positions = range(len(members))
        axes.errorbar(
            values, positions, xerr=[below, above], fmt="o", capsize=2, markersize=4, color=_FIRST
        )
        names = [f"{_short(name)}  ({one.count:,})" for name, one in accuracies.items()]
        axes.set_yticks(positions, names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy (%), 95% interval")

    return _svg(draw, height=0.8 + 0.24 * max(3, len(accuracies)))


def robustness(clean: Proportion, curve: RobustnessCurve) -> str:
    """Plot accuracy against the strength of one corruption, clean images first."""

    def draw(axes: Axes) -> None:
        positions = list(range(1 + len(curve.points)))
        _band(axes, positions, [clean, *(point.accuracy for point in curve.points)])
        axes.set_xticks(positions, ["clean", *(f"{point.strength:g}" for point in curve.points)])
        axes.set_xlabel(f"{curve.name}: {curve.unit}")
        axes.set_ylabel("accuracy (%)")

    return _svg(draw)


def history(rows: Sequence[EpochMetrics], what: str) -> str:
    """Plot ``loss`` or ``accuracy`` of every epoch, training and validation."""

    def draw(axes: Axes) -> None:
        epochs = [row.epoch + 1 for row in rows]
        factor = 100.0 if what == "accuracy" else 1.0
        for name, prefix, color in (
            ("training, augmented", "", _SECOND),
            ("validation", "validation_", _FIRST),
        ):
            values = [factor * getattr(row, prefix + what) for row in rows]
            axes.plot(epochs, values, "o-", color=color, markersize=3, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy (%)" if what == "accuracy" else "loss")
        axes.legend()

    return _svg(draw)


def _band(axes: Axes, x: Sequence[float], accuracies: Sequence[Proportion]) -> None:
    """Draw accuracies in percent as a line within the band of their intervals."""
    low, high = ([100 * one.interval[end] for one in accuracies] for end in (0, 1))
    axes.fill_between(x, low, high, color=_FIRST, alpha=_SHADE, linewidth=0)
    axes.plot(x, [100 * one.value for one in accuracies], "o-", color=_FIRST, markersize=4)


def _short(name: str) -> str:
    """Shorten the name of a group to fit beside its plot."""
    name = name.encode("utf-8", "replace").decode("utf-8")
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _svg(draw: Callable[[Axes], None], height: float = _SIZE[1]) -> str:
    """Draw one plot as an SVG element without a fixed size."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # characters that matplotlib's font lacks; the browser's fonts have them
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) ?width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) ?height="[^"]*"', r"\1", text, count=1)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text
