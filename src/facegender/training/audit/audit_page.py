"""The audit as one HTML page that opens offline: contact sheets of what was found, and the counts.

Its pictures are embedded, so it holds faces from the data: it belongs where the data may be.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from facegender.files import atomic_write
from facegender.training.audit.slices import SURE
from facegender.training.data.image_rows import read_rows

if TYPE_CHECKING:
    from facegender.training.audit.audit import Audit, AuditedSet

_SIDE = 112
_GROUPS, _MEMBERS, _DOUBTFUL, _BATCHES, _BATCH_IMAGES, _OTHERS = 120, 8, 240, 12, 16, 40

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; }
table { border-collapse: collapse; } th, td { padding: .15rem 1rem .15rem 0; text-align: left; }
td { font-variant-numeric: tabular-nums; text-align: right; } th { font-weight: 400; }
.sheet { display: grid; gap: .75rem; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); }
.groups { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; list-style: none; }
.groups > li { border: 1px solid var(--line); border-radius: 6px; padding: .4rem; }
.groups .row { display: flex; flex-wrap: wrap; gap: .4rem; }
figure { margin: 0; width: 112px; font-size: .8rem; overflow-wrap: anywhere; }
img { display: block; width: 112px; height: 112px; object-fit: contain; background: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
summary { cursor: pointer; padding: .3rem 0; } summary:focus-visible, a:focus-visible
{ outline: 2px solid; outline-offset: 2px; } .names { overflow-wrap: anywhere; font-size: .9rem; }
"""


