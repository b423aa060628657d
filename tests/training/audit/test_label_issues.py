"""Flipped labels are found by scores, by persons, in slices, and as duplicates with both labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from facegender.model.model_file import LABELS
from facegender.training.audit.label_issues import (
    find_label_issues,
    out_of_fold_scores,
    score_labels,
)
from facegender.training.data.samples import Sample

COUNT = 1500


@pytest.fixture(scope="module")
def data() -> tuple[list[Sample], NDArray[np.float16]]:
    """Images whose label is nearly a sum of features."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, COUNT)
    features = rng.normal(size=(COUNT, 20))
    features[:, :4] += (2 * truth[:, None] - 1) * 1.2
    samples = [Sample("a.tar", f"{LABELS[t]}/x{n}.png", LABELS[t]) for n, t in enumerate(truth)]
    return samples, features.astype(np.float16)


def flipped(sample: Sample) -> Sample:
    return replace(sample, label=LABELS[1 - LABELS.index(sample.label)])


def renamed(samples: list[Sample]) -> list[Sample]:
    return [replace(s, file=f"{s.label}/{s.file.split('/')[1]}") for s in samples]


def test_flipped_labels_are_flagged(data: tuple[list[Sample], NDArray[np.float16]]) -> None:
    samples, features = data
    wrong = np.random.default_rng(1).random(COUNT) < 0.04
    given = renamed([flipped(s) if w else s for s, w in zip(samples, wrong, strict=True)])
    issues = find_label_issues(given, features, np.arange(COUNT), np.ones(COUNT, bool))
    hits = (issues.flagged & wrong).sum()
    assert hits / wrong.sum() > 0.85
    assert hits / issues.flagged.sum() > 0.6
    assert issues.slices == ()


def test_a_group_is_never_scored_by_a_model_that_has_seen_it(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples, features = data
    labels = np.array([LABELS.index(s.label) for s in samples])
    groups = np.arange(COUNT)
    groups[:50] = 0
    use = np.ones(COUNT, bool)
    before = out_of_fold_scores(features, labels, groups, use)
    labels = labels.copy()
    labels[:50] = 1 - labels[:50]
    after = out_of_fold_scores(features, labels, groups, use)
    assert np.array_equal(before[:50], after[:50])
    assert not np.array_equal(before[50:], after[50:])


def test_small_children_and_unreadable_images_are_not_scored(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = list(data[0])
    samples[:4] = [replace(samples[n], age=a) for n, a in enumerate(("2", "(0, 2)", "5", "0-3"))]
    use = np.ones(COUNT, bool)
    use[9] = False
    wrong = score_labels(samples, np.zeros(COUNT), use).p_wrong
    assert np.flatnonzero(np.isnan(wrong)).tolist() == [0, 1, 3, 9]


def signed_scores(samples: list[Sample], size: float) -> NDArray[np.float64]:
    """Scores that agree with every label."""
    return np.array([size if s.label == LABELS[1] else -size for s in samples])


def test_a_label_against_the_person_is_flagged(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = [
        replace(s, person=f"p{n // 5}", label=LABELS[n // 5 % 2]) for n, s in enumerate(data[0])
    ]
    scores = signed_scores(samples, 3.0)
    samples[7] = flipped(samples[7])
    issues = score_labels(samples, scores, np.ones(COUNT, bool))
    assert np.flatnonzero(issues.flagged).tolist() == [7]


def test_a_slice_by_date_is_named(data: tuple[list[Sample], NDArray[np.float16]]) -> None:
    samples = list(data[0])
    scores = signed_scores(samples, 1.0) + np.random.default_rng(0).normal(size=COUNT) * 0.3
    members = [n for n in range(COUNT) if samples[n].label == "female"][:20]
    for n in members:
        samples[n] = replace(samples[n], label="male", file=f"male/IMG_20170109_{n}.jpg")
    issues = score_labels(samples, scores, np.ones(COUNT, bool))
    assert ("date", "2017-01-09", "male", 20) in [
        (b.kind, b.name, b.label, b.images) for b in issues.slices
    ] or ("20170109" in [b.name for b in issues.slices])
    assert issues.flagged[members].all()


def test_a_photo_with_both_labels_has_a_wrong_one(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = list(data[0])
    scores = signed_scores(samples, 4.0)
    scores[0] = scores[1] = 1.0
    samples[0], samples[1] = (replace(samples[n], label=LABELS[n]) for n in (0, 1))
    duplicate_groups = np.arange(COUNT)
    use = np.ones(COUNT, bool)
    assert not score_labels(samples, scores, use).flagged[1]
    duplicate_groups[1] = 0
    issues = score_labels(samples, scores, use, duplicate_groups)
    assert issues.flagged[0] and issues.p_wrong[0] > issues.p_wrong[1]
    assert issues.p_wrong[1] > score_labels(samples, scores, use).p_wrong[1]
