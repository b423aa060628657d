"""Metrics of answers against labels: proportions with counts and intervals, curves, groups.

All of them are computed from the rows of a predictions table. A proportion has a Wilson interval;
other metrics have bootstrap intervals; the balanced accuracy of a group and the disparity between
groups have intervals from posterior draws, with the bootstrap interval beside them (see
:mod:`facegender.training.evaluation.intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from facegender.training.evaluation.calibration import (
    ReliabilityBin,
    calibration_error,
    reliability,
)
from facegender.training.evaluation.intervals import (
    Interval,
    bootstrap_draws,
    bootstrap_intervals,
    percentile_interval,
    posterior_draws,
    rounded,
    wilson_interval,
)
from facegender.training.evaluation.predictions_table import PredictionsTable

MIN_GROUP_SIZE = 30
"""Images that a group needs to count in the disparity between the best and the worst group."""

GROUPINGS = ("sources", "ages", "races")
"""Kinds of groups; each is made from a column of the metadata table."""

_SEED = 0
_CURVE_POINTS = 101
_COVERAGES = (1.0, 0.99, 0.98, 0.95, 0.9, 0.8)


@dataclass(frozen=True, slots=True)
class Proportion:
    """Correct answers out of all: ``value`` is ``correct / count``, ``interval`` is Wilson's.

    Where ``count`` is 0, value and interval are NaN, and null in JSON.
    """

    count: int
    correct: int
    value: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "count": self.count,
            "correct": self.correct,
            "value": self.value if self.count else None,
            "interval": list(self.interval) if self.count else None,
        }


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """Metrics of one group of images.

    ``recall`` lacks labels without images. ``balanced_accuracy`` is None unless the group has both
    labels. ``bootstrap`` holds the intervals of ``accuracy`` and ``balanced_accuracy`` by
    resampled images.
    """

    accuracy: Proportion
    recall: Mapping[str, Proportion]
    balanced_accuracy: float | None
    balanced_accuracy_interval: Interval | None
    bootstrap: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Disparity:
    """Difference in accuracy between the best and the worst group of a kind.

    ``value`` is above 0. ``groups`` counts those compared; ``groups_too_small`` those below
    :data:`MIN_GROUP_SIZE`. The intervals are of the difference between these two groups and do not
    account for selecting them as the best and the worst.
    """

    best: str
    worst: str
    value: float
    interval: Interval
    bootstrap: Interval
    groups: int
    groups_too_small: int


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """Accuracy of the most confident answers.

    ``answered`` is their fraction of all images, ``threshold`` the lowest confidence among them.
    """

    answered: float
    threshold: float
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Points of a ROC curve with male as the positive class, at most 101."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PrecisionRecallCurve:
    """Points of a precision-recall curve, at most 101."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What needs images of both labels: areas under curves, and the curves for drawing.

    ``average_precision`` and ``precision_recall_curves`` have an entry per label.
    """

    roc_auc: float
    average_precision: Mapping[str, float]
    roc_curve: RocCurve
    precision_recall_curves: Mapping[str, PrecisionRecallCurve]


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well probabilities match labels, over all images and over groups of them.

    Attributes:
        accuracy: of all answers.
        recall: of each label that has images.
        confusion: how many, by label, then by answer.
        balanced_accuracy: mean of the recalls.
        ranking: ROC and precision-recall; None unless there are images of both labels.
        brier: mean squared error of P(male).
        log_loss: mean cross-entropy, with probabilities clipped at 1e-7.
        calibration_error: expected calibration error (ECE), 15 bins of equal mass.
        intervals: bootstrap intervals of the metrics above, by name.
        reliability: the bins of the calibration error, least confident first.
        coverage: accuracy of the most confident answers.
        groups: by kind (:data:`GROUPINGS`, where the samples have values), then by group.
        disparities: by kind (``labels`` too); absent unless two groups are large enough and differ.
    """

    accuracy: Proportion
    recall: Mapping[str, Proportion]
    confusion: Mapping[str, Mapping[str, int]]
    balanced_accuracy: float
    ranking: Ranking | None
    brier: float
    log_loss: float
    calibration_error: float
    intervals: Mapping[str, Interval]
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoverageRow, ...]
    groups: Mapping[str, Mapping[str, GroupMetrics]]
    disparities: Mapping[str, Disparity]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, as ``metrics.json`` has it: each kind of groups is a key."""
        result: dict[str, Any] = to_json(self)
        ranking, groups = result.pop("ranking", {}), result.pop("groups")
        return {**result, **ranking, **groups}


def to_json(value: Any) -> Any:
    """Convert metrics to what JSON can hold; a field that is None is left out."""
    if isinstance(value, Proportion):
        return value.to_dict()
    if is_dataclass(value):
        found = {item.name: getattr(value, item.name) for item in fields(value)}
        return {name: to_json(one) for name, one in found.items() if one is not None}
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [to_json(one) for one in value]
    return value


def compute_metrics(
    samples: Sequence[Sample], probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> Metrics:
    """Compute all metrics of answers against labels.

    Args:
        samples: ``N`` samples, at least one; their source, age and race make the groups.
        probabilities: ``float [N, 2]`` in the order of ``LABELS``.
        labels: index into ``LABELS``, ``int64 [N]``.
    """
    answers = probabilities.argmax(1)
    correct = answers == labels
    p_male = probabilities[:, 1].astype(np.float64)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    recall = _recall(correct, labels)
    counts = confusion_matrix(labels, answers, labels=range(len(LABELS)))
    columns = {
        "sources": [sample.source for sample in samples],
        "ages": [age_group(sample.age) for sample in samples],
        "races": [sample.race for sample in samples],
    }
    groups = {
        kind: found
        for kind, values in columns.items()
        if (found := _groups(values, correct, labels))
    }
    return Metrics(
        accuracy=proportion(correct),
        recall=recall,
        confusion={
            label: dict(zip(LABELS, map(int, row), strict=True))
            for label, row in zip(LABELS, counts, strict=True)
        },
        balanced_accuracy=_balanced_accuracy(recall),
        ranking=_ranking(probabilities, labels) if len(recall) == len(LABELS) else None,
        brier=rounded(brier_score_loss(labels, p_male, labels=range(len(LABELS)))),
        log_loss=rounded(-np.log(np.clip(of_label, 1e-7, 1)).mean()),
        calibration_error=rounded(calibration_error(probabilities, labels)),
        intervals=bootstrap_intervals(p_male, labels, correct),
        reliability=tuple(
            ReliabilityBin(one.count, rounded(one.confidence), rounded(one.accuracy))
            for one in reliability(probabilities, labels)
        ),
        coverage=_coverage(probabilities.max(1), correct),
        groups=groups,
        disparities=_disparities(recall, groups),
    )


def table_metrics(predictions: PredictionsTable) -> Metrics:
    """Compute all metrics of a predictions table."""
    return compute_metrics(predictions.samples, predictions.probabilities, predictions.labels)


def proportion(correct: NDArray[np.bool_]) -> Proportion:
    """Count correct answers, ``bool [N]``."""
    count, hits = len(correct), int(correct.sum())
    if not count:
        return Proportion(0, 0, np.nan, (np.nan, np.nan))
    return Proportion(count, hits, rounded(hits / count), wilson_interval(hits, count))


def _recall(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, Proportion]:
    """Compute the recall of each label; labels without images are left out."""
    return {
        name: proportion(correct[labels == index])
        for index, name in enumerate(LABELS)
        if (labels == index).any()
    }


def _balanced_accuracy(recall: Mapping[str, Proportion]) -> float:
    return rounded(np.mean([one.value for one in recall.values()]))


def _ranking(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Ranking:
    p_male = probabilities[:, 1].astype(np.float64)
    false_positive, true_positive, _ = roc_curve(labels, p_male)
    curves = {}
    for index, name in enumerate(LABELS):
        score = p_male if index else 1.0 - p_male
        precision, recall, _ = precision_recall_curve(labels == index, score)
        curves[name] = PrecisionRecallCurve(*_thinned(recall, precision))
    return Ranking(
        roc_auc=rounded(roc_auc_score(labels, p_male)),
        average_precision={
            name: rounded(average_precision_score(labels == index, probabilities[:, index]))
            for index, name in enumerate(LABELS)
        },
        roc_curve=RocCurve(*_thinned(false_positive, true_positive)),
        precision_recall_curves=curves,
    )


def _thinned(
    x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Select points at even distances along a curve, with both ends."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    steps = np.linspace(0.0, length[-1], _CURVE_POINTS)
    points = np.unique(np.searchsorted(length, steps).clip(max=len(x) - 1))
    return tuple(rounded(x[i]) for i in points), tuple(rounded(y[i]) for i in points)


def _coverage(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> tuple[CoverageRow, ...]:
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for answered in _COVERAGES:
        most_confident = order[: max(1, round(answered * len(order)))]
        threshold = rounded(confidence[most_confident[-1]])
        rows.append(CoverageRow(answered, threshold, proportion(correct[most_confident])))
    return tuple(rows)


def _groups(
    values: Sequence[str], correct: NDArray[np.bool_], labels: NDArray[np.int64]
) -> dict[str, GroupMetrics]:
    """Compute the metrics of every group that the values name; an empty value is no group."""
    names = np.array(values)
    return {
        name: _group_metrics(correct[names == name], labels[names == name])
        for name in sorted(set(values) - {""})
    }


def _group_metrics(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> GroupMetrics:
    recall, accuracy = _recall(correct, labels), proportion(correct)
    bootstrap = {
        "accuracy": percentile_interval(bootstrap_draws(accuracy.correct, accuracy.count, _SEED))
    }
    if len(recall) < len(LABELS):
        return GroupMetrics(accuracy, recall, None, None, bootstrap)
    balanced = _balanced_accuracy(recall)
    counts = [(one.correct, one.count, _SEED + i) for i, one in enumerate(recall.values())]
    posterior = np.mean([posterior_draws(*one) for one in counts], 0)
    resampled = np.mean([bootstrap_draws(*one) for one in counts], 0)
    bootstrap["balanced_accuracy"] = percentile_interval(resampled)
    interval = percentile_interval(posterior, including=balanced)
    return GroupMetrics(accuracy, recall, balanced, interval, bootstrap)


def _disparities(
    recall: Mapping[str, Proportion], groups: Mapping[str, Mapping[str, GroupMetrics]]
) -> dict[str, Disparity]:
    kinds = {"labels": recall} | {
        kind: {name: group.accuracy for name, group in members.items()}
        for kind, members in groups.items()
    }
    return {kind: found for kind, members in kinds.items() if (found := _disparity(members))}


def _disparity(groups: Mapping[str, Proportion]) -> Disparity | None:
    """Compare the best and the worst group; None unless two are large enough and differ."""
    large = {name: one for name, one in groups.items() if one.count >= MIN_GROUP_SIZE}
    if len({one.value for one in large.values()}) < 2:
        return None
    best, worst = (choose(large, key=lambda name: large[name].value) for choose in (max, min))
    high, low = large[best], large[worst]
    value = rounded(high.value - low.value)
    posterior, resampled = (
        draw(high.correct, high.count, _SEED) - draw(low.correct, low.count, _SEED + 1)
        for draw in (posterior_draws, bootstrap_draws)
    )
    return Disparity(
        best=best,
        worst=worst,
        value=value,
        interval=percentile_interval(posterior, including=value),
        bootstrap=percentile_interval(resampled),
        groups=len(large),
        groups_too_small=len(groups) - len(large),
    )
