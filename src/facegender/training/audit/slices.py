"""Whole batches of files that look mislabelled: a folder, a date, a value of a table, a stretch.

Wrong labels often come together: a folder was sorted by someone tired, a column slipped by a row.
Each group of files that share something is tested for how many of its labels the scores speak
against, compared with all other files of that label (hypergeometric), and every stretch of files
that follow each other in the archive, in the table or by name likewise. A group of hard pictures
is no batch: there the scores are unsure, and few of those against a label are sure of the other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from natsort import natsort_keygen
from numpy.typing import NDArray
from scipy.stats import hypergeom

from facegender.model.model_file import LABELS
from facegender.training.data.samples import Columns, Sample

SURE = 0.1
"""A score speaks surely against a label that it gives less than this probability."""

_LEAST = 8  # pictures
_AGAINST, _SURELY = 0.5, 0.25  # least shares of a batch: both of these,
_MOSTLY = 0.75  # or so many against, sure or not;
_SURE_ENOUGH = 0.6  # and of those against so many surely, or else it is old people, or children
_CHANCE = 1e-4  # of any batch at all, where labels are wrong here and there
_STRETCH_SHARE = 0.5  # of a stretch that is surely spoken against, as it is looked for
_DROP = 8.0  # a stretch ends where its score has fallen by so much
_COVERED = 0.5  # of a batch's pictures against: what others have said already
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True)
class Slice:
    """A group of files whose labels disagree with the scores together.

    Attributes:
        kind: what its files share: ``folder``, ``prefix``, ``part of the name``, ``date``,
            ``archive``, a column of the table, two of them (``age and race``), or an order in which
            they follow each other (``order in the archive``, ``of the table``, ``of names``).
        name: the shared text; of a stretch the first and last file.
        label: the label that they carry.
        images: how many there are.
        against: how many of them the scores speak against.
        surely: and how many surely.
        chance: how probable any such batch would be if wrong labels were spread evenly; corrected
            for all that was tested.
        rows: the pictures.
    """

    kind: str
    name: str
    label: str
    images: int
    against: int
    surely: int
    chance: float
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Label:
    """All judged pictures of one label, and how many of them are (surely) spoken against."""

    name: str
    rows: NDArray[np.int64]
    against: int
    surely: int


def find_slices(
    samples: Sequence[Sample],
    right: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: Columns | None = None,
) -> list[Slice]:
    """Find groups and stretches of files that the scores speak against in numbers.

    A batch has 8 pictures of one label or more, of which three quarters are spoken against, or half
    and a quarter surely; of those spoken against six in ten are so surely, if it is not one person.
    And chance would hardly bring it about: the hypergeometric probability, times 2 for the two ways
    and times the number of groups (for stretches: of all possible stretches), is below 1e-4. Of
    batches that hold the same files the least probable is given.

    Args:
        samples: all pictures.
        right: how probable each label is by its score alone, ``[N]``, 0 to 1.
        labels: index into ``LABELS``, ``[N]``.
        rows: the pictures that are judged.
        columns: what else a table says of them.

    Returns:
        The least probable first.
    """
    sure = right < SURE
    of_label = {
        label: _Label(
            LABELS[label],
            at := rows[labels[rows] == label],
            int((right[at] < 0.5).sum()),
            int(sure[at].sum()),
        )
        for label in np.unique(labels[rows]).tolist()
    }
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for row in rows.tolist():
        for mark in _marks(samples[row], columns, row):
            groups[*mark, int(labels[row])].append(row)
    tested = {key: at for key, at in groups.items() if len(at) >= _LEAST}
    found = [
        _weighed(kind, text, of_label[label], at, right, len(tested))
        for (kind, text, label), at in tested.items()
    ]
    for kind, order in _orders(samples, columns, rows):
        for label, every in of_label.items():
            line = order[labels[order] == label]
            stretches = len(line) * (len(line) + 1) // 2
            for at in _stretches(line, sure, every.surely / max(1, len(every.rows))):
                name = f"{samples[at[0]].file} to {samples[at[-1]].file}"
                found.append(_weighed(kind, name, of_label[label], at, right, stretches))
    found = [batch for batch in found if batch.chance < _CHANCE]
    found.sort(key=lambda batch: (batch.chance, -batch.against, batch.kind, batch.name))
    said: set[int] = set()
    kept = []
    for batch in found:
        against = {row for row in batch.rows if right[row] < 0.5}
        if len(against & said) < _COVERED * len(against):
            kept.append(batch)
            said |= against
    return kept


def _weighed(
    kind: str,
    name: str,
    every: _Label,
    rows: Sequence[int],
    right: NDArray[np.float64],
    tests: int,
) -> Slice:
    """Count what speaks against some files, and how probable that would be by chance."""
    at = np.array(rows)
    surely, against = int((right[at] < SURE).sum()), int((right[at] < 0.5).sum())
    chance = 1.0
    is_sure = kind == "person" or surely >= _SURE_ENOUGH * against  # one person is no hard group
    if is_sure and surely >= _SURELY * len(at) and against >= _AGAINST * len(at):
        chance = float(hypergeom.sf(surely - 1, len(every.rows), every.surely, len(at)))
    if is_sure and against >= _MOSTLY * len(at):
        way = float(hypergeom.sf(against - 1, len(every.rows), every.against, len(at)))
        chance = min(chance, way)
    chance = min(1.0, 2 * tests * chance)
    return Slice(kind, name, every.name, len(at), against, surely, chance, tuple(rows))


def _marks(sample: Sample, columns: Columns | None, row: int) -> set[tuple[str, str]]:
    """What a file may share with a batch of others: kinds and texts."""
    folder, _, name = sample.file.rpartition("/")
    stem = name.rsplit(".", 1)[0].lower()
    facts = {"source": sample.source, "age": sample.age, "race": sample.race}
    facts |= {kind: values[row] for kind, values in columns.values.items()} if columns else {}
    marks = {("prefix", prefix(name)), ("person", sample.person), ("archive", sample.archive)}
    marks.add(("folder", f"{sample.archive}/{folder}"))
    marks |= {("part of the name", subset) for subset in re.split(r"[\W_]+", stem)}
    marks |= {("date", "-".join(date)) for date in _DATE.findall(stem)}
    marks |= set(facts.items())
    known = [(kind, text) for kind, text in facts.items() if text]
    marks |= {
        (f"{kind} and {other}", f"{text}, {text_2}")
        for (kind, text), (other, text_2) in combinations(known, 2)
    }
    return {(kind, text) for kind, text in marks if text}


def prefix(file: str) -> str:
    """Give the letters that a file's name begins with, in lower case."""
    found = re.match(r"[^\W\d_]+", file.rsplit("/", 1)[-1])
    return found.group().lower() if found else ""


