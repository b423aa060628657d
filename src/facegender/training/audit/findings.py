"""Findings of an audit: the audited images, duplicates, label issues, and their counts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.audit.label_issues import PROPOSE_THRESHOLD, LabelIssues
from facegender.training.audit.near_duplicates import ComparedImages, DuplicatePair, list_groups
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.samples import Sample

_TINY_PIXELS = 32
_FLAT_STD = 2.0
_MIN_LISTED = 0.01
_SIZE_LIMITS = (32, 64, 96, 128, 192, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class ImageStats:
    """Statistics of the decoded pixels of one image.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        digest: SHA-256 of the pixels.
        std: largest standard deviation of a channel, in levels of 0 to 255.
    """

    width: int
    height: int
    digest: str
    std: float

    @classmethod
    def of(cls, pixels: Pixels) -> ImageStats:
        """Compute the statistics of ``uint8 [H, W, 3]``."""
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.tobytes())
        std = float(pixels.std((0, 1)).max())
        return cls(pixels.shape[1], pixels.shape[0], digest.hexdigest(), std)

    @property
    def is_flat(self) -> bool:
        """Whether the image has a single color."""
        return self.std < _FLAT_STD

    @property
    def is_tiny(self) -> bool:
        """Whether the shorter side is below 32 pixels."""
        return min(self.width, self.height) < _TINY_PIXELS


@dataclass(frozen=True, slots=True)
class AuditedSet:
    """The images under audit; ``stats`` is None for an unreadable image.

    ``skipped`` holds name and reason of files that are not images or have no label.
    """

    images: ComparedImages
    stats: list[ImageStats | None]
    skipped: list[tuple[str, str]]

    @property
    def cache(self) -> ImageCache:
        """Decoded images."""
        return self.images.cache

    def name(self, row: int) -> str:
        """Give an image's path inside its archive."""
        return self.cache.samples[row].file

    def tiny(self) -> list[int]:
        """Find the rows of images with very few pixels."""
        return [row for row, stats in self._readable() if stats.is_tiny]

    def single_color(self) -> list[int]:
        """Find the rows of images of a single color."""
        return [row for row, stats in self._readable() if stats.is_flat]

    def faceless(self) -> list[int]:
        """Find the rows of images, other than single-color ones, in which no face is detected."""
        has_face = np.isfinite(self.cache.crop_matrices[:, 0, 0])
        return [row for row, stats in self._readable() if not stats.is_flat and not has_face[row]]

    def _readable(self) -> Iterator[tuple[int, ImageStats]]:
        return ((row, stats) for row, stats in enumerate(self.stats) if stats)


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Counts of the findings.

    Attributes:
        images: all images, unreadable ones included.
        labels: images by label.
        archives: images by archive.
        unreadable: images that cannot be decoded.
        skipped: files that are not images or have no label.
        duplicate_groups: photos that occur more than once.
        images_in_duplicate_groups: images of these photos.
        duplicate_pairs: pairs by kind (``bytes``, ``pixels``, ``near``).
        duplicate_groups_with_both_labels: photos that occur under both labels.
        persons_with_both_labels: persons of the metadata table with images of both labels.
        label_issues: flagged labels.
        label_issues_wrong: sum of the probabilities that these are wrong.
        expected_label_errors: sum of the probabilities that labels are wrong.
        unscored: images whose label gets no score.
        left_out: images that training should leave out, by reason.
    """

    images: int
    labels: Mapping[str, int]
    archives: Mapping[str, int]
    unreadable: int
    skipped: int
    duplicate_groups: int
    images_in_duplicate_groups: int
    duplicate_pairs: Mapping[str, int]
    duplicate_groups_with_both_labels: int
    persons_with_both_labels: int
    label_issues: int
    label_issues_wrong: float
    expected_label_errors: float
    unscored: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AuditFindings:
    """All findings of an audit; ``N`` images, identified by their rows.

    Attributes:
        audited: the images.
        pairs: duplicates within them.
        group_numbers: number of each image's duplicate group, ``int64 [N]``.
        label_issues: how probably each label is wrong.
        reference: the set given by ``--against``, or None.
        leaks: duplicates between the two sets; ``row`` is in ``audited``, ``other`` in
            ``reference``.
        left_out: rows that training should leave out, with the reason (``duplicate`` or
            ``label_issue``).
    """

    audited: AuditedSet
    pairs: list[DuplicatePair]
    group_numbers: NDArray[np.int64]
    label_issues: LabelIssues
    reference: AuditedSet | None
    leaks: list[DuplicatePair]
    left_out: dict[int, str]

    @property
    def samples(self) -> list[Sample]:
        """The audited samples."""
        return self.audited.cache.samples

    @property
    def has_unreadable(self) -> bool:
        """Whether an image could not be decoded."""
        return any(self.audited.cache.errors)

    def duplicate_groups(self) -> list[tuple[int, ...]]:
        """Group the rows of photos that occur more than once."""
        return list_groups(self.group_numbers)

    def has_both_labels(self, rows: tuple[int, ...]) -> bool:
        """Tell whether some images do not all have the same label."""
        return len({self.samples[row].label for row in rows}) > 1

    def ranked(self) -> list[int]:
        """Rank the rows whose label may be wrong, most probable first."""
        p_wrong = np.nan_to_num(self.label_issues.p_wrong)
        flagged = self.label_issues.flagged
        order = np.argsort(-p_wrong, kind="stable")
        return [int(row) for row in order if p_wrong[row] >= _MIN_LISTED or flagged[row]]

    def mixed_persons(self) -> list[tuple[str, list[int]]]:
        """Find persons whose images have both labels, the most probable label error first.

        Returns:
            Each person with the rows of their images: those of the rarer label first, and within
            one label the most probably wrong first.
        """
        cache, p_wrong = self.audited.cache, np.nan_to_num(self.label_issues.p_wrong)
        persons: dict[str, list[int]] = defaultdict(list)
        for row, sample in enumerate(cache.samples):
            if sample.person and not cache.errors[row]:
                persons[sample.person].append(row)
        mixed = []
        for person, rows in persons.items():
            counts = Counter(cache.samples[row].label for row in rows)
            if len(counts) > 1:
                keys = {row: (counts[cache.samples[row].label], -p_wrong[row]) for row in rows}
                mixed.append((person, sorted(rows, key=keys.__getitem__)))
        return sorted(mixed, key=lambda one: -max(p_wrong[row] for row in one[1]))

    def counts(self) -> AuditCounts:
        """Count the findings."""
        groups, p_wrong = self.duplicate_groups(), self.label_issues.p_wrong
        return AuditCounts(
            images=len(self.samples),
            labels=dict(Counter(sample.label for sample in self.samples)),
            archives=dict(Counter(sample.archive for sample in self.samples)),
            unreadable=sum(map(bool, self.audited.cache.errors)),
            skipped=len(self.audited.skipped),
            duplicate_groups=len(groups),
            images_in_duplicate_groups=sum(map(len, groups)),
            duplicate_pairs=dict(Counter(pair.kind for pair in self.pairs)),
            duplicate_groups_with_both_labels=sum(map(self.has_both_labels, groups)),
            persons_with_both_labels=len(self.mixed_persons()),
            label_issues=int(self.label_issues.flagged.sum()),
            label_issues_wrong=round(float(p_wrong[self.label_issues.flagged].sum()), 1),
            expected_label_errors=round(float(np.nan_to_num(p_wrong).sum()), 1),
            unscored=int(np.isnan(p_wrong).sum()),
            left_out=dict(Counter(self.left_out.values())),
        )

    def sizes(self) -> dict[str, int]:
        """Count readable images by their longer side, in bands of pixels."""
        counts: Counter[str] = Counter()
        for stats in self.audited.stats:
            if stats:
                longer = max(stats.width, stats.height)
                counts[next((_band(end) for end in _SIZE_LIMITS if longer < end), _LARGEST)] += 1
        bands = [*map(_band, _SIZE_LIMITS), _LARGEST]
        return {band: counts[band] for band in bands if counts[band]}


_LARGEST = f"{_SIZE_LIMITS[-1]} and more"


def _band(end: int) -> str:
    return f"below {end}"


def other_label(sample: Sample) -> str:
    """Give the label that a sample does not have."""
    return LABELS[1 - LABELS.index(sample.label)]


def proposed_label(findings: AuditFindings, row: int) -> str:
    """Give the other label if the sample's own is more probably wrong than right, or else ""."""
    is_wrong = bool(findings.label_issues.p_wrong[row] >= PROPOSE_THRESHOLD)
    return other_label(findings.samples[row]) if is_wrong else ""
