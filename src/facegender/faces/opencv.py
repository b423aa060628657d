"""Face detection with OpenCV's ``FaceDetectorYN`` and the user's own YuNet file.

For a newer or retrained YuNet, such as ``face_detection_yunet_2023mar.onnx`` from OpenCV's model
zoo. Needs the extra ``opencv``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegender.errors import MissingExtraError, ModelFileError
from facegender.faces.yunet import (
    GRAY,
    MAX_STRIDE,
    MIN_SCORE,
    Face,
    Letterbox,
    Scale,
    detect_at_scales,
)
from facegender.images.pixels import ImageLike

_NMS_IOU = 0.4
_MAX_FACES = 5000  # before non-maximum suppression; OpenCV's own default
_LOG_LEVEL = threading.RLock()  # OpenCV's log level is one for all threads
_EXPECTED = (
    "Expected an ONNX file for OpenCV's FaceDetectorYN with the outputs cls_8, obj_8, bbox_8, "
    "kps_8 and so on, such as face_detection_yunet_2023mar.onnx"
)


class OpenCVYuNet:
    """A :class:`~facegender.faces.yunet.FaceDetector` over OpenCV's ``FaceDetectorYN``.

    It searches an image at the same sizes as :class:`~facegender.faces.yunet.YuNet`. OpenCV's
    detector stores the image size, so every thread has its own.
    """

    def __init__(self, path: Path) -> None:
        """Read the file and run it once.

        Args:
            path: an ONNX file with YuNet.

        Raises:
            MissingExtraError: OpenCV is not installed.
            ModelFileError: the file cannot be read, or is no YuNet that OpenCV can run.
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
                f"Cannot read the detector {path}: {error.strerror or error}"
            ) from error
        self._thread_local = threading.local()
        try:
            with _silenced(cv2):
                blank = np.full((MAX_STRIDE, MAX_STRIDE, 3), GRAY, np.uint8)
                self._detect_at_scale(blank, (MAX_STRIDE, 0.0), MIN_SCORE)
        except cv2.error as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f"{path} is not a YuNet that OpenCV {cv2.__version__} can run. {_EXPECTED}. "
                f"OpenCV's message: {reason}"
            ) from error

    def detect(
        self,
        image: ImageLike,
        *,
        min_score: float = MIN_SCORE,
        scales: Sequence[Scale] | None = None,
    ) -> list[Face]:
        """Detect all faces; thread-safe.

        Args:
            image: ``uint8 [H, W, 3]``, RGB, upright, or a Pillow image.
            min_score: minimum score of a face, 0 to 1.
            scales: the scales that are searched; None is all of
                :func:`~facegender.faces.yunet.search_scales`.

        Returns:
            The faces, the highest score first.
        """
        return detect_at_scales(image, scales, partial(self._detect_at_scale, min_score=min_score))

    def _detect_at_scale(
        self, image: ImageLike, scale: Scale, min_score: float
    ) -> NDArray[np.float32]:
        """Detect faces in the image with its long side at ``scale[0]``.

        Returns:
            ``float32 [faces, 15]``: score, x, y, width, height, landmarks, in pixels of the image.
        """
        # on a canvas of one stride OpenCV 4 detects faces where there are none
        canvas = Letterbox.of(image, *scale, min_strides=2)
        detector = self._detector()
        detector.setInputSize(canvas.pixels.shape[1::-1])
        detector.setScoreThreshold(min_score)
        _, found = detector.detect(np.ascontiguousarray(canvas.pixels[..., ::-1]))
        # OpenCV's columns have the score last
        table = np.zeros((0, 15), np.float32) if found is None else np.roll(found, 1, axis=1)
        canvas.to_image_coords(table[:, 1:])
        return table

    def _detector(self) -> Any:
        """Return OpenCV's detector of this thread, created on first use."""
        if not hasattr(self._thread_local, "detector"):
            with _silenced(self._cv2):
                self._thread_local.detector = self._cv2.FaceDetectorYN.create(
                    "onnx",
                    self._data,
                    np.empty(0, np.uint8),
                    (2 * MAX_STRIDE, 2 * MAX_STRIDE),
                    MIN_SCORE,
                    _NMS_IOU,
                    _MAX_FACES,
                )
        return self._thread_local.detector


@contextmanager
def _silenced(cv2: Any) -> Iterator[None]:
    """Silence OpenCV's log on standard error: a failure is also raised as an exception."""
    # OpenCV 4 and 5
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    with _LOG_LEVEL:
        level = set_level(0)
        try:
            yield
        finally:
            set_level(level)
