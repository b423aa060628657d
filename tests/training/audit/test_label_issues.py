"""Turned labels are found by the scores, by persons, in batches, and as copies under both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from facegender.model.model_file import LABELS
from facegender.training.audit.label_issues import find_label_issues, out_of_fold, weigh
from facegender.training.data.samples import Sample

COUNT = 1500


@pytest.fixture(scope="module")
def data() -> tuple[list[Sample], NDArray[np.float16]]:
    """Pictures whose label is nearly a sum of features."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, COUNT)
    features = rng.normal(size=(COUNT, 20))
    features[:, :4] += (2 * truth[:, None] - 1) * 1.2
    samples = [Sample("a.tar", f"{LABELS[t]}/x{n}.png", LABELS[t]) for n, t in enumerate(truth)]
    return samples, features.astype(np.float16)


def turned(sample: Sample) -> Sample:
    return replace(sample, label=LABELS[1 - LABELS.index(sample.label)])


def renamed(samples: list[Sample]) -> list[Sample]:
    return [replace(s, file=f"{s.label}/{s.file.split('/')[1]}") for s in samples]


def test_turned_labels_are_flagged(data: tuple[list[Sample], NDArray[np.float16]]) -> None:
    samples, features = data
    wrong = np.random.default_rng(1).random(COUNT) < 0.04
    given = renamed([turned(s) if w else s for s, w in zip(samples, wrong, strict=True)])
    doubts = find_label_issues(given, features, np.arange(COUNT), np.ones(COUNT, bool))
    hits = (doubts.flagged & wrong).sum()
    assert hits / wrong.sum() > 0.85
    assert hits / doubts.flagged.sum() > 0.6
    assert doubts.batches == ()


def test_a_group_is_never_scored_by_a_model_that_has_seen_it(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples, features = data
    labels = np.array([LABELS.index(s.label) for s in samples])
    groups = np.arange(COUNT)
    groups[:50] = 0
    use = np.ones(COUNT, bool)
    before = out_of_fold(features, labels, groups, use)
    labels = labels.copy()
    labels[:50] = 1 - labels[:50]
    after = out_of_fold(features, labels, groups, use)
    assert np.array_equal(before[:50], after[:50])
    assert not np.array_equal(before[50:], after[50:])


def test_small_children_and_unreadable_images_are_not_judged(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = list(data[0])
    samples[:4] = [replace(samples[n], age=a) for n, a in enumerate(("2", "(0, 2)", "5", "0-3"))]
    use = np.ones(COUNT, bool)
    use[9] = False
    wrong = weigh(samples, np.zeros(COUNT), use).wrong
    assert np.flatnonzero(np.isnan(wrong)).tolist() == [0, 1, 3, 9]


def signed_scores(samples: list[Sample], size: float) -> NDArray[np.float64]:
    """Scores that agree with every label."""
    return np.array([size if s.label == LABELS[1] else -size for s in samples])


def test_one_against_its_person_is_doubtful(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = [
        replace(s, person=f"p{n // 5}", label=LABELS[n // 5 % 2]) for n, s in enumerate(data[0])
    ]
    scores = signed_scores(samples, 3.0)
    samples[7] = turned(samples[7])
    doubts = weigh(samples, scores, np.ones(COUNT, bool))
    assert np.flatnonzero(doubts.flagged).tolist() == [7]


def test_a_batch_by_date_is_named(data: tuple[list[Sample], NDArray[np.float16]]) -> None:
    samples = list(data[0])
    scores = signed_scores(samples, 1.0) + np.random.default_rng(0).normal(size=COUNT) * 0.3
    batch = [n for n in range(COUNT) if samples[n].label == "female"][:20]
    for n in batch:
        samples[n] = replace(samples[n], label="male", file=f"male/IMG_20170109_{n}.jpg")
    doubts = weigh(samples, scores, np.ones(COUNT, bool))
    assert ("date", "2017-01-09", "male", 20) in [
        (b.kind, b.name, b.label, b.images) for b in doubts.batches
    ] or ("20170109" in [b.name for b in doubts.batches])
    assert doubts.flagged[batch].all()


def test_a_photo_under_both_labels_has_a_wrong_one(
    data: tuple[list[Sample], NDArray[np.float16]],
) -> None:
    samples = list(data[0])
    scores = signed_scores(samples, 4.0)
    scores[0] = scores[1] = 1.0
    samples[0], samples[1] = (replace(samples[n], label=LABELS[n]) for n in (0, 1))
    copies = np.arange(COUNT)
    use = np.ones(COUNT, bool)
    assert not weigh(samples, scores, use).flagged[1]
    copies[1] = 0
    doubts = weigh(samples, scores, use, copies)
    assert doubts.flagged[0] and doubts.wrong[0] > doubts.wrong[1]
    assert doubts.wrong[1] > weigh(samples, scores, use).wrong[1]
