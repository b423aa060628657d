"""Plots of ``accuracy.json``: groups, robustness, baselines, and accuracy over coverage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

SIZE = (7.5, 4.2)
PLOTTED_CORRUPTIONS = (
    *("clean", "grayscale", "48 px", "JPEG 20", "blur 0.02", "dark", "tinted"),
    *("tight", "loose", "mask", "sunglasses", "scarf"),
)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Write all plots as PNG files into the folder."""
    for name, system in result["systems"].items():
        _save(_groups, system["groups"]["corrected"], folder / f"groups-{name}.png")
        _save(_corruptions, system["corruptions"], folder / f"corruptions-{name}.png")
    _save(_rotated, result["systems"], folder / "rotated.png")
    _save(_curves, result["systems"], folder / "robustness.png")
    _save(_coverage, result["systems"], folder / "coverage.png")
    if "baselines" in result:
        _save(_baselines, result["baselines"], folder / "baselines.png")


def _save(plot: Any, values: Mapping[str, Any], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    plot(axes, values)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _points_with_intervals(axes: Axes, proportions: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a row for each proportion, in percent."""
    names = list(proportions)
    values = [100 * proportions[name]["value"] for name in names]
    low = [100 * (proportions[name]["value"] - proportions[name]["interval"][0]) for name in names]
    high = [100 * (proportions[name]["interval"][1] - proportions[name]["value"]) for name in names]
    places = range(len(names))
    axes.errorbar(values, places, xerr=[low, high], fmt="o", capsize=3, color="#1f5f8b")
    axes.set_yticks(places, [f"{name}  (n = {proportions[name]['count']:,})" for name in names])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy (%) with 95 % interval")


def _groups(axes: Axes, proportions: Mapping[str, Any]) -> None:
    _points_with_intervals(axes, proportions)
    axes.set_title("UTKFace test images, ages 18 to 60", loc="left")


def _corruptions(axes: Axes, corruptions: Mapping[str, Any]) -> None:
    _points_with_intervals(axes, {name: corruptions[name] for name in PLOTTED_CORRUPTIONS})
    axes.set_title("The same images, corrupted", loc="left")


def _rotated(axes: Axes, systems: Mapping[str, Any]) -> None:
    styles = {"black": "-", "gray": "--", "edge": ":", "photo": "-."}
    for index, (name, system) in enumerate(systems.items()):
        for fill, style in styles.items():
            points = _points(system["corruptions"], f"rotated {{}} {fill}")
            clean = system["corruptions"]["clean"]["value"]
            axes.plot(
                [0, *points],
                [100 * clean, *(100 * value for value in points.values())],
                style,
                color=f"C{index}",
                label=f"{name}, corners: {fill}",
            )
    axes.set_xlabel("rotation in degrees, to either side")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _curves(axes: Axes, systems: Mapping[str, Any]) -> None:
    """Draw accuracy over size, blur and JPEG quality, with the clean images' for comparison."""
    kinds = {"{} px": "-", "blur {}": "--", "JPEG {}": ":"}
    for index, (name, system) in enumerate(systems.items()):
        for pattern, style in kinds.items():
            points = _points(system["corruptions"], pattern)
            labels = [pattern.format(f"{value:g}") for value in points]
            axes.plot(
                labels,
                [100 * v for v in points.values()],
                style + "o",
                color=f"C{index}",
                label=name if pattern == "{} px" else None,
            )
        clean = 100 * system["corruptions"]["clean"]["value"]
        axes.axhline(clean, color=f"C{index}", lw=0.8, label=f"{name}, clean")
    axes.set_ylabel("accuracy (%)")
    axes.tick_params(axis="x", rotation=45)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _points(corruptions: Mapping[str, Any], pattern: str) -> dict[float, float]:
    """Return the accuracy of the corruptions named after a pattern, by the number in the name."""
    before, after = pattern.split("{}")
    return {
        float(name.removeprefix(before).removesuffix(after)): values["value"]
        for name, values in corruptions.items()
        if name.startswith(before) and name.endswith(after)
    }


def _coverage(axes: Axes, systems: Mapping[str, Any]) -> None:
    for name, system in systems.items():
        for kind, style in (("raw", "--"), ("corrected", "-")):
            rows = system["targets"]["all sources, ages from 13 or unknown"][kind]["coverage"]
            axes.plot(
                [100 * row["answered"] for row in rows],
                [100 * row["accuracy"]["value"] for row in rows],
                style + "o",
                label=f"{name}, {kind} labels",
            )
    axes.set_xlabel("coverage (%)")
    axes.set_ylabel("accuracy of the answered (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def _baselines(axes: Axes, compared: Mapping[str, Any]) -> None:
    proportions = {
        f"{target}: {name}": values["targets"][target]["accuracy"]
        for target in next(iter(compared.values()))["targets"]
        if target != "all"
        for name, values in compared.items()
    }
    _points_with_intervals(axes, proportions)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("The same test images, corrected labels", loc="left")
