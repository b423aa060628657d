"""The detector: where the faces in a picture are, with their landmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import ModelFileError
from facegender.images.pixels import ImageLike, Pixels, Resize, resize_image, to_image

DETECTOR_NAME = "yunet.onnx"

MIN_SCORE = 0.5
"""How sure a detector must be of a face."""

_STRIDES = (8, 16, 32)
_STEP = 32  # the network halves the picture five times
_NMS_IOU = 0.4
_GRAY = 128


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture, in pixels from the picture's top left; it may reach outside.

    Attributes:
        x: left side of its box.
        y: upper side of its box.
        width: of its box.
        height: of its box.
        score: how sure the detector is, 0 to 1.
        landmarks: ``float32 [5, 2]``, x and y of the person's right eye, left eye, tip of the
            nose, right and left corner of the mouth. Not compared by ``==``.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    landmarks: NDArray[np.float32] = field(compare=False)

    def scaled(self, factor: float) -> Face:
        """Give the same face in the same picture of another size."""
        if factor == 1.0:
            return self
        x, y, width, height = (factor * side for side in (self.x, self.y, self.width, self.height))
        return Face(x, y, width, height, self.score, self.landmarks * np.float32(factor))


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A picture made smaller and set into grey, as a YuNet looks at it.

    ``pixels`` are ``uint8 [rows, columns, 3]``, both multiples of 32. The picture begins at
    ``left`` and ``top``; ``across`` and ``down`` are how many of its own pixels one of them stands
    for.
    """

    pixels: Pixels
    left: int
    top: int
    across: float
    down: float

    @classmethod
    def of(cls, image: ImageLike, size: int, margin: float, *, min_steps: int = 1) -> Letterbox:
        """Set a picture in with its long side at ``size``.

        Args:
            image: pixels, or Pillow's.
            size: in pixels.
            margin: grey at every side, as a share of ``size``.
            min_steps: a side has at least so many times 32 pixels.
        """
        pil_image = to_image(image)
        width, height = pil_image.size
        scale = size / max(height, width)
        small = Resize(max(1, round(height * scale)), max(1, round(width * scale)))
        border = round(margin * size)
        rows, columns = (
            _STEP * max(min_steps, ceil((side + 2 * border) / _STEP))
            for side in (small.height, small.width)
        )
        canvas = np.full((rows, columns, 3), _GRAY, np.uint8)
        top, left = (rows - small.height) // 2, (columns - small.width) // 2
        canvas[top : top + small.height, left : left + small.width] = np.asarray(
            resize_image(pil_image, small)
        )
        return cls(canvas, left, top, width / small.width, height / small.height)

    def to_image_coords(self, table: NDArray[np.float32]) -> None:
        """Bring rows of x, y, width, height and five points to the picture's own pixels, in place.

        Args:
            table: ``float32 [faces, 14 or more]``; columns beyond the points stay.
        """
        table[:, [0, 4, 6, 8, 10, 12]] -= self.left
        table[:, [1, 5, 7, 9, 11, 13]] -= self.top
        table[:, [0, 2, 4, 6, 8, 10, 12]] *= self.across
        table[:, [1, 3, 5, 7, 9, 11, 13]] *= self.down


class FaceDetector(Protocol):
    """Whatever finds faces."""

    def detect(self, image: ImageLike, *, min_score: float = ...) -> list[Face]:
        """Find all faces in a decoded picture; safe to call from many threads.

        Those that it is less sure of than ``min_score`` are left out.
        """


