from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode
from PIL import Image

from facegender.errors import OutputError
from facegender.faces.yunet import Face, default_detector
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.results.annotate import COLORS, annotate, write_annotated_copy

FACES = Path(__file__).parents[2] / "faces"


def row(box: tuple[int, int, int, int] | None = (60, 40, 50, 70), **more: Any) -> dict[str, Any]:
    """A row of the details file."""
    named = None if box is None else dict(zip(("x", "y", "width", "height"), box, strict=True))
    return {
        "file": "a.png",
        "face_index": 0,
        "status": "ok",
        "label": "female",
        "probability": 0.9731,
        "box": named,
        "detection_score": 0.9,
        "crop": "aligned",
        "width": 200,
        "height": 160,
        "error": None,
    } | more


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def near(pixels: Pixels, color: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.abs(pixels.astype(int) - rgb(color)).max(axis=2) < 40


def found(face: Face) -> dict[str, Any]:
    """A detected face as a row of its image."""
    box = (round(face.x), round(face.y), round(face.width), round(face.height))
    return row(box, width=None, height=None)


GRAY = np.full((160, 200, 3), 128, np.uint8)


def test_a_box_is_drawn_where_it_is_with_its_label_above() -> None:
    drawn = near(decode(annotate(GRAY, [row()])), COLORS["female"])
    lines, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert lines[-1] == pytest.approx(110, abs=1), "the lower side"
    assert columns[0] == pytest.approx(60, abs=1), "the left side"
    assert 18 <= lines[0] <= 32, "the label ends at the upper side"
    assert not drawn[60:100, 70:100].any(), "the face stays free"


@pytest.mark.parametrize(
    ("changes", "color"),
    [
        ({"label": "male"}, COLORS["male"]),
        ({"label": "female"}, COLORS["female"]),
        ({"status": "unknown", "probability": 0.61}, "#5a5f66"),
    ],
)
def test_the_color_says_the_answer(changes: dict[str, Any], color: str) -> None:
    assert near(decode(annotate(GRAY, [row(**changes)])), color).sum() > 100


@pytest.mark.parametrize(
    "box",
    [(-30, -20, 90, 80), (150, 120, 90, 80), (0, 0, 200, 160), (-90, -90, 20, 20), (199, 0, 1, 9)],
)
@pytest.mark.parametrize("anonymize", [False, True])
def test_boxes_that_reach_outside(box: tuple[int, int, int, int], anonymize: bool) -> None:
    assert decode(annotate(GRAY, [row(box)], anonymize=anonymize)).shape == GRAY.shape


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (24, 24)])
@pytest.mark.parametrize("anonymize", [False, True])
def test_small_and_thin_images(size: tuple[int, int], anonymize: bool) -> None:
    pixels = np.full((*size, 3), 90, np.uint8)
    whole = row((0, 0, size[1], size[0]), width=size[1], height=size[0])
    assert decode(annotate(pixels, [whole], anonymize=anonymize)).shape == pixels.shape


def test_an_image_decoded_smaller_has_its_box_in_the_same_place() -> None:
    half = GRAY[::2, ::2]
    drawn = near(decode(annotate(half, [row()])), COLORS["female"])
    assert np.flatnonzero(drawn.any(axis=1))[-1] == pytest.approx(55, abs=1)
    assert np.flatnonzero(drawn.any(axis=0))[0] == pytest.approx(30, abs=1)


def test_rows_without_a_box_change_nothing() -> None:
    rows = [row(None, face_index=None, status="no_face", label=None, probability=None, crop=None)]
    assert np.abs(decode(annotate(GRAY, rows, anonymize=True)).astype(int) - GRAY).max() <= 2


def test_the_given_pixels_stay_as_they_are(astronaut: Pixels) -> None:
    before = astronaut.copy()
    annotate(astronaut, [row((170, 70, 110, 140), width=512, height=512)], anonymize=True)
    assert (astronaut == before).all()


def test_all_that_is_left_of_a_hidden_face_are_16_averages(astronaut: Pixels) -> None:
    face = astronaut[60:220, 150:310]
    mixed = face.copy()
    rng = np.random.default_rng(0)
    for y in range(0, 160, 40):
        for x in range(0, 160, 40):
            cell = mixed[y : y + 40, x : x + 40]
            cell[:] = rng.permutation(cell.reshape(-1, 3)).reshape(cell.shape)
    rows = [row((0, 0, 160, 160), crop="none", width=160, height=160)]

    def apart(anonymize: bool) -> int:
        one, other = (
            decode(annotate(p, rows, anonymize=anonymize)).astype(int) for p in (face, mixed)
        )
        return int(np.abs(one - other)[40:-10, 10:-10].max())  # inside the box that is drawn

    assert apart(anonymize=False) > 100
    assert apart(anonymize=True) <= 5, "but for rounding"


