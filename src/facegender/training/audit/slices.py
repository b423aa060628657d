"""Slices of a dataset in which many labels look wrong: a folder, a date, a column value, a run.

Label errors often come together: a folder was sorted into the wrong class, a column slipped by one
row. Each group of files with something in common is tested for how many of its labels disagree
with the model scores, compared with all other files of that label (hypergeometric test); so is
every run of files that are consecutive in the archive, in the metadata table or by name. Images
that are merely hard do not make a slice: their scores are unsure, and few of the disagreeing ones
disagree confidently.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from natsort import natsort_keygen
from numpy.typing import NDArray
from scipy.stats import hypergeom

from facegender.model.model_file import LABELS
from facegender.training.data.samples import Columns, Sample

CONFIDENT = 0.1
"""A score disagrees confidently with a label to which it gives less than this probability."""

_MIN_IMAGES = 8
_MIN_DISAGREEING, _MIN_CONFIDENT = 0.5, 0.25  # fractions of a slice: either both of these,
_MOSTLY_DISAGREEING = 0.75  # or this fraction disagreeing, confidently or not;
_CONFIDENT_FRACTION = 0.6  # and of those this fraction confidently, or else it is age groups
_MAX_P_VALUE = 1e-4  # of any slice at all, if label errors are independent
_RUN_FRACTION = 0.5  # assumed fraction of confident disagreement within a run
_RUN_DROP = 8.0  # a run ends where its log-likelihood ratio has fallen by this much
_MAX_COVERED = 0.5  # of the disagreeing images of a slice that earlier slices have, too
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True)
class Slice:
    """A group of files whose labels disagree with the scores together.

    Attributes:
        kind: what the files share: ``folder``, ``prefix``, ``part of the name``, ``date``,
            ``archive``, a column of the metadata table, two of them (``age and race``), or an
            order in which they are consecutive (``order in the archive``, ``order in the table``,
            ``order of names``).
        name: the shared text; of a run the first and the last file.
        label: the label of all its files.
        images: number of files.
        disagreeing: how many labels disagree with the scores.
        confidently_disagreeing: how many of these do so confidently (:data:`CONFIDENT`).
        p_value: probability of any such slice if label errors were independent, corrected for the
            number of tests.
        rows: the files.
    """

    kind: str
    name: str
    label: str
    images: int
    disagreeing: int
    confidently_disagreeing: int
    p_value: float
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _LabelTotals:
    """All scored files of one label, and how many of them disagree (confidently)."""

    name: str
    rows: NDArray[np.int64]
    disagreeing: int
    confidently_disagreeing: int


def find_slices(
    samples: Sequence[Sample],
    p_label: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: Columns | None = None,
) -> list[Slice]:
    """Find groups and runs of files whose labels disagree with the scores in large numbers.

    A slice has 8 images of one label or more; three quarters of its labels disagree, or half, and
    a quarter confidently. Six in ten of the disagreeing do so confidently, unless the slice is one
    person. The hypergeometric probability, times 2 for the two tests and times the number of
    groups (for runs: of all possible runs), is below 1e-4. Of slices with the same files, the one
    with the smallest p-value is returned.

    Args:
        samples: ``N`` samples.
        p_label: probability of each label by the score of its image alone, ``float64 [N]``.
        labels: index into ``LABELS``, ``int64 [N]``.
        rows: the scored images.
        columns: further columns of the metadata table.

    Returns:
        Slices, the smallest p-value first.
    """
    totals = {
        label: _LabelTotals(
            LABELS[label],
            members := rows[labels[rows] == label],
            int((p_label[members] < 0.5).sum()),
            int((p_label[members] < CONFIDENT).sum()),
        )
        for label in np.unique(labels[rows]).tolist()
    }
    found = [
        *_test_groups(samples, p_label, labels, rows, columns, totals),
        *_test_runs(samples, p_label, labels, rows, columns, totals),
    ]
    found = [one for one in found if one.p_value < _MAX_P_VALUE]
    found.sort(key=lambda one: (one.p_value, -one.disagreeing, one.kind, one.name))
    covered: set[int] = set()
    slices = []
    for one in found:
        disagreeing = {row for row in one.rows if p_label[row] < 0.5}
        if len(disagreeing & covered) < _MAX_COVERED * len(disagreeing):
            slices.append(one)
            covered |= disagreeing
    return slices


def prefix(file: str) -> str:
    """Give the letters that a file's name begins with, in lower case."""
    found = re.match(r"[^\W\d_]+", file.rsplit("/", 1)[-1])
    return found.group().lower() if found else ""


def _test_groups(
    samples: Sequence[Sample],
    p_label: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: Columns | None,
    totals: Mapping[int, _LabelTotals],
) -> Iterator[Slice]:
    """Test every group of files of one label that share something."""
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for row in rows.tolist():
        for trait in _traits(samples[row], columns, row):
            groups[*trait, int(labels[row])].append(row)
    tested = {key: members for key, members in groups.items() if len(members) >= _MIN_IMAGES}
    for (kind, name, label), members in tested.items():
        yield _test(kind, name, totals[label], members, p_label, len(tested))


