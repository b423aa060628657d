"""A list of corrections is read strictly, and changes or leaves out exactly what it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.samples import Sample

A, B, C = (letter * 64 for letter in "abc")


def write(folder: Path, text: str) -> Path:
    path = folder / "corrections.csv"
    path.write_text(text)
    return path


def test_it_changes_and_leaves_out(tmp_path: Path) -> None:
    path = write(tmp_path, f"sha256,label,why\n{A[:16]},male,seen\n{B.upper()},,blank\n")
    samples = [Sample("x", name, "female", "ann") for name in "123"]
    assert apply_corrections(samples, [A, B, C], read_corrections(path)) == [
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
        ("sha256,label\nabc,male\n", "line 2: 'abc' is no SHA-256"),
        (f"sha256,label\n{A[:15]}x,male\n", "line 2: .* is no SHA-256"),
        (f"sha256,label\n{A},man\n", "line 2: label 'man'"),
        (f"sha256,label\n{A}\n", "line 2: label None"),
        (f"sha256,label\n{A},male\n{A},female\n", "line 3: another line"),
    ],
)
def test_it_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_corrections(write(tmp_path, text))


def test_it_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the corrections"):
        read_corrections(tmp_path / "no.csv")
