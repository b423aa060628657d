"""Label issues: labels that are probably wrong, by a model of the other images.

A linear model on embeddings that never saw these labels scores every image out of fold; duplicates
and persons stay in one fold, so that no image is scored by a model that was fitted to it. The
probability that a label is wrong takes into account how common label errors are, as confident
learning does (C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR 2021), here with a
noise model for each group of files: the fraction of labels that disagree with confident scores
estimates the fraction of wrong labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from facegender.model.model_file import LABELS
from facegender.training.audit.slices import Slice, find_slices, prefix
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import Columns, Sample, age_in_years

FOLDS = 5
FLAG_THRESHOLD = 0.25
"""Probability of being wrong from which a label is flagged. Chosen on synthetic and on known label
errors, so that nine in ten are found and more than six in ten flagged labels are wrong."""

PROPOSE_THRESHOLD = 0.5
"""Probability of being wrong from which the other label is proposed; below, the given label is more
probably right."""

MIN_AGE = 4.0
"""Age in years below which a label is not visible in a face: never flagged by its score."""

_REGULARIZATION = 2e-4  # C of the logistic regression; chosen on synthetic label errors
_MIN_GROUP = 1000  # images from which a group of files gets its own noise model
_PERSON_WEIGHT = 0.5  # weight of a person's other images in the score of an image
_MIN_PERSON = 4  # images of one person from which a majority counts
_MINORITY_LOG_ODDS = 3.0  # added to a label against the person's majority
_MAX_LOG_ODDS = 30.0
_READ_ROWS = 8192
_MIN_NOISE, _MAX_NOISE = 0.02, 0.35
_MIXED_DUPLICATE_NOISE = 0.5  # of two labels of one photo, one is wrong
# The noise model attributes hard images to noise and is too cautious: added to its log-odds, fitted
# to the flags that were right on synthetic label errors.
_LOG_ODDS_CORRECTION = 1.4


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """How probably labels are wrong, in the order of the images.

    Attributes:
        p_wrong: probability that the label is wrong, ``float64 [N]``; NaN where there is no score
            (unreadable, single-color, or below :data:`MIN_AGE`).
        flagged: whether it reaches :data:`FLAG_THRESHOLD`, ``bool [N]``.
        slices: groups of files with many label issues, smallest p-value first.
    """

    p_wrong: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    slices: tuple[Slice, ...]


def describe_issues(flagged: int, wrong: float) -> str:
    """Say how many labels are to be reviewed, and how many of them are probably wrong.

    Args:
        flagged: number of flagged labels.
        wrong: sum of their probabilities of being wrong.
    """
    if not flagged:
        return "no labels to review"
    return (
        f"{flagged:,} {'label' if flagged == 1 else 'labels'} to review, about {wrong:,.0f} wrong"
    )


@dataclass(frozen=True, slots=True)
class _NoiseModel:
    """Slope from margins to log-odds of a correct label, and the fraction of wrong labels."""

    slope: float
    fraction: float


def find_label_issues(
    samples: Sequence[Sample],
    embeddings: NDArray[np.floating],
    groups: NDArray[np.int64],
    usable: NDArray[np.bool_],
    *,
    duplicate_groups: NDArray[np.int64] | None = None,
    columns: Columns | None = None,
    seed: int = 0,
    on_fold: Callable[[int], None] | None = None,
) -> LabelIssues:
    """Find labels that are probably wrong.

    Args:
        samples: ``N`` samples.
        embeddings: ``[N, D]``, of a network that never saw these labels; may be memory-mapped.
        groups: ``int64 [N]``; images with one number (duplicates, persons) are in one fold.
        usable: which images are scored, ``bool [N]``.
        duplicate_groups: ``int64 [N]``; images with one number are one photo.
        columns: further columns of the metadata table, to find slices by.
        seed: of the folds.
        on_fold: called with the number of folds done.
    """
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    scores = out_of_fold_scores(embeddings, labels, groups, usable, seed=seed, on_fold=on_fold)
    return score_labels(samples, scores, usable, duplicate_groups, columns)


def out_of_fold_scores(
    embeddings: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    usable: NDArray[np.bool_],
    *,
    seed: int = 0,
    on_fold: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Score every image by a model that was fitted to neither it nor its group.

    Args:
        embeddings: ``[N, D]``; may be memory-mapped.
        labels: index into ``LABELS``, ``int64 [N]``.
        groups: ``int64 [N]``; images with one number are in one fold.
        usable: which images are scored, ``bool [N]``.
        seed: of the folds.
        on_fold: called with the number of folds done.

    Returns:
        Log-odds of ``LABELS[1]``, ``float64 [N]``; 0 where no model can be fitted.
    """
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros(len(labels))
    names, inverse = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[inverse] % FOLDS
    rows = np.flatnonzero(usable)
    if not len(rows):
        return scores
    mean, std = _moments(embeddings, rows)

    def standardized(some: NDArray[np.int64]) -> NDArray[np.float32]:
        return (read_rows(embeddings, some).astype(np.float32) - mean) / std

    for number in range(FOLDS):
        training, held_out = rows[fold[rows] != number], rows[fold[rows] == number]
        if len(held_out) and len(np.unique(labels[training])) == len(LABELS):
            # the largest array of the audit
            features = np.empty((len(training), embeddings.shape[1]), np.float32)
            for start in range(0, len(training), _READ_ROWS):
                block = slice(start, start + _READ_ROWS)
                features[block] = standardized(training[block])
            model = LogisticRegression(C=_REGULARIZATION, max_iter=300)
            model.fit(features, labels[training])
            del features
            for start in range(0, len(held_out), _READ_ROWS):
                members = held_out[start : start + _READ_ROWS]
                scores[members] = model.decision_function(standardized(members))
        if on_fold:
            on_fold(number + 1)
    return scores


