"""Faces are detected, also rotated, tight and small, and cropped by the crop rule."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from skimage import data

from facegender.faces.alignment import ALIGNED_CROP, Crop, align_crop, estimate_similarity
from facegender.faces.detection import detect_multi_orientation, select_main_face
from facegender.faces.face_aligner import FaceAligner
from facegender.faces.yunet import Face, YuNet, default_detector
from facegender.images.pixels import Pixels, Resize, resize

EYES = ((200.0, 102.0), (247.0, 103.0))
"""Of the astronaut, in pixels of the 512x512 image."""


@pytest.fixture(scope="module")
def yunet() -> YuNet:
    return YuNet()


def test_it_finds_the_one_face(astronaut: Pixels, yunet: YuNet) -> None:
    (face,) = yunet.detect(astronaut)
    assert face.score > 0.85
    np.testing.assert_allclose(face.landmarks[:2], EYES, atol=3)
    assert face.x == pytest.approx(178, abs=6) and face.width == pytest.approx(90, abs=8)
    assert face.y == pytest.approx(63, abs=8) and face.height == pytest.approx(112, abs=10)


@pytest.mark.parametrize("degrees", [-45, -20, 20, 45])
def test_it_finds_a_turned_face(astronaut: Pixels, yunet: YuNet, degrees: int) -> None:
    """Its place is right; landmarks show only a part of the turn, the network stands the rest."""
    turned = np.asarray(Image.fromarray(astronaut).rotate(degrees, center=(223, 120)))
    face = select_main_face(yunet.detect(turned), 512, 512)
    assert face is not None
    np.testing.assert_allclose(face.landmarks.mean(0), (223, 120), atol=20)


@pytest.mark.parametrize("size", [24, 64, 90, 200])
def test_it_finds_a_face_that_fills_the_image(astronaut: Pixels, yunet: YuNet, size: int) -> None:
    tight = Image.fromarray(astronaut[66:176, 176:272]).resize((size, size * 110 // 96))
    (face,) = yunet.detect(np.asarray(tight))
    assert face.width > 0.7 * size


def test_it_finds_small_faces_in_a_large_image(astronaut: Pixels, yunet: YuNet) -> None:
    crowd = np.zeros((900, 1200, 3), np.uint8)
    head = np.asarray(Image.fromarray(astronaut[20:220, 130:330]).resize((100, 100)))
    for x, y in ((50, 60), (500, 300), (1050, 750)):
        crowd[y : y + 100, x : x + 100] = head
    found = sorted((face.x, face.y) for face in yunet.detect(crowd))
    np.testing.assert_allclose(found, [(74, 81), (524, 321), (1074, 771)], atol=6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (700, 2), (33, 31)])
def test_it_finds_nothing_in_nothing(yunet: YuNet, shape: tuple[int, int]) -> None:
    assert yunet.detect(np.full((*shape, 3), 90, np.uint8)) == []


def test_the_largest_face_is_chosen_and_the_middle_one_of_equals() -> None:
    def face(x: float, width: float) -> Face:
        return Face(x, 100, width, width, 0.9, np.zeros((5, 2), np.float32))

    small, aside, middle = face(130, 20), face(0, 60), face(120, 58)
    assert select_main_face([small, aside, middle], 300, 300) is middle
    assert select_main_face([small, aside], 300, 300) is aside
    assert select_main_face([aside, face(125, 49)], 300, 300) is aside
    assert select_main_face([], 300, 300) is None


def test_a_crop_lies_where_its_landmarks_say() -> None:
    """Landmarks made by a known turn, size and shift are led back to exactly that."""
    turn, side, corner = np.radians(30), 80.0, np.array([20.0, 45.0])
    axes = side * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = np.array(ALIGNED_CROP.template) @ axes.T + corner
    np.testing.assert_allclose(
        estimate_similarity(landmarks, ALIGNED_CROP), np.column_stack([axes, corner])
    )
    with pytest.raises(ValueError, match="same point"):
        estimate_similarity(np.ones((5, 2)), ALIGNED_CROP)


def test_a_cut_is_the_part_of_the_image_that_it_frames() -> None:
    """Without a turn, and one to one, a cut is a plain slice; beyond the edge, the edge."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    landmarks = np.array(ALIGNED_CROP.template) * 64

    def cut_at(x: int, y: int) -> Pixels:
        return align_crop(pixels, landmarks + np.array((x, y)), ALIGNED_CROP, Resize(64, 64))

    inside = cut_at(30, 20)
    assert np.abs(inside.astype(int) - pixels[20:84, 30:94]).max() <= 1
    outside = cut_at(100, -40)
    assert np.abs(outside[40:, :20].astype(int) - pixels[:24, 100:]).max() <= 1
    assert np.abs(outside[41:, 21:].astype(int) - pixels[1:24, -1:]).max() <= 1
    assert np.abs(outside[:40, :20].astype(int) - pixels[:1, 100:]).max() <= 1


def test_a_large_face_is_cut_without_aliasing() -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    small = align_crop(
        stripes, np.array(ALIGNED_CROP.template) * 700 + 50, ALIGNED_CROP, Resize(64, 64)
    )
    assert np.abs(small.astype(int) - 128).max() < 20


