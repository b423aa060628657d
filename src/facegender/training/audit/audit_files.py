"""Files of an audit: audit.json, audit.html, label_issues.csv and duplicate_groups.csv."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from facegender.files import write_json
from facegender.training.audit.audit_page import write_audit_page
from facegender.training.audit.findings import AuditedSet, AuditFindings, proposed_label
from facegender.training.audit.label_issues_table import LABEL_ISSUES_NAME, write_label_issues
from facegender.training.data.duplicate_groups import DUPLICATE_GROUPS_NAME, write_duplicate_groups

AUDIT_NAME, PAGE_NAME = "audit.json", "audit.html"
OUTPUT_NAMES = (AUDIT_NAME, PAGE_NAME, LABEL_ISSUES_NAME, DUPLICATE_GROUPS_NAME)


def write_findings(findings: AuditFindings, folder: Path) -> None:
    """Write all files of an audit into an existing folder.

    Raises:
        OutputError: a file cannot be written.
    """
    cache = findings.audited.cache
    write_json(folder / AUDIT_NAME, findings_to_dict(findings))
    write_label_issues(findings, folder / LABEL_ISSUES_NAME)
    groups = {
        row: str(findings.group_numbers[row])
        for group in findings.duplicate_groups()
        for row in group
    }
    write_duplicate_groups(
        folder / DUPLICATE_GROUPS_NAME, cache.samples, cache.digests, groups, findings.left_out
    )
    write_audit_page(findings, folder / PAGE_NAME)


def findings_to_dict(findings: AuditFindings) -> dict[str, Any]:
    """Give what ``audit.json`` holds; docs/guide/audit.md describes each entry."""
    audited = findings.audited
    groups = findings.duplicate_groups()
    result: dict[str, Any] = {
        "counts": asdict(findings.counts()),
        "sizes": findings.sizes(),
        "duplicate_groups": [[audited.name(row) for row in group] for group in groups],
        "duplicate_groups_with_both_labels": [
            _labeled(audited, group) for group in groups if findings.has_both_labels(group)
        ],
        "persons_with_both_labels": [
            {"person": person, "files": _labeled(audited, rows)}
            for person, rows in findings.mixed_persons()
        ],
        "label_issues": [_label_issue(findings, row) for row in findings.ranked()],
        "slices": [
            {
                "kind": found.kind,
                "name": found.name,
                "label": found.label,
                "images": found.images,
                "disagreeing": found.disagreeing,
                "confidently_disagreeing": found.confidently_disagreeing,
                "p_value": float(f"{found.p_value:.3g}"),
                "files": [audited.name(row) for row in found.rows],
            }
            for found in findings.label_issues.slices
        ],
        "unreadable": [
            {"file": audited.name(row), "reason": reason}
            for row, reason in enumerate(audited.cache.errors)
            if reason
        ],
        "skipped": [{"file": name, "reason": reason} for name, reason in audited.skipped],
        "tiny": [
            {"file": audited.name(row), "width": stats.width, "height": stats.height}
            for row in audited.tiny()
            if (stats := audited.stats[row])
        ],
        "single_color": [audited.name(row) for row in audited.single_color()],
        "no_face": [audited.name(row) for row in audited.faceless()],
    }
    if findings.reference:
        result["leaks"] = _leaks(findings, findings.reference)
    return result


def _labeled(audited: AuditedSet, rows: Iterable[int]) -> list[dict[str, str]]:
    return [{"file": audited.name(row), "label": audited.cache.samples[row].label} for row in rows]


def _label_issue(findings: AuditFindings, row: int) -> dict[str, Any]:
    sample, issues = findings.samples[row], findings.label_issues
    return {
        "file": sample.file,
        "label": sample.label,
        "suggested": proposed_label(findings, row),
        "p_wrong": round(float(issues.p_wrong[row]), 4),
        "flagged": bool(issues.flagged[row]),
    }


def _leaks(findings: AuditFindings, reference: AuditedSet) -> list[dict[str, Any]]:
    return [
        {
            "file": findings.audited.name(pair.row),
            "against": reference.name(pair.other),
            "kind": pair.kind,
            "correlation": pair.correlation,
            "same_label": findings.samples[pair.row].label
            == reference.cache.samples[pair.other].label,
        }
        for pair in findings.leaks
    ]
