"""The plot beside ``speed.json``: images per second by cores, size and batch; time and memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(rows: dict[str, Any], path: Path) -> None:
    """Draw the rows; a plot without measurements stays empty."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    (by_cores, by_size, by_batch), (seconds, memory, bounds) = axes
    for key, found in rows.get("cores", {}).items():
        if isinstance(found, dict) and "ratio" in found:
            rates = [statistics.median(found["runs"][name]) for name in ("one", "two")]
            by_cores.plot([1, 2], rates, "o-", label=key)
    _finish(by_cores, "cores", "images/s, without start")
    by_cores.set_xticks([1, 2])
    sizes = rows.get("shapes", {}).get("sizes", {})
    if sizes:
        rates = [statistics.median(found["runs"]) for found in sizes.values()]
        by_size.plot([int(side) for side in sizes], rates, "o-", label="predict, without start")
        by_size.set_xscale("log")
        by_size.set_xticks([int(side) for side in sizes], list(sizes), minor=False)
        by_size.minorticks_off()
    _finish(by_size, "side of the images, pixels", "images/s")
    for runtime, found in rows.get("shapes", {}).get("batches", {}).items():
        variants = sorted({key.split(", ")[1] for key in found})
        for variant in variants:
            points = {
                int(key.split(", ")[0].split()[1]): rate
                for key, rate in found.items()
                if key.endswith(variant)
            }
            by_batch.plot(list(points), list(points.values()), "o-", label=f"{runtime}, {variant}")
    by_batch.set_xscale("log", base=2)
    by_batch.xaxis.set_major_formatter("{x:g}")
    _finish(by_batch, "batch", "network alone, images/s")
    points = rows.get("growth", {}).get("points", [])
    counts = [point["images"] for point in points]
    for axis, key, text in (
        (seconds, "seconds", "seconds"),
        (memory, "megabytes", "MB, worker processes included"),
    ):
        axis.plot(counts, [point[key] for point in points], "o-")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.tick_params(axis="x", rotation=20)
        _finish(axis, "links to images", text)
    bars = {
        f"{row}: {key}": found
        for row in ("whole", "auto")
        for key, found in rows.get(row, {}).items()
        if "ratio" in _dict(found)
    }
    for position, found in enumerate(bars.values()):
        for shift, name in ((-0.2, "bound"), (0.2, "predict")):
            rate = statistics.median(found["runs"][name])
            color = "lightgray" if name == "bound" else "tab:blue"
            label = name if position == 0 else None
            bounds.barh(position + shift, rate, 0.38, color=color, label=label)
    bounds.set_yticks(range(len(bars)), list(bars))
    bounds.invert_yaxis()
    _finish(bounds, "images/s", "")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _finish(axis: Any, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    if x_label != "images/s":
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8)
