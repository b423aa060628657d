"""Figures of answers against labels: shares with counts and intervals, curves, groups, gaps.

All of them come from the rows that the score table holds. Intervals are at 95 %: Wilson's for a
share, percentiles of 1,000 seeded bootstrap samples for the others (B. Efron, "Bootstrap methods:
another look at the jackknife", 1979), and for a group's mean recall and for gaps between groups
of 1,000 draws from the Jeffreys intervals of their shares (L. Brown et al., "Interval estimation
for a binomial proportion", 2001). Groups and gaps have their bootstrap intervals beside these: of
a small group without a wrong answer the bootstrap says that it cannot be wrong. Pictures count one
by one; where many show one person, the intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample, age_group
from facegender.training.evaluation.calibration import calibration_error, reliability
from facegender.training.evaluation.predictions_table import PredictionsTable

CONFIDENCE = 0.95
"""Of every interval."""

RESAMPLES = 1_000
"""Bootstrap samples behind an interval."""

MIN_GROUP_SIZE = 30
"""Pictures that a group must have to count in the gap between the best and the worst group."""

GROUPINGS = ("sources", "ages", "races")
"""Kinds of groups that a table's columns make."""

_SEED = 0
_CURVE_POINTS = 101


def compute_metrics(
    samples: Sequence[Sample], probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Sum up how well probabilities fit labels, over all pictures and over groups of them.

    Args:
        samples: ``N`` samples; their source, age and race make the groups.
        probabilities: ``float [N, 2]`` in the order of ``LABELS``.
        labels: ``int64 [N]``.

    Returns:
        ``accuracy`` and ``recall`` of each label as ``{count, correct, share, interval}``
        (Wilson, 95 %), ``confusion`` (label, then answer), ``balanced_accuracy``, ``roc_auc``,
        ``average_precision`` of each label (area under precision and recall), ``brier``,
        ``log_loss``, ``calibration_error`` (ECE, 15 bins of equal mass), ``intervals`` of these
        (bootstrap), ``reliability`` (the bins), ``coverage`` (accuracy of the surest shares, with
        the threshold that gives them), ``curves`` (at most 101 points each), shares under
        ``sources``, ``ages`` and ``races`` where the samples say them, and ``gaps``, the distance
        between the best and the worst group of each kind. Groups and gaps hold ``bootstrap``, the
        intervals by resampled pictures.
    """
    answers = probabilities.argmax(1)
    correct = answers == labels
    p_male = probabilities[:, 1].astype(np.float64)
    result: dict[str, Any] = {"accuracy": proportion(correct), "recall": _recalls(correct, labels)}
    counts = confusion_matrix(labels, answers, labels=range(len(LABELS)))
    result["confusion"] = {
        label: dict(zip(LABELS, map(int, row), strict=True))
        for label, row in zip(LABELS, counts, strict=True)
    }
    result["balanced_accuracy"] = _balanced(result["recall"])
    if len(result["recall"]) == len(LABELS):
        result["roc_auc"] = _rounded(roc_auc_score(labels, p_male))
        result["average_precision"] = {
            name: _rounded(average_precision_score(labels == index, probabilities[:, index]))
            for index, name in enumerate(LABELS)
        }
        result["curves"] = _curves(p_male, labels)
    result["brier"] = _rounded(brier_score_loss(labels, p_male, labels=range(len(LABELS))))
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    result["log_loss"] = _rounded(-np.log(np.clip(chosen, 1e-7, 1)).mean())
    result["calibration_error"] = _rounded(calibration_error(probabilities, labels))
    result["intervals"] = _intervals(p_male, labels, correct)
    result["reliability"] = [
        {
            "count": item.count,
            "confidence": _rounded(item.confidence),
            "accuracy": _rounded(item.accuracy),
        }
        for item in reliability(probabilities, labels)
    ]
    result["coverage"] = _coverage(probabilities.max(1), correct)
    groupings = {
        "sources": [sample.source for sample in samples],
        "ages": [age_group(sample.age) for sample in samples],
        "races": [sample.race for sample in samples],
    }
    for name, values in groupings.items():
        if groups := _groups(values, correct, labels):
            result[name] = groups
    kinds = {"labels": result["recall"]} | {
        name: {key: group["accuracy"] for key, group in result[name].items()}
        for name in GROUPINGS
        if name in result
    }
    gaps = {name: _disparity(shares) for name, shares in kinds.items()}
    result["disparities"] = {name: gap for name, gap in gaps.items() if gap}
    return result


def table_metrics(scores: PredictionsTable) -> dict[str, Any]:
    """Measure a whole score table; see :func:`compute_metrics`."""
    return compute_metrics(scores.samples, scores.probabilities, scores.labels)


def proportion(correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Sum up right and wrong answers: ``{count, correct, share, interval}`` (Wilson, 95 %)."""
    count, right = len(correct), int(correct.sum())
    if not count:
        return {"count": 0, "correct": 0, "value": None, "interval": None}
    interval = binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "count": count,
        "correct": right,
        "value": _rounded(right / count),
        "interval": [_rounded(interval.low), _rounded(interval.high)],
    }


