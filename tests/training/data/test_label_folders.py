"""Folder names of the labels: parsed strictly, matched loosely, and suggested in the error."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.training.data.label_folders import folder_label, parse_classes
from facegender.training.data.samples import stream_samples


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_folders_are_matched_without_case_and_composition() -> None:
    classes = parse_classes("female=Women, Male = Männer/,female=girls")
    assert folder_label("WOMEN/a.jpg", classes) == "female"
    assert folder_label("girls/men/a.jpg", classes) == "female"
    assert folder_label(unicodedata.normalize("NFD", "x/männer/a.jpg"), classes) == "male"
    assert folder_label("male/a.jpg", classes) == ""  # only what is named counts
    assert folder_label("deep/Male/a.jpg", parse_classes("")) == "male"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("female=Women", "no folder for male"),
        ("female=Women,male", "'male' is no pair"),
        ("female=Women,man=Men", "'man=Men' is no pair"),
        ("female=Women,male=", "'male=' is no pair"),
        ("female=a/b,male=Men", "'female=a/b' is no pair"),
        ("female=Men,male=men", "men has two labels"),
        (",", "'' is no pair"),
    ],
)
def test_a_wrong_option_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_classes(text)


@pytest.mark.parametrize(
    ("names", "found", "option"),
    [
        (("Men/1.jpg", "Men/2.jpg", "Women/1.jpg"), "Men/ (2 files), Women/ (1 file)",
         "--classes female=Women,male=Men"),
        (("x/M/1.jpg", "x/F/1.jpg"), "M/ (1 file), F/ (1 file)", "--classes female=F,male=M"),
        (("Женщины/1.jpg", "Мужчины/1.jpg"), "Женщины/ (1 file), Мужчины/ (1 file)",
         "--classes female=Женщины,male=Мужчины"),
        (("cats/1.jpg", "dogs/1.jpg"), "cats/", "--classes female=FOLDER,male=FOLDER"),
    ],
)  # fmt: skip
def test_the_error_names_the_folders_and_the_option(
    tmp_path: Path, names: tuple[str, ...], found: str, option: str
) -> None:
    folder = put(tmp_path / "set", *names)
    with pytest.raises(InputError) as error:
        list(stream_samples([folder]))
    assert all(part in str(error.value) for part in found.split(", "))
    assert option in str(error.value)


def test_samples_are_labeled_by_the_named_folders(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", "Men/1.jpg", "Women/1.jpg", "other/1.jpg")
    skipped: list[str] = []
    classes = parse_classes("female=Women,male=Men")
    stream = stream_samples([folder], classes=classes, on_skip=lambda *skip: skipped.extend(skip))
    assert {sample.file: sample.label for sample, _ in stream} == {
        "Men/1.jpg": "male",
        "Women/1.jpg": "female",
    }
    assert skipped == [
        "set/other/1.jpg",
        "not in a folder named women or men, and no label in a table",
    ]
