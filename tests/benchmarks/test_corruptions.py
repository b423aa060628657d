"""Every corruption of the accuracy benchmark returns another image, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.corruptions import CORRUPTIONS
from facegender.faces.yunet import default_detector
from facegender.images.pixels import Pixels


@pytest.fixture(scope="module")
def face(astronaut: Pixels) -> Pixels:
    return np.ascontiguousarray(astronaut[20:220, 140:310])


def test_each_makes_another_image(face: Pixels) -> None:
    (found,) = default_detector().detect(face)
    for landmarks in (found.landmarks, None):
        for name, change in CORRUPTIONS.items():
            before = face.copy()
            one, two = (change(face, landmarks, np.random.default_rng(7)) for _ in range(2))
            assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3, name
            assert np.array_equal(one, two), name
            assert np.array_equal(face, before), name
            same = one.shape == face.shape and np.array_equal(one, face)
            assert same == (name == "clean"), name


@pytest.mark.parametrize(
    ("name", "hidden", "seen"),
    [("mask", (3, 4), (0, 1)), ("sunglasses", (0, 1), (3, 4)), ("scarf", (), (0, 1, 2, 3, 4))],
)
def test_covers_lie_where_they_say(
    face: Pixels,
    name: str,
    hidden: tuple[int, ...],
    seen: tuple[int, ...],
) -> None:
    """Of eyes, nose and mouth corners, those are covered that should be."""
    (found,) = default_detector().detect(face)
    covered = CORRUPTIONS[name](face, found.landmarks, np.random.default_rng(0))
    for point in (*hidden, *seen):
        x, y = found.landmarks[point].round().astype(int)
        changed = (
            covered[y - 2 : y + 3, x - 2 : x + 3] != face[y - 2 : y + 3, x - 2 : x + 3]
        ).any()
        assert changed == (point in hidden), point
