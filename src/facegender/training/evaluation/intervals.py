"""Confidence intervals, all at 95 %: Wilson, Jeffreys and bootstrap.

Sources: E. Wilson, "Probable inference, the law of succession, and statistical inference", JASA
1927; B. Efron, "Bootstrap methods: another look at the jackknife", 1979; L. Brown et al.,
"Interval estimation for a binomial proportion", Statistical Science 2001 (Jeffreys).

Images count as independent; where many show one person, the intervals are too narrow.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end."""

CONFIDENCE = 0.95
"""Confidence level of every interval."""

RESAMPLES = 1_000
"""Bootstrap samples, or posterior draws, behind an interval."""

_SEED = 0


def rounded(value: float | np.floating) -> float:
    """Round to the five decimal places that every metric is stored with."""
    return round(float(value), 5)


def wilson_interval(correct: int, count: int) -> Interval:
    """Compute the Wilson score interval of ``correct`` out of ``count`` (at least 1)."""
    interval = binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return rounded(interval.low), rounded(interval.high)


def percentile_interval(draws: NDArray[np.floating], *, including: float | None = None) -> Interval:
    """Compute the central 95 % of draws; NaN is ignored.

    Args:
        draws: ``float [RESAMPLES]``.
        including: a measured value that the interval is widened to: no posterior draw reaches 0
            or 1, but a measured proportion may.
    """
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = map(rounded, np.nanpercentile(draws, [tail, 100.0 - tail]))
    return (low, high) if including is None else (min(low, including), max(high, including))


def posterior_draws(correct: int, count: int, seed: int) -> NDArray[np.float64]:
    """Draw proportions from the posterior under the Jeffreys prior (a beta distribution).

    Close to bootstrap samples of the group, except where a small group has no error: all of its
    bootstrap samples have none either, while the posterior stays uncertain.
    """
    rng = np.random.default_rng(seed)
    return np.asarray(rng.beta(correct + 0.5, count - correct + 0.5, RESAMPLES), np.float64)


def bootstrap_draws(correct: int, count: int, seed: int) -> NDArray[np.float64]:
    """Compute the proportions of bootstrap samples of a group.

    The number of correct answers among ``count`` drawn with replacement is binomial.
    """
    drawn = np.random.default_rng(seed).binomial(count, correct / count, RESAMPLES)
    return np.asarray(drawn / count, np.float64)


def bootstrap_intervals(
    p_male: NDArray[np.float64], labels: NDArray[np.int64], correct: NDArray[np.bool_]
) -> dict[str, Interval]:
    """Compute bootstrap intervals of the metrics by resampling images.

    Args:
        p_male: probability of male, ``float64 [N]``.
        labels: index into ``LABELS``, ``int64 [N]``.
        correct: whether each answer is the label, ``bool [N]``.

    Returns:
        Intervals of ``accuracy`` and ``brier``; with both labels also of ``recall_*``,
        ``balanced_accuracy``, ``roc_auc`` and ``average_precision_*``.
    """
    rng = np.random.default_rng(_SEED)
    order = np.argsort(p_male, kind="stable")
    male, is_correct = (labels[order] == 1).astype(np.int64), correct[order].astype(np.int64)
    squares = (p_male[order] - male) ** 2
    starts = np.flatnonzero(np.diff(p_male[order], prepend=-1.0))  # of each run of equal scores
    count = len(order)
    found: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(count, size=count, dtype=np.int32), minlength=count)
        drawn = {"accuracy": times @ is_correct / count, "brier": times @ squares / count}
        of_males = times * male
        males = np.add.reduceat(of_males, starts)
        females = np.add.reduceat(times, starts) - males
        if (all_males := males.sum()) and all_males < count:
            correct_males = of_males @ is_correct
            drawn["recall_male"] = correct_males / all_males
            drawn["recall_female"] = (times @ is_correct - correct_males) / (count - all_males)
            drawn["balanced_accuracy"] = (drawn["recall_male"] + drawn["recall_female"]) / 2
            drawn["roc_auc"] = area_under_roc(males, females)
            drawn["average_precision_male"] = average_precision(males, females)
            drawn["average_precision_female"] = average_precision(females[::-1], males[::-1])
        for name, value in drawn.items():
            found.setdefault(name, []).append(float(value))
    return {name: percentile_interval(np.array(draws)) for name, draws in sorted(found.items())}


def area_under_roc(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Compute the area under the ROC curve from counts at each score.

    The same value as scikit-learn's ``roc_auc_score``, fast enough for 1,000 bootstrap samples.

    Args:
        positives: how many positives have each score, lowest score first, ``[K]``.
        negatives: how many negatives have each score, ``[K]``.
    """
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def average_precision(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Compute the average precision from counts at each score, as :func:`area_under_roc` does.

    The same value as scikit-learn's ``average_precision_score``.
    """
    true, false = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = true / np.maximum(true + false, 1)
    return float(positives[::-1] @ precision / positives.sum())
