"""The plot beside ``speed.json``: pictures a second by cores, size, batch; time and memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(rows: dict[str, Any], place: Path) -> None:
    """Draw what the rows hold; what was not measured stays empty."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    (by_cores, by_size, by_batch), (seconds, memory, bounds) = axes
    for key, found in rows.get("cores", {}).items():
        if isinstance(found, dict) and "ratio" in found:
            rates = [statistics.median(found["runs"][name]) for name in ("one", "two")]
            by_cores.plot([1, 2], rates, "o-", label=key)
    _finish(by_cores, "cores", "predict, start not counted, pictures/s")
    by_cores.set_xticks([1, 2])
    sizes = rows.get("shapes", {}).get("sizes", {})
    if sizes:
        rates = [statistics.median(found["runs"]) for found in sizes.values()]
        by_size.plot([int(side) for side in sizes], rates, "o-", label="predict, start not counted")
        by_size.set_xscale("log")
        by_size.set_xticks([int(side) for side in sizes], list(sizes), minor=False)
        by_size.minorticks_off()
    _finish(by_size, "side of the pictures, pixels", "pictures/s")
    for runtime, found in rows.get("shapes", {}).get("batches", {}).items():
        ways = sorted({key.split(", ")[1] for key in found})
        for way in ways:
            points = {
                int(key.split(", ")[0].split()[1]): rate
                for key, rate in found.items()
                if key.endswith(way)
            }
            by_batch.plot(list(points), list(points.values()), "o-", label=f"{runtime}, {way}")
    by_batch.set_xscale("log", base=2)
    by_batch.xaxis.set_major_formatter("{x:g}")
    _finish(by_batch, "batch", "network alone, pictures/s")
    points = rows.get("growth", {}).get("points", [])
    counts = [point["pictures"] for point in points]
    for axis, key, text in (
        (seconds, "seconds", "seconds"),
        (memory, "megabytes", "MB, reading processes included"),
    ):
        axis.plot(counts, [point[key] for point in points], "o-")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.tick_params(axis="x", rotation=20)
        _finish(axis, "links to pictures", text)
    bars = {
        f"{row}: {key}": found
        for row in ("whole", "auto")
        for key, found in rows.get(row, {}).items()
        if "ratio" in _dict(found)
    }
    for at, found in enumerate(bars.values()):
        for shift, name in ((-0.2, "floor"), (0.2, "predict")):
            rate = statistics.median(found["runs"][name])
            color = "lightgrey" if name == "floor" else "tab:blue"
            label = name if at == 0 else None
            bounds.barh(at + shift, rate, 0.38, color=color, label=label)
    bounds.set_yticks(range(len(bars)), list(bars))
    bounds.invert_yaxis()
    _finish(bounds, "pictures/s", "")
    figure.savefig(place, dpi=110)
    plt.close(figure)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _finish(axis: Any, across: str, up: str) -> None:
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    if across != "pictures/s":
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8)
