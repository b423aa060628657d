"""Two networks on the same pictures: is the difference between them real?

McNemar's test, exact: of the pictures that only one of the two gets right, how often is it the one
(Q. McNemar, "Note on the sampling error of the difference between correlated proportions",
Psychometrika 1947). The interval of the difference is of a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from facegender.errors import InputError
from facegender.training.evaluation.metrics import CONFIDENCE, RESAMPLES, percentiles
from facegender.training.evaluation.predictions_table import PredictionsTable

_SEED = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """How two networks differ on one group of pictures.

    ``difference`` is the second's accuracy minus the first's, ``interval`` its 95 % interval;
    ``only_first`` and ``only_second`` count what only one of them got right. ``p_value`` is the
    chance of counts at least as uneven if neither is better; ``is_real`` says whether it is below
    5 %, over all sources together where it is a source's (Holm's correction).
    """

    name: str
    count: int
    first: float
    second: float
    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    is_significant: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two score tables side by side: overall, by source, and what could not be compared.

    ``only_in_first`` and ``only_in_second`` count pictures that one table lacks; ``learned`` those
    left out because one of the two learned from them; ``other_label`` those that the tables label
    differently.
    """

    overall: Difference
    sources: list[Difference]
    only_in_first: int
    only_in_second: int
    learned: int
    other_label: int


def compare(
    first: PredictionsTable, second: PredictionsTable, *, subset: str | None = None
) -> Comparison:
    """Compare two score tables on the pictures that both hold, told by archive and name.

    Args:
        first: what is compared with.
        second: what may be better or worse.
        subset: only pictures that both have in this part; None takes all that neither learned from.

    Raises:
        InputError: they have no picture in common that can be compared.
    """
    places = [
        {(one.archive, one.file): row for row, one in enumerate(table.samples)}
        for table in (first, second)
    ]
    common = [key for key in places[0] if key in places[1]]
    rows, learned, other_label = [], 0, 0
    for key in common:
        one, two = places[0][key], places[1][key]
        subsets = (first.subsets[one], second.subsets[two])
        if subset is None and "train" in subsets:
            learned += 1
        elif subset is not None and set(subsets) != {subset}:
            continue
        elif first.samples[one].label != second.samples[two].label:
            other_label += 1
        else:
            rows.append((one, two))
    if not rows:
        why = f"{learned:,} of them were learned from, {other_label:,} have two labels"
        raise InputError(
            f"the tables have {len(common):,} pictures in common ({why}): none is left to compare"
            + (f" in the part {subset!r}" if subset else "")
            + ". Score both networks on the same archives: 'facegender evaluate ... --scores'"
        )
    a, b = first.pick([one for one, _ in rows]), second.pick([two for _, two in rows])
    sources = np.array([one.source for one in a.samples])
    groups = [name for name in sorted(set(sources.tolist())) if name]
    a_right, b_right = a.right, b.right
    found = [
        _difference(name, a_right[sources == name], b_right[sources == name]) for name in groups
    ]
    return Comparison(
        overall=_difference("all", a_right, b_right),
        sources=_corrected(found),
        only_in_first=len(places[0]) - len(common),
        only_in_second=len(places[1]) - len(common),
        learned=learned,
        other_label=other_label,
    )


def _difference(name: str, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Compare right answers on one group of pictures, side by side."""
    count = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_second, discordant).pvalue) if discordant else 1.0
    # drawing pictures with replacement is one draw of how many fall into each of three cells
    cells = np.array([only_first, only_second, count - discordant]) / count
    drawn = np.random.default_rng(_SEED).multinomial(count, cells, RESAMPLES)
    low, high = percentiles((drawn[:, 1] - drawn[:, 0]) / count)
    return Difference(
        name=name,
        count=count,
        first=round(float(first.mean()), 5),
        second=round(float(second.mean()), 5),
        only_first=only_first,
        only_second=only_second,
        difference=round((only_second - only_first) / count, 5),
        interval=(low, high),
        p_value=p_value,
        is_significant=p_value < 1.0 - CONFIDENCE,
    )


def _corrected(found: Sequence[Difference]) -> list[Difference]:
    """Say of several groups which differences are real, all together wrong in 5 % at most.

    S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(found)), key=lambda row: found[row].p_value)
    real: set[int] = set()
    for place, row in enumerate(order):
        if found[row].p_value * (len(found) - place) >= 1.0 - CONFIDENCE:
            break
        real.add(row)
    return [replace(one, is_significant=row in real) for row, one in enumerate(found)]
