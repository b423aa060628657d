from __future__ import annotations

import io
import multiprocessing
import pickle
import random
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import SIDE, build_model, encode, image
from PIL import Image

from facegender.errors import InputError, ModelFileError, UnreadableImageError
from facegender.faces.face_aligner import FaceCrop
from facegender.images.pixels import Pixels
from facegender.inference.classifier import BATCH_SIZE, Classifier
from facegender.inference.preprocess import PreprocessedImage
from facegender.results.predictions import Box, Prediction, Status

CROP = (SIDE, SIDE, 3)


def test_probabilities(classifier: Classifier) -> None:
    black = np.zeros((1, *CROP), np.uint8)
    assert classifier.probabilities(black).tolist() == [[0.5, 0.5]]
    blue = black.copy()
    blue[..., 2] = 100
    found = classifier.probabilities(blue)
    assert found.dtype == np.float32 and found[0, 0] == pytest.approx(1 / (1 + np.exp(-4)))
    assert classifier.probabilities(np.zeros((0, *CROP), np.uint8)).shape == (0, 2)


def test_rows_do_not_depend_on_neighbours(classifier: Classifier) -> None:
    batch = np.random.default_rng(1).integers(0, 256, (3 * BATCH_SIZE + 5, *CROP), dtype=np.uint8)
    together = classifier.probabilities(batch)
    order = np.random.default_rng(2).permutation(len(batch))
    assert np.array_equal(classifier.probabilities(batch[order]), together[order])
    for index in (0, 7, BATCH_SIZE, len(batch) - 1):
        alone = classifier.probabilities(batch[index : index + 1])
        assert np.array_equal(alone[0], together[index])


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (np.zeros((1, *CROP), np.float32), TypeError),
        (np.zeros(CROP, np.uint8), ValueError),
        (np.zeros((1, 8, 8, 3), np.uint8), ValueError),
    ],
)
def test_probabilities_refuse(classifier: Classifier, batch: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        classifier.probabilities(batch)


def test_a_network_without_probabilities(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(build_model(has_softmax=False))
    with pytest.raises(ModelFileError, match="not probabilities"):
        Classifier.load(tmp_path, threads=1).predict(image(seed=1))


def test_every_kind_of_input_has_the_same_answer(classifier: Classifier, tmp_path: Path) -> None:
    woman = image("female", size=(SIDE, SIDE), seed=1)
    path = tmp_path / "é 中.png"
    path.write_bytes(encode(woman))
    rows = classifier.predict([path, str(path), woman, np.asarray(woman)])
    assert [row.file for row in rows] == [str(path), str(path), None, None]
    assert {row.label for row in rows} == {"female"}
    assert len({row.probability for row in rows}) == 1
    assert rows[0] == classifier.predict(path)
    assert rows[0].box == Box(0, 0, SIDE, SIDE) and (rows[0].width, rows[0].height) == (SIDE, SIDE)
    assert classifier.predict([]) == []
    assert classifier.predict((woman,)) == [rows[2]]


def test_values_are_plain(classifier: Classifier) -> None:
    row = classifier.predict(np.asarray(image("male", (50, 30), seed=1)))
    assert type(row.probability) is float and row.probability == round(row.probability, 4)
    assert (row.width, row.height) == (50, 30) and type(row.width) is int


def test_a_gray_array_is_three_equal_channels(classifier: Classifier) -> None:
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
        (np.zeros((4, 4, 3)), TypeError, "uint8 pixels .*got float64"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "shape"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, "as a list"),
        (np.zeros((2, 4, 4, 4), np.uint8), ValueError, "shape"),
        (np.zeros((2, 4, 4, 3)), TypeError, "got float64"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "no pixels"),
        (np.zeros(4, np.uint8), ValueError, "shape"),
        ([None], TypeError, "Expected a path, bytes, an open binary file.*got NoneType"),
        (None, TypeError, "Expected a path, bytes.*or several of them, got NoneType"),
        (7, TypeError, "Expected a path, bytes.*got int"),
        (io.StringIO("text"), TypeError, "returned str, not bytes. Open it in mode 'rb'"),
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
    reading = PreprocessedImage((FaceCrop(np.zeros(CROP, np.uint8), None),), 4, 4)
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
    assert (whole.crop, whole.detection_score, whole.box) == ("none", None, Box(0, 0, 900, 500))


def test_an_image_without_a_face_gets_no_label(astronaut: Pixels) -> None:
    shipped = Classifier.load(threads=1)
    sky = np.full((300, 400, 3), (120, 160, 220), np.uint8)
    rows = shipped.predict([sky, astronaut])
    assert [row.status for row in rows] == [Status.NO_FACE, Status.OK]
    assert rows[0].label is None and (rows[0].width, rows[0].height) == (400, 300)
    with pytest.raises(InputError, match="all"):
        shipped.predict(sky, faces="all")


class Pipe(io.RawIOBase):
    """A file that cannot seek, as a pipe."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


def test_bytes_and_open_files(classifier: Classifier, tmp_path: Path) -> None:
    data = encode(image("female", seed=1))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = classifier.predict(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in.png", data)
    written = io.BytesIO()
    image("female", seed=1).save(written, "PNG")  # its position is the end
    with path.open("rb") as file, zipfile.ZipFile(tmp_path / "a.zip").open("in.png") as member:
        given = (data, bytearray(data), memoryview(data), io.BytesIO(data), written, Pipe(data))
        names = [*([None] * len(given)), str(path), "in.png"]
        for value, name in zip((*given, file, member), names, strict=True):
            row = classifier.predict(value)
            assert (row.label, row.probability) == ("female", expected.probability)
            assert row.file == name
        assert not file.closed and classifier.predict_faces(file, faces="auto") == [expected]
        rows = classifier.predict([data, file, b"text", io.BytesIO()])
    assert [row.status.value for row in rows] == ["ok", "ok", "unreadable", "unreadable"]
    assert [row.error for row in rows[2:]] == [
        "not an image in a known format",
        "the file is empty (0 bytes)",
    ]
    with pytest.raises(UnreadableImageError, match="the image: not an image"):
        classifier.find_faces(b"text")


def test_a_file_that_cannot_be_read_is_a_row(classifier: Classifier) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    row = classifier.predict(Broken())
    assert (row.status, row.error) == (Status.UNREADABLE, "cannot be read: Input/output error")


def test_arrays_of_images_iterables_and_generators(classifier: Classifier) -> None:
    pixels = np.stack([np.asarray(image("male" if n % 2 else "female", seed=n)) for n in range(40)])
    expected = [classifier.predict(each) for each in pixels]
    assert [row.label for row in expected] == ["female", "male"] * 20
    for several in (pixels, list(pixels), tuple(pixels), iter(pixels), (each for each in pixels)):
        assert classifier.predict(several) == expected
    assert classifier.predict(pixels[:0]) == [] == classifier.predict(iter(()))
    assert classifier.predict_faces(pixels[:3], faces="auto") == [[row] for row in expected[:3]]
    assert classifier.predict_faces(iter(pixels[:1]), faces="auto") == [expected[:1]]


def every_kind(tmp_path: Path) -> list[Any]:
    """Images of every kind, and what is none."""
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "a.png").write_bytes(encode(image(seed=1)))
    given: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path / "notes.txt"]
    given += [image(seed=2), np.asarray(image("female", seed=3)), tmp_path / "missing.jpg"]
    given += [encode(image(seed=4)), io.BytesIO(encode(image(seed=5))), b"text", tmp_path]
    for n in range(30):
        given.append(encode(image("male" if n % 3 else "female", (20 + n, 60 - n), seed=n)))
    return given


def test_a_stream_has_the_rows_of_a_list(classifier: Classifier, tmp_path: Path) -> None:
    given = every_kind(tmp_path)
    expected = classifier.predict(given)
    assert {row.status.value for row in expected} == {"ok", "unreadable"}
    assert list(classifier.predict_many(given)) == expected
    assert list(classifier.predict_many(each for each in given)) == expected
    whole = classifier.predict_many(given, faces="whole", min_confidence=1.0)
    assert [row.status.value for row in whole] == [
        "unknown" if row.status == Status.OK else "unreadable" for row in expected
    ]
    assert list(classifier.predict_many([])) == []


def test_a_stream_is_read_little_by_little_and_says_what_is_wrong(classifier: Classifier) -> None:
    taken = 0

    def images(last: Any) -> Iterator[Any]:
        nonlocal taken
        for n in range(500):
            taken += 1
            yield encode(image(seed=n))
        yield last

    rows = classifier.predict_many(images(None))
    assert taken == 0
    assert next(rows).label == "male"
    assert taken < 300
    found = 1
    with pytest.raises(TypeError, match=r"Expected a path.*got NoneType"):
        for _ in rows:
            found += 1
    assert found == 500  # the error comes after the rows of the images before it
    with pytest.raises(InputError, match="all"):  # at the call
        classifier.predict_many([], faces="all")
    with pytest.raises(ValueError, match="not within"):
        classifier.predict_many([], min_confidence=2)


def test_a_pickled_classifier_loads_again(classifier: Classifier, tmp_path: Path) -> None:
    data = encode(image("female", seed=1))
    copies = [pickle.loads(pickle.dumps(classifier)) for _ in range(2)]
    assert copies[0] is copies[1]  # loaded once
    assert copies[0].predict(data) == classifier.predict(data)
    assert (copies[0].threads, copies[0].runtime) == (classifier.threads, classifier.runtime)
    path = tmp_path / "model.onnx"
    path.write_bytes(build_model())
    mine = Classifier.load(path, runtime="onnxruntime", threads=3)
    again = pickle.loads(pickle.dumps(mine))
    assert (again.threads, again.digest) == (3, mine.digest)
    assert pickle.loads(pickle.dumps(again)).threads == 3
    pickled = pickle.dumps(Classifier.load(path, threads=2))
    path.write_bytes(build_model({"name": "another"}))
    with pytest.raises(ModelFileError, match="not the model of the pickled classifier"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ModelFileError, match="Cannot read the model file"):
        pickle.loads(pickled)


def label_of(classifier: Classifier, data: bytes) -> str | None:
    return classifier.predict(data).label


def test_a_classifier_goes_to_other_processes(classifier: Classifier) -> None:
    joblib = pytest.importorskip("joblib")
    data = [encode(image(label, seed=1)) for label in ("female", "male", "female")]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        labels = pool.starmap(label_of, [(classifier, each) for each in data])
    assert labels == ["female", "male", "female"]
    tasks = [joblib.delayed(classifier.predict)(each) for each in data]
    assert [row.label for row in joblib.Parallel(n_jobs=2)(tasks)] == labels


def test_repr(classifier: Classifier) -> None:
    assert repr(classifier) == (
        f"<Classifier 'mean': {SIDE}x{SIDE} pixels, {classifier.runtime}, 1 thread, "
        f"sha256 {classifier.digest[:12]}>"
    )
    row = Prediction("a.jpg", Status.OK, 0, "male", 0.9731, Box(1, 2, 3, 4), 0.91, "aligned", 9, 8)
    assert repr(row) == (
        "Prediction(file='a.jpg', status='ok', face_index=0, label='male', probability=0.9731, "
        "box=Box(x=1, y=2, width=3, height=4), detection_score=0.91, crop='aligned', width=9, "
        "height=8)"
    )
    empty = Prediction("b.jpg", Status.UNREADABLE, error="truncated")
    assert repr(empty) == "Prediction(file='b.jpg', status='unreadable', error='truncated')"


def test_one_image_starts_no_thread(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread"))
    assert classifier.predict(image(seed=1)).label == "male"
    assert classifier.predict([image(seed=1)])[0].label == "male"
