"""The audit: what is wrong with labelled pictures, before anything is learned from them.

Unreadable, tiny and one-coloured pictures, pictures without a face, copies, doubtful labels, and
leaks between sets. It leaves ``audit.json``, a page to look at, a list of corrections to edit, and
``duplicate_groups.csv``, which keeps copies on one side of a split. Nothing in the input is touched.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceAligner
from facegender.files import atomic_write, check_distinct_paths, check_output_path, write_json
from facegender.images.pixels import Pixels, Resize
from facegender.model.model_file import LABELS
from facegender.training.audit.embeddings import read_embeddings
from facegender.training.audit.label_issues import LabelIssues, find_label_issues
from facegender.training.audit.near_duplicates import (
    ComparedImages,
    Pair,
    chain,
    find_near_duplicates,
    group_pairs,
    join,
)
from facegender.training.console import Console
from facegender.training.data.duplicate_groups import DUPLICATE_GROUPS_NAME, write_duplicate_groups
from facegender.training.data.image_cache import (
    ImageCache,
    cache_folder,
    decode_samples,
    open_image_cache,
)
from facegender.training.data.samples import Sample, read_columns, stream_samples

AUDIT_NAME, PAGE_NAME = "audit.json", "audit.html"
LABEL_ISSUES_NAME = "label_issues.csv"
VERSION = 2
"""Raised when the same pictures would be audited otherwise: what was kept is then made anew."""

AUDIT_ALIGNER = FaceAligner(ALIGNED_CROP, Resize(128, 128))
"""How an audit brings pictures before its network: as the recipe ``best``, to share its store."""

_TINY_PIXELS = 32
_FLAT_SPREAD = 2.0
_LEAST_SCORE = 0.01
_SIZE_BANDS = (32, 64, 96, 128, 192, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class ImageStats:
    """What one picture's own pixels say: its size, digest, and largest spread of a channel."""

    width: int
    height: int
    digest: str
    spread: float


