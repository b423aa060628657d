"""Scenes of the detector benchmark have their faces where they say, and are judged correctly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.detectors import scenes
from benchmarks.detectors.scenes import Scene
from facegender.faces.yunet import YuNet
from facegender.images.pixels import Pixels


@pytest.fixture(scope="module")
def photo(astronaut: Pixels) -> Scene:
    """Not square, so that width and height cannot be mixed up unseen."""
    return Scene(
        "photo",
        "astronaut",
        np.ascontiguousarray(astronaut[:330]),
        np.array([[178, 63, 90, 112]], float),
    )


def found(pixels: Pixels) -> Any:
    faces = YuNet().detect(pixels)
    rows = [(face.x, face.y, face.width, face.height, face.score) for face in faces]
    return np.array(rows, float).reshape(-1, 5)


@pytest.mark.parametrize("degrees", [0, 15, 45, 180])
def test_rotated(photo: Scene, degrees: int) -> None:
    scene = scenes.rotated(photo, degrees)
    _, missed, wrong = scenes.judge(found(scene.pixels), scene)
    assert (missed, wrong) == (0, 0)


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3)])
def test_a_quarter_turn_takes_the_face_along(photo: Scene, degrees: int, quarters: int) -> None:
    scene = scenes.rotated(photo, degrees)
    assert np.array_equal(scene.pixels, np.rot90(photo.pixels, quarters))
    mask = np.zeros(photo.pixels.shape[:2], bool)
    mask[63 : 63 + 112, 178 : 178 + 90] = True
    rows, columns = np.nonzero(np.rot90(mask, quarters))
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    np.testing.assert_allclose(scene.faces[0], box, atol=1e-6)


def test_shrunk_tight_and_crowded(photo: Scene) -> None:
    for scene in (
        scenes.shrunk(photo),
        scenes.tight(photo, 1.0),
        scenes.tight(photo, 0.8),
        scenes.crowd([photo] * 3, 9, 0),
    ):
        right, missed, wrong = scenes.judge(found(scene.pixels), scene)
        assert (missed, wrong) == (0, 0), scene.condition
        assert right.sum() == len(scene.faces)


def test_judging(photo: Scene) -> None:
    def judged(*boxes: tuple[float, float, float, float]) -> tuple[int, int, int]:
        table = np.array([(*box, 0.9) for box in boxes], float).reshape(-1, 5)
        right, missed, wrong = scenes.judge(table, photo)
        return int(right.sum()), missed, wrong

    face = (180.0, 60.0, 90.0, 110.0)
    assert judged(face) == (1, 0, 0)
    assert judged() == (0, 1, 0)
    assert judged(face, face) == (1, 0, 1)
    assert judged((0, 0, 90, 110), face) == (1, 0, 1)
    assert judged((178, 63, 30, 112)) == (0, 1, 1)


def test_patches_without_a_face_keep_away_from_it(photo: Scene) -> None:
    patches = [
        scene
        for scene in scenes.faceless([photo] * 8)
        if scene.condition == "no face: patch of a photo"
    ]
    assert patches
    for scene in patches:
        assert not len(scene.faces)
        assert not len(found(scene.pixels))
