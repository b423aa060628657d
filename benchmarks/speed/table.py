"""The rows as a table: ratios, their spread, their aim; on what they were measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from measure import Row

Line = tuple[str, str, str, str, str]
"""What, pictures a second or another figure, ratio, spread, aim."""


def table(result: Row) -> str:
    """All that was measured, as Markdown."""
    rows = result["rows"]
    lines = [
        "| row | what | figure | ratio | spread | aim |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for name, found in LINES.items():
        if name in rows:
            lines += [f"| {name} | {' | '.join(line)} |" for line in found(rows[name])]
    lines += ["", "| row | when | seconds | others busy | rounds |"]
    lines += ["| --- | --- | ---: | ---: | ---: |"]
    ways: dict[str, list[str]] = {}
    for name, row in rows.items():
        of = row["measured"]
        facts = (of["when"], of["took_seconds"], of["others_busy"], of["rounds"])
        lines.append(f"| {name} | {' | '.join(map(str, facts))} |")
        versions = ", ".join(f"{package} {number}" for package, number in of["versions"].items())
        machine = of["machine"]
        on = f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['arithmetic'])})"
        ways.setdefault(f"{on}; {versions}; `{of['command']}`", []).append(name)
    for how, names in ways.items():
        lines += ["", f"{', '.join(names)}: {how}"]
    return "\n".join(lines) + "\n"


def _ratios(row: Row, ours: str) -> Iterator[Line]:
    for key, found in row.items():
        if isinstance(found, dict) and "ratio" in found:
            yield _ratio(key, found["runs"][ours], found, row.get("target", ""))


def _ratio(what: str, rates: list[float], found: Row, aim: object) -> Line:
    rate = f"{statistics.median(rates):,.0f}/s"
    spread = f"{found['smallest']:g} to {found['largest']:g}"
    return what, rate, f"{found['ratio']:g}", spread, str(aim)


def _spread(values: list[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def _peak(row: Row) -> Iterator[Line]:
    for kind, values in row["runs"].items():
        figure = f"{statistics.median(values):.0f} G multiply-adds/s"
        yield kind, figure, "", _spread(values), ""


def _over(row: Row) -> Iterator[Line]:
    for other, group in row["over"].items():
        rates = row["runs"][other]
        yield other, f"{statistics.median(rates):.1f}/s", "", _spread(rates), ""
        for key, found in group.items():
            aim = row["targets"].get(key.split(",")[0], "")
            yield _ratio(f"{key} over {other}", row["runs"][key], found, aim)
    for other, reason in row.get("missing", {}).items():
        yield other, reason, "", "", ""


def _user(row: Row) -> Iterator[Line]:
    yield from _over(row)
    theirs = row["megabytes_of_the_user_with_all_pictures"]
    yield "the user's way, all pictures loaded", f"{theirs:,} MB", "", "", ""
    for key, values in row["megabytes"].items():
        least = statistics.median(values)
        yield f"memory, {key}", f"{least:.0f} MB", f"{least / theirs:.3f}", _spread(values), ""


def _accuracy(row: Row) -> Iterator[Line]:
    for key, found in row.items():
        if isinstance(found, dict) and "points_lost" in found:
            what = f"{key} over {found['against']}, {found['pictures']:,} pictures"
            figure = f"{found['accuracy_before']:g} % -> {found['accuracy_after']:g} %"
            lost = f"lost {found['points_lost']:g}, unknown moved {found['unknown_moved']:g}"
            yield what, figure, lost, f"{found['flipped']} labels changed", "0.1 and 1 points"


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
        rate = point["pictures"] / point["seconds"]
        figure = f"{point['seconds']:g} s, {rate:,.0f}/s, {point['megabytes']:g} MB"
        runs = point["runs"]
        spread = f"{_spread(runs['seconds'])} s, {_spread(runs['megabytes'])} MB"
        aim = "400 MB" if point["pictures"] == 200_000 else ""
        yield f"{point['pictures']:,} links", figure, "", spread, aim
    most = row["default"]
    figure = f"{most['seconds']:g} s, {most['megabytes']:g} MB"
    what = f"{most['pictures']:,} links, default, {most['runtime']}"
    yield what, figure, "", "one run", "400 MB" if most["pictures"] == 200_000 else ""


def _training(row: Row) -> Iterator[Line]:
    yield _ratio("steps over tensors", row["runs"]["train"], row, row["target"])


def _audit(row: Row) -> Iterator[Line]:
    figure = f"{row['seconds']:g} s, {row['megabytes']:,} MB"
    yield f"{row['pictures']:,} pictures", figure, "", "one run", row["target"]
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
            ", ".join(f"{stage} {share:g} %" for stage, share in stages.items()),
            "",
            "",
            "",
        )


LINES = {
    "whole": lambda row: _ratios(row, "predict"),
    "auto": lambda row: _ratios(row, "predict"),
    "peak": _peak,
    "peers": _over,
    "user": _user,
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