@dataclass(frozen=True, slots=True)
class AuditedSet:
    """A set of pictures under audit, all lists in one order."""

    images: ComparedImages
    scales: list[ImageStats | None]
    skipped: list[tuple[str, str]]

    @property
    def cache(self) -> ImageCache:
        """The pictures at the network's size."""
        return self.images.cache

    def name(self, row: int) -> str:
        """Give a picture's name as a member of its archive."""
        return self.cache.samples[row].file

    def tiny(self) -> list[int]:
        """Rows of pictures that have few pixels."""
        return [row for row, at in self._seen() if min(at.width, at.height) < _TINY_PIXELS]

    def one_coloured(self) -> list[int]:
        """Rows of pictures that show nothing."""
        return [row for row, at in self._seen() if _is_flat(at)]

    def faceless(self) -> list[int]:
        """Rows of pictures of something in which no face is found."""
        has_face = np.isfinite(self.cache.crop_matrices[:, 0, 0])
        return [row for row, at in self._seen() if not _is_flat(at) and not has_face[row]]

    def _seen(self) -> Iterator[tuple[int, ImageStats]]:
        return ((row, at) for row, at in enumerate(self.scales) if at)


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was found.

    Attributes:
        subject: the pictures.
        pairs: copies within them.
        groups: number of each picture's group of copies, ``int64 [N]``.
        doubts: what is said of their labels.
        against: the other set, or None.
        leaks: copies between the two; ``row`` is of the subject.
        left_out: why a picture should be left out, by row (``copy``, ``doubtful``).
    """

    subject: AuditedSet
    pairs: list[Pair]
    groups: NDArray[np.int64]
    doubts: LabelIssues
    against: AuditedSet | None
    leaks: list[Pair]
    left_out: dict[int, str]

    def is_clean(self) -> bool:
        """Tell whether every picture could be read."""
        return not any(self.subject.cache.errors)


def audit(
    inputs: Sequence[Path],
    output: Path,
    *,
    table: Path | None = None,
    against: Sequence[Path] = (),
    drop_duplicates: bool = False,
    drop_label_issues: float | None = None,
    cache_root: Path | None = None,
    console: Console | None = None,
) -> Audit:
    """Look for all that is wrong with some archives, and write it into a folder.

    Args:
        inputs: archives or folders of labelled pictures.
        output: the folder; files of an earlier audit in it are written over.
        table: CSV joined on ``file``; its persons and ages make the audit better.
        against: archives that should share no photo with ``inputs``.
        drop_duplicates: ``duplicate_groups.csv`` says to leave out all but one picture of a group of copies.
        drop_label_issues: and pictures whose label is wrong with this probability or more.
        cache_root: where decoded pictures and features are kept; None is ``.store`` beside ``output``.
        console: where progress is shown.

    Raises:
        InputError: no samples, a damaged archive, a wrong table or share.
        OutputError: the folder cannot be written.
    """
    if drop_label_issues is not None and not 0 < drop_label_issues <= 1:
        raise InputError(
            f"--drop-label-issues is {drop_label_issues}: give a probability, 0 < P <= 1"
        )
    console = console or Console()
    named = {f"ARCHIVE {path}": path for path in (*inputs, *against)} | {"--metadata": table}
    written = (AUDIT_NAME, PAGE_NAME, LABEL_ISSUES_NAME, DUPLICATE_GROUPS_NAME)
    check_distinct_paths(named | {name: output / name for name in written})
    for path in (*inputs, *against):
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path of the folder or archive.")
    output.mkdir(parents=True, exist_ok=True)
    check_output_path(output / AUDIT_NAME)
    cache_root = cache_root or cache_folder(output)
    subject = _read(inputs, table, cache_root, console)
    other = _read(against, None, cache_root, console) if against else None
    with console.counting("laying pictures over each other") as count:
        pairs = find_near_duplicates(subject.images, on_pair=count)
        leaks = find_near_duplicates(subject.images, other.images) if other else []
    count_all = len(subject.cache.samples)
    groups = join(count_all, ((pair.row, pair.other) for pair in pairs))
    with console.counting("scoring labels, folds", 5) as count:
        doubts = find_label_issues(
            subject.cache.samples,
            subject.images.features,
            _held_together(subject.cache.samples, groups),
            subject.images.use,
            copies=groups,
            columns=read_columns(table, subject.cache.samples) if table else None,
            on_fold=count,
        )
    left_out = _left_out(subject, groups, doubts, drop_duplicates, drop_label_issues)
    found = Audit(subject, pairs, groups, doubts, other, leaks, left_out)
    _write(found, output)
    return found


def image_stats(pixels: Pixels) -> ImageStats:
    """Note what a picture's own pixels say."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.tobytes())
    spread = float(pixels.std((0, 1)).max())
    return ImageStats(pixels.shape[1], pixels.shape[0], digest.hexdigest(), spread)


def _read(inputs: Sequence[Path], table: Path | None, folder: Path, console: Console) -> AuditedSet:
    """Decode, look at, and describe every picture."""
    skipped: list[tuple[str, str]] = []
    with console.counting("reading pictures") as count:
        cache = open_image_cache(inputs, table, AUDIT_ALIGNER, folder, on_image=count)
    scales: list[ImageStats | None] = []
    with console.counting("looking at pictures", len(cache.samples)) as count:
        stream = stream_samples(inputs, table, on_skip=lambda *skip: skipped.append(skip))
        for _, _, seen, _ in decode_samples(stream, image_stats):
            scales.append(seen)
            count(len(scales))
    with console.counting("computing features", len(cache.samples)) as count:
        features = read_embeddings(cache, folder, on_image=count)
    digests = [seen.digest if seen else "" for seen in scales]
    use = np.array([seen is not None and not _is_flat(seen) for seen in scales], bool)
    return AuditedSet(ComparedImages(cache, digests, features, use), scales, skipped)


