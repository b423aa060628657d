"""Counts of a run: number of images by label or status, and the first answers and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from facegender.results.predictions import Prediction, Status

COUNTS = ("male", "female", "unknown", "no_face", "unreadable", "unsupported", "skipped")
"""The keys of :attr:`RunSummary.counts`, in order."""

MAX_ERRORS_LISTED = 5
"""Number of unreadable, and of unsupported images that a summary lists."""

MAX_ANSWERS_LISTED = 5
"""Number of answers that a summary lists."""

MAX_IN_SUBFOLDERS = 10_000
"""Number at which counting the images in subfolders ends."""

_MAX_SUFFIXES_LISTED = 5


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Counts of a run. An image with several faces counts by its main face.

    Attributes:
        counts: number of images by label or status, and of skipped files; the keys are
            :data:`COUNTS`.
        faces: number of faces in all images.
        resumed: number of images whose answer is from an earlier, stopped run.
        answers: ``file: label probability`` of the first images that were read.
        errors: ``file: reason`` of the first unreadable images.
        unsupported: ``file: reason`` of the first unsupported images.
        skipped: number of skipped files by suffix.
        not_annotated: images whose annotated copy could not be drawn.
        outputs: the paths or URLs that were written.
        journal: the journal that stays for ``--retry-errors``; empty if every image was read.
        seconds: wall-clock time.
        in_subfolders: number of images, by suffix, in subfolders that were left out;
            :data:`MAX_IN_SUBFOLDERS` if there are as many or more.
    """

    counts: Mapping[str, int]
    faces: int = 0
    resumed: int = 0
    answers: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    not_annotated: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    journal: str = ""
    seconds: float = 0.0
    in_subfolders: int = 0

    @property
    def images(self) -> int:
        """Number of images; skipped files do not count."""
        return sum(self.counts.values()) - self.counts["skipped"]

    @property
    def has_failures(self) -> bool:
        """Whether an image was not read or not annotated: exit code 1 of the command."""
        failed = self.counts["unreadable"] + self.counts["unsupported"]
        return bool(failed or self.not_annotated)


class SummaryCounter:
    """Counts results during a run."""

    def __init__(self) -> None:
        """Start at zero."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self.faces = 0
        self.resumed = 0
        self.answers: list[str] = []
        self.errors: list[str] = []
        self.unsupported: list[str] = []
        self.skipped: Counter[str] = Counter()
        """Number of skipped files by suffix."""

    @property
    def images(self) -> int:
        """Number of images so far; skipped files do not count."""
        return sum(self.counts.values()) - self.counts["skipped"]

    @property
    def has_read_any(self) -> bool:
        """Whether an image was read."""
        return self.images > self.counts["unreadable"] + self.counts["unsupported"]

    @property
    def has_failed_any(self) -> bool:
        """Whether an image was not read."""
        return self.counts["unreadable"] + self.counts["unsupported"] > 0

    def add(self, rows: Sequence[Prediction], *, is_cached: bool = False) -> None:
        """Count one image.

        Args:
            rows: all of its rows, the main face first.
            is_cached: the rows are from an earlier run.
        """
        row = rows[0]
        self.counts[row.label if row.status == "ok" and row.label else row.status.value] += 1
        self.faces += sum(row.face_index is not None for row in rows)
        self.resumed += is_cached
        if row.status == Status.SKIPPED:
            self.skipped[_suffix(row.file or "")] += 1
        elif row.status == Status.UNSUPPORTED:
            _extend(self.unsupported, [f"{row.file}: {row.error}"], MAX_ERRORS_LISTED)
        elif row.error is not None:
            _extend(self.errors, [f"{row.file}: {row.error}"], MAX_ERRORS_LISTED)
        elif len(self.answers) < MAX_ANSWERS_LISTED:
            self.answers.append(f"{row.file}: {describe_answer(rows)}")

    def add_summary(self, other: RunSummary) -> None:
        """Add the counts of another part of the run."""
        for key, count in other.counts.items():
            self.counts[key] += count
        self.faces += other.faces
        self.resumed += other.resumed
        self.skipped.update(other.skipped)
        _extend(self.answers, other.answers, MAX_ANSWERS_LISTED)
        _extend(self.errors, other.errors, MAX_ERRORS_LISTED)
        _extend(self.unsupported, other.unsupported, MAX_ERRORS_LISTED)

    def summary(
        self,
        *,
        outputs: Sequence[str] = (),
        not_annotated: Sequence[str] = (),
        journal: str = "",
        seconds: float = 0.0,
        in_subfolders: int = 0,
    ) -> RunSummary:
        """Return the counts so far.

        Args:
            outputs: the paths or URLs that were written.
            not_annotated: images whose annotated copy could not be drawn.
            journal: the journal that stays.
            seconds: wall-clock time.
            in_subfolders: number of images in subfolders that were left out.
        """
        return RunSummary(
            counts=dict(self.counts),
            faces=self.faces,
            resumed=self.resumed,
            answers=tuple(self.answers),
            errors=tuple(self.errors),
            unsupported=tuple(self.unsupported),
            skipped=dict(self.skipped),
            not_annotated=tuple(not_annotated),
            outputs=tuple(outputs),
            journal=journal,
            seconds=seconds,
            in_subfolders=in_subfolders,
        )


def describe_answer(rows: Sequence[Prediction]) -> str:
    """Return the answer for one image in words.

    Example:
        >>> describe_answer([Prediction("a.jpg", Status.NO_FACE, width=9, height=9)])
        'no face found'

    Args:
        rows: all of its rows, the main face first; the image was read.
    """
    row = rows[0]
    if row.label is None or row.probability is None:
        return "no face found"
    answer = f"{row.label} {100 * row.probability:.1f} %"
    if row.status == Status.UNKNOWN:
        answer = f"unknown ({answer})"
    return f"{answer}, the main of {len(rows)} faces" if len(rows) > 1 else answer


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_subfolders(number: int) -> str:
    """Say how many images are in subfolders: ``are 12 images in subfolders``; empty for 0."""
    if not number:
        return ""
    more = " or more" if number >= MAX_IN_SUBFOLDERS else ""
    return f"{'is' if number == 1 else 'are'} {count_of(number, 'image')}{more} in subfolders"


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return the number of skipped files by suffix, such as ``2 .txt, 1 .pdf``."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {suffix}" for suffix, count in ordered[:_MAX_SUFFIXES_LISTED]]
    if others := sum(count for _, count in ordered[_MAX_SUFFIXES_LISTED:]):
        shown.append(f"{others:,} other{'' if others == 1 else 's'}")
    return ", ".join(shown)


def _suffix(file: str) -> str:
    """Return the suffix of a file in lower case; of ``.DS_Store`` and the like the name."""
    path = PurePosixPath(file)
    return path.suffix.lower() or (path.name if path.name.startswith(".") else "without suffix")


def _extend(texts: list[str], others: Sequence[str], limit: int) -> None:
    texts.extend(others[: limit - len(texts)])