def percentiles(values: NDArray[np.floating]) -> list[float]:
    """Give the interval that bootstrap values span; values that are no numbers are left out."""
    outside = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.nanpercentile(values, [outside, 100.0 - outside])
    return [_rounded(low), _rounded(high)]


def _recalls(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Share of each label's pictures that were told right; labels without pictures are left out."""
    return {
        name: proportion(correct[labels == index])
        for index, name in enumerate(LABELS)
        if (labels == index).any()
    }


def _balanced(recalls: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean of the labels' recalls."""
    return _rounded(np.mean([value["value"] for value in recalls.values()]))


def _groups(
    values: Sequence[str], correct: NDArray[np.bool_], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Sum up every group that the values name: shares, and the mean over labels if it has both."""
    keys = np.array(values)
    groups: dict[str, Any] = {}
    for key in sorted(set(values) - {""}):
        mine = keys == key
        recalls = _recalls(correct[mine], labels[mine])
        whole = proportion(correct[mine])
        groups[key] = {"accuracy": whole, "recall": recalls}
        again = {"accuracy": percentiles(_bootstrap_draws(whole, _SEED))}
        if len(recalls) == len(LABELS):
            drawn = [_posterior_draws(one, _SEED + i) for i, one in enumerate(recalls.values())]
            mean = _balanced(recalls)
            groups[key]["balanced_accuracy"] = mean
            groups[key]["balanced_accuracy_interval"] = _around(mean, np.mean(drawn, 0))
            samples = [_bootstrap_draws(one, _SEED + i) for i, one in enumerate(recalls.values())]
            again["balanced_accuracy"] = percentiles(np.mean(samples, 0))
        groups[key]["bootstrap"] = again
    return groups


def _disparity(shares: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Tell how far the best and the worst group are apart, if two are large enough to say so.

    The interval is of the difference between these two groups; that they were chosen for being
    the best and the worst is not in it.
    """
    large = {name: one for name, one in shares.items() if one["count"] >= MIN_GROUP_SIZE}
    if len(large) < 2:
        return None
    best, worst = (choose(large, key=lambda name: large[name]["value"]) for choose in (max, min))
    differences = _posterior_draws(large[best], _SEED) - _posterior_draws(large[worst], _SEED + 1)
    samples = _bootstrap_draws(large[best], _SEED) - _bootstrap_draws(large[worst], _SEED + 1)
    gap = _rounded(large[best]["value"] - large[worst]["value"])
    return {
        "best": best,
        "worst": worst,
        "gap": gap,
        "interval": _around(gap, differences),
        "bootstrap": percentiles(samples),
        "groups": len(large),
        "groups_too_small": len(shares) - len(large),
    }


def _around(value: float, drawn: NDArray[np.float64]) -> list[float]:
    """Give the interval of draws, widened to what was measured: 0 or 1 lie outside of any draw."""
    low, high = percentiles(drawn)
    return [min(low, value), max(high, value)]


def _posterior_draws(one: Mapping[str, Any], seed: int) -> NDArray[np.float64]:
    """Draw shares that a count of right answers leaves open (Jeffreys' beta distribution).

    Much like bootstrap samples of the group, but a small group without a wrong answer keeps its
    doubt: its bootstrap samples are all as faultless.
    """
    rng = np.random.default_rng(seed)
    wrong = one["count"] - one["correct"]
    return np.asarray(rng.beta(one["correct"] + 0.5, wrong + 0.5, RESAMPLES), np.float64)


def _bootstrap_draws(one: Mapping[str, Any], seed: int) -> NDArray[np.float64]:
    """Give the shares of bootstrap samples of a group.

    To draw as many answers as it has, with replacement, is to draw how many of them are right.
    """
    count = one["count"]
    right = np.random.default_rng(seed).binomial(count, one["correct"] / count, RESAMPLES)
    return np.asarray(right / count, np.float64)


def _intervals(
    p_male: NDArray[np.float64], labels: NDArray[np.int64], correct: NDArray[np.bool_]
) -> dict[str, Any]:
    """Bootstrap intervals of figures; for one label alone only accuracy's and Brier's."""
    rng = np.random.default_rng(_SEED)
    order = np.argsort(p_male, kind="stable")
    male, right = (labels[order] == 1).astype(np.int64), correct[order].astype(np.int64)
    squares = (p_male[order] - male) ** 2
    starts = np.flatnonzero(np.diff(p_male[order], prepend=-1.0))  # of each run of equal scores
    count = len(order)
    found: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(count, size=count, dtype=np.int32), minlength=count)
        drawn = {"accuracy": times @ right / count, "brier": times @ squares / count}
        of_males = times * male
        males = np.add.reduceat(of_males, starts)
        females = np.add.reduceat(times, starts) - males
        if (all_males := males.sum()) and all_males < count:
            right_males = of_males @ right
            drawn["recall male"] = right_males / all_males
            drawn["recall female"] = (times @ right - right_males) / (count - all_males)
            drawn["balanced_accuracy"] = (drawn["recall male"] + drawn["recall female"]) / 2
            drawn["roc_auc"] = area_under_roc(males, females)
            drawn["average_precision male"] = average_precision(males, females)
            drawn["average_precision female"] = average_precision(females[::-1], males[::-1])
        for name, value in drawn.items():
            found.setdefault(name, []).append(float(value))
    return {name: percentiles(np.array(drawn)) for name, drawn in sorted(found.items())}


def area_under_roc(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Area under the ROC curve out of counts at each score, from the lowest score up, ``[K]``.

    The same as scikit-learn's ``roc_auc_score``; quick enough for a thousand bootstrap samples.
    """
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def average_precision(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Average precision out of counts at each score, from the lowest score up, ``[K]``.

    The same as scikit-learn's ``average_precision_score``.
    """
    right, wrong = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = right / np.maximum(right + wrong, 1)
    return float(positives[::-1] @ precision / positives.sum())


def _curves(p_male: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """ROC and precision-recall curves for drawing: no more points than a plot shows."""
    false_male, true_male, _ = roc_curve(labels, p_male)
    curves = {"roc": _thinned(false_male, true_male, "false_positive", "true_positive")}
    for index, name in enumerate(LABELS):
        score = p_male if index else 1.0 - p_male
        precision, recall, _ = precision_recall_curve(labels == index, score)
        curves[f"precision_recall {name}"] = _thinned(recall, precision, "recall", "precision")
    return curves


def _thinned(
    x: NDArray[np.floating], y: NDArray[np.floating], x_name: str, y_name: str
) -> dict[str, list[float]]:
    """Keep the points of a curve that are evenly far apart along it, with both ends."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    steps = np.linspace(0.0, way[-1], _CURVE_POINTS)
    kept = np.unique(np.searchsorted(way, steps).clip(max=len(x) - 1))
    return {x_name: [_rounded(x[i]) for i in kept], y_name: [_rounded(y[i]) for i in kept]}


def _coverage(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Accuracy of the surest part of the answers, and the certainty from which on they count."""
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for answered in (1.0, 0.99, 0.98, 0.95, 0.9, 0.8):
        count = max(1, round(answered * len(order)))
        kept = order[:count]
        rows.append(
            {
                "answered": answered,
                "threshold": _rounded(confidence[kept[-1]]),
                "accuracy": proportion(correct[kept]),
            }
        )
    return rows


def _rounded(value: Any) -> float:
    return round(float(value), 5)
