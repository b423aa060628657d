"""The split: no person in two subsets, fractions, a test subset that only grows, and its file."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegender.errors import InputError, OutputError
from facegender.training.data.samples import Sample
from facegender.training.data.split import (
    SUBSETS,
    Assignment,
    read_split,
    write_split,
)
from facegender.training.data.subsets import assign_subsets

ROW = st.tuples(
    st.sampled_from(["female", "male"]),
    st.sampled_from(["", "", "ann", "bob", "cid", "dee"]),
    st.sampled_from(["", "web"]),
    st.integers(0, 15).map(lambda number: f"{number:064x}"),
)


def listed(rows: list[tuple[str, str, str, str]]) -> tuple[list[Sample], list[str]]:
    samples = [
        Sample("a.tar", f"{label}/{number}.jpg", label, person=person, source=source)
        for number, (label, person, source, _) in enumerate(rows)
    ]
    return samples, [row[3] for row in rows]


def many(count: int, persons: int = 0) -> tuple[list[Sample], list[str]]:
    draw = random.Random(7)
    rows = [
        (
            draw.choice(["female", "male"]),
            f"p{draw.randrange(persons)}" if persons else "",
            draw.choice(["web", "film", ""]),
            f"{number:064x}",
        )
        for number in range(count)
    ]
    return listed(rows)


@given(st.lists(ROW, max_size=40), st.integers(), st.floats(0, 0.9), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_a_person_and_copies_are_in_one_subset(rows, seed, validation, test):
    samples, digests = listed(rows)
    split = assign_subsets(samples, digests, seed=seed, validation=validation, test=test)
    assert [item.sample for item in split] == samples
    assert all(item.subset in SUBSETS and len(item.group) == 16 for item in split)
    for name in ("group", "sha256", "person"):
        sides = defaultdict(set)
        for item in split:
            sides[item.sample.person if name == "person" else getattr(item, name)].add(item.subset)
        sides.pop("", None)
        assert all(len(subsets) == 1 for subsets in sides.values())


@given(st.lists(ROW, max_size=40), st.integers(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_samples_changes_nothing(rows, seed, shuffle):
    samples, digests = listed(rows)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    one = assign_subsets(samples, digests, seed=seed, test=0.3)
    two = assign_subsets(
        [samples[i] for i in order], [digests[i] for i in order], seed=seed, test=0.3
    )
    assert [one[i] for i in order] == two


@given(
    st.lists(ROW, max_size=30),
    st.lists(ROW, max_size=30),
    st.tuples(st.integers(), st.integers()),
    st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
)
@settings(max_examples=80, deadline=None)
def test_no_image_ever_leaves_the_test_subset(rows, added, seeds, fractions):
    less, more = sorted(fractions)
    before = assign_subsets(*listed(rows), seed=seeds[0], validation=0.5, test=less)
    after = assign_subsets(*listed(rows + added), seed=seeds[1], test=more)
    for old, new in zip(before, after, strict=False):
        assert old.subset != "test" or new.subset == "test"


def test_added_data_that_joins_no_groups_changes_no_test_membership():
    samples, digests = many(3000)
    before = assign_subsets(samples[:1000], digests[:1000], seed=1, test=0.2)
    after = assign_subsets(samples, digests, seed=2, test=0.2)[:1000]
    assert [item.subset == "test" for item in before] == [item.subset == "test" for item in after]


def test_the_test_subset_never_changes():
    samples = [Sample("a", f"male/{person}.jpg", "male", person) for person in "abcdefghij"]
    split = assign_subsets(samples, [f"{n:064x}" for n in range(10)], seed=0, test=0.5)
    assert "".join(item.sample.person for item in split if item.subset == "test") == "bcehi"


@pytest.mark.parametrize("persons", [0, 1500])
def test_the_fractions_are_near_those_asked_for(persons):
    split = assign_subsets(*many(6000, persons), seed=3, validation=0.25, test=0.15)
    count = Counter(item.subset for item in split)
    assert count["test"] / 6000 == pytest.approx(0.15, abs=0.03)
    strata = defaultdict(Counter)
    for item in split:
        if item.subset != "test":
            strata[item.sample.label, item.sample.source][item.subset] += 1
    for subsets in strata.values():
        near = 0.5 if not persons else 40  # a person may span several (label, source)
        assert abs(subsets["validation"] - 0.25 * subsets.total()) <= near
    rest = 6000 - count["test"]
    assert count["validation"] == pytest.approx(0.25 * rest, abs=4)


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ([1], 0.2, 0),
        ([1], 0.6, 1),
        ([3, 4, 3], 0.4, 4),
        ([3, 4, 3], 0.65, 6),
        ([50, 50], 0.2, 0),
        ([50, 50], 0.3, 50),
        ([7] * 10, 0.2, 14),
        ([1000] + [1] * 500, 0.2, 300),
        ([5] * 300, 0.2, 300),
    ],
)
def test_a_stratum_is_as_near_to_its_fraction_as_groups_allow(sizes, fraction, expected):
    rows = [("male", f"p{who}", "", "") for who, size in enumerate(sizes) for _ in range(size)]
    samples, _ = listed(rows)
    digests = [f"{number:064x}" for number in range(len(rows))]
    for seed in range(3):
        split = assign_subsets(samples, digests, seed=seed, validation=fraction)
        assert sum(item.subset == "validation" for item in split) == expected


def test_the_seed_chooses_the_validation_subset():
    samples, digests = many(200)
    one, again, two = (assign_subsets(samples, digests, seed=seed) for seed in (1, 1, 2))
    assert one == again != two
    assert [item.group for item in one] == [item.group for item in two]


def test_an_unreadable_image_has_no_subset_and_no_group():
    samples = [Sample("a", f"male/{n}.jpg", "male", person=p) for n, p in enumerate(["x", "y", ""])]
    split = assign_subsets(samples, ["00"] * 3, seed=0, test=0.9, errors=["", "", "cut short"])
    assert split[2] == Assignment(samples[2], "00", "", "", "cut short")
    assert split[0].group == split[1].group != ""
    assert assign_subsets([], [], seed=0) == []


def test_wrong_arguments_are_refused():
    samples, digests = many(3)
    for fractions in ({"validation": 1.0}, {"test": -0.1}, {"test": float("nan")}):
        with pytest.raises(InputError, match="fraction"):
            assign_subsets(samples, digests, seed=0, **fractions)
    with pytest.raises(ValueError, match="same length"):
        assign_subsets(samples, digests[:2], seed=0)


TEXT = st.text(st.sampled_from("ab,\"\r\n';\ufeff é\u2028\x00=\udcff"), max_size=6)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_again(tmp_path_factory, rows):
    samples = [
        Sample("x,y", f"{number}{file}", "female", person, source, age)
        for number, (file, person, source, age, _) in enumerate(rows)
    ]
    errors = [f"bad{row[0]}" if row[4] else "" for row in rows]
    split = assign_subsets(samples, ["00"] * len(rows), seed=0, errors=errors)
    path = tmp_path_factory.mktemp("split") / "split.csv"
    write_split(path, split)
    assert read_split(path) == split
    assert [entry.name for entry in path.parent.iterdir()] == ["split.csv"]


def test_the_columns_are_these(tmp_path: Path):
    path = tmp_path / "split.csv"
    write_split(
        path, [Assignment(Sample("a", "male/1.jpg", "male", "p", "s", "9", "r"), "d", "g", "train")]
    )
    assert path.read_bytes() == (
        b"archive,file,label,subset,group,person,source,age,race,sha256,error\n"
        b"a,male/1.jpg,male,train,g,p,s,9,r,d,\n"
    )


def test_a_split_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "split.csv"
    write_split(path, [])
    old = path.read_bytes()
    sample = Sample("a", "male/\ud800.jpg", "male")
    with pytest.raises(UnicodeEncodeError):
        write_split(path, [Assignment(sample, "d", "g", "train")])
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"]
    with pytest.raises(OutputError, match="No such file"):
        write_split(tmp_path / "none" / "split.csv", [])


HEAD = "archive,file,label,subset,group,person,source,age,race,sha256,error"
GOOD = "a,male/1.jpg,male,train,g1,,,,,d1,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column archive"),
        (HEAD.replace(",sha256", ""), "line 1: no column sha256"),
        (f"{HEAD}\n{GOOD.replace('train', 'dev')}", "line 2: subset 'dev'"),
        (f"{HEAD}\n{GOOD.replace(',male,', ',dog,')}", "line 2: label 'dog'"),
        (f"{HEAD}\n{GOOD}\n{GOOD}", "line 3: a/male/1.jpg was already on line 2"),
        (
            f"{HEAD}\n{GOOD}\n{GOOD.replace('1.jpg', '2.jpg').replace('train', 'test')}",
            "line 3: group g1 is in test here and in train on line 2",
        ),
        (f"{HEAD}\n{GOOD},more", "line 2: 12 values"),
        (f"{HEAD}\n{GOOD.replace('train', '')}", "line 2: give a subset"),
        (f"{HEAD}\n{GOOD}broken", "line 2: give a subset"),
        (f"{HEAD}\n{GOOD.replace('g1', '')}", "line 2: give a subset"),
        (f'{HEAD}\n"a', "cannot be read"),
        (HEAD.replace("subset", "part"), "earlier version: these were renamed: part -> subset"),
    ],
)
def test_a_wrong_split_is_refused_with_its_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "split.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_split(path)


def test_a_split_is_read_with_a_byte_order_mark_and_other_column_order(tmp_path: Path):
    path = tmp_path / "split.csv"
    write_split(path, assign_subsets(*many(20), seed=0))
    lines = [line.split(",") for line in path.read_text().splitlines()]
    text = "\n".join(",".join(reversed(line)) for line in lines)
    path_two = tmp_path / "two.csv"
    path_two.write_text(text, encoding="utf-8-sig")
    assert read_split(path_two) == read_split(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_split(tmp_path / "none.csv")


def test_groups_cross_archives_and_labels():
    one = Sample("a.tar", "male/1.jpg", "male", person="p")
    two = replace(one, archive="b.zip", label="female", file="female/1.jpg")
    copy = Sample("c", "male/9.jpg", "male")
    split = assign_subsets([one, two, copy], ["d1", "d2", "d2"], seed=0)
    assert len({item.group for item in split}) == 1