def _moments(
    embeddings: NDArray[np.floating], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute mean and standard deviation of every feature, over a part of the images."""
    some = read_rows(embeddings, rows[:: max(1, len(rows) // _READ_ROWS)]).astype(np.float32)
    return some.mean(0), some.std(0) + 1e-3


def score_labels(
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    usable: NDArray[np.bool_],
    duplicate_groups: NDArray[np.int64] | None = None,
    columns: Columns | None = None,
) -> LabelIssues:
    """Convert out-of-fold scores into probabilities that labels are wrong.

    Args:
        samples: ``N`` samples.
        scores: what :func:`out_of_fold_scores` returned.
        usable: which images have a score, ``bool [N]``.
        duplicate_groups: ``int64 [N]``; images with one number are one photo.
        columns: further columns of the metadata table, to find slices by.
    """
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    ages = [age_in_years(sample.age) for sample in samples]
    is_old_enough = np.array([age is None or age >= MIN_AGE for age in ages], bool)
    rows = np.flatnonzero(usable & is_old_enough)
    p_wrong = np.full(len(labels), np.nan)
    flagged = np.zeros(len(labels), bool)
    if len(rows) < 2 * FOLDS:
        return LabelIssues(p_wrong, flagged, ())
    smoothed, majority = _with_persons(samples, scores, labels, rows)
    margin = np.where(labels == 1, 1.0, -1.0) * smoothed
    overall = _fit_noise(margin[rows])
    for members in _file_groups(samples, rows):
        noise = _fit_noise(margin[members]) if len(members) >= _MIN_GROUP else overall
        p_wrong[members] = _posterior(margin[members], noise)
    p_label = expit(np.clip(overall.slope * margin, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))
    slices = find_slices(samples, p_label, labels, rows, columns)
    for found in slices:
        members = np.array(found.rows)
        noise = _NoiseModel(overall.slope, found.disagreeing / found.images)
        p_wrong[members] = np.maximum(p_wrong[members], _posterior(margin[members], noise))
    p_wrong[rows] = _add_log_odds(p_wrong[rows], _LOG_ODDS_CORRECTION)
    if duplicate_groups is not None:
        mixed = _with_both_labels(duplicate_groups, labels, rows)
        noise = _NoiseModel(overall.slope, _MIXED_DUPLICATE_NOISE)
        p_wrong[mixed] = np.maximum(p_wrong[mixed], _posterior(margin[mixed], noise))
    minority = np.flatnonzero(majority == -1)
    p_wrong[minority] = _add_log_odds(p_wrong[minority], _MINORITY_LOG_ODDS)
    flagged[rows] = p_wrong[rows] >= FLAG_THRESHOLD
    return LabelIssues(p_wrong, flagged, tuple(slices))


def _add_log_odds(probability: NDArray[np.float64], log_odds: float) -> NDArray[np.float64]:
    result: NDArray[np.float64] = expit(logit(np.clip(probability, 1e-9, 1 - 1e-9)) + log_odds)
    return result


def _with_both_labels(
    duplicate_groups: NDArray[np.int64], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the images with a duplicate under the other label."""
    size = duplicate_groups.max() + 1
    ones = np.bincount(duplicate_groups[rows], labels[rows], minlength=size)
    count = np.bincount(duplicate_groups[rows], minlength=size)
    is_mixed = (ones > 0) & (ones < count)
    found: NDArray[np.int64] = rows[is_mixed[duplicate_groups[rows]]]
    return found


def _with_persons(
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Use a person's other images, where the metadata table names persons.

    Returns:
        The scores, averaged with the mean of the person's other images; and for each image whether
        its label is that of the person's majority (1), the other one (-1), or there is none (0).
    """
    persons: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if samples[row].person:
            persons[samples[row].person].append(int(row))
    smoothed, majority = scores.copy(), np.zeros(len(scores), np.int8)
    for person in persons.values():
        if len(person) < 2:
            continue
        members = np.array(person)
        count, ones = len(members), labels[members].sum()
        others = (scores[members].sum() - scores[members]) / (count - 1)
        smoothed[members] = (1 - _PERSON_WEIGHT) * scores[members] + _PERSON_WEIGHT * others
        if count >= _MIN_PERSON and 2 * ones != count:
            majority[members] = np.where(labels[members] == (2 * ones > count), 1, -1)
    return smoothed, majority


def _file_groups(samples: Sequence[Sample], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Group images by origin: the source in the metadata table, or the prefix of the name."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        found[samples[row].source or prefix(samples[row].file)].append(int(row))
    small = [name for name, members in found.items() if len(members) < _MIN_GROUP]
    rest = [row for name in small for row in found.pop(name)]
    return [np.array(members) for members in (*found.values(), rest) if members]


def _fit_noise(margin: NDArray[np.float64]) -> _NoiseModel:
    """Fit the noise model to margins by maximum likelihood.

    P(label as given | margin) = (1 - e) s + e (1 - s), with s the logistic function of the margin
    times the slope, and a weak prior of 2 % wrong labels. The fraction e is at least 2 %: labels
    that are wrong for a reason have less extreme scores than labels that are wrong at random.
    """

    def loss(values: NDArray[np.float64]) -> float:
        slope, fraction = np.exp(values[0]), _MAX_NOISE * expit(values[1])
        p_label = expit(np.clip(slope * margin, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))
        likelihood = (1 - fraction) * p_label + fraction * (1 - p_label)
        # as if the labels of 100 further images had been checked
        prior = 2 * np.log(fraction) + 98 * np.log1p(-fraction)
        return float(-(np.log(likelihood).sum() + prior))

    best = minimize(loss, np.array([0.0, -2.5]), method="Nelder-Mead")
    fraction = float(_MAX_NOISE * expit(best.x[1]))
    return _NoiseModel(float(np.exp(best.x[0])), max(fraction, _MIN_NOISE))


def _posterior(margin: NDArray[np.float64], noise: _NoiseModel) -> NDArray[np.float64]:
    """Compute the probability that a label is wrong, given its margin."""
    p_label = expit(np.clip(noise.slope * margin, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))
    wrong = noise.fraction * (1 - p_label)
    result: NDArray[np.float64] = wrong / (wrong + (1 - noise.fraction) * p_label)
    return result
