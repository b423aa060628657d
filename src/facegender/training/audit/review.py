"""The part of the audit page on which labels are reviewed: keep, flip or drop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from html import escape
from pathlib import Path

from facegender.results import report
from facegender.training.audit.findings import AuditFindings
from facegender.training.audit.label_issues import describe_issues
from facegender.training.audit.label_issues_table import COLUMNS, label_issue_lines

_FILES = Path(__file__).parent / "review_page"
_REPORT_STYLE = Path(report.__file__).parent / "report_page" / "report.css"
_DECISIONS = {"keep": "K", "flip": "F", "drop": "D"}


def review_section(findings: AuditFindings, figure: Callable[[int], str]) -> str:
    """Show each flagged file with its label and three decisions.

    Args:
        findings: of the audit.
        figure: makes the HTML figure of an image, given its row.
    """
    lines = label_issue_lines(findings)
    if not lines:
        return "<p>None flagged.</p>"
    wrong = sum(line.p_wrong for line in lines.values())
    flagged = int(findings.label_issues.flagged.sum())
    copies = "<p>Copies of one file are shown once.</p>" if flagged > len(lines) else ""
    buttons = "".join(
        f'<button type="button" data-decide="{name}" aria-keyshortcuts="{key}">'
        f"{name.capitalize()}</button>"
        for name, key in _DECISIONS.items()
    )
    cards = "".join(
        f'<li tabindex="0" data-sha="{line.sha256}">{figure(row)}<div class="decide">{buttons}'
        "</div></li>"
        for row, line in lines.items()
    )
    return (
        f"<p><b>{describe_issues(len(lines), wrong)}.</b></p>{copies}"
        "<p>Keep if the label is right, flip if the other one is, drop if nobody can tell. Then "
        "save the table and train again: "
        '<code translate="no">facegender train ARCHIVE -o RUN --corrections '
        "reviewed_labels.csv</code></p>"
        "<p>Lines that you do not decide stay proposals, for training only.</p>"
        '<p class="muted"><span>Keys:</span> <kbd>K</kbd> <span>keep,</span> <kbd>F</kbd> '
        "<span>flip,</span> <kbd>D</kbd> <span>drop,</span> <kbd>U</kbd> "
        "<span>undo, arrows move.</span></p>"
        '<div class="review-bar"><p id="reviewed" role="status"></p>'
        '<button type="button" id="save-review">Save the table</button></div>'
        f'<ul class="review">{cards}</ul>'
    )


def review_style() -> str:
    """Return the style of the page: that of the predict report, and what the review adds."""
    return _REPORT_STYLE.read_text(encoding="utf-8") + _read("review.css")


def review_script(findings: AuditFindings) -> str:
    """Return the script elements of the page, with the table that it saves."""
    lines = list(label_issue_lines(findings).values())
    digests = "".join(line.sha256 for line in lines)
    table = {
        "key": sha256(digests.encode()).hexdigest()[:16],
        "columns": COLUMNS,
        "lines": [asdict(line) for line in lines],
    }
    data = json.dumps(table).replace("<", "\\u003c")
    return (
        f'<script type="application/json" id="review-data">{data}</script>'
        f"<script>{_read('messages.js')}{_read('review.js')}</script>"
    )


def page_top(title: str) -> str:
    """Return the top of the page with the button that changes its language."""
    return (
        f'<div class="top"><h1>{escape(title)}</h1>'
        '<button type="button" id="language" translate="no">Русский</button></div>'
    )


def _read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
