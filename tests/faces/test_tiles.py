"""Small faces in large images are found at finer scales, each once, and only where it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made import encode
from PIL import Image

from facegender.faces import tiles
from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.detection import detect_multi_orientation
from facegender.faces.face_aligner import FaceAligner
from facegender.faces.tiles import MAX_TILES, DetailSource, add_small_faces
from facegender.faces.yunet import LARGE_SIDE, Face, Scale, YuNet, merge, shrink
from facegender.images.pixels import ImageLike, Pixels, Resize
from facegender.inference.preprocess import PreprocessOptions, preprocess_file

PORTRAITS = Path(__file__).parents[2] / "faces"
Head = tuple[Image.Image, tuple[float, float]]
"""A square with one face, and the face's center, 0 to 1."""


@pytest.fixture(scope="module")
def yunet() -> YuNet:
    return YuNet()


@pytest.fixture(scope="module")
def heads(astronaut: Pixels, yunet: YuNet) -> list[Head]:
    images = [Image.fromarray(astronaut[20:220, 130:330])]
    names = ("barack_obama", "barack_obama_standing", "eileen_collins", "joe_biden")
    images += [Image.open(PORTRAITS / f"{name}.jpg").convert("RGB") for name in names]
    found = []
    for image in images:
        face = max(yunet.detect(image), key=lambda face: face.width)
        middle = ((face.x + face.width / 2), (face.y + face.height / 2))
        half = min(face.height, *middle, image.width - middle[0], image.height - middle[1])
        square = image.crop([round(m + s * half) for s in (-1, 1) for m in middle])  # type: ignore[arg-type]
        found.append((square, (0.5, 0.5)))
    return found


