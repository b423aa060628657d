from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import SIDE, build_model, encode, image
from PIL import Image

from facegender.errors import InputError, ModelFileError
from facegender.faces.face_aligner import FaceCrop
from facegender.images.pixels import Pixels
from facegender.inference.classifier import BATCH_SIZE, Classifier
from facegender.inference.preprocess import PreprocessedImage
from facegender.results.predictions import Box, Prediction, Status

FRAME = (SIDE, SIDE, 3)


def test_probabilities(classifier: Classifier) -> None:
    black = np.zeros((1, *FRAME), np.uint8)
    assert classifier.probabilities(black).tolist() == [[0.5, 0.5]]
    blue = black.copy()
    blue[..., 2] = 100
    found = classifier.probabilities(blue)
    assert found.dtype == np.float32 and found[0, 0] == pytest.approx(1 / (1 + np.exp(-4)))
    assert classifier.probabilities(np.zeros((0, *FRAME), np.uint8)).shape == (0, 2)


def test_rows_do_not_depend_on_neighbours(classifier: Classifier) -> None:
    batch = np.random.default_rng(1).integers(0, 256, (3 * BATCH_SIZE + 5, *FRAME), dtype=np.uint8)
    together = classifier.probabilities(batch)
    order = np.random.default_rng(2).permutation(len(batch))
    assert np.array_equal(classifier.probabilities(batch[order]), together[order])
    for index in (0, 7, BATCH_SIZE, len(batch) - 1):
        alone = classifier.probabilities(batch[index : index + 1])
        assert np.array_equal(alone[0], together[index])


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (np.zeros((1, *FRAME), np.float32), TypeError),
        (np.zeros(FRAME, np.uint8), ValueError),
        (np.zeros((1, 8, 8, 3), np.uint8), ValueError),
    ],
)
def test_probabilities_refuse(classifier: Classifier, batch: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        classifier.probabilities(batch)


def test_a_network_without_probabilities(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(build_model(has_softmax=False))
    with pytest.raises(ModelFileError, match="no probabilities"):
        Classifier.load(tmp_path, threads=1).predict(image(seed=1))


def test_every_kind_of_input_has_the_same_answer(classifier: Classifier, tmp_path: Path) -> None:
    image = image("female", size=(SIDE, SIDE), seed=1)
    path = tmp_path / "é 中.png"
    path.write_bytes(encode(image))
    rows = classifier.predict([path, str(path), image, np.asarray(image)])
    assert [row.file for row in rows] == [str(path), str(path), None, None]
    assert {row.label for row in rows} == {"female"}
    assert len({row.probability for row in rows}) == 1
    assert rows[0] == classifier.predict(path)
    assert rows[0].box == Box(0, 0, SIDE, SIDE) and (rows[0].width, rows[0].height) == (SIDE, SIDE)
    assert classifier.predict([]) == []
    assert classifier.predict((image,)) == [rows[2]]


def test_values_are_plain(classifier: Classifier) -> None:
    row = classifier.predict(np.asarray(image("male", (50, 30), seed=1)))
    assert type(row.probability) is float and row.probability == round(row.probability, 4)
    assert (row.width, row.height) == (50, 30) and type(row.width) is int


def test_grey_array_is_three_equal_channels(classifier: Classifier) -> None:
    grayscale = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
    expected = classifier.predict(np.repeat(grayscale[:, :, None], 3, axis=2))
    assert classifier.predict(grayscale) == expected
    assert classifier.predict(Image.fromarray(grayscale)) == expected


def test_a_view_is_not_changed(classifier: Classifier) -> None:
    pixels = np.asarray(image(seed=1))[::-1, ::2]
    before = pixels.copy()
    classifier.predict(pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((4, 4, 3)), TypeError, "float64, not uint8"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "list"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "none"),
        (np.zeros(4, np.uint8), ValueError, "shape"),
        ([b"bytes"], TypeError, "bytes is no picture"),
        ([None], TypeError, "NoneType is no picture"),
    ],
)
def test_no_image(classifier: Classifier, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        classifier.predict(value)


@pytest.mark.parametrize("name", ["missing.jpg", "broken.jpg", "notes.txt", "."])
def test_unreadable_path_is_a_row(classifier: Classifier, tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.jpg").write_bytes(encode(image(seed=1), "JPEG")[:-40])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "good.png").write_bytes(encode(image(seed=1)))
    rows = classifier.predict([tmp_path / name, tmp_path / "good.png"])
    assert [row.status for row in rows] == [Status.UNREADABLE, Status.OK]
    assert rows[0].error and rows[0].file == str(tmp_path / name)


def answer(classifier: Classifier, p: tuple[float, float], below: float | None) -> Prediction:
    reading = PreprocessedImage((FaceCrop(np.zeros(FRAME, np.uint8), None),), 4, 4)
    (row,) = classifier.rows("a", reading, iter([np.array(p, np.float32)]), below)
    return row


@pytest.mark.parametrize(
    ("p", "below", "status", "label", "probability"),
    [
        ((0.2, 0.8), None, "ok", "male", 0.8),
        ((0.8, 0.2), None, "ok", "female", 0.8),
        ((0.8, 0.2), 0.8, "ok", "female", 0.8),
        ((0.8, 0.2), 0.8001, "unknown", "female", 0.8),
        ((0.29996, 0.70004), 0.7, "ok", "male", 0.7),
        ((0.30004, 0.69996), 0.7, "ok", "male", 0.7),  # as shown, rounded
        ((0.5, 0.5), None, "unknown", "female", 0.5),
        ((0.49999, 0.50001), None, "ok", "male", 0.5),
        ((0.0, 1.0), 1.0, "ok", "male", 1.0),
        ((0.4999999, 0.4999998), None, "ok", "female", 0.5),
    ],
)
def test_answer(
    classifier: Classifier,
    p: tuple[float, float],
    below: float | None,
    status: str,
    label: str,
    probability: float,
) -> None:
    row = answer(classifier, p, below)
    assert (row.status, row.label, row.probability) == (status, label, probability)


def test_threshold_of_the_network(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(build_model({"min_confidence": 1.0}))
    strict = Classifier.load(tmp_path, threads=1)
    assert strict.predict(image(seed=1)).status == Status.UNKNOWN
    assert strict.predict(image(seed=1), min_confidence=0.5).status == Status.OK
    for wrong in (0.4, 1.1, float("nan")):
        with pytest.raises(ValueError, match="not within"):
            strict.predict(image(seed=1), min_confidence=wrong)


def test_alone_among_forty_and_shuffled(classifier: Classifier) -> None:
    images = [
        np.asarray(image(random.Random(n).choice(["male", "female"]), (20 + n, 60 - n), seed=n))
        for n in range(41)
    ]
    together = classifier.predict(images)
    assert [classifier.predict(item) for item in images[:3]] == together[:3]
    assert classifier.predict(images[::-1]) == together[::-1]


def crowd(astronaut: Pixels) -> Pixels:
    """Three astronauts, the one in the middle larger."""
    head = Image.fromarray(astronaut[20:220, 130:330])
    scene = Image.new("RGB", (900, 500), (90, 110, 90))
    for size, at in ((120, (40, 60)), (260, (320, 120)), (120, (720, 300))):
        scene.paste(head.resize((size, size)), at)
    return np.asarray(scene)


def test_every_face_has_a_row_and_the_largest_is_the_answer(astronaut: Pixels) -> None:
    shipped = Classifier.load(threads=1)
    rows = shipped.predict_faces(crowd(astronaut))
    assert [row.face_index for row in rows] == [0, 1, 2]
    assert {row.crop for row in rows} == {"aligned"} and {row.label for row in rows} == {"female"}
    assert [row.box.width > 90 for row in rows if row.box] == [True, False, False]
    assert (
        shipped.predict(crowd(astronaut))
        == rows[0]
        == shipped.predict_faces(crowd(astronaut), faces="auto")[0]
    )
    (whole,) = shipped.predict_faces(crowd(astronaut), faces="whole")
    assert (whole.crop, whole.detection_score, whole.box) == ("whole", None, Box(0, 0, 900, 500))


def test_a_image_without_a_face_gets_no_label(astronaut: Pixels) -> None:
    shipped = Classifier.load(threads=1)
    sky = np.full((300, 400, 3), (120, 160, 220), np.uint8)
    rows = shipped.predict([sky, astronaut])
    assert [row.status for row in rows] == [Status.NO_FACE, Status.OK]
    assert rows[0].label is None and (rows[0].width, rows[0].height) == (400, 300)
    with pytest.raises(InputError, match="all"):
        shipped.predict(sky, faces="all")
