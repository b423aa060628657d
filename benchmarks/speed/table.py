"""The rows as a Markdown table: ratios, spreads, targets, and what they were measured on."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.speed.measure import Row

Line = tuple[str, str, str, str, str]
"""Name, images per second or another value, ratio, spread, target."""


def table(result: Row) -> str:
    """Format all rows as Markdown."""
    rows = result["rows"]
    lines = [
        "| row | measured | value | ratio | spread | target |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for name, found in LINES.items():
        if name in rows:
            lines += [f"| {name} | {' | '.join(line)} |" for line in found(rows[name])]
    lines += ["", "| row | when | seconds | other load | rounds |"]
    lines += ["| --- | --- | ---: | ---: | ---: |"]
    setups: dict[str, list[str]] = {}
    for name, row in rows.items():
        about = row["measured"]
        facts = (about["when"], about["took_seconds"], about["other_load"], about["rounds"])
        lines.append(f"| {name} | {' | '.join(map(str, facts))} |")
        versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
        machine = about["machine"]
        hardware = (
            f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['arithmetic'])})"
        )
        setups.setdefault(f"{hardware}; {versions}; `{about['command']}`", []).append(name)
    for setup, names in setups.items():
        lines += ["", f"{', '.join(names)}: {setup}"]
    return "\n".join(lines) + "\n"


def _ratios(row: Row, ours: str) -> Iterator[Line]:
    for key, found in row.items():
        if isinstance(found, dict) and "ratio" in found:
            yield _ratio(key, found["runs"][ours], found, row.get("target", ""))


def _ratio(name: str, rates: list[float], found: Row, target: object) -> Line:
    rate = f"{statistics.median(rates):,.0f}/s"
    spread = f"{found['smallest']:g} to {found['largest']:g}"
    return name, rate, f"{found['ratio']:g}", spread, str(target)


def _spread(values: list[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def _peak(row: Row) -> Iterator[Line]:
    for kind, values in row["runs"].items():
        value = f"{statistics.median(values):.0f} G multiply-adds/s"
        yield kind, value, "", _spread(values), ""


def _over(row: Row) -> Iterator[Line]:
    for other, group in row["over"].items():
        rates = row["runs"][other]
        yield other, f"{statistics.median(rates):.1f}/s", "", _spread(rates), ""
        for key, found in group.items():
            target = row["targets"].get(key.split(",")[0], "")
            yield _ratio(f"{key} over {other}", row["runs"][key], found, target)
    for other, reason in row.get("missing", {}).items():
        yield other, reason, "", "", ""


def _torch_script(row: Row) -> Iterator[Line]:
    yield from _over(row)
    script = row["script_megabytes_with_all_images"]
    yield "torch script, all images loaded", f"{script:,} MB", "", "", ""
    for key, values in row["megabytes"].items():
        median = statistics.median(values)
        yield f"memory, {key}", f"{median:.0f} MB", f"{median / script:.3f}", _spread(values), ""


def _accuracy(row: Row) -> Iterator[Line]:
    for key, found in row.items():
        if isinstance(found, dict) and "points_lost" in found:
            name = f"{key} over {found['against']}, {found['images']:,} images"
            value = f"{found['accuracy_before']:g} % -> {found['accuracy_after']:g} %"
            lost = f"lost {found['points_lost']:g}, unknown changed {found['unknown_change']:g}"
            yield name, value, lost, f"{found['flipped']} labels changed", "0.1 and 1 points"


def _start(row: Row) -> Iterator[Line]:
    for faces in ("whole", "auto"):
        for runtime, found in row[faces].items():
            yield (
                f"{faces}, {runtime}",
                f"{found['seconds']:g} s",
                "",
                _spread(found["runs"]),
                "0.7 s",
            )


def _growth(row: Row) -> Iterator[Line]:
    for point in row["points"]:
        rate = point["images"] / point["seconds"]
        value = f"{point['seconds']:g} s, {rate:,.0f}/s, {point['megabytes']:g} MB"
        runs = point["runs"]
        spread = f"{_spread(runs['seconds'])} s, {_spread(runs['megabytes'])} MB"
        target = "400 MB" if point["images"] == 200_000 else ""
        yield f"{point['images']:,} links", value, "", spread, target
    most = row["default"]
    value = f"{most['seconds']:g} s, {most['megabytes']:g} MB"
    name = f"{most['images']:,} links, default, {most['runtime']}"
    yield name, value, "", "one run", "400 MB" if most["images"] == 200_000 else ""


def _training(row: Row) -> Iterator[Line]:
    yield _ratio("steps over tensors", row["runs"]["train"], row, row["target"])


def _audit(row: Row) -> Iterator[Line]:
    value = f"{row['seconds']:g} s, {row['megabytes']:,} MB"
    yield f"{row['images']:,} images", value, "", "one run", row["target"]
    for stage, seconds in row["stages"].items():
        yield stage, f"{seconds:g} s", f"{seconds / row['seconds']:.2f}", "", ""


def _shapes(row: Row) -> Iterator[Line]:
    for side, found in row["sizes"].items():
        yield (
            f"{side} px",
            f"{statistics.median(found['runs']):,.0f}/s",
            "",
            _spread(found["runs"]),
            "",
        )


def _profile(row: Row) -> Iterator[Line]:
    for faces, stages in row["percent"].items():
        yield (
            faces,
            ", ".join(f"{stage} {percent:g} %" for stage, percent in stages.items()),
            "",
            "",
            "",
        )


LINES = {
    "whole": lambda row: _ratios(row, "predict"),
    "auto": lambda row: _ratios(row, "predict"),
    "peak": _peak,
    "baselines": _over,
    "torch_script": _torch_script,
    "photos": lambda row: _ratios(row, "predict"),
    "accuracy": _accuracy,
    "start": _start,
    "growth": _growth,
    "cores": lambda row: _ratios(row, "two"),
    "training": _training,
    "audit": _audit,
    "shapes": _shapes,
    "profile": _profile,
}
