"""Find faces with OpenCV's ``FaceDetectorYN`` and a YuNet file that the user has.

For those who want a newer or a retrained YuNet than the one that ships: the files that OpenCV's
model zoo gives out, such as ``face_detection_yunet_2023mar.onnx``. Needs the extra ``opencv``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegender.errors import MissingExtraError, ModelFileError
from facegender.faces.yunet import MIN_SCORE, Face, Letterbox, YuNet
from facegender.images.pixels import ImageLike, to_image

_STEP = 32  # the network halves the picture five times
_GRAY = 128
_OVERLAP = 0.4
_MAX_FACES = 5000  # before overlaps are taken out; OpenCV's own default
_LOG = threading.RLock()  # the level of OpenCV's log is one for all threads
_WANTED = (
    "a YuNet file is an ONNX graph that OpenCV's FaceDetectorYN runs, with the outputs cls_8, "
    "obj_8, bbox_8, kps_8 and so on, such as face_detection_yunet_2023mar.onnx"
)


class OpenCVYuNet:
    """A :class:`~facegender.faces.yunet.FaceDetector` over OpenCV's ``FaceDetectorYN``.

    It looks at a picture as :class:`~facegender.faces.yunet.YuNet` does: small with a grey margin
    around it, for a face that fills it, and a larger one at its size up to 640 pixels too. OpenCV's
    detector keeps the size of its picture as a state, so every thread has a detector of its own.
    """

    def __init__(self, path: Path) -> None:
        """Read the file and try it.

        Args:
            path: an ONNX file with YuNet.

        Raises:
            MissingExtraError: OpenCV is not installed.
            ModelFileError: the file cannot be read, or OpenCV finds no YuNet in it.
        """
        try:
            import cv2
        except ImportError:
            raise MissingExtraError("opencv", "opencv-python-headless") from None
        self._cv2: Any = cv2
        try:
            self._data = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise ModelFileError(
                f"the detector {path} cannot be read: {error.strerror or error}"
            ) from error
        self._of_thread = threading.local()
        try:
            with _silenced(cv2):
                self._detect_at_scale(
                    np.full((_STEP, _STEP, 3), _GRAY, np.uint8), _STEP, 0.0, MIN_SCORE
                )
        except cv2.error as error:
            said = " ".join(str(error).split())
            raise ModelFileError(
                f"{path} is not a YuNet that OpenCV {cv2.__version__} can run: {_WANTED}. "
                f"OpenCV said: {said}"
            ) from error

    def detect(self, image: ImageLike, *, min_score: float = MIN_SCORE) -> list[Face]:
        """Find all faces; safe to call from many threads.

        Args:
            image: ``uint8 [H, W, 3]``, RGB, upright, or Pillow's.
            min_score: faces that the detector is less sure of are left out, 0 to 1.

        Returns:
            The faces, the surest first.
        """
        pil_image = to_image(image)
        rows = np.concatenate(
            [
                self._detect_at_scale(pil_image, size, margin, min_score)
                for size, margin in YuNet.scales(pil_image)
            ]
        )
        kept = self._cv2.dnn.NMSBoxes(
            rows[:, :4].tolist(), rows[:, 14].tolist(), min_score, _OVERLAP
        )
        return [_face(rows[index]) for index in np.asarray(kept, np.intp).ravel()]

    def _detect_at_scale(
        self, image: ImageLike, size: int, margin: float, min_score: float
    ) -> NDArray[np.float32]:
        """Look at the picture with its long side at ``size``.

        Returns:
            ``float32 [faces, 15]``, OpenCV's columns: x, y, width, height, the landmarks, score; in
            the picture's own pixels.
        """
        # at one step OpenCV 4 makes up faces out of nothing
        canvas = Letterbox.of(image, size, margin, min_steps=2)
        detector = self._detector()
        detector.setInputSize(canvas.pixels.shape[1::-1])
        detector.setScoreThreshold(min_score)
        _, found = detector.detect(np.ascontiguousarray(canvas.pixels[..., ::-1]))
        table = np.zeros((0, 15), np.float32) if found is None else found
        canvas.to_image_coords(table)
        return table

    def _detector(self) -> Any:
        """OpenCV's detector of this thread, made at its first picture."""
        if not hasattr(self._of_thread, "detector"):
            with _silenced(self._cv2):
                self._of_thread.detector = self._cv2.FaceDetectorYN.create(
                    "onnx",
                    self._data,
                    np.empty(0, np.uint8),
                    (2 * _STEP, 2 * _STEP),
                    MIN_SCORE,
                    _OVERLAP,
                    _MAX_FACES,
                )
        return self._of_thread.detector


@contextmanager
def _silenced(cv2: Any) -> Iterator[None]:
    """Keep OpenCV's own log off standard error: what went wrong comes as an exception as well."""
    # OpenCV 4, and 5
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    with _LOG:
        level = set_level(0)
        try:
            yield
        finally:
            set_level(level)


def _face(row: NDArray[np.float32]) -> Face:
    x, y, width, height = map(float, row[:4])
    return Face(x, y, width, height, float(row[14]), row[4:14].reshape(5, 2))
