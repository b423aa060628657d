"""Batches of wrong labels are found by what their files share, or how they follow each other."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.model.model_file import LABELS
from facegender.training.audit.slices import Slice, find_slices
from facegender.training.data.samples import Columns, Sample, read_columns

COUNT = 2000
BATCH = range(601, 649, 2)  # 24 files labelled LABELS[1], next to each other in the archive


def made(seed: int = 0) -> tuple[list[Sample], NDArray[np.float64]]:
    """Files with names that say nothing, in random order; 3 % of the labels look wrong."""
    rng = np.random.default_rng(seed)
    names = [f"{number:08x}" for number in rng.permutation(COUNT)]
    samples = [
        Sample("a.tar", f"{LABELS[n % 2]}/x{name}.png", LABELS[n % 2])
        for n, name in enumerate(names)
    ]
    right = np.where(rng.random(COUNT) < 0.03, 0.04, 0.97)
    return samples, right


def batches(
    samples: list[Sample], right: NDArray[np.float64], columns: Columns | None = None
) -> list[Slice]:
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    return find_slices(samples, right, labels, np.arange(len(samples)), columns)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_labels_here_and_there_are_no_batch(seed: int) -> None:
    samples, right = made(seed)
    rng = np.random.default_rng(seed)
    samples = [replace(sample, age=str(rng.integers(90)), race="xyz"[n % 3]) for n, sample in
               enumerate(samples)]  # fmt: skip
    assert batches(samples, right) == []


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"source": "web"}, "source", "web"),
        ({"age": "(25, 32)"}, "age", "(25, 32)"),
        ({"race": "other"}, "race", "other"),
        ({"person": "p7"}, "person", "p7"),
        ({"archive": "b.tar"}, "archive", "b.tar"),
        ({"file": "male/late/{}.png"}, "folder", "a.tar/male/late"),
        ({"file": "male/DSC{}.png"}, "prefix", "dsc"),
        ({"file": "male/x{}_cam2.png"}, "part of the name", "cam2"),
        ({"file": "male/2017-01-09x{}.png"}, "date", "2017-01-09"),
    ],
)
def test_what_a_batch_shares_is_named(change: dict[str, str], kind: str, name: str) -> None:
    samples, right = made()
    rng = np.random.default_rng(1)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:30])  # far apart from each other
    for row in rows:
        values = {key: text.format(f"{row:08x}") for key, text in change.items()}
        samples[row] = replace(samples[row], **values)
    right[rows[:27]] = 0.02
    (batch,) = batches(samples, right)
    assert (batch.kind, batch.name, batch.label) == (kind, name, LABELS[1])
    assert batch.rows == tuple(rows.tolist())
    assert (batch.images, batch.surely) == (30, int((right[rows] < 0.1).sum()))


@pytest.mark.parametrize("how", ["archive", "table", "names"])
def test_a_stretch_of_files_is_found_where_nothing_is_shared(how: str) -> None:
    samples, right = made()
    columns = None
    if how == "archive":
        rows = list(BATCH)
    else:
        rows = sorted(np.random.default_rng(2).permutation(np.arange(1, COUNT, 2))[:24].tolist())
    if how == "names":  # IMG_998 ... IMG_1021: in natural order, though not in the alphabet's
        for number, row in enumerate(rows):
            samples[row] = replace(samples[row], file=f"male/x{998 + number}a.png")
    if how == "table":
        lines = [2 + 50 * n for n in range(COUNT)]
        for number, row in enumerate(rows):
            lines[row] = 40_000 + number
        columns = Columns(lines, {})
    right[rows] = 0.02
    right[rows[7]] = 0.9  # one of them is right, or looks so
    (batch,) = batches(samples, right, columns)
    names = {"archive": "order in the archive", "table": "order of the table"}
    assert batch.kind == names.get(how, "order of names")
    assert batch.label == LABELS[1]
    assert (
        len({*batch.rows} & {*rows}) >= 23 and batch.images <= 30
    )  # a wrong one near by is drawn in
    first, last = batch.name.split(" to ")
    assert first == samples[batch.rows[0]].file and last == samples[batch.rows[-1]].file


def test_hard_images_are_no_batch_until_most_that_speak_against_are_sure() -> None:
    samples, right = made()
    rng = np.random.default_rng(3)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:60])
    for row in rows:
        samples[row] = replace(samples[row], age="5")
    right[rows] = np.where(np.arange(60) % 2, 0.4, 0.6)
    assert batches(samples, right) == []
    right[rows[:20]] = 0.05  # of 40 against
    assert batches(samples, right) == []
    right[rows[:30]] = 0.05  # of 45
    assert [batch.name for batch in batches(samples, right)] == ["5"]


def test_two_columns_together_name_what_none_does_alone() -> None:
    samples, right = made()
    rng = np.random.default_rng(4)
    for n in range(COUNT):
        samples[n] = replace(samples[n], age=str(20 + rng.integers(4)), race="abcd"[n // 2 % 4])
    rows = [n for n in range(1, COUNT, 2) if (samples[n].age, samples[n].race) == ("21", "c")]
    right[rows] = 0.03
    (batch,) = batches(samples, right)
    assert (batch.kind, batch.name, batch.rows) == ("age and race", "21, c", tuple(rows))


def test_any_column_of_a_table_is_looked_at(tmp_path: Path) -> None:
    samples, right = made()
    rng = np.random.default_rng(5)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:15])
    days = ["tuesday" if n in rows else "monday" for n in range(COUNT)]
    table = tmp_path / "table.csv"
    lines = [f"{samples[n].file},{days[n]}" for n in range(COUNT)]
    table.write_text("file,Scanned on\n" + "\n".join(lines[:-1]) + "\n", encoding="utf-8")
    columns = read_columns(table, samples)
    assert columns.values == {"scanned on": [*days[:-1], ""]}
    assert columns.lines == [*range(2, COUNT + 1), 0]
    right[rows] = 0.03
    (batch,) = batches(samples, right, columns)
    assert (batch.kind, batch.name) == ("scanned on", "tuesday")
    with pytest.raises(InputError, match="no column named `file`"):
        table.write_text("name\n", encoding="utf-8")
        read_columns(table, samples)


def test_the_chance_is_the_hypergeometric_one_times_the_tests() -> None:
    samples = [Sample("a.tar", f"male/{n:03}.png", "male") for n in range(100)]
    right = np.full(100, 0.9)
    rows = np.random.default_rng(0).permutation(100)[:10]
    for row in rows:
        samples[row] = replace(samples[row], person="p")
    right[rows[:9]] = 0.05
    others = [row for row in range(100) if row not in rows]
    right[others[::30]] = 0.05  # three more elsewhere
    wrong, drawn = 12, 10
    ways = sum(comb(wrong, k) * comb(100 - wrong, drawn - k) for k in (9, 10))
    (batch,) = batches(samples, right)
    tests = 3  # the folder, the archive, the person
    assert batch.kind == "person"
    assert batch.chance == pytest.approx(2 * tests * ways / comb(100, drawn), rel=1e-9)


def test_of_one_person_most_against_is_enough() -> None:
    samples, right = made()
    rows = np.arange(1, 400, 40)
    for row in rows:
        samples[row] = replace(samples[row], person="p7", age="7")
    right[rows] = 0.2
    assert [batch.kind for batch in batches(samples, right)] == ["person"]
    for row in rows:
        samples[row] = replace(samples[row], person="")
    assert batches(samples, right) == []
