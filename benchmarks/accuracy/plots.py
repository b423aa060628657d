"""Plots of an accuracy table: groups, robustness, reliability, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

SIZE = (7.5, 4.2)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Write every plot as a PNG file into the folder."""
    for name, system in result["systems"].items():
        _save(_groups, system["groups"]["repaired"], folder / f"groups-{name}.png")
        _save(_others, system["conditions"], folder / f"conditions-{name}.png")
    _save(_turned, result["systems"], folder / "turned.png")
    _save(_curves, result["systems"], folder / "robustness.png")
    _save(_coverage, result["systems"], folder / "coverage.png")
    if "peers" in result:
        _save(_peers, result["peers"], folder / "peers.png")


def _save(plot: Any, values: Mapping[str, Any], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    plot(axes, values)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _bars(axes: Axes, shares: Mapping[str, Mapping[str, Any]]) -> None:
    """Horizontal points with their intervals, in per cent."""
    names = list(shares)
    values = [100 * shares[name]["value"] for name in names]
    low = [100 * (shares[name]["value"] - shares[name]["interval"][0]) for name in names]
    high = [100 * (shares[name]["interval"][1] - shares[name]["value"]) for name in names]
    places = range(len(names))
    axes.errorbar(values, places, xerr=[low, high], fmt="o", capsize=3, color="#1f5f8b")
    axes.set_yticks(places, [f"{name}  (n = {shares[name]['count']:,})" for name in names])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy, %, with 95 % interval")


def _groups(axes: Axes, shares: Mapping[str, Any]) -> None:
    _bars(axes, shares)
    axes.set_title("UTKFace test part, ages 18 to 60", loc="left")


def _others(axes: Axes, conditions: Mapping[str, Any]) -> None:
    names = ("clean", "grey", "48 px", "JPEG 20", "blur 0.02", "dark", "tinted", "tight", "loose")
    names += ("mask", "sunglasses", "scarf")
    _bars(axes, {name: conditions[name] for name in names})
    axes.set_title("The same pictures made worse", loc="left")


def _turned(axes: Axes, systems: Mapping[str, Any]) -> None:
    styles = {"black": "-", "grey": "--", "edge": ":", "photo": "-."}
    for index, (name, system) in enumerate(systems.items()):
        for fill, style in styles.items():
            points = _points(system["conditions"], f"turned {{}} {fill}")
            clean = system["conditions"]["clean"]["value"]
            axes.plot(
                [0, *points],
                [100 * clean, *(100 * value for value in points.values())],
                style,
                color=f"C{index}",
                label=f"{name}, corners: {fill}",
            )
    axes.set_xlabel("turned by so many degrees, to either side")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _curves(axes: Axes, systems: Mapping[str, Any]) -> None:
    """Size, blur and quality on one scale: how much is lost against the clean picture."""
    kinds = {"{} px": "-", "blur {}": "--", "JPEG {}": ":"}
    for index, (name, system) in enumerate(systems.items()):
        for pattern, style in kinds.items():
            points = _points(system["conditions"], pattern)
            labels = [pattern.format(f"{value:g}") for value in points]
            axes.plot(
                labels,
                [100 * v for v in points.values()],
                style + "o",
                color=f"C{index}",
                label=name if pattern == "{} px" else None,
            )
        clean = 100 * system["conditions"]["clean"]["value"]
        axes.axhline(clean, color=f"C{index}", lw=0.8, label=f"{name}, clean")
    axes.set_ylabel("accuracy, %")
    axes.tick_params(axis="x", rotation=45)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _points(conditions: Mapping[str, Any], pattern: str) -> dict[float, float]:
    """Conditions named after a pattern: their number -> share."""
    before, after = pattern.split("{}")
    return {
        float(name.removeprefix(before).removesuffix(after)): values["value"]
        for name, values in conditions.items()
        if name.startswith(before) and name.endswith(after)
    }


def _coverage(axes: Axes, systems: Mapping[str, Any]) -> None:
    for name, system in systems.items():
        for kind, style in (("raw", "--"), ("repaired", "-")):
            rows = system["targets"]["all sources, ages from 13 or unknown"][kind]["coverage"]
            axes.plot(
                [100 * row["answered"] for row in rows],
                [100 * row["accuracy"]["value"] for row in rows],
                style + "o",
                label=f"{name}, {kind} labels",
            )
    axes.set_xlabel("answered: the surest so many per cent")
    axes.set_ylabel("accuracy of these, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _peers(axes: Axes, compared: Mapping[str, Any]) -> None:
    shares = {
        f"{target}: {name}": values["targets"][target]["accuracy"]
        for target in next(iter(compared.values()))["targets"]
        if target != "all"
        for name, values in compared.items()
    }
    _bars(axes, shares)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("The same test pictures, repaired labels", loc="left")
