"""Counts of a run: how many images got which answer, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facegender.results.predictions import Prediction

COUNTS = ("male", "female", "unknown", "no_face", "unreadable", "skipped")
"""The keys of :attr:`RunSummary.counts`, in order."""

ERRORS_LISTED = 5
"""Unreadable images whose reasons a summary lists."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did. An image with several faces counts by its main face.

    Attributes:
        counts: number of images by label or status; the keys are :data:`COUNTS`.
        faces: faces in all images.
        resumed: images answered by an earlier run.
        errors: ``file: reason`` of the first unreadable images.
        not_annotated: files whose annotated copy could not be drawn.
        outputs: paths or addresses that were written.
        seconds: wall-clock time.
    """

    counts: Mapping[str, int]
    faces: int = 0
    resumed: int = 0
    errors: tuple[str, ...] = ()
    not_annotated: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def images(self) -> int:
        """Number of images; skipped files are none."""
        return sum(self.counts.values()) - self.counts["skipped"]

    @property
    def has_failures(self) -> bool:
        """Whether an image could not be read or drawn: exit code 1 of the command."""
        return bool(self.counts["unreadable"] or self.not_annotated)


class SummaryCounter:
    """Counts while a run goes on."""

    def __init__(self) -> None:
        """Start at zero."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self.faces = 0
        self.resumed = 0
        self.errors: list[str] = []

    def add(self, rows: Sequence[Prediction], *, is_cached: bool = False) -> None:
        """Count one image.

        Args:
            rows: all rows of it, the main face first.
            is_cached: an earlier run answered it.
        """
        row = rows[0]
        self.counts[row.label if row.status == "ok" and row.label else row.status.value] += 1
        self.faces += sum(row.face_index is not None for row in rows)
        self.resumed += is_cached
        if row.error is not None:
            self._list_errors([f"{row.file}: {row.error}"])

    def add_summary(self, other: RunSummary) -> None:
        """Add the counts of a part of the run."""
        for key, count in other.counts.items():
            self.counts[key] += count
        self.faces += other.faces
        self.resumed += other.resumed
        self._list_errors(other.errors)

    def _list_errors(self, errors: Sequence[str]) -> None:
        self.errors = [*self.errors, *errors][:ERRORS_LISTED]

    def summary(
        self,
        *,
        outputs: Sequence[str] = (),
        not_annotated: Sequence[str] = (),
        seconds: float = 0.0,
    ) -> RunSummary:
        """Return the counts so far."""
        return RunSummary(
            dict(self.counts),
            self.faces,
            self.resumed,
            tuple(self.errors),
            tuple(not_annotated),
            tuple(outputs),
            seconds,
        )