def write_audit_page(found: Audit, facts: dict[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    sections = {
        "counts": _counts(facts),
        "doubtful": _doubtful(found, facts),
        "persons": _persons(found),
        "batches": _batches(found),
        "copies": _copies(found),
        "leaks": _leaks(found),
        "other": _others(found, facts),
    }
    titles = {
        "counts": "Counts",
        "doubtful": "Doubtful labels",
        "persons": "Persons under both labels",
        "batches": "Batches of doubtful labels",
        "copies": "Copies",
        "leaks": "Leaks",
        "other": "Other faults",
    }
    shown = {name: text for name, text in sections.items() if text}
    links = "".join(f'<li><a href="#{name}">{titles[name]}</a></li>' for name in shown)
    body = "".join(
        f'<section id="{name}"><h2>{titles[name]}</h2>{text}</section>'
        for name, text in shown.items()
    )
    with atomic_write(path) as file:
        file.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Audit</title><style>{_STYLE}</style></head><body><main><h1>Audit of "
            f"{facts['counts']['pictures']:,} pictures</h1><p>Nothing in the data was changed. "
            "This page holds pictures of the data: keep it where the data may be.</p>"
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>{body}</main></body></html>\n'
        )


def _counts(facts: dict[str, Any]) -> str:
    rows = []
    for name, value in facts["counts"].items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", count) for key, count in value.items()]
        else:
            rows.append((name, value))
    rows += [(f"longer side {band} pixels", count) for band, count in facts["sizes"].items()]
    return _table(rows)


def _table(rows: Iterable[tuple[str, float]]) -> str:
    lines = (
        f'<tr><th scope="row">{_text(name)}</th><td>{value:,}</td></tr>' for name, value in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _doubtful(found: Audit, facts: dict[str, Any]) -> str:
    """The most doubtful pictures, with what stands on them and how probably it is wrong."""
    from facegender.training.audit.audit import ranked

    flagged = [row for row in ranked(found) if found.doubts.flagged[row]]
    if not flagged:
        return "<p>None flagged.</p>"
    items = [
        f"<li>{_figure(found.subject, row, _wrong(found, row))}</li>" for row in flagged[:_DOUBTFUL]
    ]
    return (
        f"<p>{len(flagged):,} flagged; the {len(items):,} most doubtful are shown. The label under "
        "a picture is the one that it has. label_issues.csv holds all of them: remove the lines whose "
        "label is right, and give it to <code>facegender train --corrections</code>.</p>"
        f'<ul class="sheet">{"".join(items)}</ul>'
    )


def _persons(found: Audit) -> str:
    """Persons whose pictures do not agree on the label, the rarer label first."""
    from facegender.training.audit.audit import mixed_persons

    if not any(sample.person for sample in found.subject.cache.samples):
        return ""
    persons = mixed_persons(found)
    if not persons:
        return "<p>None found.</p>"
    items = []
    for person, rows in persons[:_GROUPS]:
        metrics = [_figure(found.subject, row, _wrong(found, row)) for row in rows[:_MEMBERS]]
        items.append(_group(_text(person), metrics, len(rows)))
    return (
        f"<p>{len(persons):,} found; {len(items):,} are shown, the one with the most doubtful "
        "label first, of each the rarer label first.</p>"
        f'<ul class="groups">{"".join(items)}</ul>'
    )


def _batches(found: Audit) -> str:
    """Groups of files that look mislabelled together: how many surely, how little by chance."""
    batches = found.doubts.batches
    if not batches:
        return "<p>None found.</p>"
    subsets = []
    for batch in batches[:_BATCHES]:
        some = batch.rows[:: max(1, len(batch.rows) // _BATCH_IMAGES)][:_BATCH_IMAGES]
        items = "".join(
            f"<li>{_figure(found.subject, row, _wrong(found, row))}</li>" for row in some
        )
        is_part = len(some) < batch.images
        some_of = f"<p>{len(some)} of them are shown.</p>" if is_part else ""
        subsets.append(
            f"<details><summary>{_text(batch.kind)} <b>{_text(batch.name)}</b>, labelled "
            f"{batch.label}: {batch.against:,} of {batch.images:,} look like the other label, "
            f"{batch.surely:,} of them surely; chance {_chance(batch.chance)}</summary>"
            f'{some_of}<ul class="sheet">{items}</ul></details>'
        )
    shown = f"; the first {len(subsets)} are shown" if len(batches) > len(subsets) else ""
    return (
        f"<p>{len(batches):,} found, the least probable first{shown}. Surely: the scores give the "
        f"label less than {SURE:g}. Chance: how probable any such batch would be if wrong labels "
        "were spread evenly. audit.json names all files.</p>" + "".join(subsets)
    )


def _chance(value: float) -> str:
    """Write a probability that may be too small for a number."""
    return f"{value:.2g}" if value else "below 1e-300"


def _wrong(found: Audit, row: int) -> str:
    wrong = found.doubts.wrong[row]
    return "not judged" if np.isnan(wrong) else f"wrong: {wrong:.0%}"


def _copies(found: Audit) -> str:
    """Groups of copies, those under both labels first, then those that agree least."""
    from facegender.training.audit.near_duplicates import group_pairs

    groups = group_pairs(found.groups)
    if not groups:
        return "<p>None found.</p>"
    samples = found.subject.cache.samples
    weakest: dict[int, float] = {}
    for pair in found.pairs:
        number = int(found.groups[pair.row])
        weakest[number] = min(weakest.get(number, 1.0), pair.agreement)

    def order(rows: tuple[int, ...]) -> tuple[bool, float]:
        return len({samples[row].label for row in rows}) == 1, weakest[int(found.groups[rows[0]])]

    items = []
    for rows in sorted(groups, key=order)[:_GROUPS]:
        both = "" if order(rows)[0] else ' <span class="bad">both labels</span>'
        rarest = Counter(samples[row].label for row in rows)
        shown = sorted(rows, key=lambda row: rarest[samples[row].label])[:_MEMBERS]  # both labels
        metrics = [_figure(found.subject, row) for row in shown]
        items.append(_group(f"agreement {order(rows)[1]:.3f}{both}", metrics, len(rows)))
    return (
        f"<p>{len(groups):,} groups; {len(items):,} are shown: those under both labels, then those "
        f'that agree least.</p><ul class="groups">{"".join(items)}</ul>'
    )


def _group(title: str, metrics: Sequence[str], count: int) -> str:
    """Pictures that belong together, side by side; how many of ``count`` are not shown."""
    more = f"<p>and {count - len(metrics):,} more</p>" if count > len(metrics) else ""
    return f'<li>{title}<div class="row">{"".join(metrics)}</div>{more}</li>'


def _leaks(found: Audit) -> str:
    """Photos that both sets hold."""
    if not found.against:
        return ""
    if not found.leaks:
        return "<p>The two sets share no photo.</p>"
    items = [
        _group(pair.kind, [_figure(found.subject, pair.row), _figure(found.against, pair.other)], 2)
        for pair in sorted(found.leaks, key=lambda pair: pair.agreement)[:_GROUPS]
    ]
    return (
        f"<p>{len(found.leaks):,} pairs of one photo, one of them in each set; {len(items):,} are "
        f'shown.</p><ul class="groups">{"".join(items)}</ul>'
    )


def _others(found: Audit, facts: dict[str, Any]) -> str:
    """The unreadable and the skipped by name and reason; the tiny, flat and faceless in sight."""
    subject = found.subject
    subsets = []
    for title, entries in (("Unreadable", facts["unreadable"]), ("Skipped", facts["skipped"])):
        lines = [f"{_text(one['file'])}: {_text(one['reason'])}" for one in entries[:_OTHERS]]
        subsets.append(_folded(title, len(entries), "names", lines))
    for title, rows in (
        ("Tiny", subject.tiny()),
        ("One-coloured", subject.one_coloured()),
        ("No face found", subject.faceless()),
    ):
        metrics = [_figure(subject, row, _size(subject, row)) for row in rows[:_OTHERS]]
        subsets.append(_folded(title, len(rows), "sheet", metrics))
    return "".join(subsets) or "<p>None.</p>"


def _folded(title: str, count: int, kind: str, items: Sequence[str]) -> str:
    """A list to unfold, with its first items; "" where there are none."""
    if not count:
        return ""
    more = f"<p>and {count - len(items):,} more in audit.json</p>" if count > len(items) else ""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return (
        f"<details><summary>{title}: {count:,}</summary>"
        f'<ul class="{kind}">{listed}</ul>{more}</details>'
    )


def _size(subject: AuditedSet, row: int) -> str:
    seen = subject.scales[row]
    return f"{seen.width} x {seen.height}" if seen else ""


def _figure(subject: AuditedSet, row: int, note: str = "") -> str:
    """One picture with its label and name."""
    sample = subject.cache.samples[row]
    seen = subject.scales[row]
    shape: Sequence[int] = (seen.width, seen.height) if seen else (1, 1)
    scale = _SIDE / max(shape)
    size = tuple(max(1, round(side * scale)) for side in shape)
    pixels = read_rows(subject.cache.context_pixels, np.array([row]))[0]
    image = Image.fromarray(pixels).resize((size[0], size[1]))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    data = base64.b64encode(file.getvalue()).decode()
    name = _text(sample.file)
    noted = f"<br>{escape(note)}" if note else ""
    return (
        f'<figure><img loading="lazy" alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{sample.label}</b>{noted}<br>{name}</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Escape for HTML, also names that are no valid Unicode."""
    return escape(text.encode("utf-8", "backslashreplace").decode())
