"""The audit page: one HTML file that opens offline, with counts and contact sheets of findings.

It embeds images of the dataset.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from facegender.files import atomic_write
from facegender.training.audit.findings import AuditedSet, AuditFindings
from facegender.training.audit.review import (
    page_top,
    review_script,
    review_section,
    review_style,
)
from facegender.training.audit.slices import CONFIDENT
from facegender.training.data.image_rows import read_rows

_SIDE, _REVIEW_SIDE = 150, 320
_MAX_GROUPS, _MAX_MEMBERS = 120, 8
_MAX_SLICES, _MAX_SLICE_IMAGES = 12, 16
_MAX_OTHERS = 40
_PAIR_TITLES = {"bytes": "same file", "pixels": "same pixels", "near": "near duplicate"}


def write_audit_page(findings: AuditFindings, path: Path) -> None:
    """Write the page atomically.

    Raises:
        OutputError: it cannot be written.
    """
    sections = {
        "label-issues": ("Label issues", _label_issues(findings)),
        "counts": ("Counts", _counts(findings)),
        "persons": ("Persons with both labels", _persons(findings)),
        "slices": ("Slices with many label issues", _slices(findings)),
        "duplicates": ("Duplicates", _duplicates(findings)),
        "leaks": ("Leaks", _leaks(findings)),
        "other": ("Other findings", _others(findings)),
    }
    shown = {name: section for name, section in sections.items() if section[1]}
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in shown.items())
    body = "".join(
        f'<section id="{name}"><h2>{title}</h2>{text}</section>'
        for name, (title, text) in shown.items()
    )
    title = f"Audit of {len(findings.samples):,} images"
    with atomic_write(path) as file:
        file.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Dataset audit</title><style>{review_style()}</style></head><body><main>"
            f"{page_top(title)}<p class='caveat'>The dataset was not changed. "
            "This page contains images from your dataset: share with care.</p>"
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>{body}</main>'
            f"{review_script(findings)}</body></html>\n"
        )


def _counts(findings: AuditFindings) -> str:
    rows: list[tuple[str, float]] = []
    for name, value in asdict(findings.counts()).items():
        words = name.replace("_", " ")
        if isinstance(value, dict):
            rows += [(f"{words}: {key.replace('_', ' ')}", count) for key, count in value.items()]
        else:
            rows.append((words, value))
    rows += [(f"longer side {band} pixels", count) for band, count in findings.sizes().items()]
    return _table(rows)


def _table(rows: Iterable[tuple[str, float]]) -> str:
    lines = (
        f'<tr><th scope="row">{_text(name)}</th><td>{value:,}</td></tr>' for name, value in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _label_issues(findings: AuditFindings) -> str:
    """Show the flagged images with their label and three decisions."""
    return review_section(findings, lambda row: _scored_figure(findings, row, _REVIEW_SIDE))


def _persons(findings: AuditFindings) -> str:
    """Show persons whose images have both labels, the rarer label first."""
    if not any(sample.person for sample in findings.samples):
        return ""
    persons = findings.mixed_persons()
    if not persons:
        return "<p>None found.</p>"
    items = []
    for person, rows in persons[:_MAX_GROUPS]:
        figures = [_scored_figure(findings, row) for row in rows[:_MAX_MEMBERS]]
        items.append(_group(_text(person), figures, len(rows)))
    return (
        f"<p>{len(persons):,} found; {len(items):,} are shown, the most probable label error "
        f"first, and of each person the rarer label first.</p>{_list('groups', items)}"
    )


def _slices(findings: AuditFindings) -> str:
    """Show groups of files whose labels disagree with the scores together."""
    slices = findings.label_issues.slices
    if not slices:
        return "<p>None found.</p>"
    items = []
    for found in slices[:_MAX_SLICES]:
        rows = found.rows[:: max(1, len(found.rows) // _MAX_SLICE_IMAGES)][:_MAX_SLICE_IMAGES]
        figures = [_scored_figure(findings, row) for row in rows]
        note = f"<p>{len(rows)} of them are shown.</p>" if len(rows) < found.images else ""
        items.append(
            f"<details><summary>{_text(found.kind)} <b>{_text(found.name)}</b>, label "
            f"{found.label}: {found.disagreeing:,} of {found.images:,} labels disagree with the "
            f"scores, {found.confidently_disagreeing:,} confidently; "
            f"p = {_p_value(found.p_value)}</summary>{note}{_list('sheet', figures)}</details>"
        )
    shown = f"; the first {len(items)} are shown" if len(slices) > len(items) else ""
    return (
        f"<p>{len(slices):,} found, smallest p-value first{shown}. Confidently: the score gives "
        f"the label a probability below {CONFIDENT:g}. The p-value is the probability of any such "
        "slice if label errors were independent. audit.json lists all files.</p>" + "".join(items)
    )


def _p_value(value: float) -> str:
    """Format a probability that may be below the smallest float."""
    return f"{value:.2g}" if value else "0 (below 1e-300)"


def _duplicates(findings: AuditFindings) -> str:
    """Show duplicate groups: those with both labels first, then the least similar."""
    groups = findings.duplicate_groups()
    if not groups:
        return "<p>None found.</p>"
    weakest: dict[int, float] = {}
    for pair in findings.pairs:
        number = int(findings.group_numbers[pair.row])
        weakest[number] = min(weakest.get(number, 1.0), pair.correlation)

    def order(rows: tuple[int, ...]) -> tuple[bool, float]:
        number = int(findings.group_numbers[rows[0]])
        return not findings.has_both_labels(rows), weakest[number]

    items = []
    for rows in sorted(groups, key=order)[:_MAX_GROUPS]:
        has_one_label, correlation = order(rows)
        note = "" if has_one_label else ' <span class="bad">both labels</span>'
        counts = Counter(findings.samples[row].label for row in rows)
        rarest = sorted(rows, key=lambda row: counts[findings.samples[row].label])
        figures = [_figure(findings.audited, row) for row in rarest[:_MAX_MEMBERS]]
        items.append(_group(f"correlation {correlation:.3f}{note}", figures, len(rows)))
    return (
        f"<p>{len(groups):,} groups; {len(items):,} are shown: those with both labels, then the "
        f"least similar.</p>{_list('groups', items)}"
    )


def _group(title: str, figures: Sequence[str], count: int) -> str:
    """Put figures side by side, with how many of ``count`` are not shown."""
    more = f"<p>and {count - len(figures):,} more</p>" if count > len(figures) else ""
    return f'{title}<div class="row">{"".join(figures)}</div>{more}'


def _leaks(findings: AuditFindings) -> str:
    """Show photos that are in both sets."""
    reference = findings.reference
    if not reference:
        return ""
    if not findings.leaks:
        return "<p>None: no image is in both sets.</p>"
    pairs = sorted(findings.leaks, key=lambda pair: pair.correlation)[:_MAX_GROUPS]
    items = [
        _group(
            _PAIR_TITLES[pair.kind],
            [_figure(findings.audited, pair.row), _figure(reference, pair.other)],
            2,
        )
        for pair in pairs
    ]
    return (
        f"<p>{len(findings.leaks):,} pairs of images of one photo, one in each set; "
        f"{len(items):,} are shown.</p>{_list('groups', items)}"
    )


def _others(findings: AuditFindings) -> str:
    """List unreadable and skipped files with the reason; show tiny, flat and faceless images."""
    return "".join(_other_lists(findings)) or "<p>None.</p>"


def _other_lists(findings: AuditFindings) -> Iterator[str]:
    audited = findings.audited
    errors = audited.cache.errors
    unreadable = [(audited.name(row), error) for row, error in enumerate(errors) if error]
    for title, entries in (("Unreadable", unreadable), ("Skipped", audited.skipped)):
        lines = [f"{_text(file)}: {_text(reason)}" for file, reason in entries[:_MAX_OTHERS]]
        yield _details(title, len(entries), "names", lines)
    for title, rows in (
        ("Tiny", audited.tiny()),
        ("Single color", audited.single_color()),
        ("No face detected", audited.faceless()),
    ):
        figures = [_figure(audited, row, _size(audited, row)) for row in rows[:_MAX_OTHERS]]
        yield _details(title, len(rows), "sheet", figures)


def _details(title: str, count: int, kind: str, items: Sequence[str]) -> str:
    """Make a collapsed list of the first items; "" if there are none."""
    if not count:
        return ""
    more = f"<p>and {count - len(items):,} more in audit.json</p>" if count > len(items) else ""
    return f"<details><summary>{title}: {count:,}</summary>{_list(kind, items)}{more}</details>"


def _list(kind: str, items: Iterable[str]) -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def _size(audited: AuditedSet, row: int) -> str:
    stats = audited.stats[row]
    return f"{stats.width} x {stats.height}" if stats else ""


def _scored_figure(findings: AuditFindings, row: int, side: int = _SIDE) -> str:
    """Make a figure with the probability that its label is wrong."""
    p_wrong = findings.label_issues.p_wrong[row]
    note = "not scored" if np.isnan(p_wrong) else f"P(wrong) {p_wrong:.0%}"
    return _figure(findings.audited, row, note, side)


def _figure(audited: AuditedSet, row: int, note: str = "", side: int = _SIDE) -> str:
    """Make a figure of one image with its label, a note, and its name."""
    sample, stats = audited.cache.samples[row], audited.stats[row]
    width, height = (stats.width, stats.height) if stats else (1, 1)
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = read_rows(audited.cache.context_pixels, np.array([row]))[0]
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "JPEG", quality=75)
    data = base64.b64encode(file.getvalue()).decode()
    name = _text(sample.file)
    line = f"<br>{escape(note)}" if note else ""
    return (
        f'<figure><img loading="lazy" alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{sample.label}</b>{line}<br><span translate='no'>{name}</span>"
        "</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Escape for HTML, including names that are not valid Unicode."""
    return escape(text.encode("utf-8", "backslashreplace").decode())
