"""Plots of figures as SVG that takes its colours from the page: light and dark alike."""

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
from facegender.training.loop.history import EpochMetrics

# Colours that stand for the page's own: what matplotlib writes -> what the page reads.
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


def roc(metrics: Mapping[str, Any]) -> str:
    """Plot true against false answers "male", with the area under the curve."""

    def draw(axes: Axes) -> None:
        curve = metrics["curves"]["roc"]
        axes.plot([0, 1], [0, 1], ":", color=_INK, linewidth=0.8)
        label = f"area {metrics['roc_auc']:.4f}"
        axes.plot(curve["false_positive"], curve["true_positive"], color=_FIRST, label=label)
        axes.set_xlabel("share of female pictures answered male")
        axes.set_ylabel("share of male pictures answered male")
        axes.legend(loc="lower right")

    return _svg(draw)


def precision_recall(metrics: Mapping[str, Any]) -> str:
    """Plot precision against recall of each label, with average precision."""

    def draw(axes: Axes) -> None:
        lowest = 1.0
        for name, color in zip(LABELS, (_SECOND, _FIRST), strict=True):
            curve = metrics["curves"][f"precision_recall {name}"]
            label = f"{name}, average {metrics['average_precision'][name]:.4f}"
            axes.plot(curve["recall"], curve["precision"], color=color, label=label)
            lowest = min(lowest, *curve["precision"])
        axes.set_ylim(max(0.0, lowest - 0.05), 1.01)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.legend(loc="lower left")

    return _svg(draw)


def reliability(metrics: Mapping[str, Any]) -> str:
    """Plot the share right against what the answers said of themselves."""

    def draw(axes: Axes) -> None:
        bins = metrics["reliability"]
        axes.plot([0.5, 1], [0.5, 1], ":", color=_INK, linewidth=0.8, label="as sure as right")
        axes.plot(
            [one["confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            "o-",
            color=_FIRST,
            markersize=4,
            label=f"{len(bins)} bins of equal mass",
        )
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share right")
        axes.legend(loc="lower right")

    return _svg(draw)


def coverage(metrics: Mapping[str, Any]) -> str:
    """Plot accuracy of the surest answers against how many are given."""

    def draw(axes: Axes) -> None:
        rows = metrics["coverage"]
        _band(axes, [100 * row["answered"] for row in rows], [row["accuracy"] for row in rows])
        axes.xaxis.set_major_locator(MultipleLocator(5))
        axes.set_xlabel("answered: the surest so many per cent")
        axes.set_ylabel("accuracy of these, %")

    return _svg(draw)


def groups(shares: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot the accuracy of groups as points with their intervals, counts beside the names."""

    def draw(axes: Axes) -> None:
        names = list(shares)
        values = [100 * shares[name]["value"] for name in names]
        low, high = ([100 * shares[name]["interval"][end] for name in names] for end in (0, 1))
        below = [value - end for value, end in zip(values, low, strict=True)]
        above = [end - value for value, end in zip(values, high, strict=True)]
        places = range(len(names))
        reach = [below, above]
        axes.errorbar(values, places, xerr=reach, fmt="o", capsize=2, markersize=4, color=_FIRST)
        axes.set_yticks(places, [f"{_short(name)}  ({shares[name]['count']:,})" for name in names])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy, %, with 95 % interval")

    return _svg(draw, height=0.8 + 0.24 * max(3, len(shares)))


def robustness(result: Mapping[str, Any], name: str) -> str:
    """Plot accuracy against the strength of one damage, the clean pictures first."""

    def draw(axes: Axes) -> None:
        points = [{"at": "clean", "accuracy": result["clean"]}, *result[name]["points"]]
        places = list(range(len(points)))
        _band(axes, places, [point["accuracy"] for point in points])
        ticks = [one["at"] if isinstance(one["at"], str) else f"{one['at']:g}" for one in points]
        axes.set_xticks(places, ticks)
        axes.set_xlabel(f"{name}: {result[name]['unit']}")
        axes.set_ylabel("accuracy, %")

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
        axes.set_ylabel("accuracy, %" if what == "accuracy" else "loss")
        axes.legend()

    return _svg(draw)


def _band(axes: Axes, x: Sequence[float], shares: Sequence[Mapping[str, Any]]) -> None:
    """Draw shares in per cent as a line within the band of their intervals."""
    low, high = ([100 * one["interval"][end] for one in shares] for end in (0, 1))
    axes.fill_between(x, low, high, color=_FIRST, alpha=_SHADE, linewidth=0)
    axes.plot(x, [100 * one["value"] for one in shares], "o-", color=_FIRST, markersize=4)


def _short(name: str) -> str:
    """Make any name of a group fit beside its plot."""
    name = name.encode("utf-8", "replace").decode("utf-8")
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _svg(draw: Callable[[Axes], None], height: float = _SIZE[1]) -> str:
    """Draw one plot as an SVG element without a size of its own."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # letters that matplotlib cannot measure; the page's own font has them
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
    for written, read in _VARIABLES.items():
        text = text.replace(written, read)
    return text
