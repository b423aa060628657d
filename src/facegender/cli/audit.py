"""``facegender audit``: find what is wrong with a labeled dataset before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.options import Archives, Classes, Metadata, Quiet, check_exists
from facegender.cli.verb import load_training, verb


@verb(
    examples=(
        "facegender audit internship_data.tar.gz -o runs/audit",
        "facegender audit train.zip --against test.zip -o runs/leaks",
        "facegender audit faces/ -o runs/audit --drop-duplicates --drop-label-issues 0.8",
        "facegender train internship_data.tar.gz -o runs/mine --audit runs/audit",
    )
)
def audit(
    archives: Archives,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Write the findings here.")
    ],
    metadata: Metadata = None,
    classes: Classes = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="ARCHIVE",
            help="A set that should share no image with these, such as a test set; repeatable.",
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-duplicates",
            help="Mark all but the largest image of each duplicate group as left out.",
        ),
    ] = False,
    drop_label_issues: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Mark images whose label is wrong with probability P or more as left out.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Find duplicates, label issues, broken images, and leaks between datasets.

    Writes audit.json, audit.html (review labels in it, save the table, then use it with
    train --corrections), label_issues.csv (the same table, not reviewed) and
    duplicate_groups.csv (used by train --audit; it also says which images to leave out).
    Never changes the input. Exit code 1: some images are unreadable.
    """
    check_exists([*archives, *(against or ())])
    console = load_training("console").Console(quiet=quiet)
    findings = load_training("audit.audit").audit(
        archives,
        output,
        metadata=metadata,
        classes=load_training("data.label_folders").parse_classes(classes),
        against=against or (),
        drop_duplicates=drop_duplicates,
        drop_label_issues=drop_label_issues,
        console=console,
    )
    if not quiet:
        counts = findings.counts()
        rows = {
            "images": counts.images,
            "unreadable": counts.unreadable,
            "duplicate groups": counts.duplicate_groups,
            "labels to review": counts.label_issues,
        }
        if findings.reference:
            rows["leaks"] = len(findings.leaks)
        for name, count in rows.items():
            typer.echo(f"{name:<20}{count:>10,}")
        page = output / load_training("audit.audit_files").PAGE_NAME
        typer.echo(f"report: {page}")
        if counts.label_issues:
            issues = load_training("audit.label_issues")
            found = issues.describe_issues(counts.label_issues, counts.label_issues_wrong)
            typer.echo(
                f"{found}. Open the report, decide, save the table, and give it to "
                "'facegender train --corrections'."
            )
    return 1 if findings.has_unreadable else 0
