"""Metrics of hand-counted tables, and against scikit-learn."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    recall_score,
    roc_auc_score,
)

from facegender.training.data.samples import Sample
from facegender.training.evaluation.intervals import area_under_roc, average_precision
from facegender.training.evaluation.metrics import (
    GROUPINGS,
    Proportion,
    compute_metrics,
    proportion,
)


def wilson(right: int, count: int) -> tuple[float, float]:
    """The textbook formula of Wilson (1927); z for 95%."""
    z = 1.959963984540054
    share = right / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return round(max(0.0, low), 5), round(min(1.0, high), 5)


def table(rows: list[tuple[str, float]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    male = np.array([p for _, p in rows])
    labels = np.array([("f", "m").index(label) for label, _ in rows], np.int64)
    return np.stack([1 - male, male], 1), labels


HAND = [  # label, P(male), source, age, race
    ("m", 0.9, "web", "25", "a"),
    ("m", 0.8, "web", "30.0", ""),
    ("m", 0.4, "film", "(4, 6)", "b"),
    ("f", 0.1, "web", "0-2", "a"),
    ("f", 0.3, "", "", ""),
    ("f", 0.6, "film", "70+", "b"),
    ("f", 0.2, "film", "13", ""),
]


def hand() -> tuple[list[Sample], NDArray[np.float64], NDArray[np.int64]]:
    samples = [
        Sample("a", f"{i}.png", {"m": "male", "f": "female"}[label], "", source, age, race)
        for i, (label, _, source, age, race) in enumerate(HAND)
    ]
    return samples, *table([(label, p) for label, p, *_ in HAND])


def test_hand_counted_table() -> None:
    result = compute_metrics(*hand())
    assert result.accuracy == Proportion(7, 5, round(5 / 7, 5), wilson(5, 7))
    assert result.accuracy.to_dict() == {
        "count": 7,
        "correct": 5,
        "value": round(5 / 7, 5),
        "interval": list(wilson(5, 7)),
    }
    assert result.recall["male"].correct == 2
    assert result.recall["male"].count == 3
    assert result.recall["female"].value == 0.75
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2, abs=1e-5)
    # of 12 pairs of a male and a female, one has them the wrong way round: 0.4 under 0.6
    assert result.ranking.roc_auc == pytest.approx(11 / 12, abs=1e-5)
    right = [0.9, 0.8, 0.4, 0.9, 0.7, 0.4, 0.8]
    assert result.log_loss == pytest.approx(-sum(map(math.log, right)) / 7, abs=1e-5)


def test_groups_of_the_hand_counted_table() -> None:
    result = compute_metrics(*hand())
    counts = {
        name: {key: (g.accuracy.correct, g.accuracy.count) for key, g in groups.items()}
        for name, groups in result.groups.items()
    }
    assert counts == {
        "sources": {"film": (1, 3), "web": (3, 3)},
        "ages": {"00-3": (1, 1), "04-12": (0, 1), "13-20": (1, 1), "21-60": (2, 2), "61+": (0, 1)},
        "races": {"a": (2, 2), "b": (0, 2)},
    }
    assert result.groups["sources"]["film"].recall["female"].count == 2
    assert "female" not in result.groups["ages"]["21-60"].recall


def test_groups_without_values_are_absent() -> None:
    _, probabilities, labels = hand()
    bare = [Sample("a", f"{i}.png", "male") for i in range(len(labels))]
    result = compute_metrics(bare, probabilities, labels)
    assert not result.groups and not set(GROUPINGS) & result.to_dict().keys()


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [(95, 100, [0.8882, 0.9785]), (0, 10, [0.0, 0.2775]), (10, 10, [0.7225, 1.0])],
)
def test_wilson_interval(right: int, count: int, interval: list[float]) -> None:
    rows = [("m", 0.9)] * right + [("m", 0.1)] * (count - right)
    samples = [Sample("a", f"{i}.png", "male") for i in range(count)]
    result = compute_metrics(samples, *table(rows)).accuracy
    assert result.interval == pytest.approx(interval, abs=5e-5)
    assert result.interval == pytest.approx(wilson(right, count), abs=1e-5)


def test_one_label_alone_has_no_curve_and_no_recall_of_the_other() -> None:
    samples = [Sample("a", f"{i}.png", "male") for i in range(3)]
    result = compute_metrics(samples, *table([("m", 0.9), ("m", 0.8), ("m", 0.2)]))
    assert result.ranking is None and "roc_auc" not in result.to_dict()
    assert list(result.recall) == ["male"]
    assert result.balanced_accuracy == pytest.approx(2 / 3, abs=1e-5)


def test_coverage() -> None:
    # 100 answers from 0.505 to 1.0; the ten least confident are wrong.
    confidence = 0.505 + 0.005 * np.arange(100)
    rows = [("m" if i >= 10 else "f", float(c)) for i, c in enumerate(confidence)]
    samples = [Sample("a", f"{i}.png", "male") for i in range(100)]
    coverage = compute_metrics(samples, *table(rows)).coverage
    assert [
        (row.answered, row.accuracy.correct, row.accuracy.count, row.threshold) for row in coverage
    ] == [
        (1.0, 90, 100, 0.505),
        (0.99, 90, 99, 0.51),
        (0.98, 90, 98, 0.515),
        (0.95, 90, 95, 0.53),
        (0.9, 90, 90, 0.555),
        (0.8, 80, 80, 0.605),
    ]


def test_result_is_json() -> None:
    result = compute_metrics(*hand()).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["accuracy"]["count"] == 7
    assert [one["count"] for one in result["reliability"]] == [1] * 7
    assert result["coverage"][0]["accuracy"] == result["accuracy"]
    assert result["sources"]["film"]["recall"]["male"]["correct"] == 0
    assert set(result["roc_curve"]) == {"false_positive_rate", "true_positive_rate"}
    empty = proportion(np.zeros(0, bool)).to_dict()
    assert empty == {"count": 0, "correct": 0, "value": None, "interval": None}


def test_confusion_and_scores_of_the_hand_counted_table() -> None:
    result = compute_metrics(*hand())
    assert result.confusion == {
        "female": {"female": 3, "male": 1},
        "male": {"female": 1, "male": 2},
    }
    squares = [0.1**2, 0.2**2, 0.6**2, 0.1**2, 0.3**2, 0.6**2, 0.2**2]
    assert result.brier == pytest.approx(sum(squares) / 7, abs=1e-5)
    # by falling P(male): m .9, m .8, f .6, m .4, ...: a male at ranks 1, 2 and 4
    assert result.ranking.average_precision["male"] == pytest.approx((1 + 1 + 3 / 4) / 3, abs=1e-5)
    # by rising P(male): f, f, f, m, f, ...: a female at ranks 1, 2, 3 and 5
    assert result.ranking.average_precision["female"] == pytest.approx((3 + 4 / 5) / 4, abs=1e-5)
    # seven bins of one image each: the distance of each confidence from 0 or 1
    certain = [(0.9, 1), (0.8, 1), (0.6, 0), (0.9, 1), (0.7, 1), (0.6, 0), (0.8, 1)]
    assert result.calibration_error == pytest.approx(
        sum(abs(p - right) for p, right in certain) / 7, abs=1e-5
    )
    assert [one.count for one in result.reliability] == [1] * 7


def test_reliability_bins_hold_equally_many() -> None:
    rows = [("m", 0.6)] * 30 + [("m", 0.9)] * 28 + [("f", 0.9)] * 2
    samples = [Sample("a", f"{i}.png", "male") for i in range(60)]
    bins = compute_metrics(samples, *table(rows)).reliability
    assert [one.count for one in bins] == [4] * 15
    assert {one.confidence for one in bins[:7]} == {0.6}
    assert all(one.accuracy == 1 for one in bins[:-1])
    assert (bins[-1].confidence, bins[-1].accuracy) == (0.9, 0.5)


def test_curves_are_the_known_corners() -> None:
    # one male above, one below both females: up, right, right, up
    rows = [("m", 0.9), ("f", 0.6), ("f", 0.5), ("m", 0.1)]
    samples = [Sample("a", f"{i}.png", "male") for i in range(4)]
    ranking = compute_metrics(samples, *table(rows)).ranking
    curve = ranking.roc_curve
    roc = list(zip(curve.false_positive_rate, curve.true_positive_rate, strict=True))
    assert roc == [(0, 0), (0, 0.5), (1, 0.5), (1, 1)]
    many = np.random.default_rng(0).random(5_000)
    rows = [("mf"[int(p > q)], float(q)) for p, q in zip(many, many[::-1], strict=True)]
    samples = [Sample("a", f"{i}.png", "male") for i in range(5_000)]
    ranking = compute_metrics(samples, *table(rows)).ranking
    assert len(ranking.precision_recall_curves) == 2
    for curve in (ranking.roc_curve, *ranking.precision_recall_curves.values()):
        assert all(50 < len(points) <= 101 for points in asdict(curve).values())


def test_gap_is_between_large_groups_only() -> None:
    rows, samples = [], []
    for source, right, count in (("a", 95, 100), ("b", 32, 40), ("c", 0, 29)):
        for i in range(count):
            rows.append(("m", 0.9 if i < right else 0.1))
            samples.append(Sample("x", f"{source}{i}.png", "male", source=source))
    gaps = compute_metrics(samples, *table(rows)).disparities
    assert list(gaps) == ["sources"]  # one label has no gap
    gap = gaps["sources"]
    assert (gap.best, gap.worst, gap.groups, gap.groups_too_small) == ("a", "b", 2, 1)
    assert gap.value == pytest.approx(0.95 - 0.8)
    # two independent proportions: 1.96 standard errors to either side
    reach = 1.96 * math.sqrt(0.95 * 0.05 / 100 + 0.8 * 0.2 / 40)
    for interval in (gap.interval, gap.bootstrap):
        assert interval == pytest.approx((0.15 - reach, 0.15 + reach), abs=0.02)


def test_groups_that_do_not_differ_have_no_gap() -> None:
    samples = [Sample("x", f"{i}.png", "male", source="ab"[i % 2]) for i in range(80)]
    assert compute_metrics(samples, *table([("m", 0.9)] * 80)).disparities == {}


def test_bootstrap_intervals_hold_the_value_and_narrow_with_more_images() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for count in (200, 3_200):
        labels = rng.integers(0, 2, count)
        male = (0.3 * labels + 0.7 * rng.random(count)).clip(0, 1)
        samples = [Sample("a", f"{i}.png", "male") for i in range(count)]
        result = compute_metrics(samples, np.stack([1 - male, male], 1), labels)
        intervals = result.intervals
        for name in ("balanced_accuracy", "roc_auc", "brier"):
            low, high = intervals[name]
            assert low < result.to_dict()[name] < high, name
        proportions = {"accuracy": result.accuracy}
        proportions |= {f"recall_{label}": one for label, one in result.recall.items()}
        for name, one in proportions.items():  # both ways nearly agree for a proportion
            assert intervals[name] == pytest.approx(one.interval, abs=0.03), name
        for label in ("male", "female"):
            low, high = intervals[f"average_precision_{label}"]
            assert low < result.ranking.average_precision[label] < high
        widths.append(intervals["roc_auc"][1] - intervals["roc_auc"][0])
        again = compute_metrics(samples, np.stack([1 - male, male], 1), labels)
        assert again == result
    assert 2.5 < widths[0] / widths[1] < 6  # four times, with sixteen times the images


def test_interval_of_brier_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    male = rng.random(500)
    samples = [Sample("a", f"{i}.png", "male") for i in range(500)]
    labels = np.ones(500, np.int64)
    low, high = compute_metrics(samples, np.stack([1 - male, male], 1), labels).intervals["brier"]
    squares = (1 - male) ** 2
    reach = 1.96 * squares.std() / math.sqrt(500)
    assert [low, high] == pytest.approx([squares.mean() - reach, squares.mean() + reach], abs=0.004)


@pytest.mark.parametrize("steps", [4, 1_000])
def test_areas_are_those_of_scikit_learn(steps: int) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    scores = np.round((0.4 * labels + rng.random(400)) * steps) / steps  # with and without ties
    _, places = np.unique(scores, return_inverse=True)
    positives, negatives = (np.bincount(places, labels == k) for k in (1, 0))
    assert area_under_roc(positives, negatives) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(positives, negatives) == pytest.approx(
        average_precision_score(labels, scores)
    )


def test_bootstrap_of_a_group_is_that_of_its_images_drawn_again() -> None:
    labels = np.array([0] * 60 + [1] * 40)
    right = np.array([1] * 54 + [0] * 6 + [1] * 32 + [0] * 8, bool)
    male = np.where(right == (labels == 1), 0.9, 0.1)
    samples = [Sample("a", f"{i}.png", "male", source="web") for i in range(100)]
    group = compute_metrics(samples, np.stack([1 - male, male], 1), labels).groups["sources"]["web"]
    rng = np.random.default_rng(9)
    drawn = rng.choice(right, (4_000, 100)).mean(1)
    assert group.bootstrap["accuracy"] == pytest.approx(
        np.percentile(drawn, [2.5, 97.5]), abs=0.011
    )
    recalls = [rng.choice(right[labels == k], (4_000, (labels == k).sum())) for k in (0, 1)]
    mean = (recalls[0].mean(1) + recalls[1].mean(1)) / 2
    assert group.bootstrap["balanced_accuracy"] == pytest.approx(
        np.percentile(mean, [2.5, 97.5]), abs=0.011
    )
    faultless = [("m", 0.9)] * 20
    of_one = [Sample("a", f"{i}.png", "male", source="s") for i in range(20)]
    found = compute_metrics(of_one, *table(faultless)).groups["sources"]["s"]
    assert found.bootstrap == {"accuracy": (1.0, 1.0)}
    assert found.accuracy.interval == wilson(20, 20)


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 300)
    male = 0.3 * labels + 0.7 * rng.random(300)  # no two alike: bins of equal mass are the same
    samples = [Sample("a", f"{i}.png", "male") for i in range(300)]
    found = compute_metrics(samples, np.stack([1 - male, male], 1), labels)
    answers = (male > 0.5).astype(int)
    assert found.accuracy.value == pytest.approx(accuracy_score(labels, answers), abs=1e-5)
    assert [found.recall[name].value for name in ("female", "male")] == pytest.approx(
        recall_score(labels, answers, average=None), abs=1e-5
    )
    assert found.balanced_accuracy == pytest.approx(
        balanced_accuracy_score(labels, answers), abs=1e-5
    )
    table = [[*row.values()] for row in found.confusion.values()]
    assert table == confusion_matrix(labels, answers).tolist()
    assert found.brier == pytest.approx(brier_score_loss(labels, male), abs=1e-5)
    assert found.log_loss == pytest.approx(log_loss(labels, male), abs=1e-5)
    accuracy, confidence = calibration_curve(
        answers == labels, np.maximum(male, 1 - male), n_bins=15, strategy="quantile"
    )
    bins = found.reliability
    assert [one.accuracy for one in bins] == pytest.approx(accuracy, abs=1e-5)
    assert [one.confidence for one in bins] == pytest.approx(confidence, abs=1e-5)


def test_balanced_accuracy_of_groups() -> None:
    result = compute_metrics(*hand())
    film = result.groups["sources"]["film"]
    assert film.balanced_accuracy == pytest.approx((0 + 0.5) / 2)
    low, high = film.balanced_accuracy_interval
    assert 0 < low < 0.25 < high < 1
    # the interval of a group without an error stays wide
    rows = [("m", 0.9), ("f", 0.1)] * 20
    samples = [Sample("a", f"{i}.png", "male", source="s") for i in range(40)]
    low, high = (
        compute_metrics(samples, *table(rows)).groups["sources"]["s"].balanced_accuracy_interval
    )
    assert 0.85 < low < 0.95 and high == 1
    assert result.groups["ages"]["21-60"].balanced_accuracy is None
