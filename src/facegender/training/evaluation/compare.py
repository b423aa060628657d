"""Compare two networks on the same images: is the difference in accuracy significant?

McNemar's exact test: of the images that only one of the two answers correctly, how often is it each
of them (Q. McNemar, "Note on the sampling error of the difference between correlated proportions",
Psychometrika 1947). The interval of the difference is from a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from facegender.errors import InputError
from facegender.training.evaluation.intervals import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    percentile_interval,
)
from facegender.training.evaluation.predictions_table import PredictionsTable

_SEED = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of two networks on one group of images.

    Attributes:
        name: of the group.
        count: images.
        first: accuracy of the first network.
        second: accuracy of the second.
        only_first: images that only the first answers correctly.
        only_second: images that only the second answers correctly.
        difference: accuracy of the second minus that of the first.
        interval: 95% interval of the difference.
        p_value: probability of counts at least as uneven if neither network is better.
        is_significant: whether it is below 5%; for sources with Holm's correction.
    """

    name: str
    count: int
    first: float
    second: float
    only_first: int
    only_second: int
    difference: float
    interval: Interval
    p_value: float
    is_significant: bool

    def verdict(self) -> str:
        """Say in one sentence whether the difference is significant."""
        if not self.is_significant:
            return f"No significant difference on {self.count:,} images (p = {self.p_value:.2f})."
        better = "second" if self.difference > 0 else "first"
        return (
            f"The {better} is significantly better on {self.count:,} images, by "
            f"{100 * abs(self.difference):.2f} points (p = {self.p_value:.2g})."
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two predictions tables compared.

    Attributes:
        overall: on all compared images.
        sources: by source.
        only_in_first: images that only the first table has.
        only_in_second: images that only the second table has.
        trained_on: images left out because one of the networks was trained on them.
        other_label: images left out because their labels differ between the tables.
    """

    overall: Difference
    sources: list[Difference]
    only_in_first: int
    only_in_second: int
    trained_on: int
    other_label: int


def compare(
    first: PredictionsTable, second: PredictionsTable, *, subset: str | None = None
) -> Comparison:
    """Compare two tables on the images that both have, identified by archive and name.

    Args:
        first: the baseline.
        second: what may be better or worse.
        subset: only images that are in this subset in both tables; None is all that neither
            network was trained on.

    Raises:
        InputError: no image in common can be compared.
    """
    rows_by_key = [
        {(one.archive, one.file): row for row, one in enumerate(table.samples)}
        for table in (first, second)
    ]
    common = [key for key in rows_by_key[0] if key in rows_by_key[1]]
    rows, trained_on, other_label = [], 0, 0
    for key in common:
        one, two = rows_by_key[0][key], rows_by_key[1][key]
        subsets = (first.subsets[one], second.subsets[two])
        if subset is None and "train" in subsets:
            trained_on += 1
        elif subset is not None and set(subsets) != {subset}:
            continue
        elif first.samples[one].label != second.samples[two].label:
            other_label += 1
        else:
            rows.append((one, two))
    if not rows:
        why = f"{trained_on:,} were trained on, {other_label:,} have two labels"
        where = f" in the subset {subset!r}" if subset else ""
        raise InputError(
            f"The tables have {len(common):,} images in common ({why}): none is left to compare"
            f"{where}. Evaluate both networks on the same archives: "
            "'facegender evaluate ... --predictions FILE.csv'"
        )
    a, b = first.pick([row for row, _ in rows]), second.pick([row for _, row in rows])
    sources = np.array([sample.source for sample in a.samples])
    by_source = [
        _difference(name, a.correct[sources == name], b.correct[sources == name])
        for name in sorted(set(sources.tolist()))
        if name
    ]
    return Comparison(
        overall=_difference("all", a.correct, b.correct),
        sources=_holm_corrected(by_source),
        only_in_first=len(rows_by_key[0]) - len(common),
        only_in_second=len(rows_by_key[1]) - len(common),
        trained_on=trained_on,
        other_label=other_label,
    )


def _difference(name: str, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Compare correct answers on one group of images, ``bool [N]`` each."""
    count = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_second, discordant).pvalue) if discordant else 1.0
    # drawing images with replacement is one multinomial draw of how many are in each cell
    cells = np.array([only_first, only_second, count - discordant]) / count
    drawn = np.random.default_rng(_SEED).multinomial(count, cells, RESAMPLES)
    return Difference(
        name=name,
        count=count,
        first=round(float(first.mean()), 5),
        second=round(float(second.mean()), 5),
        only_first=only_first,
        only_second=only_second,
        difference=round((only_second - only_first) / count, 5),
        interval=percentile_interval((drawn[:, 1] - drawn[:, 0]) / count),
        p_value=p_value,
        is_significant=p_value < 1.0 - CONFIDENCE,
    )


def _holm_corrected(found: Sequence[Difference]) -> list[Difference]:
    """Decide which of several differences are significant, with a familywise error rate of 5%.

    S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(found)), key=lambda row: found[row].p_value)
    significant: set[int] = set()
    for position, row in enumerate(order):
        if found[row].p_value * (len(found) - position) >= 1.0 - CONFIDENCE:
            break
        significant.add(row)
    return [replace(one, is_significant=row in significant) for row, one in enumerate(found)]
