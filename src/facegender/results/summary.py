"""Counts of what became of the images of a run."""

from __future__ import annotations

from collections.abc import Sequence

from facegender.results.predictions import Prediction

REASONS_SHOWN = 5
"""Unreadable pictures that the summary names."""


class Summary:
    """Counts of what became of the pictures, and the first reasons of those not read.

    A picture with several faces counts by the first, the one that it shows.
    """

    def __init__(self) -> None:
        names = ("male", "female", "unknown", "no_face", "unreadable", "skipped")
        self.counts = dict.fromkeys(names, 0)
        self.reasons: list[str] = []
        self.faces = 0
        self.kept = 0

    def add(self, rows: Sequence[Prediction], *, is_kept: bool = False) -> None:
        """Count one picture by its rows; ``is_kept`` if an earlier run answered it."""
        row = rows[0]
        is_ok = row.status == "ok" and row.label is not None
        self.counts[row.label if is_ok and row.label else row.status.value] += 1
        self.faces += sum(row.face is not None for row in rows)
        self.kept += is_kept
        if row.error is not None and len(self.reasons) < REASONS_SHOWN:
            self.reasons.append(f"{row.file}: {row.error}")

    @property
    def pictures(self) -> int:
        """How many pictures there were."""
        return sum(self.counts.values()) - self.counts["skipped"]
