"""The rows as a table: ratios, their spread, their aim."""

from __future__ import annotations

import statistics

from measure import Row


def table(rows: dict[str, Row]) -> str:
    """The ratios as Markdown."""
    lines = [
        "| row | what | pictures/s | ratio | spread | target |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]

    def line(row: str, what: str, found: Row, ours: str, target: object) -> None:
        rate = statistics.median(found["runs"][ours]) if "runs" in found else None
        shown = "" if rate is None else f"{rate:,.0f}"
        spread = f"{found['smallest']:g} to {found['largest']:g}"
        lines.append(f"| {row} | {what} | {shown} | {found['ratio']:g} | {spread} | {target} |")

    for name, ours in (
        ("whole", "predict"),
        ("auto", "auto"),
        ("cores", "two"),
        ("photos", "predict"),
    ):
        for key, found in rows.get(name, {}).items():
            if isinstance(found, dict) and "ratio" in found:
                line(name, key, found, ours, rows[name].get("target", ""))
    for name in ("peers", "user"):
        row = rows.get(name, {})
        for other, group in row.get("over", {}).items():
            for key, found in group.items():
                target = row["targets"].get(key.split(",")[0], "")
                line(f"over {other}", key, found | {"runs": row["runs"]}, key, target)
    if "ratio" in rows.get("training", {}):
        line("training", "steps over tensors", rows["training"], "train", 0.95)
    for faces in ("whole", "auto"):
        for runtime, found in rows.get("start", {}).get(faces, {}).items():
            spread = f"{min(found['runs']):g} to {max(found['runs']):g}"
            lines.append(
                f"| start | {faces}, {runtime} | | {found['seconds']:g} s | {spread} | 0.7 s |"
            )
    for point in rows.get("growth", {}).get("points", ()):
        count, rate = f"{point['pictures']:,} links", point["pictures"] / point["seconds"]
        lines.append(f"| growth | {count} | {rate:,.0f} | {point['megabytes']} MB | | 400 MB |")
    return "\n".join(lines)