def paste(
    canvas: Image.Image, heads: Sequence[Head], places: Iterator[tuple[int, int, int]]
) -> list[tuple[float, float]]:
    """Paste heads at x, y with a side; return where the middles of the faces are, sorted."""
    middles = []
    for number, (x, y, side) in enumerate(places):
        head, (across, down) = heads[number % len(heads)]
        canvas.paste(head.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        middles.append((x + across * side, y + down * side))
    return sorted(middles)


def middles_of(faces: Sequence[Face | None]) -> list[tuple[float, float]]:
    return sorted((f.x + f.width / 2, f.y + f.height / 2) for f in faces if f is not None)


def test_three_faces_in_a_wide_panorama(heads: list[Head]) -> None:
    panorama = Image.new("RGB", (12_000, 2000), (110, 130, 150))
    places = [(700, 900, 180), (6100, 400, 200), (11_500, 1500, 220)]
    expected = paste(panorama, heads, iter(places))
    options = PreprocessOptions(ALIGNED_CROP, Resize(128, 128), "detect")
    found = preprocess_file(encode(panorama, "JPEG", quality=90), options)
    assert found is not None and (found.width, found.height) == (12_000, 2000)
    np.testing.assert_allclose(middles_of([c.face for c in found.crops]), expected, atol=25)


def test_a_crowd_is_counted_and_no_face_is_there_twice(heads: list[Head], yunet: YuNet) -> None:
    crowd = Image.new("RGB", (6000, 4000), (110, 130, 150))
    sides = np.random.default_rng(1).integers(110, 330, 80).tolist()
    places = ((20 + 600 * (n % 10), 20 + 500 * (n // 10), side) for n, side in enumerate(sides))
    expected = paste(crowd, heads, places)
    found = middles_of(detect_multi_orientation(crowd, yunet))
    assert len(found) == 80
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=40)


def test_faces_at_the_edges_of_tiles_are_found_once(heads: list[Head], yunet: YuNet) -> None:
    image = Image.new("RGB", (2560, 1000), (110, 130, 150))
    edges = tiles._tiles(1280, 500)
    assert len(edges) == 3 and edges[1][0] == 320
    # by the edges of the tiles at 1280 pixels: 320, 640, 960
    places = ((x, y, 56) for x in (612, 1252, 1892) for y in (100, 480))
    expected = paste(image, heads[:1], places)
    found = middles_of(detect_multi_orientation(image, yunet))
    rounded = sorted((round(x / 20), round(y / 20)) for x, y in found)
    assert rounded == [(round(x / 20), round(y / 20)) for x, y in expected]


class Counting:
    """A detector that finds given faces in the whole image, nothing in tiles, and counts."""

    def __init__(self, faces: Sequence[Face] = ()) -> None:
        self.faces, self.scales = list(faces), 0

    def detect(
        self, image: ImageLike, *, min_score: float = 0.5, scales: Sequence[Scale] | None = None
    ) -> list[Face]:
        self.scales += len(scales or [])
        return []


@pytest.mark.parametrize(
    ("size", "width", "sides"),
    [
        ((4000, 3000), 200.0, []),  # the smallest face is 32 of 640 pixels
        ((4000, 3000), 199.0, [1280]),
        ((4000, 3000), None, [1280, 2560]),  # 5120 has more than 25 tiles
        ((960, 700), None, [960]),
        ((959, 700), None, []),  # hardly larger than what was searched
        ((12_000, 2000), 3000.0, [1280, 2560]),  # its short side had 107 pixels, then 213
        ((4000, 3000), 99.0, [1280, 2560]),  # at 1280 it is still below 32
    ],
)
def test_a_finer_scale_is_searched_only_after_a_sign(
    size: tuple[int, int], width: float | None, sides: list[int]
) -> None:
    asked: list[int] = []
    image = Image.new("RGB", size)

    def decode(side: int) -> Image.Image:
        asked.append(side)
        return image

    small = shrink(image)
    scale = max(size) / LARGE_SIDE if max(size) > LARGE_SIDE else 1.0
    faces = [] if width is None else [Face(9, 9, width / scale, 40, 0.9, np.ones((5, 2)))]
    source = DetailSource(max(size), decode)
    found = add_small_faces(faces, small, source, Counting())
    assert len(found) == len(faces)
    assert asked == sides


@pytest.mark.parametrize("size", [(1280, 853), (2560, 2560), (700, 30), (640, 640), (100_000, 1)])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int]) -> None:
    for length in size:
        starts = tiles._starts(length)
        assert starts[0] == 0 or length < LARGE_SIDE
        ends = [min(start + LARGE_SIDE, length) for start in starts]
        assert ends[-1] == length
        for (_, end), (start, _) in pairwise(zip(starts, ends, strict=True)):
            assert end - start >= tiles.TILE_OVERLAP
    assert len(tiles._tiles(2560, 2560)) == MAX_TILES


def test_a_large_photo_with_large_faces_costs_no_more(astronaut: Pixels) -> None:
    detector = YuNet()
    asked: list[tuple[int, ...]] = []
    look = detector._session.run

    class Session:
        def run(self, names: None, inputs: dict[str, Pixels]) -> list[np.ndarray]:
            asked.append(inputs["pixels"].shape)
            return look(names, inputs)

    detector._session = Session()
    photo = Image.fromarray(astronaut).resize((3000, 3000))
    aligner = FaceAligner(ALIGNED_CROP, Resize(64, 64), detector)
    assert len(aligner.find_faces(photo, "detect")) == 1
    assert [shape[1:3] for shape in asked] == [(256, 256), (640, 640)]
    asked.clear()
    close_up = Image.fromarray(astronaut[40:200, 150:300]).resize((1500, 1600))
    assert len(aligner.find_faces(close_up, "auto")) == 1
    assert [shape[1:3] for shape in asked] == [(256, 256)]  # what else is in it is ignored
    asked.clear()
    assert len(aligner.find_faces(close_up, "detect")) == 1
    assert len(asked) == 2


def test_boxes_on_one_face_are_merged_and_neighbors_stay() -> None:
    def face(x: float, y: float, side: float, score: float) -> Face:
        return Face(x, y, side, side, score, np.zeros((5, 2), np.float32))

    best = face(100, 100, 80, 0.9)
    half, beside, badge = face(105, 118, 50, 0.8), face(170, 100, 80, 0.7), face(120, 150, 20, 0.6)
    merged = [(found.x, found.width) for found in merge([half, beside, badge, best])]
    assert merged == [(100, 80), (170, 80), (120, 20)]
    assert merge([]) == []
