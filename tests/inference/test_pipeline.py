from __future__ import annotations

import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made import encode, image
from PIL import Image

from facegender.errors import InputError
from facegender.inference import pipeline
from facegender.inference.classifier import BATCH_SIZE, Classifier
from facegender.inference.pipeline import READ_AHEAD, PredictOptions, predict_files
from facegender.inference.predict import predict_folder
from facegender.inference.preprocess import PreprocessedImage, PreprocessOptions, preprocess_file
from facegender.inputs.paths import list_files
from facegender.inputs.sources import InputFile
from facegender.results.predictions import Prediction, Status

Photos = Callable[..., Path]
GOOD = encode(image("male", seed=1))
JPEG = encode(image("female", size=(160, 120), seed=2), "JPEG")


def rows_of(folder: Path, classifier: Classifier, *, recursive: bool = False) -> list[Prediction]:
    return list(predict_folder(folder, recursive=recursive, classifier=classifier))


BAD_INPUT: dict[str, tuple[bytes, str, str]] = {
    "text.jpg": (b"only text", "unreadable", "not an image"),
    "zero.jpg": (b"", "unreadable", "empty"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "unreadable", "truncated"),
    "cut with end.jpg": (JPEG[: len(JPEG) // 2] + b"\xff\xd9", "unreadable", "truncated"),
    "cut.png": (GOOD[: len(GOOD) // 2], "unreadable", "cannot be decoded"),
    "cut.webp": (encode(image(seed=1), "WEBP")[:-30], "unreadable", "cannot be decoded"),
    "one.png": (encode(image(size=(1, 1), seed=1)), "ok", ""),
    "gray.png": (encode(image(seed=1).convert("L")), "ok|unknown", ""),  # equal channels
    "palette.png": (encode(image(seed=1).convert("P")), "ok", ""),
    "cmyk.jpg": (encode(image(seed=1).convert("CMYK"), "JPEG"), "ok", ""),
    "16 bit.png": (encode(Image.fromarray(np.full((9, 9), 777, np.uint16))), "ok|unknown", ""),
    "transparent.png": (encode(image(seed=1).convert("RGBA")), "ok", ""),
    "moving.gif": (encode(image(seed=1), "GIF", save_all=True), "ok", ""),
    "moving.webp": (
        encode(image(seed=1), "WEBP", save_all=True, append_images=[image(seed=2)]),
        "ok",
        "",
    ),
    "é中.jpg": (JPEG, "ok", ""),
    "with spaces.PNG": (GOOD, "ok", ""),
    "no suffix": (GOOD, "ok", ""),
    "wrong.txt": (GOOD, "ok", ""),
    "a jpeg.png": (JPEG, "ok", ""),
    ".DS_Store": (b"\0\0\0\1Bud1" + bytes(60), "left out", ""),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "left out", ""),
    "._photo.jpg": (b"\x00\x05\x16\x07" + bytes(60), "left out", ""),
    "notes.txt": (b"hello", "skipped", ""),
    "zero": (b"", "skipped", ""),
    "process_results.json": (b'{"a.jpg": "male"}', "skipped", ""),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name: str, classifier: Classifier, photos: Photos) -> None:
    data, status, reason = BAD_INPUT[name]
    folder = photos({name: data, "good.png": GOOD})
    rows = {row.file: row for row in rows_of(folder, classifier)}
    assert rows["good.png"].label == "male"
    assert len(rows) == (1 if status == "left out" else 2)
    if status != "left out":
        assert rows[name].status in status.split("|")
        assert reason in (rows[name].error or "")


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


def test_no_folder(classifier: Classifier, photos: Photos) -> None:
    with pytest.raises(InputError, match="folder"):  # at the call, before any row is asked for
        predict_folder(photos({}) / "missing", classifier=classifier)


@pytest.mark.parametrize("bytes_ahead", [0, 2**26])
def test_archives_give_the_rows_of_their_folder(
    bytes_ahead: int,
    classifier: Classifier,
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "READ_AHEAD_BYTES", bytes_ahead)
    files = {
        "2.png": GOOD,
        "10.jpg": JPEG,
        "in/cut.png": GOOD[:-40],
        "in/no.txt": b"x",
        "0.jpg": b"",
    }
    folder = photos(files)
    expected = {row.file: row for row in rows_of(folder, classifier, recursive=True)}
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname="")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    for name in ("a.tar.gz", "a.zip"):
        rows = {row.file: row for row in predict_folder(tmp_path / name, classifier=classifier)}
        assert rows == expected


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
        f"{n}.png": encode(image("male" if n % 3 else "female", (20 + n, 60 - n), seed=n))
        for n in range(41)
    }
    files |= {"5 broken.png": b"x", "notes": b"x", "7 cut.jpg": JPEG[:500]}
    folder = photos(files)
    together = {row.file: row for row in rows_of(folder, classifier)}
    for name in ("0.png", "17.png", "40.png"):
        [alone] = rows_of(photos({name: files[name]}, name=f"only {name}"), classifier)
        assert alone == together[name]
    names = list_files(folder)[::-1]
    items = [InputFile(name, path=folder / name) for name in names]
    backwards = [row for each in predict_files(items, classifier) for row in each.rows]
    assert [row.file for row in backwards] == names
    assert {row.file: row for row in backwards} == together


def test_same_answer_as_the_classifier(classifier: Classifier, photos: Photos) -> None:
    folder = photos({"a.png": GOOD, "b.jpg": JPEG})
    rows = rows_of(folder, classifier)
    alone = classifier.predict([folder / "a.png", folder / "b.jpg"])
    assert [(r.label, r.probability, r.box) for r in rows] == [
        (r.label, r.probability, r.box) for r in alone
    ]


def test_it_streams(classifier: Classifier, photos: Photos) -> None:
    folder = photos({f"{n}.png": GOOD for n in range(READ_AHEAD * (2 + classifier.threads))})
    taken: list[str] = []

    def items() -> Iterator[InputFile]:
        for name in list_files(folder):
            taken.append(name)
            yield InputFile(name, path=folder / name)

    rows = predict_files(items(), classifier)
    assert not taken
    next(rows)
    # as many as may be read ahead, and as many as may wait for the network
    most = READ_AHEAD + max(READ_AHEAD, 3 * BATCH_SIZE * classifier.threads)
    assert len(taken) <= most < len(list(list_files(folder)))
    rows.close()  # type: ignore[attr-defined]
    assert len(taken) <= most
    assert not [t for t in threading.enumerate() if t.name.startswith("facegender-worker")]


CRASHING = """
import os, signal, time
import PIL.Image
really_open = PIL.Image.open
def open(file, *args, **kwargs):
    data = file.getvalue()
    if data.endswith(b"CRASH"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(b"HANG"):
        time.sleep(600)
    return really_open(file, *args, **kwargs)
PIL.Image.open = open
"""


def test_what_crashes_or_hangs_a_decoder_costs_its_own_row(
    classifier: Classifier, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading processes start with a decoder that dies of one file and hangs on another."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    files = {f"{n}.png": GOOD for n in range(40)}
    files |= {"7.png": GOOD + b"CRASH", "8.png": GOOD + b"HANG", "30.png": GOOD + b"CRASH"}
    folder = photos(files)
    items = [InputFile(name, path=folder / name) for name in list_files(folder)]
    rows = {
        each.file.key: each.rows[0]
        for each in predict_files(items, classifier, PredictOptions(timeout=5.0))
    }
    assert rows["7.png"].error == "the decoder crashed (SIGSEGV)" == rows["30.png"].error
    assert rows["8.png"].error == "took longer than 5 seconds"
    assert all(rows[name].label == "male" for name in set(files) - {"7.png", "8.png", "30.png"})


def test_wrong_threshold_is_said_at_the_call(classifier: Classifier, photos: Photos) -> None:
    with pytest.raises(ValueError, match="not within"):
        predict_folder(photos({}), classifier=classifier, min_confidence=0.2)


def fail_on_one(source: Path, options: PreprocessOptions) -> PreprocessedImage | None:
    """Preprocess with an unexpected error."""
    if source.name == "1.jpg":
        raise IndexError("unexpected")
    return preprocess_file(source, options)


def test_an_unexpected_error_costs_one_image(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
    monkeypatch.setattr(pipeline, "preprocess_file", fail_on_one)
    rows = list(predict_folder(tmp_path, classifier=classifier, faces="whole"))
    assert [row.status for row in rows] == [Status.OK, Status.UNREADABLE, Status.OK]
    assert rows[1].error == "IndexError: unexpected"
