"""Labels that are probably wrong: what each picture's label looks like to a model of the others.

A linear model on features that never saw these labels scores every picture out of fold: copies and
persons stay together, so nothing is scored by a model that has seen it. Labels that the scores
speak against are weighed with how common wrong labels seem to be, as confident learning does (C.
Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR 2021), here with a noise model for each
group of files: its tail, where the scores are sure and the labels still disagree, is the share of
wrong labels. So the list says for each label how probably it is wrong.
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
FLAGGED = 0.25
"""Probability of being wrong from which a label is flagged: chosen on made and on known faults, so
that nine in ten wrong labels are found and more than six in ten of the flagged are wrong."""

YOUNGEST = 4.0
"""Below this age in years a label cannot be seen in a face: never flagged by its score."""

_PENALTY = 2e-4  # C of the logistic regression; chosen on made faults
_LEAST_GROUP = 1000  # pictures from which a group of files gets a noise model of its own
_PERSON_SHARE = 0.5  # how much a person's other pictures count for a picture's score
_LEAST_PERSON = 4  # pictures of one person of which a majority is believed
_DISAGREES = 3.0  # what a person's majority adds, as log-odds
_SURE = 30.0
_READ = 8192
_LEAST_NOISE, _MOST_NOISE = 0.02, 0.35
_EVEN = 0.5  # of two labels of one photo, one is wrong
# The noise model takes hard pictures for pictures that may be either, and is too careful: added to
# its log-odds, from the flags that came true on made faults.
_CAREFUL = 1.4


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """How doubtful labels are, in the order of the pictures.

    Attributes:
        wrong: probability that the label is wrong, ``float64 [N]``; NaN where nothing is said
            (unreadable, or too young).
        flagged: ``bool [N]``.
        batches: groups of files that look mislabelled as a whole, the worst first.
    """

    wrong: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    batches: tuple[Slice, ...]


def find_label_issues(
    samples: Sequence[Sample],
    features: NDArray[np.floating],
    groups: NDArray[np.int64],
    use: NDArray[np.bool_],
    *,
    copies: NDArray[np.int64] | None = None,
    columns: Columns | None = None,
    seed: int = 0,
    on_fold: Callable[[int], None] | None = None,
) -> LabelIssues:
    """Find labels that are probably wrong.

    Args:
        samples: all pictures.
        features: ``[N, D]``, of weights that never saw these labels; may be memory-mapped.
        groups: ``[N]``; pictures of one number (copies, persons) are never apart.
        use: which pictures are readable and count.
        copies: ``[N]``; pictures of one number are one photo, and have one right label.
        columns: what else the table says of the pictures, to find batches by.
        seed: of the folds.
        on_fold: called with the number of folds done.
    """
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    scores = out_of_fold(features, labels, groups, use, seed=seed, on_fold=on_fold)
    return weigh(samples, scores, use, copies, columns)


def out_of_fold(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    use: NDArray[np.bool_],
    *,
    seed: int = 0,
    on_fold: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Score every picture by a model that has seen neither it nor its group.

    Returns:
        Log-odds of ``LABELS[1]``, ``[N]``; 0 where there is nothing to learn from.
    """
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros(len(labels))
    names, places = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[places] % FOLDS
    rows = np.flatnonzero(use)
    if not len(rows):
        return scores
    mean, scale = _spread(features, rows)

    def standard(some: NDArray[np.int64]) -> NDArray[np.float32]:
        return (read_rows(features, some).astype(np.float32) - mean) / scale

    for number in range(FOLDS):
        seen, asked = rows[fold[rows] != number], rows[fold[rows] == number]
        if len(asked) and len(np.unique(labels[seen])) == len(LABELS):
            known = np.empty((len(seen), features.shape[1]), np.float32)  # the largest thing here
            for start in range(0, len(seen), _READ):
                known[start : start + _READ] = standard(seen[start : start + _READ])
            model = LogisticRegression(C=_PENALTY, max_iter=300)
            model.fit(known, labels[seen])
            del known
            for start in range(0, len(asked), _READ):
                block = asked[start : start + _READ]
                scores[block] = model.decision_function(standard(block))
        if on_fold:
            on_fold(number + 1)
    return scores


