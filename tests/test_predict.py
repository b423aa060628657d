from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import encode, picture
from PIL import Image

from facegender import predict as module
from facegender.classifier import BATCH, Classifier
from facegender.errors import InputError
from facegender.predict import LOOK_AHEAD, list_files, predict_files, predict_folder
from facegender.results import Prediction, Status

Photos = Callable[..., Path]
GOOD = encode(picture("male", seed=1))
JPEG = encode(picture("female", size=(160, 120), seed=2), "JPEG")


def rows_of(folder: Path, classifier: Classifier, *, recursive: bool = False) -> list[Prediction]:
    return list(predict_folder(folder, recursive=recursive, classifier=classifier))


BAD_INPUT: dict[str, tuple[bytes, str, str]] = {
    "text.jpg": (b"only text", "unreadable", "not a picture"),
    "zero.jpg": (b"", "unreadable", "empty"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "unreadable", "cannot be decoded"),
    "cut with end.jpg": (JPEG[: len(JPEG) // 2] + b"\xff\xd9", "unreadable", "cut off"),
    "cut.png": (GOOD[: len(GOOD) // 2], "unreadable", "cannot be decoded"),
    "cut.webp": (encode(picture(seed=1), "WEBP")[:-30], "unreadable", "cannot be decoded"),
    "one.png": (encode(picture(size=(1, 1), seed=1)), "ok", ""),
    "grey.png": (encode(picture(seed=1).convert("L")), "ok|unknown", ""),  # equal channels
    "palette.png": (encode(picture(seed=1).convert("P")), "ok", ""),
    "cmyk.jpg": (encode(picture(seed=1).convert("CMYK"), "JPEG"), "ok", ""),
    "16 bit.png": (encode(Image.fromarray(np.full((9, 9), 777, np.uint16))), "ok|unknown", ""),
    "transparent.png": (encode(picture(seed=1).convert("RGBA")), "ok", ""),
    "moving.gif": (encode(picture(seed=1), "GIF", save_all=True), "ok", ""),
    "moving.webp": (
        encode(picture(seed=1), "WEBP", save_all=True, append_images=[picture(seed=2)]),
        "ok",
        "",
    ),
    "é中.jpg": (JPEG, "ok", ""),
    "with spaces.PNG": (GOOD, "ok", ""),
    "no suffix": (GOOD, "ok", ""),
    "wrong.txt": (GOOD, "ok", ""),
    "a jpeg.png": (JPEG, "ok", ""),
    ".DS_Store": (b"\0\0\0\1Bud1" + bytes(60), "skipped", ""),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "skipped", ""),
    "._photo.jpg": (b"\x00\x05\x16\x07" + bytes(60), "skipped", ""),
    "notes.txt": (b"hello", "skipped", ""),
    "zero": (b"", "skipped", ""),
    "process_results.json": (b'{"a.jpg": "male"}', "skipped", ""),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name: str, classifier: Classifier, photos: Photos) -> None:
    data, status, reason = BAD_INPUT[name]
    folder = photos({name: data, "good.png": GOOD})
    rows = {row.file: row for row in rows_of(folder, classifier)}
    assert rows[name].status in status.split("|")
    assert reason in (rows[name].error or "")
    assert rows["good.png"].label == "male"
    assert len(rows) == 2


def test_what_is_no_file(classifier: Classifier, photos: Photos, tmp_path: Path) -> None:
    folder = photos({"good.png": GOOD, "x.jpg/inner.png": GOOD})
    (folder / "link.png").symlink_to("good.png")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "around").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    plain = {row.file: row for row in rows_of(folder, classifier)}
    assert {name: str(row.status) for name, row in plain.items()} == {
        "circle.jpg": "unreadable",
        "good.png": "ok",
        "link.png": "ok",
        "nowhere.jpg": "unreadable",
        "pipe.jpg": "skipped",
    }
    assert "link" in (plain["nowhere.jpg"].error or "")
    deep = [row.file for row in rows_of(folder, classifier, recursive=True)]
    assert sorted(set(deep) - set(plain)) == ["x.jpg/inner.png"]


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read every file: not tested here"
)
def test_no_permission(classifier: Classifier, photos: Photos) -> None:
    folder = photos({"a.png": GOOD, "b": GOOD, "inner/c.png": GOOD})
    for name in ("a.png", "b", "inner"):
        (folder / name).chmod(0)
    rows = rows_of(folder, classifier, recursive=True)
    (folder / "inner").chmod(0o755)
    assert [row.status for row in rows] == [Status.UNREADABLE] * 3
    assert "Permission denied" in (rows[0].error or "")


def test_permission_denied_is_a_row(
    classifier: Classifier, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a.png": GOOD, "b.png": GOOD})
    really_open = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return really_open(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    rows = rows_of(folder, classifier)
    assert [row.status for row in rows] == [Status.UNREADABLE, Status.OK]
    assert rows[0].error == "cannot be read: Permission denied"


def test_a_folder_inside_that_cannot_be_listed(
    classifier: Classifier, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a.png": GOOD, "inner/c.png": GOOD})
    really_scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied")
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    rows = rows_of(folder, classifier, recursive=True)
    assert [(row.file, str(row.status)) for row in rows] == [
        ("a.png", "ok"),
        ("inner/", "unreadable"),
    ]


@pytest.mark.parametrize("name", ["missing", "file.png"])
def test_no_folder(name: str, classifier: Classifier, photos: Photos) -> None:
    folder = photos({"file.png": GOOD})
    with pytest.raises(InputError, match="folder"):  # at the call, before any row is asked for
        predict_folder(folder / name, classifier=classifier)


def test_empty_folder(classifier: Classifier, photos: Photos) -> None:
    assert rows_of(photos({}), classifier) == []


def test_order_and_keys(classifier: Classifier, photos: Photos) -> None:
    names = ["10.png", "2.png", "b/10.png", "b/2.png", "b/c/1.png", "1.png"]
    folder = photos(dict.fromkeys(names, GOOD))
    assert list_files(folder) == ["1.png", "2.png", "10.png"]
    keys = [row.file for row in rows_of(folder, classifier, recursive=True)]
    assert keys == ["1.png", "2.png", "10.png", "b/2.png", "b/10.png", "b/c/1.png"]


def test_rows_do_not_depend_on_neighbours(classifier: Classifier, photos: Photos) -> None:
    files = {
        f"{n}.png": encode(picture("male" if n % 3 else "female", (20 + n, 60 - n), seed=n))
        for n in range(41)
    }
    files |= {"5 broken.png": b"x", "notes": b"x", "7 cut.jpg": JPEG[:500]}
    folder = photos(files)
    together = {row.file: row for row in rows_of(folder, classifier)}
    for name in ("0.png", "17.png", "40.png"):
        [alone] = rows_of(photos({name: files[name]}, name=f"only {name}"), classifier)
        assert alone == together[name]
    names = list_files(folder)[::-1]
    backwards = list(predict_files(folder, names, classifier=classifier))
    assert [row.file for row in backwards] == names
    assert {row.file: row for row in backwards} == together


def test_same_answer_as_the_classifier(classifier: Classifier, photos: Photos) -> None:
    folder = photos({"a.png": GOOD, "b.jpg": JPEG})
    rows = rows_of(folder, classifier)
    alone = classifier.predict([folder / "a.png", folder / "b.jpg"])
    assert [(r.label, r.probability, r.box) for r in rows] == [
        (r.label, r.probability, r.box) for r in alone
    ]


def test_it_streams(
    classifier: Classifier, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 4 * LOOK_AHEAD
    folder = photos({f"{n}.png": GOOD for n in range(total)})
    read: list[str] = []
    really_read = module.read_file
    monkeypatch.setattr(module, "read_file", lambda p: (read.append(p.name), really_read(p))[1])
    rows = predict_folder(folder, classifier=classifier)
    assert not read
    next(rows)
    assert len(read) <= LOOK_AHEAD + BATCH
    rows.close()  # type: ignore[attr-defined]
    assert len(read) <= LOOK_AHEAD + BATCH
    assert not [t for t in threading.enumerate() if t.name.startswith("facegender-decode")]


def test_wrong_threshold_is_said_at_the_call(classifier: Classifier, photos: Photos) -> None:
    with pytest.raises(ValueError, match="not within"):
        predict_folder(photos({}), classifier=classifier, unknown_below=0.2)