def test_a_turned_face_comes_out_upright(astronaut: Pixels, yunet: YuNet) -> None:
    """By known landmarks: those of the upright face, rotated with the image."""
    (face,) = yunet.detect(astronaut)
    upright = align_crop(astronaut, face.landmarks, ALIGNED_CROP, Resize(128, 128))
    turned = np.asarray(Image.fromarray(astronaut).rotate(40, Image.Resampling.BICUBIC))
    angle, middle = np.radians(-40), np.array((256, 256))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    landmarks = (face.landmarks - middle) @ turn + middle
    again = align_crop(turned, landmarks, ALIGNED_CROP, Resize(128, 128))
    assert np.abs(upright.astype(int) - again).mean() < 6


def test_an_image_without_a_face_is_taken_whole() -> None:
    coffee = np.ascontiguousarray(data.coffee())
    cropped = FaceAligner(ALIGNED_CROP, Resize(32, 48))(coffee)
    assert cropped.face is None
    assert np.array_equal(cropped.pixels, resize(coffee, Resize(32, 48)))


def test_the_crop_rule_none_asks_no_detector(astronaut: Pixels) -> None:
    class Never:
        def detect(self, pixels: Pixels, *, min_score: float = 0.5) -> list[Face]:
            raise AssertionError

    cropped = FaceAligner(Crop(), Resize(32, 32), Never())(astronaut)
    assert cropped.face is None and cropped.pixels.shape == (32, 32, 3)
    assert default_detector() is default_detector()


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_an_image_on_its_side_is_searched_at_its_four_turns(
    astronaut: Pixels, yunet: YuNet, turns: int
) -> None:
    (upright,) = detect_multi_orientation(astronaut, yunet)
    lying = np.ascontiguousarray(np.rot90(astronaut, turns))
    (found,) = detect_multi_orientation(lying, yunet)
    assert found.score == pytest.approx(upright.score, abs=0.05)
    straight, back = (
        align_crop(pixels, face.landmarks, ALIGNED_CROP, Resize(64, 64))
        for pixels, face in ((astronaut, upright), (lying, found))
    )
    assert np.abs(straight.astype(int) - back).mean() < 4  # cut out upright all the same
    box = np.zeros((512, 512), bool)
    box[round(upright.y) :, round(upright.x) :][: round(upright.height), : round(upright.width)] = 1
    rows, columns = np.nonzero(np.rot90(box, turns))
    assert (found.x, found.y) == pytest.approx((columns.min(), rows.min()), abs=6)


def test_a_face_cut_off_at_all_sides_is_found_with_more_around(
    astronaut: Pixels, yunet: YuNet
) -> None:
    tight = np.ascontiguousarray(astronaut[88:162, 186:262])
    found = detect_multi_orientation(tight, yunet)
    assert len(found) == 1 and found[0].landmarks[:2].mean() == pytest.approx(
        np.subtract(EYES, (186, 88)).mean(), abs=6
    )


@pytest.mark.parametrize("shape", [(2, 60_000), (20_000, 10), (9000, 9000)])
def test_no_shape_of_image_takes_much_memory(yunet: YuNet, shape: tuple[int, int]) -> None:
    grayscale = np.full((*shape, 3), 90, np.uint8)
    tracemalloc.start()
    assert detect_multi_orientation(grayscale, yunet) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_nothing_is_found_where_no_one_is(yunet: YuNet) -> None:
    for name in ("coffee", "brick", "grass", "coins", "chelsea"):
        image = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
        assert detect_multi_orientation(image, yunet) == [], name


def test_auto_leaves_out_what_stands_beside_a_face_that_fills_the_image(
    astronaut: Pixels,
) -> None:
    face_crop = astronaut[40:200, 150:300].copy()
    small = Image.fromarray(astronaut[66:176, 176:272]).resize((26, 30))
    face_crop[2:32, 2:28] = np.asarray(small)
    aligned, whole = FaceAligner(ALIGNED_CROP, Resize(64, 64)), FaceAligner(Crop(), Resize(64, 64))
    assert len(aligned.find_faces(face_crop, "detect")) == 2
    (shown,) = aligned.find_faces(face_crop, "auto")
    assert shown is not None and shown.width > 60
    assert whole.find_faces(face_crop, "auto") == aligned.find_faces(face_crop, "whole") == (None,)
    wide = np.full((900, 1300, 3), 90, np.uint8)
    wide[100:580, 100:550] = np.asarray(Image.fromarray(face_crop).resize((450, 480)))
    assert len(aligned.find_faces(wide, "auto")) == 2 and len(whole.find_faces(wide, "auto")) == 2


@pytest.mark.parametrize(
    ("rule", "template"),
    [
        ("tight", ()),
        ("whole", ALIGNED_CROP.template),
        ("aligned", ()),
        ("aligned", ((0.5, 0.5),) * 5),
    ],
)
def test_a_crop_refuses(rule: str, template: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="crop rule"):
        Crop(rule, template)