class YuNet:
    """The detector that ships: YuNet with the weights of libfacedetection (3-clause BSD).

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023). ``tools/make_detector.py`` writes its file.

    Every picture is looked at small, with a grey margin around it, which finds a face that fills
    it; a larger one is looked at larger too, for the smaller faces in it.
    """

    SMALL_SIDE = 160
    """Long side in pixels of the first look."""

    LARGE_SIDE = 640
    """Most pixels of the long side in the second look."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            ModelFileError: its file is missing or cannot be run.
        """
        import onnxruntime  # not before a face is looked for

        path = Path(__file__).parent / DETECTOR_NAME
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # pictures are small; threads are for several of them
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # one would be kept for each size of picture
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this
            raise ModelFileError(f"ONNX Runtime cannot run {path}: {error}") from error

    def detect(self, image: ImageLike, *, min_score: float = MIN_SCORE) -> list[Face]:
        """Find all faces, those that fill the picture and those of 12 pixels of 640.

        Args:
            image: ``uint8 [H, W, 3]``, RGB, upright, or Pillow's.
            min_score: faces that the detector is less sure of are left out.

        Returns:
            The faces, the surest first.
        """
        pil_image = to_image(image)
        found = [
            self._detect_at_scale(pil_image, size, margin, min_score)
            for size, margin in self.scales(pil_image)
        ]
        return [_face(row) for row in nms(np.concatenate(found))]

    @classmethod
    def scales(cls, image: Image.Image) -> list[tuple[int, float]]:
        """Say how a picture is looked at: long side in pixels, and a grey margin as its share."""
        longest = max(image.size)
        far = [(min(longest, cls.LARGE_SIDE), 0.0)] if longest > 2 * cls.SMALL_SIDE else []
        return [(cls.SMALL_SIDE, 0.3), *far]

    def _detect_at_scale(
        self, image: Image.Image, size: int, margin: float, min_score: float
    ) -> NDArray[np.float32]:
        """Look at the picture with its long side at ``size``.

        Returns:
            ``float32 [faces, 15]``: score, x, y, width, height, and the landmarks, in the
            picture's own pixels.
        """
        canvas = Letterbox.of(image, size, margin)
        found = [
            _decode(values[0], stride, min_score)
            for values, stride in zip(
                self._session.run(None, {"pixels": canvas.pixels[None]}), _STRIDES, strict=True
            )
        ]
        table = np.concatenate(found)
        canvas.to_image_coords(table[:, 1:])
        return table


@cache
def default_detector() -> FaceDetector:
    """The detector that ships, loaded once.

    Raises:
        ModelFileError: its file is missing or cannot be run.
    """
    return YuNet()


def _face(row: NDArray[np.float32]) -> Face:
    score, x, y, width, height = map(float, row[:5])
    return Face(x, y, width, height, score, row[5:].reshape(5, 2))


def _decode(values: NDArray[np.float32], stride: int, min_score: float) -> NDArray[np.float32]:
    """Read one output ``[rows, columns, 15]`` into a table ``[faces, 15]`` of pixels."""
    rows, columns = np.nonzero(values[:, :, 0] > min_score)
    found = values[rows, columns]
    if not len(found):
        return found
    table = np.empty_like(found)
    table[:, 0] = found[:, 0]
    table[:, 3:5] = np.exp(np.minimum(found[:, 3:5], 10.0)) * stride
    table[:, 1] = (found[:, 1] + columns) * stride - table[:, 3] / 2
    table[:, 2] = (found[:, 2] + rows) * stride - table[:, 4] / 2
    table[:, 5::2] = (found[:, 5::2] + columns[:, None]) * stride
    table[:, 6::2] = (found[:, 6::2] + rows[:, None]) * stride
    return table


def nms(table: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Keep the surest of each pile of boxes (greedy non-maximum suppression)."""
    kept = []
    rest = table[np.argsort(-table[:, 0], kind="stable")]
    while len(rest):
        first = rest[0]
        kept.append(first)
        ends = np.minimum(first[1:3] + first[3:5], rest[:, 1:3] + rest[:, 3:5])
        shared = np.clip(ends - np.maximum(first[1:3], rest[:, 1:3]), 0, None).prod(1)
        areas = rest[:, 3:5].prod(1)
        rest = rest[shared / (areas[0] + areas - shared) < _NMS_IOU]
    return kept