@pytest.mark.parametrize("name", sorted(path.name for path in FACES.glob("*.jpg")))
def test_no_face_is_found_in_a_portrait_hidden(name: str) -> None:
    pixels = decode((FACES / name).read_bytes())
    rows = [found(face) for face in default_detector().detect(pixels)]
    assert default_detector().detect(decode(annotate(pixels, rows))), "the box does not hide it"
    assert not default_detector().detect(decode(annotate(pixels, rows, anonymize=True)))


def test_only_the_ellipse_around_a_face_is_hidden() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    copy = decode(
        annotate(pixels, [row((150, 150, 100, 100), width=400, height=400)], anonymize=True)
    )
    unlike = np.abs(copy.astype(int) - decode(annotate(pixels, [])).astype(int)).max(axis=2) > 40
    # Averages over noise are near gray: every part of the box differs, its corners too.
    for y, x in ((155, 155), (155, 245), (245, 155), (245, 245), (200, 200)):
        assert unlike[y - 3 : y + 4, x - 3 : x + 4].mean() > 0.5
    assert not unlike[:60].any()
    assert not unlike[:, :60].any()
    assert copy[180:220, 180:220].std() < 30 < pixels[180:220, 180:220].std()


def test_an_image_taken_whole_is_hidden_whole() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (160, 200, 3), dtype=np.uint8)
    copy = decode(annotate(pixels, [row((0, 0, 200, 160), crop="none")], anonymize=True))
    assert copy[30:-10, 10:-10].std() < 20
    assert copy[-12:-4, 4:12].std() < 40, "its corners too"


def test_a_copy_carries_nothing_but_pixels() -> None:
    exif = Image.Exif()
    exif[0x010E] = "who and where"
    taken = decode(encode(Image.fromarray(GRAY), "JPEG", exif=exif))
    with Image.open(io.BytesIO(annotate(taken, [row()]))) as copy:
        assert copy.format == "JPEG"
        assert not copy.getexif()


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("a.png", "a.png.jpg"),
        ("a.jpg", "a.jpg.jpg"),
        ("in/side/é中🙂.webp", "in/side/é中🙂.webp.jpg"),
        ("100%.jpg", "100%.jpg.jpg"),
        ("%2E%2E/a", "%252E%252E/a.jpg"),
        ("../../a.png", "%2E%2E/%2E%2E/a.png.jpg"),
        ("/etc/a.png", "%2F/etc/a.png.jpg"),
        ("a//./b.png", "a/%2F/%2E/b.png.jpg"),
        ("..", "%2E%2E.jpg"),
        ("C:\\a.png", "C%3A%5Ca.png.jpg"),
        ("x\n<y>?.png", "x%0A%3Cy%3E%3F.png.jpg"),
        ("nul.png", "%6Eul.png.jpg"),
        ("aux/a.png", "%61ux/a.png.jpg"),
        ("ends. /in./a.png", "ends.%20/in%2E/a.png.jpg"),
        ("a.png.jpg/b", "a.png%2Ejpg/b.jpg"),
    ],
)
def test_where_a_copy_is_written(file: str, place: str, tmp_path: Path) -> None:
    assert write_annotated_copy(tmp_path / "out", file, b"data") == tmp_path / "out" / place
    assert (tmp_path / "out" / place).read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_two_images_share_a_copy(tmp_path: Path) -> None:
    names = [
        *("a.png", "a.jpg", "a.png.jpg", "a", "a.png.jpg/b", "./a.png", "/a.png", "b/a.png"),
        *("..", "%2E%2E", "%252E%252E", "x" * 300 + "1", "x" * 300 + "2", "中" * 120, "中" * 121),
    ]
    for number, name in enumerate(names):
        write_annotated_copy(tmp_path, name, str(number).encode())
    kept = sorted(int(path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == list(range(len(names)))


@pytest.mark.skipif(sys.platform == "win32", reason="names there are no bytes")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = write_annotated_copy(tmp_path, os.fsdecode(b"caf\xe9.png"), b"data")
    assert os.fsencode(path.name) == b"caf\xe9.png.jpg"


def test_the_same_image_again_replaces_its_copy(tmp_path: Path) -> None:
    write_annotated_copy(tmp_path, "a.png", b"old")
    write_annotated_copy(tmp_path, "a.png", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.jpg").write_bytes(b"kept")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "a.png.jpg").symlink_to(outside / "kept.jpg")
    for name in ("link/kept", "link/deeper/a.png", "a.png"):
        with pytest.raises(OutputError, match="link"):
            write_annotated_copy(folder, name, b"data")
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("kept.jpg", b"kept")]


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        write_annotated_copy(tmp_path / "file", "a.png", b"data")
    (tmp_path / "a.png.jpg").mkdir()
    with pytest.raises(OutputError, match=r"a\.png\.jpg"):
        write_annotated_copy(tmp_path, "a.png", b"data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png.jpg", "file"]
