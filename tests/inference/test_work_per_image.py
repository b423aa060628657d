"""The work per image, counted, not timed: decodes, runs of the network, bytes, modules."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from made import encode, image
from PIL import Image, ImageFile

from facegender.faces import yunet
from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceCrop
from facegender.faces.yunet import default_detector
from facegender.images import jpeg
from facegender.images.pixels import Pixels, Resize
from facegender.inference import pipeline
from facegender.inference.classifier import BATCH_SIZE, Classifier
from facegender.inference.pipeline import READ_AHEAD, TASK_FILES, PredictOptions, predict_files
from facegender.inference.preprocess import PreprocessedImage, PreprocessOptions, preprocess_file
from facegender.inference.worker_pool import WorkerPool, _send
from facegender.inputs.paths import collect_inputs

JPEG = encode(image(size=(200, 200), seed=1), "JPEG")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the decodes, resizes and detections that really happen."""
    counts: Counter[str] = Counter()
    load, resize = ImageFile.ImageFile.load, Image.Image.resize
    from_array, look = Image.fromarray, yunet.YuNet._detect_at_scale

    def note(name: str, really: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            counts[name] += 1
            return really(*args, **kwargs)

        return run

    def decode(image: ImageFile.ImageFile) -> object:
        counts["decodes"] += bool(image.tile)  # nothing is left of it in one that is loaded
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    # a JPEG is handed to Pillow's decoder in pieces
    monkeypatch.setattr(jpeg, "load_complete", note("decodes", jpeg.load_complete))
    monkeypatch.setattr(Image.Image, "resize", note("resizes", resize))
    monkeypatch.setattr(Image, "fromarray", note("arrays made images", from_array))
    monkeypatch.setattr(yunet.YuNet, "_detect_at_scale", note("detections", look))
    return counts


def test_a_crop_taken_whole_is_decoded_once_and_resized_once(
    classifier: Classifier, counted: Counter[str]
) -> None:
    description = classifier.description
    preprocessed = preprocess_file(
        JPEG, PreprocessOptions(description.crop, description.resize, "whole")
    )
    assert preprocessed is not None and len(preprocessed.crops) == 1
    assert counted == {"decodes": 1, "resizes": 1}


def test_a_photo_with_a_confident_face_is_searched_twice_and_never_rotated(
    classifier: Classifier, counted: Counter[str], astronaut: Pixels
) -> None:
    data = encode(Image.fromarray(astronaut), "JPEG")
    counted.clear()
    description = classifier.description
    preprocessed = preprocess_file(
        data, PreprocessOptions(description.crop, description.resize, "auto")
    )
    assert preprocessed is not None and preprocessed.crops
    assert counted["decodes"] == 1
    assert counted["detections"] == 2  # close, and far
    assert counted["arrays made images"] <= 5


def test_a_face_crop_is_decoded_once_and_searched_once(
    classifier: Classifier, counted: Counter[str], astronaut: Pixels
) -> None:
    data = encode(Image.fromarray(astronaut[51:191, 154:294]).resize((200, 200)), "JPEG")
    counted.clear()
    preprocessed = preprocess_file(data, PreprocessOptions(ALIGNED_CROP, Resize(128, 128), "auto"))
    assert preprocessed is not None and preprocessed.crops[0].face is not None
    assert counted["decodes"] == counted["detections"] == 1
    assert counted["resizes"] == 2  # for the detector, and of the crop
    assert counted["arrays made images"] <= 1  # the crop, where it reaches over an edge


def test_a_run_decodes_every_image_once(
    classifier: Classifier, counted: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here:
        """Preprocesses in this process, where it is counted."""

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *error: object) -> None: ...

        def submit_group(
            self, function: Any, tasks: Any, options: PreprocessOptions
        ) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result([function(task, options) for task in tasks])
            return done

    count = 3 * TASK_FILES + 5
    for n in range(count):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
    monkeypatch.setattr(pipeline, "start_workers", lambda *args: Here())
    answered = list(
        predict_files(collect_inputs([tmp_path]), classifier, PredictOptions(faces="whole"))
    )
    assert len(answered) == count
    assert counted == {"decodes": count, "resizes": count}


@pytest.mark.parametrize(("side", "decodes"), [(3200, 1), (1400, 2), (700, 3)])
def test_a_large_photo_is_decoded_small_and_larger_only_for_a_small_face(
    classifier: Classifier, counted: Counter[str], astronaut: Pixels, side: int, decodes: int
) -> None:
    """With 700 pixels the face is so small that the photo is also searched at a finer scale."""
    photo = Image.new("RGB", (3200, 3200), (200, 60, 40))
    photo.paste(Image.fromarray(astronaut).resize((side, side)), (100, 100))
    data = encode(photo, "JPEG")
    counted.clear()
    description = classifier.description
    preprocessed = preprocess_file(
        data, PreprocessOptions(description.crop, Resize(128, 128), "detect")
    )
    assert preprocessed is not None and (preprocessed.width, preprocessed.height) == (3200, 3200)
    assert counted["decodes"] == decodes
    (crop,) = preprocessed.crops
    (known,) = default_detector().detect(astronaut)
    box, times = crop.face, side / 512
    assert box is not None
    assert [box.x, box.y, box.width, box.height] == pytest.approx(
        [known.x * times + 100, known.y * times + 100, known.width * times, known.height * times],
        abs=0.15 * known.width * times,
    )


def test_the_network_runs_once_for_every_full_batch(classifier: Classifier, tmp_path: Path) -> None:
    """Also with unreadable images in between, and at the end of the read-ahead."""
    count = 10 * BATCH_SIZE + 3
    for n in range(count):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
        if n % 3 == 0:
            (tmp_path / f"{n} broken.jpg").write_bytes(JPEG[:300])
    runs: list[tuple[int, ...]] = []
    really = classifier._network

    class Network:
        name = really.name

        def __call__(self, pixels: Pixels) -> np.ndarray:
            runs.append(pixels.shape)
            return really(pixels)

    classifier._network = Network()
    try:
        answered = list(
            predict_files(collect_inputs([tmp_path]), classifier, PredictOptions(faces="whole"))
        )
    finally:
        classifier._network = really
    assert sum(each.rows[0].status == "ok" for each in answered) == count
    assert runs == [(BATCH_SIZE, *runs[0][1:])] * (count // BATCH_SIZE + 1)


def test_faces_of_one_image_may_lie_in_two_runs(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = classifier.description.resize
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (50, size.height, size.width, 3), dtype=np.uint8)
    cuts = [0, 5, 5, 21, 22, 50]  # faces of five images, one of which has none

    class Read:
        def __enter__(self) -> Read:
            return self

        def __exit__(self, *error: object) -> None: ...

    crops = [
        tuple(FaceCrop(pixels, None) for pixels in many[low:high]) for low, high in pairwise(cuts)
    ]
    for n in range(len(crops)):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
    read = (
        (item, PreprocessedImage(crop, 9, 9))
        for item, crop in zip(collect_inputs([tmp_path]), crops, strict=True)
    )
    monkeypatch.setattr(pipeline, "_read_ahead", lambda *args: read)
    monkeypatch.setattr(pipeline, "start_workers", lambda *args: Read())
    answered = list(predict_files(collect_inputs([tmp_path]), classifier))
    rows = [row for each in answered for row in each.rows]
    found = [row.probability for row in rows if row.face_index is not None]
    alone = classifier.probabilities(many).max(1)
    assert found == [pytest.approx(p, abs=5.1e-5) for p in alone.tolist()]
    assert [len(each.rows) for each in answered] == [5, 1, 16, 1, 28]
    assert rows[5].status == "no_face"


def test_a_worker_sends_little_more_than_the_pixels(classifier: Classifier, tmp_path: Path) -> None:
    description = classifier.description
    preprocessed = preprocess_file(
        JPEG, PreprocessOptions(description.crop, description.resize, "whole")
    )
    assert preprocessed is not None
    pixels = preprocessed.crops[0].pixels.nbytes
    with (tmp_path / "pipe").open("wb") as pipe:
        _send(pipe, (True, preprocessed))
    assert (tmp_path / "pipe").stat().st_size <= pixels + 700


def test_small_images_go_to_be_read_together_and_large_ones_alone(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    really = WorkerPool.submit_group

    def submit(pool: WorkerPool, function: Any, tasks: Any, *args: Any) -> Any:
        asked.append(len(tasks))
        return really(pool, function, tasks, *args)

    monkeypatch.setattr(WorkerPool, "submit_group", submit)
    for n in range(5 * TASK_FILES + 3):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
    list(predict_files(collect_inputs([tmp_path]), classifier, PredictOptions(faces="whole")))
    assert asked == [TASK_FILES] * 5 + [3]
    asked.clear()
    large = tmp_path / "large"
    large.mkdir()
    for n in range(3):
        (large / f"{n}.jpg").write_bytes(JPEG + bytes(600_000))
    list(predict_files(collect_inputs([large]), classifier, PredictOptions(faces="whole")))
    assert asked == [1, 1, 1]


def test_a_row_allocates_little(classifier: Classifier, tmp_path: Path) -> None:
    """In the main process: only its path stays in memory, and pending files are bounded."""

    def allocated(count: int) -> tuple[int, int]:
        folder = tmp_path / str(count)
        folder.mkdir()
        for n in range(count):
            (folder / f"{n}.jpg").write_bytes(JPEG)
        answers = predict_files(collect_inputs([folder]), classifier, PredictOptions(faces="whole"))
        next(answers)
        tracemalloc.start()
        try:
            rows = sum(len(each.rows) for each in answers)
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert rows == count - 1
        return left, peak

    size = classifier.description.resize
    ahead = READ_AHEAD + 3 * TASK_FILES * classifier.threads  # images that may be pending
    few, many = allocated(300), allocated(900)
    assert many[0] - few[0] < 600 * 250  # the text of its path, that of the folder in it
    assert many[1] - few[1] < 500_000
    assert many[1] < 2 * ahead * (size.height * size.width * 3 + 5000) + 1_000_000


def test_reading_a_crop_allocates_little(classifier: Classifier) -> None:
    """Of Python's memory, 64 kB of it Pillow's to copy by; what it decodes into is not counted."""
    description = classifier.description
    options = PreprocessOptions(description.crop, description.resize, "whole")
    assert preprocess_file(JPEG, options) is not None  # loads what is loaded once
    pixels = description.resize.height * description.resize.width * 3
    tracemalloc.start()
    try:
        images = [preprocess_file(JPEG, options) for _ in range(50)]
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(images)
    assert left < 50 * (pixels + 1500)
    assert peak < left + 3 * len(JPEG) + 2 * pixels + 75_000


def test_graphs_are_loaded_once(
    classifier: Classifier,
    model_path: Path,
    astronaut: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network's for a run, the detector's for a worker."""
    loaded: list[object] = []
    really = onnxruntime.InferenceSession

    def session(graph: object, *args: Any, **kwargs: Any) -> object:
        loaded.append(graph)
        return really(graph, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    network = Classifier.load(model_path, runtime="onnxruntime", threads=2)
    for n in range(3 * BATCH_SIZE + 1):
        (tmp_path / f"{n}.jpg").write_bytes(JPEG)
    assert (
        len(list(predict_files(collect_inputs([tmp_path]), network, PredictOptions(faces="whole"))))
        == 3 * BATCH_SIZE + 1
    )
    assert len(loaded) == 1
    default_detector.cache_clear()
    data = encode(Image.fromarray(astronaut), "JPEG")
    for faces in ("auto", "detect", "auto"):
        preprocess_file(data, PreprocessOptions(ALIGNED_CROP, Resize(128, 128), faces))
    assert len(loaded) == 2


def test_a_worker_imports_only_what_it_needs() -> None:
    """It starts while the network loads, and imports there delay the first result."""
    spared = {"natsort", "typer", "rich", "jinja2", "torch", "scipy", "cv2", "sqlite3"}
    spared |= {"facegender.results.report", "facegender.results.process_results"}
    spared |= {"facegender.inference.classifier", "facegender.inference.pipeline"}
    loaded = "sorted(__import__('sys').modules)"
    with WorkerPool(1, timeout=60) as pool:
        pool.submit(
            preprocess_file, JPEG, PreprocessOptions(ALIGNED_CROP, Resize(128, 128), "whole")
        ).result()
        assert not (spared | {"onnxruntime"}) & set(pool.submit(eval, loaded).result())
        pool.submit(
            preprocess_file, JPEG, PreprocessOptions(ALIGNED_CROP, Resize(128, 128), "auto")
        ).result()
        assert not spared & set(pool.submit(eval, loaded).result())


def test_predict_imports_nothing_heavy(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    code = (
        "import sys; from facegender.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'scipy', 'sklearn', 'matplotlib', 'pandas',\n"
        "         'onnx', 'cv2', 'jinja2', 'pyarrow', 'fastapi', 'ray'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "predict", str(tmp_path), "-q", "--model"]
    command += [str(model_path), "-o", str(tmp_path / "o.json")]
    assert subprocess.check_output(command, text=True).strip() == "[]"