def _test_runs(
    samples: Sequence[Sample],
    p_label: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: Columns | None,
    totals: Mapping[int, _LabelTotals],
) -> Iterator[Slice]:
    """Test the runs of files of one label with the most confident disagreement."""
    is_confident = p_label < CONFIDENT
    for kind, order in _orders(samples, columns, rows):
        for label, total in totals.items():
            line = order[labels[order] == label]
            usual = total.confidently_disagreeing / max(1, len(total.rows))
            for members in _runs(line, is_confident, usual):
                name = f"{samples[members[0]].file} to {samples[members[-1]].file}"
                tests = len(line) * (len(line) + 1) // 2
                yield _test(kind, name, total, members, p_label, tests)


def _test(
    kind: str,
    name: str,
    total: _LabelTotals,
    rows: Sequence[int],
    p_label: NDArray[np.float64],
    tests: int,
) -> Slice:
    """Count the disagreement in some files, and compute its p-value."""
    members = np.array(rows)
    count = len(members)
    confident = int((p_label[members] < CONFIDENT).sum())
    disagreeing = int((p_label[members] < 0.5).sum())
    p_value = 1.0
    # a person is no group of hard images, whose scores are unsure
    if kind == "person" or confident >= _CONFIDENT_FRACTION * disagreeing:
        if confident >= _MIN_CONFIDENT * count and disagreeing >= _MIN_DISAGREEING * count:
            p_value = float(
                hypergeom.sf(confident - 1, len(total.rows), total.confidently_disagreeing, count)
            )
        if disagreeing >= _MOSTLY_DISAGREEING * count:
            second = float(hypergeom.sf(disagreeing - 1, len(total.rows), total.disagreeing, count))
            p_value = min(p_value, second)
    p_value = min(1.0, 2 * tests * p_value)
    return Slice(kind, name, total.name, count, disagreeing, confident, p_value, tuple(rows))


def _traits(sample: Sample, columns: Columns | None, row: int) -> set[tuple[str, str]]:
    """List what a file may share with others, as kind and text."""
    folder, _, name = sample.file.rpartition("/")
    stem = name.rsplit(".", 1)[0].lower()
    facts = {"source": sample.source, "age": sample.age, "race": sample.race}
    facts |= {kind: values[row] for kind, values in columns.values.items()} if columns else {}
    traits = {("prefix", prefix(name)), ("person", sample.person), ("archive", sample.archive)}
    traits.add(("folder", f"{sample.archive}/{folder}"))
    traits |= {("part of the name", part) for part in re.split(r"[\W_]+", stem)}
    traits |= {("date", "-".join(date)) for date in _DATE.findall(stem)}
    traits |= set(facts.items())
    known = [(kind, text) for kind, text in facts.items() if text]
    traits |= {
        (f"{kind} and {other}", f"{text}, {other_text}")
        for (kind, text), (other, other_text) in combinations(known, 2)
    }
    return {(kind, text) for kind, text in traits if text}


def _orders(
    samples: Sequence[Sample], columns: Columns | None, rows: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Give the rows in each order in which the files of a slice may be consecutive."""
    yield "order in the archive", rows
    key = natsort_keygen()
    names = sorted(rows.tolist(), key=lambda row: key(samples[row].file.rsplit("/", 1)[-1]))
    yield "order of names", np.array(names, np.int64)
    if columns:
        lines = np.array(columns.lines)
        listed = rows[lines[rows] > 0]
        yield "order in the table", listed[np.argsort(lines[listed], kind="stable")]


def _runs(
    line: NDArray[np.int64], is_confident: NDArray[np.bool_], usual: float
) -> Iterator[list[int]]:
    """Find the runs of a line of files in which confident disagreement is dense.

    Each file adds its log-likelihood ratio of being in such a run or not; a run starts where the
    sum rises and ends at its maximum.

    Args:
        line: rows in order.
        is_confident: which labels the scores disagree with confidently, ``bool [N]``.
        usual: fraction of these among all files of the label.
    """
    usual = min(max(usual, 1e-4), _RUN_FRACTION)
    gain = np.log(_RUN_FRACTION / usual)
    loss = np.log((1 - _RUN_FRACTION) / (1 - usual))
    ratios = [float(gain if one else loss) for one in is_confident[line]]
    position = start = end = 0
    maximum = total = 0.0
    while position < len(ratios) or end > start:
        if position < len(ratios) and total + ratios[position] > max(0.0, maximum - _RUN_DROP):
            total += ratios[position]
            position += 1
            if total > maximum:
                maximum, end = total, position
            continue
        if end - start >= _MIN_IMAGES:
            yield line[start:end].tolist()
        position = start = end = end if end > start else position + 1
        maximum = total = 0.0