def _spread(
    features: NDArray[np.floating], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of every feature, over a share of the pictures."""
    some = read_rows(features, rows[:: max(1, len(rows) // _READ)]).astype(np.float32)
    return some.mean(0), some.std(0) + 1e-3


def weigh(
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    use: NDArray[np.bool_],
    copies: NDArray[np.int64] | None = None,
    columns: Columns | None = None,
) -> LabelIssues:
    """Turn out-of-fold scores into probabilities that labels are wrong; see :class:`LabelIssues`."""
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    sign = np.where(labels == 1, 1.0, -1.0)
    ages = [age_in_years(sample.age) for sample in samples]
    is_old = np.array([age is None or age >= YOUNGEST for age in ages], bool)
    rows = np.flatnonzero(use & is_old)
    wrong = np.full(len(labels), np.nan)
    flagged = np.zeros(len(labels), bool)
    if len(rows) < 2 * FOLDS:
        return LabelIssues(wrong, flagged, ())
    smoothed, majority = _with_persons(samples, scores, labels, rows)
    margin = sign * smoothed
    of_group = _file_groups(samples, rows)
    everything = _fit_noise(margin[rows])
    for members in of_group:
        noise = _fit_noise(margin[members]) if len(members) >= _LEAST_GROUP else everything
        wrong[members] = _posterior(margin[members], noise)
    right = expit(np.clip(everything[0] * margin, -_SURE, _SURE))
    batches = find_slices(samples, right, labels, rows, columns)
    for batch in batches:
        members = np.array(batch.rows)
        share = batch.against / batch.images
        raised = _posterior(margin[members], (everything[0], share))
        wrong[members] = np.maximum(wrong[members], raised)
    wrong[rows] = expit(logit(np.clip(wrong[rows], 1e-9, 1 - 1e-9)) + _CAREFUL)
    if copies is not None and len(mixed := _under_both(copies, labels, rows)):
        raised = _posterior(margin[mixed], (everything[0], _EVEN))
        wrong[mixed] = np.maximum(wrong[mixed], raised)
    if minority := np.flatnonzero(majority == -1).tolist():
        prior = np.clip(wrong[minority], 1e-9, 1 - 1e-9)
        wrong[minority] = expit(logit(prior) + _DISAGREES)
    flagged[rows] = wrong[rows] >= FLAGGED
    return LabelIssues(wrong, flagged, tuple(batches))


def _under_both(
    copies: NDArray[np.int64], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the pictures of which a copy stands under the other label."""
    ones = np.bincount(copies[rows], labels[rows], minlength=copies.max() + 1)
    count = np.bincount(copies[rows], minlength=copies.max() + 1)
    is_mixed = (ones > 0) & (ones < count)
    found: NDArray[np.int64] = rows[is_mixed[copies[rows]]]
    return found


def _with_persons(
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Let a person's other pictures have a say, where the table names persons.

    Returns:
        The scores, drawn towards the mean of the person's other pictures; and for each picture
        whether its label is that of the person's majority (1), against it (-1), or neither (0).
    """
    persons: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if samples[row].person:
            persons[samples[row].person].append(int(row))
    smoothed, majority = scores.copy(), np.zeros(len(scores), np.int8)
    for members in persons.values():
        if len(members) < 2:
            continue
        at = np.array(members)
        others = (scores[at].sum() - scores[at]) / (len(at) - 1)
        smoothed[at] = (1 - _PERSON_SHARE) * scores[at] + _PERSON_SHARE * others
        ones = labels[at].sum()
        if len(at) >= _LEAST_PERSON and 2 * ones != len(at):
            majority[at] = np.where(labels[at] == (2 * ones > len(at)), 1, -1)
    return smoothed, majority


def _file_groups(samples: Sequence[Sample], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sort pictures by where they seem to come from: the table's source, or the name's prefix."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        found[samples[row].source or prefix(samples[row].file)].append(int(row))
    small = [name for name, members in found.items() if len(members) < _LEAST_GROUP]
    rest = [row for name in small for row in found.pop(name)]
    return [np.array(members) for members in (*found.values(), rest) if members]


def _fit_noise(margin: NDArray[np.float64]) -> tuple[float, float]:
    """Fit how margins and wrong labels hang together: slope, shift, and share of wrong labels.

    P(label as given | margin) = (1 - e) s + e (1 - s), with s the logistic function of the
    margin. Maximum likelihood, with a weak prior of 2 % wrong. A share below that is taken for 2 %:
    labels that are wrong for a reason are not as far out in the scores as wrong ones by chance.
    """

    def loss(values: NDArray[np.float64]) -> float:
        slope, share = np.exp(values[0]), _MOST_NOISE * expit(values[1])
        right = expit(np.clip(slope * margin, -_SURE, _SURE))
        given = (1 - share) * right + share * (1 - right)
        # as if the labels of 100 more pictures had been looked at
        prior = 2 * np.log(share) + 98 * np.log1p(-share)
        return float(-(np.log(given).sum() + prior))

    best = minimize(loss, np.array([0.0, -2.5]), method="Nelder-Mead")
    share = float(_MOST_NOISE * expit(best.x[1]))
    return float(np.exp(best.x[0])), max(share, _LEAST_NOISE)


def _posterior(margin: NDArray[np.float64], noise: tuple[float, float]) -> NDArray[np.float64]:
    """Probability that a label is wrong, given its margin."""
    slope, share = noise
    right = expit(np.clip(slope * margin, -_SURE, _SURE))
    against = share * (1 - right)
    result: NDArray[np.float64] = against / (against + (1 - share) * right)
    return result
