"""Audit a labeled dataset before training.

Finds unreadable, tiny and single-color images, images without a face, duplicates, label issues,
and images that are also in another set. Never changes the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceAligner
from facegender.files import check_distinct_paths, check_output_path
from facegender.images.pixels import Resize
from facegender.training.audit.audit_files import AUDIT_NAME, OUTPUT_NAMES, write_findings
from facegender.training.audit.embeddings import read_embeddings
from facegender.training.audit.findings import AuditedSet, AuditFindings, ImageStats
from facegender.training.audit.label_issues import LabelIssues, find_label_issues
from facegender.training.audit.near_duplicates import (
    ComparedImages,
    find_near_duplicates,
    link_equal,
    list_groups,
    number_groups,
)
from facegender.training.console import Console
from facegender.training.data.image_cache import cache_folder, decode_samples, open_image_cache
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.data.samples import Sample, read_columns, stream_samples
from facegender.training.models.networks import check_dlib_weights

VERSION = 4
"""Version of the findings; raised when the same images would give other findings, so that a cached
audit is made again."""

AUDIT_ALIGNER = FaceAligner(ALIGNED_CROP, Resize(128, 128))
"""Preprocessing of the audit: that of the recipe ``best``, whose image cache it shares."""


def audit(
    inputs: Sequence[Path],
    output: Path,
    *,
    metadata: Path | None = None,
    classes: Mapping[str, str] = LABEL_FOLDERS,
    against: Sequence[Path] = (),
    drop_duplicates: bool = False,
    drop_label_issues: float | None = None,
    cache_root: Path | None = None,
    console: Console | None = None,
) -> AuditFindings:
    """Audit archives and write the findings into a folder.

    Args:
        inputs: archives or folders of labeled images.
        output: the folder; files of an earlier audit in it are overwritten.
        metadata: CSV joined on ``file``; persons and ages in it improve the findings.
        classes: labels by folder name.
        against: archives that should share no image with ``inputs``; their folders may also be
            named male and female.
        drop_duplicates: mark all but the largest image of every duplicate group as left out in
            ``duplicate_groups.csv``.
        drop_label_issues: mark labels that are wrong with this probability or more as left out,
            too.
        cache_root: folder of decoded images and embeddings; None is ``.store`` beside ``output``.
        console: where progress is shown.

    Raises:
        InputError: no samples, a damaged archive, or an invalid table or probability.
        OutputError: the folder cannot be written.
    """
    if drop_label_issues is not None and not 0 < drop_label_issues <= 1:
        raise InputError(
            f"--drop-label-issues is {drop_label_issues}: give a probability, 0 < P <= 1"
        )
    _check_paths(inputs, output, metadata, against)
    check_dlib_weights()
    console = console or Console()
    cache_root = cache_root or cache_folder(output)
    audited = _read_images(inputs, metadata, classes, cache_root, console)
    reference = None
    if against:
        either = {**LABEL_FOLDERS, **classes}
        reference = _read_images(against, None, either, cache_root, console)
    with console.counting("comparing images") as count:
        pairs = find_near_duplicates(audited.images, on_pair=count)
        leaks = find_near_duplicates(audited.images, reference.images) if reference else []
    samples = audited.cache.samples
    groups = number_groups(len(samples), ((pair.row, pair.other) for pair in pairs))
    with console.counting("scoring labels (folds)", 5) as count:
        issues = find_label_issues(
            samples,
            audited.images.embeddings,
            _fold_groups(samples, groups),
            audited.images.usable,
            duplicate_groups=groups,
            columns=read_columns(metadata, samples) if metadata else None,
            on_fold=count,
        )
    left_out = _choose_left_out(audited, groups, issues, drop_duplicates, drop_label_issues)
    findings = AuditFindings(audited, pairs, groups, issues, reference, leaks, left_out)
    write_findings(findings, output)
    return findings


def _check_paths(
    inputs: Sequence[Path], output: Path, metadata: Path | None, against: Sequence[Path]
) -> None:
    """Check inputs and outputs before any work, and create the output folder."""
    named = {f"ARCHIVE {path}": path for path in (*inputs, *against)} | {"--metadata": metadata}
    check_distinct_paths(named | {name: output / name for name in OUTPUT_NAMES})
    for path in (*inputs, *against):
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path of the folder or archive.")
    output.mkdir(parents=True, exist_ok=True)
    check_output_path(output / AUDIT_NAME)


def _read_images(
    inputs: Sequence[Path],
    metadata: Path | None,
    classes: Mapping[str, str],
    folder: Path,
    console: Console,
) -> AuditedSet:
    """Decode all images, and compute their statistics and embeddings."""
    skipped: list[tuple[str, str]] = []
    with console.counting("reading images") as count:
        cache = open_image_cache(
            inputs, metadata, AUDIT_ALIGNER, folder, on_image=count, classes=classes
        )
    stats: list[ImageStats | None] = []
    with console.counting("computing statistics", len(cache.samples)) as count:
        stream = stream_samples(
            inputs, metadata, on_skip=lambda *skip: skipped.append(skip), classes=classes
        )
        for _, _, found, _ in decode_samples(stream, ImageStats.of):
            stats.append(found)
            count(len(stats))
    with console.counting("computing embeddings", len(cache.samples)) as count:
        embeddings = read_embeddings(cache, folder, on_image=count)
    digests = [found.digest if found else "" for found in stats]
    usable = np.array([found is not None and not found.is_flat for found in stats], bool)
    return AuditedSet(ComparedImages(cache, digests, embeddings, usable), stats, skipped)


def _fold_groups(samples: Sequence[Sample], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of images that share a photo or a person, directly or through others."""
    photos = link_equal(f"g{number}" for number in groups.tolist())
    persons = link_equal(sample.person for sample in samples)
    return number_groups(len(samples), [*photos, *persons])


def _choose_left_out(
    audited: AuditedSet,
    groups: NDArray[np.int64],
    issues: LabelIssues,
    drop_duplicates: bool,
    drop_label_issues: float | None,
) -> dict[int, str]:
    """Choose what training should leave out: of duplicates, all but the largest image."""
    left_out: dict[int, str] = {}
    if drop_label_issues is not None:
        wrong = np.flatnonzero(np.nan_to_num(issues.p_wrong) >= drop_label_issues)
        left_out |= dict.fromkeys(wrong.tolist(), "label_issue")

    def size(row: int) -> int:
        stats = audited.stats[row]
        return stats.width * stats.height if stats else 0

    for rows in list_groups(groups) if drop_duplicates else ():
        best = max(rows, key=lambda row: (row not in left_out, size(row), -row))
        left_out = {row: "duplicate" for row in rows if row != best} | left_out
    return left_out
