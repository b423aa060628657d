"""Corrections are read strictly, and change or leave out exactly what they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.samples import Sample

A, B, C, D = (letter * 64 for letter in "abcd")


def write(folder: Path, text: str) -> Path:
    path = folder / "corrections.csv"
    path.write_text(text)
    return path


def test_it_changes_and_leaves_out(tmp_path: Path) -> None:
    path = write(tmp_path, f"sha256,label,why\n{A[:16]},male,seen\n{B.upper()},,blank\n")
    samples = [Sample("x", name, "female", "ann") for name in "123"]
    assert apply_corrections(samples, [A, B, C], read_corrections(path).reviewed) == [
        Sample("x", "1", "male", "ann"),
        None,
        samples[2],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sha,label\n", "line 1: no column sha256"),
        ("sha256\n", "line 1: no column label"),
        ("", "line 1: no column label, sha256"),
        ("sha256,label\nabc,male\n", "line 2: 'abc' is not a SHA-256"),
        (f"sha256,label\n{A[:15]}x,male\n", "line 2: .* is not a SHA-256"),
        (f"sha256,label\n{A},man\n", "line 2: label 'man'"),
        (f"sha256,label,reviewed\n{A},male,later\n", "line 2: reviewed 'later'"),
        (f"sha256,label\n{A}\n", "line 2: label None"),
        (f"sha256,label\n{A},male\n{A},female\n", "line 3: another line"),
    ],
)
def test_it_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_corrections(write(tmp_path, text))


@pytest.mark.parametrize("yes", ["yes", "Yes ", "TRUE", "1", "x"])
@pytest.mark.parametrize("no", ["", "no", "FALSE", "0"])
def test_a_line_that_nobody_reviewed_is_a_proposal(tmp_path: Path, yes: str, no: str) -> None:
    lines = [f"{A},male,{no}", f"{B},,{no}", f"{C},,{yes}", f"{A},female,{yes}", f"{D},male,{no}"]
    found = read_corrections(write(tmp_path, "\n".join(["sha256,label,reviewed", *lines])))
    assert found.reviewed == {C[:16]: "", A[:16]: "female"}
    assert found.proposed == {D[:16]: "male"}
    assert found.unreviewed == 2


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the corrections"):
        read_corrections(tmp_path / "no.csv")
