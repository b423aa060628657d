from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import encode, image

from facegender.errors import OutputError
from facegender.files import check_output_path, natural_sort
from facegender.results.predictions import Box, Prediction, Status
from facegender.results.process_results import write_process_results

WHOLE = Box(0, 0, 4, 5)
UNDECODABLE = os.fsdecode(b"caf\xe9.jpg")


def ok(name: str, label: str = "male") -> Prediction:
    return Prediction(name, Status.OK, 0, label, 0.9, WHOLE, None, "none", 4, 5)


def unreadable(name: str) -> Prediction:
    return Prediction(name, Status.UNREADABLE, error="truncated")


OK = {"file": "a", "status": Status.OK, "face_index": 0, "label": "male", "probability": 0.9}
OK |= {"box": WHOLE, "crop": "none", "width": 4, "height": 5}


@pytest.mark.parametrize(
    "changes",
    [
        {"label": None},
        {"label": "cat"},
        {"probability": None},
        {"probability": 0.4},
        {"probability": 1.01},
        {"probability": float("nan")},
        {"face_index": None},
        {"box": None},
        {"width": None},
        {"error": "why"},
        {"crop": None},
        {"crop": "loose"},
        {"status": Status.NO_FACE},
        {"status": Status.UNREADABLE},
        {"status": Status.UNSUPPORTED},
        {"status": Status.SKIPPED},
    ],
    ids=str,
)
def test_a_row_says_one_thing(changes: dict[str, Any]) -> None:
    Prediction(**OK)
    with pytest.raises(ValueError, match=r"contradict|status|probability"):
        Prediction(**(OK | changes))


def test_other_rows() -> None:
    Prediction(**(OK | {"status": Status.UNKNOWN, "detection_score": 0.9, "crop": "aligned"}))
    Prediction("a", Status.NO_FACE, width=4, height=5)
    Prediction("a", Status.SKIPPED)
    with pytest.raises(ValueError, match="error"):
        Prediction("a", Status.UNREADABLE)
    with pytest.raises(ValueError, match="box"):
        Box(0, 0, 0, 5)


def test_statuses_are_closed() -> None:
    assert {str(s) for s in Status} == {
        *("ok", "unknown", "no_face", "unreadable", "unsupported", "skipped")
    }


def test_plain_file_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    rows = [ok("10.jpg"), unreadable("3.jpg"), ok("é中 1.jpg", "female"), ok("2.jpg", "female")]
    assert write_process_results(path, rows) == 3
    text = '{\n  "2.jpg": "female",\n  "10.jpg": "male",\n  "é中 1.jpg": "female"\n}\n'
    assert path.read_text("utf-8") == text
    write_process_results(path, [rows[3], rows[0], rows[1], rows[2]])  # as a folder gives them
    assert path.read_text("utf-8") == text
    assert write_process_results(path, iter(())) == 0
    assert json.loads(path.read_text()) == {}
    assert [item.name for item in tmp_path.iterdir()] == ["out.json"]


def test_a_guess_stands_unless_unknown_is_asked_for(tmp_path: Path) -> None:
    unsure = replace(ok("b"), status=Status.UNKNOWN, probability=0.51)
    faceless = Prediction("c", Status.NO_FACE, width=4, height=5)
    for write_unknown, label in ((False, "male"), (True, "unknown")):
        rows = [ok("a"), unsure, faceless]
        write_process_results(tmp_path / "o", rows, write_unknown=write_unknown)
        assert json.loads((tmp_path / "o").read_text()) == {"a": "male", "b": label}


def test_a_row_comes_back_from_its_dictionary() -> None:
    for row in (ok("é"), unreadable("b"), Prediction("c", Status.NO_FACE, width=4, height=5)):
        assert Prediction.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    with pytest.raises((KeyError, TypeError)):
        Prediction.from_dict({"file": "a"})


def test_first_face_counts(tmp_path: Path) -> None:
    second = replace(ok("a", "female"), face_index=1)
    write_process_results(tmp_path / "o", [ok("a"), second])
    assert json.loads((tmp_path / "o").read_text()) == {"a": "male"}


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    write_process_results(tmp_path / "o.json", [ok(UNDECODABLE), ok('q"\\\n\t.jpg')])
    assert set(json.loads((tmp_path / "o.json").read_text("utf-8"))) == {
        UNDECODABLE,
        'q"\\\n\t.jpg',
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def rows() -> Any:
        yield ok("a")
        raise error

    with pytest.raises(error):
        write_process_results(path, rows())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_mode_and_links(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_process_results(tmp_path / "link.json", [ok("a")])
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == {"a": "male"}
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing/out.json", "folder not found"),
        ("file/out.json", "folder not found"),
        ("folder", "it is a folder"),
        ("photo.png", "is an image"),
        ("pipe", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("/proc/out.json", "Cannot write"),
    ],
)
def test_check_output_refuses(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.png").write_bytes(encode(image(seed=1)))
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=message):
        check_output_path(tmp_path / place)
    assert sorted(tmp_path.iterdir()) == before


def test_check_output_leaves_nothing(tmp_path: Path) -> None:
    check_output_path(tmp_path / "out.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="Cannot write"):
        write_process_results(tmp_path / "missing" / "out.json", [])


def test_natural_order_is_the_same_whatever_the_listing() -> None:
    names = ["10.jpg", "2.jpg", "b/1.jpg", "01.jpg", "1.jpg", UNDECODABLE, "é.jpg", "a 2", "a 10"]
    ordered = natural_sort(names)
    assert ordered == natural_sort(names[::-1])
    assert ordered[:4] == ["01.jpg", "1.jpg", "2.jpg", "10.jpg"]
    assert ordered.index("a 2") < ordered.index("a 10")
