"""Slices of wrong labels are found by what their files share, or by runs of consecutive files."""

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
RUN = range(601, 649, 2)  # 24 files labeled LABELS[1], next to each other in the archive


def made(seed: int = 0) -> tuple[list[Sample], NDArray[np.float64]]:
    """Files with names that say nothing, in random order; 3 % of the labels look wrong."""
    rng = np.random.default_rng(seed)
    names = [f"{number:08x}" for number in rng.permutation(COUNT)]
    samples = [
        Sample("a.tar", f"{LABELS[n % 2]}/x{name}.png", LABELS[n % 2])
        for n, name in enumerate(names)
    ]
    p_label = np.where(rng.random(COUNT) < 0.03, 0.04, 0.97)
    return samples, p_label


def slices(
    samples: list[Sample], p_label: NDArray[np.float64], columns: Columns | None = None
) -> list[Slice]:
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    return find_slices(samples, p_label, labels, np.arange(len(samples)), columns)


@pytest.mark.parametrize("seed", range(5))
def test_independent_label_errors_are_no_slice(seed: int) -> None:
    samples, p_label = made(seed)
    rng = np.random.default_rng(seed)
    samples = [replace(sample, age=str(rng.integers(90)), race="xyz"[n % 3]) for n, sample in
               enumerate(samples)]  # fmt: skip
    assert slices(samples, p_label) == []


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
def test_what_a_slice_shares_is_named(change: dict[str, str], kind: str, name: str) -> None:
    samples, p_label = made()
    rng = np.random.default_rng(1)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:30])  # far apart from each other
    for row in rows:
        values = {key: text.format(f"{row:08x}") for key, text in change.items()}
        samples[row] = replace(samples[row], **values)
    p_label[rows[:27]] = 0.02
    (found,) = slices(samples, p_label)
    assert (found.kind, found.name, found.label) == (kind, name, LABELS[1])
    assert found.rows == tuple(rows.tolist())
    assert (found.images, found.confidently_disagreeing) == (30, int((p_label[rows] < 0.1).sum()))


@pytest.mark.parametrize("how", ["archive", "table", "names"])
def test_a_run_of_files_is_found_where_nothing_is_shared(how: str) -> None:
    samples, p_label = made()
    columns = None
    if how == "archive":
        rows = list(RUN)
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
    p_label[rows] = 0.02
    p_label[rows[7]] = 0.9  # one of them looks right
    (found,) = slices(samples, p_label, columns)
    names = {"archive": "order in the archive", "table": "order in the table"}
    assert found.kind == names.get(how, "order of names")
    assert found.label == LABELS[1]
    assert (
        len({*found.rows} & {*rows}) >= 23 and found.images <= 30
    )  # a wrong one nearby is included
    first, last = found.name.split(" to ")
    assert first == samples[found.rows[0]].file and last == samples[found.rows[-1]].file


def test_hard_images_are_no_slice_until_most_that_disagree_do_so_confidently() -> None:
    samples, p_label = made()
    rng = np.random.default_rng(3)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:60])
    for row in rows:
        samples[row] = replace(samples[row], age="5")
    p_label[rows] = np.where(np.arange(60) % 2, 0.4, 0.6)
    assert slices(samples, p_label) == []
    p_label[rows[:20]] = 0.05  # of 40 against
    assert slices(samples, p_label) == []
    p_label[rows[:30]] = 0.05  # of 45
    assert [one.name for one in slices(samples, p_label)] == ["5"]


def test_two_columns_together_name_what_none_does_alone() -> None:
    samples, p_label = made()
    rng = np.random.default_rng(4)
    for n in range(COUNT):
        samples[n] = replace(samples[n], age=str(20 + rng.integers(4)), race="abcd"[n // 2 % 4])
    rows = [n for n in range(1, COUNT, 2) if (samples[n].age, samples[n].race) == ("21", "c")]
    p_label[rows] = 0.03
    (found,) = slices(samples, p_label)
    assert (found.kind, found.name, found.rows) == ("age and race", "21, c", tuple(rows))


def test_any_column_of_a_table_is_tested(tmp_path: Path) -> None:
    samples, p_label = made()
    rng = np.random.default_rng(5)
    rows = np.sort(rng.permutation(np.arange(1, COUNT, 2))[:15])
    days = ["tuesday" if n in rows else "monday" for n in range(COUNT)]
    table = tmp_path / "table.csv"
    lines = [f"{samples[n].file},{days[n]}" for n in range(COUNT)]
    table.write_text("file,Scanned on\n" + "\n".join(lines[:-1]) + "\n", encoding="utf-8")
    columns = read_columns(table, samples)
    assert columns.values == {"scanned on": [*days[:-1], ""]}
    assert columns.lines == [*range(2, COUNT + 1), 0]
    p_label[rows] = 0.03
    (found,) = slices(samples, p_label, columns)
    assert (found.kind, found.name) == ("scanned on", "tuesday")
    with pytest.raises(InputError, match="no column named `file`"):
        table.write_text("name\n", encoding="utf-8")
        read_columns(table, samples)


def test_the_p_value_is_the_hypergeometric_one_times_the_tests() -> None:
    samples = [Sample("a.tar", f"male/{n:03}.png", "male") for n in range(100)]
    p_label = np.full(100, 0.9)
    rows = np.random.default_rng(0).permutation(100)[:10]
    for row in rows:
        samples[row] = replace(samples[row], person="p")
    p_label[rows[:9]] = 0.05
    others = [row for row in range(100) if row not in rows]
    p_label[others[::30]] = 0.05  # three more elsewhere
    wrong, drawn = 12, 10
    ways = sum(comb(wrong, k) * comb(100 - wrong, drawn - k) for k in (9, 10))
    (found,) = slices(samples, p_label)
    tests = 3  # the folder, the archive, the person
    assert found.kind == "person"
    assert found.p_value == pytest.approx(2 * tests * ways / comb(100, drawn), rel=1e-9)


def test_of_one_person_most_disagreeing_is_enough() -> None:
    samples, p_label = made()
    rows = np.arange(1, 400, 40)
    for row in rows:
        samples[row] = replace(samples[row], person="p7", age="7")
    p_label[rows] = 0.2
    assert [one.kind for one in slices(samples, p_label)] == ["person"]
    for row in rows:
        samples[row] = replace(samples[row], person="")
    assert slices(samples, p_label) == []
