"""The predictions table: what is written is read back, and invalid lines are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facegender.errors import InputError
from facegender.training.data.samples import Sample
from facegender.training.evaluation.predictions_table import (
    make_predictions,
    read_predictions,
    write_predictions,
)

SAMPLES = [
    Sample("a.tar", "male/1.png", "male", "", "web", "(25, 32)", "group, one"),
    Sample("a.tar", "female/2.png", "female"),
    Sample("b", "male/\udcff.png", "male"),
]
MALE = np.array([0.123456789, 0.5, 0.9999999], np.float32)


def test_read_back(tmp_path: Path) -> None:
    table = make_predictions(SAMPLES, ["new", "train", "test"], np.stack([1 - MALE, MALE], 1))
    assert table.p_male.tolist() == [0.123457, 0.5, 1.0]
    assert table.correct.tolist() == [False, True, True]  # male is above one half
    assert table.labels.tolist() == [1, 0, 1]
    write_predictions(tmp_path / "predictions.csv", table)
    head = (tmp_path / "predictions.csv").read_bytes().splitlines()[:2]
    assert head[0] == b"archive,file,label,subset,source,age,race,p_male"
    assert head[1].endswith(b",0.123457")
    for path in (tmp_path, tmp_path / "predictions.csv"):  # a run folder, or the file
        again = read_predictions(path)
        assert again.samples == SAMPLES
        assert again.subsets == table.subsets
        assert again.p_male.tolist() == table.p_male.tolist()
    assert table.of_subset("train").samples == SAMPLES[1:2]
    assert table.pick([2, 0]).p_male.tolist() == [1.0, 0.123457]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,male\n", "no column p_male"),
        ("file,label,p_male\n", "has no rows"),
        ("file,label,part,p_male\na,male,test,0.5\n", "part -> subset"),
        ("file,label,p_male\na,man,0.5\n", "line 2: label 'man'"),
        ("file,label,p_male\na,male,1.5\n", "line 2: p_male '1.5'"),
        ("file,label,p_male\na,male,nan\n", "line 2: p_male 'nan'"),
        ("file,label,p_male\na,male\n", "line 2: p_male None"),
        ("file,label,p_male\na,male,1\nb,male,1\na,male,0\n", "line 4: a was already on line 2"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_predictions(path)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the predictions"):
        read_predictions(tmp_path)


def test_a_run_folder_of_an_earlier_version_is_refused_with_the_present_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "scores.csv").write_text("file,label,p_male\na,male,0.5\n")
    with pytest.raises(InputError, match=r"scores\.csv was renamed to predictions\.csv"):
        read_predictions(tmp_path)
