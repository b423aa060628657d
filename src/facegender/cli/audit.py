"""``facegender audit``: what is wrong with labelled pictures, before anything is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    archives: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Labelled pictures, as for train.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the findings go.")
    ],
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="As for train; persons and ages find more."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="ARCHIVE", help="A set that should share no photo with these; may be repeated."
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-duplicates", help="Say in duplicate_groups.csv to keep one of every photo."
        ),
    ] = False,
    drop_label_issues: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Say in duplicate_groups.csv to leave out labels that are wrong with P or more.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> int:
    """Find copies, doubtful labels and broken pictures, and leaks between sets.

    Writes audit.json, audit.html (contact sheets), label_issues.csv (to be edited and
    given to train --corrections) and duplicate_groups.csv (train --audit). Nothing in the
    input is touched. Exit code 1: some pictures were unreadable.
    """
    module = load_training("audit.audit")
    console = load_training("console").Console(quiet=quiet)
    found = module.audit(
        archives,
        output,
        table=table,
        against=against or (),
        drop_duplicates=drop_duplicates,
        drop_label_issues=drop_label_issues,
        console=console,
    )
    if not quiet:
        counts = module.metrics(found)["counts"]
        for name in ("pictures", "unreadable", "groups of copies", "doubtful"):
            typer.echo(f"{name:<20}{counts[name]:>10,}")
        if found.against:
            typer.echo(f"{'leaks':<20}{len(found.leaks):>10,}")
        typer.echo(f"look at: {output / module.PAGE_NAME}")
    return 0 if found.is_clean() else 1
