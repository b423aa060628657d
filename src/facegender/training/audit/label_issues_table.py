"""``label_issues.csv``: the flagged labels, a line per file, as a table for ``--corrections``."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from facegender.files import atomic_write
from facegender.training.audit.findings import AuditFindings, proposed_label

LABEL_ISSUES_NAME = "label_issues.csv"


@dataclass(frozen=True, slots=True)
class LabelIssueLine:
    """A line of the table; the fields are its columns.

    Attributes:
        sha256: of the file.
        label: the proposed label, or "".
        reviewed: "", as nobody has reviewed it.
        given: the label in the dataset.
        p_wrong: probability that it is wrong.
        archive: name of the archive or folder.
        file: path inside it.
    """

    sha256: str
    label: str
    reviewed: str
    given: str
    p_wrong: float
    archive: str
    file: str


COLUMNS = tuple(field.name for field in fields(LabelIssueLine))


def label_issue_lines(findings: AuditFindings) -> dict[int, LabelIssueLine]:
    """Make the lines, the most probable error first; copies of one file have one line.

    Returns:
        Lines by the row of their image.
    """
    cache, issues = findings.audited.cache, findings.label_issues
    lines: dict[int, LabelIssueLine] = {}
    first_rows: dict[str, int] = {}
    for row in findings.ranked():
        if not issues.flagged[row]:
            continue
        sample, digest = cache.samples[row], cache.digests[row]
        label = proposed_label(findings, row)
        p_wrong = round(float(issues.p_wrong[row]), 4)
        line = LabelIssueLine(digest, label, "", sample.label, p_wrong, sample.archive, sample.file)
        first_row = first_rows.setdefault(digest, row)
        first = lines.setdefault(first_row, line)
        if first.given != line.given:  # the same file under both labels: a person decides
            lines[first_row] = replace(first, label="")
    return lines


def write_label_issues(findings: AuditFindings, path: Path) -> None:
    """Write the table, to be reviewed and given to ``train``.

    The column ``reviewed`` is empty: ``train`` applies such lines to training only.
    """
    with atomic_write(path, "surrogateescape") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(astuple, label_issue_lines(findings).values()))