def _orders(
    samples: Sequence[Sample], columns: Columns | None, rows: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Give the pictures in each order in which a batch may lie together."""
    yield "order in the archive", rows
    key = natsort_keygen()
    names = sorted(rows.tolist(), key=lambda row: key(samples[row].file.rsplit("/", 1)[-1]))
    yield "order of names", np.array(names, np.int64)
    if columns:
        lines = np.array(columns.lines)
        listed = rows[lines[rows] > 0]
        yield "order of the table", listed[np.argsort(lines[listed], kind="stable")]


def _stretches(
    line: NDArray[np.int64], sure: NDArray[np.bool_], usual: float
) -> Iterator[list[int]]:
    """Find the stretches of a line of files in which the sure ones lie close together.

    Each file counts by how much likelier it is in a batch than outside; a stretch begins where the
    sum rises and ends at its height.
    """
    usual = min(max(usual, 1e-4), _STRETCH_SHARE)
    gain = np.log(_STRETCH_SHARE / usual)
    loss = np.log((1 - _STRETCH_SHARE) / (1 - usual))
    worth = [float(gain if is_sure else loss) for is_sure in sure[line]]
    at = start = end = 0
    height = total = 0.0
    while at < len(worth) or end > start:
        if at < len(worth) and total + worth[at] > max(0.0, height - _DROP):
            total += worth[at]
            at += 1
            if total > height:
                height, end = total, at
            continue
        if end - start >= _LEAST:
            yield line[start:end].tolist()
        at = start = end = end if end > start else at + 1
        height = total = 0.0