def _is_flat(seen: ImageStats) -> bool:
    return seen.spread < _FLAT_SPREAD


def _held_together(samples: Sequence[Sample], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups that copies and persons make together."""
    of_copies = chain(f"g{number}" for number in groups.tolist())
    return join(len(samples), [*of_copies, *chain(sample.person for sample in samples)])


def _left_out(
    subject: AuditedSet,
    groups: NDArray[np.int64],
    doubts: LabelIssues,
    drop_duplicates: bool,
    drop_label_issues: float | None,
) -> dict[int, str]:
    """Choose what a training should leave out: of copies the largest picture stays."""
    left_out: dict[int, str] = {}
    if drop_label_issues is not None:
        wrong = np.flatnonzero(np.nan_to_num(doubts.wrong) >= drop_label_issues)
        left_out |= dict.fromkeys(wrong.tolist(), "doubtful")

    def size(row: int) -> int:
        seen = subject.scales[row]
        return seen.width * seen.height if seen else 0

    for rows in group_pairs(groups) if drop_duplicates else ():
        kept = max(rows, key=lambda row: (row not in left_out, size(row), -row))
        left_out = {row: "copy" for row in rows if row != kept} | left_out
    return left_out


def _write(found: Audit, output: Path) -> None:
    """Write the four files."""
    from facegender.training.audit.audit_page import write_audit_page

    facts = audit_metrics(found)
    write_json(output / AUDIT_NAME, facts)
    _write_corrections(found, output / LABEL_ISSUES_NAME)
    in_group = {row: str(found.groups[row]) for group in group_pairs(found.groups) for row in group}
    cache = found.subject.cache
    write_duplicate_groups(
        output / DUPLICATE_GROUPS_NAME, cache.samples, cache.digests, in_group, found.left_out
    )
    write_audit_page(found, facts, output / PAGE_NAME)


def ranked(found: Audit) -> list[int]:
    """Rows whose labels are worth a look, the most doubtful first."""
    wrong = np.nan_to_num(found.doubts.wrong)
    order = np.argsort(-wrong, kind="stable")
    return [int(row) for row in order if wrong[row] >= _LEAST_SCORE or found.doubts.flagged[row]]


def mixed_persons(found: Audit) -> list[tuple[str, list[int]]]:
    """Persons whose pictures have both labels, the one with the most doubtful label first.

    Returns:
        Each person with the rows of its pictures: those of its rarer label first, and of one label
        the most doubtful.
    """
    cache, wrong = found.subject.cache, np.nan_to_num(found.doubts.wrong)
    persons: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(cache.samples):
        if sample.person and not cache.errors[row]:
            persons[sample.person].append(row)
    mixed = []
    for person, rows in persons.items():
        counts = Counter(cache.samples[row].label for row in rows)
        if len(counts) > 1:
            order = sorted(rows, key=lambda row: (counts[cache.samples[row].label], -wrong[row]))
            mixed.append((person, order))
    return sorted(mixed, key=lambda one: -max(wrong[row] for row in one[1]))


def audit_metrics(found: Audit) -> dict[str, Any]:
    """What ``audit.json`` holds; docs/audit.md says what each entry is."""
    subject, doubts = found.subject, found.doubts
    samples, errors = subject.cache.samples, subject.cache.errors
    rows = range(len(samples))
    copies = group_pairs(found.groups)
    kinds = Counter(pair.kind for pair in found.pairs)
    mixed = [group for group in copies if len({samples[row].label for row in group}) > 1]
    persons = mixed_persons(found)
    result: dict[str, Any] = {
        "counts": {
            "pictures": len(samples),
            "labels": dict(Counter(sample.label for sample in samples)),
            "archives": dict(Counter(sample.archive for sample in samples)),
            "unreadable": sum(map(bool, errors)),
            "skipped": len(subject.skipped),
            "groups of copies": len(copies),
            "pictures in groups of copies": sum(map(len, copies)),
            "pairs of copies": dict(kinds),
            "groups of copies under both labels": len(mixed),
            "persons under both labels": len(persons),
            "doubtful": int(doubts.flagged.sum()),
            "doubtful, expected wrong": round(float(np.nan_to_num(doubts.wrong).sum()), 1),
            "not judged": int(np.isnan(doubts.wrong).sum()),
            "left out": dict(Counter(found.left_out.values())),
        },
        "sizes": _sizes([at for at in subject.scales if at]),
        "copies": [[subject.name(row) for row in group] for group in copies],
        "copies under both labels": [
            [{"file": subject.name(row), "label": samples[row].label} for row in group]
            for group in mixed
        ],
        "persons under both labels": [
            {
                "person": person,
                "files": [
                    {"file": subject.name(row), "label": samples[row].label} for row in members
                ],
            }
            for person, members in persons
        ],
        "doubtful": [
            {
                "file": subject.name(row),
                "given": samples[row].label,
                "suggested": suggested(samples[row]),
                "score": round(float(doubts.wrong[row]), 4),
                "flagged": bool(doubts.flagged[row]),
            }
            for row in ranked(found)
        ],
        "batches": [
            {
                "shared": batch.kind,
                "name": batch.name,
                "label": batch.label,
                "pictures": batch.images,
                "against": batch.against,
                "surely": batch.surely,
                "chance": float(f"{batch.chance:.3g}"),
                "files": [subject.name(row) for row in batch.rows],
            }
            for batch in doubts.batches
        ],
        "unreadable": [
            {"file": subject.name(row), "reason": errors[row]} for row in rows if errors[row]
        ],
        "skipped": [{"file": name, "reason": reason} for name, reason in subject.skipped],
        "tiny": [
            {"file": subject.name(row), "width": at.width, "height": at.height}
            for row in subject.tiny()
            if (at := subject.scales[row])
        ],
        "one_coloured": [subject.name(row) for row in subject.one_coloured()],
        "no_face": [subject.name(row) for row in subject.faceless()],
    }
    if found.against:
        result["leaks"] = _leaks(found, found.against)
    return result


def suggested(sample: Sample) -> str:
    """The other label."""
    return LABELS[1 - LABELS.index(sample.label)]


def _leaks(found: Audit, other: AuditedSet) -> list[dict[str, Any]]:
    """Name what both sets hold."""
    return [
        {
            "file": found.subject.name(pair.row),
            "against": other.name(pair.other),
            "kind": pair.kind,
            "agreement": pair.agreement,
            "same_label": found.subject.cache.samples[pair.row].label
            == other.cache.samples[pair.other].label,
        }
        for pair in found.leaks
    ]


def _sizes(seen: Sequence[ImageStats]) -> dict[str, int]:
    """Count pictures by their longer side."""
    counts: Counter[str] = Counter()
    for at in seen:
        longest = max(at.width, at.height)
        band = next((f"below {top}" for top in _SIZE_BANDS if longest < top), "1024 and more")
        counts[band] += 1
    order = [*(f"below {top}" for top in _SIZE_BANDS), "1024 and more"]
    return {band: counts[band] for band in order if counts[band]}


def _write_corrections(found: Audit, path: Path) -> None:
    """Write the flagged labels as a list of corrections, to be edited and given to ``train``."""
    cache, doubts = found.subject.cache, found.doubts
    lines: dict[str, list[Any]] = {}
    for row in ranked(found):
        if not doubts.flagged[row]:
            continue
        sample, digest = cache.samples[row], cache.digests[row]
        line = [digest, suggested(sample), sample.label, round(float(doubts.wrong[row]), 4)]
        known = lines.setdefault(digest, [*line, sample.archive, sample.file])
        if known[1] != line[1]:
            known[1] = ""  # one file under both labels, both doubtful: left out
    with atomic_write(path, "surrogateescape") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sha256", "label", "given", "score", "archive", "file"])
        writer.writerows(lines.values())
