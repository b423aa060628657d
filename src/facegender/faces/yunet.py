"""YuNet, the face detector that ships: boxes, scores and landmarks of the faces of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import ModelFileError
from facegender.images.pixels import ImageLike, Pixels, Resize, resize_image, to_image

DETECTOR_NAME = "yunet.onnx"
"""File name of the detector that ships, in the folder of this module."""

MIN_SCORE = 0.5
"""Minimum score of a face."""

MAX_STRIDE = 32
"""Input sides of a YuNet are multiples of this: it halves the image five times."""

SMALL_SIDE = 160
"""Long side in pixels of the small scale."""

LARGE_SIDE = 640
"""Maximum long side in pixels of the large scale."""

GRAY = 128
"""Value of the margin around an image."""

Scale: TypeAlias = tuple[int, float]
"""A size at which an image is searched: long side in pixels, gray margin as a fraction of it."""

_STRIDES = (8, 16, MAX_STRIDE)
_NMS_IOU = 0.4
_NMS_CONTAINED = 0.7  # of the smaller box
_NMS_AREA_RATIO = 0.2  # a smaller box than that is a face of its own


@dataclass(frozen=True, slots=True)
class Face:
    """One face of an image, in pixels from the top left; it may extend outside the image.

    Attributes:
        x: left side of the box.
        y: upper side of the box.
        width: of the box.
        height: of the box.
        score: of the detector, 0 to 1.
        landmarks: ``float32 [5, 2]``, x and y of the person's right eye, left eye, nose tip,
            right and left mouth corner. Ignored by ``==``.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    landmarks: NDArray[np.float32] = field(compare=False)

    def scaled(self, factor: float, factor_y: float | None = None) -> Face:
        """Return the face in an image that is ``factor`` times as large.

        Args:
            factor: of both sides; only of the width if ``factor_y`` is given.
            factor_y: of the height.
        """
        down = factor if factor_y is None else factor_y
        if factor == down == 1.0:
            return self
        return Face(
            factor * self.x,
            down * self.y,
            factor * self.width,
            down * self.height,
            self.score,
            self.landmarks * np.array((factor, down), np.float32),
        )

    def moved(self, x: float, y: float) -> Face:
        """Return the face shifted by ``x`` pixels to the right and ``y`` down."""
        landmarks = self.landmarks + np.array((x, y), np.float32)
        return Face(self.x + x, self.y + y, self.width, self.height, self.score, landmarks)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A resized image on a gray canvas: the input of a YuNet.

    Attributes:
        pixels: ``uint8 [H, W, 3]``, both sides multiples of :data:`MAX_STRIDE`.
        left: column of the canvas where the image starts.
        top: row of the canvas where the image starts.
        scale_x: image pixels per canvas pixel, horizontally.
        scale_y: image pixels per canvas pixel, vertically.
    """

    pixels: Pixels
    left: int
    top: int
    scale_x: float
    scale_y: float

    @classmethod
    def of(cls, image: ImageLike, size: int, margin: float, *, min_strides: int = 1) -> Letterbox:
        """Resize an image to a long side of ``size`` and center it on a canvas.

        Args:
            image: pixels ``uint8 [H, W, 3]``, or a Pillow image.
            size: in pixels.
            margin: gray margin on every side, as a fraction of ``size``.
            min_strides: minimum side of the canvas, in units of :data:`MAX_STRIDE`.
        """
        pil_image = to_image(image)
        width, height = pil_image.size
        scale = size / max(height, width)
        small = Resize(max(1, round(height * scale)), max(1, round(width * scale)))
        border = round(margin * size)
        rows, columns = (
            MAX_STRIDE * max(min_strides, ceil((side + 2 * border) / MAX_STRIDE))
            for side in (small.height, small.width)
        )
        canvas = np.full((rows, columns, 3), GRAY, np.uint8)
        top, left = (rows - small.height) // 2, (columns - small.width) // 2
        canvas[top : top + small.height, left : left + small.width] = np.asarray(
            resize_image(pil_image, small)
        )
        return cls(canvas, left, top, width / small.width, height / small.height)

    def to_image_coords(self, table: NDArray[np.float32]) -> None:
        """Convert x, y, width, height and five points from canvas to image pixels, in place.

        Args:
            table: ``float32 [faces, 14 or more]``; further columns are not changed.
        """
        table[:, [0, 4, 6, 8, 10, 12]] -= self.left
        table[:, [1, 5, 7, 9, 11, 13]] -= self.top
        table[:, [0, 2, 4, 6, 8, 10, 12]] *= self.scale_x
        table[:, [1, 3, 5, 7, 9, 11, 13]] *= self.scale_y


def search_scales(longest: int) -> list[Scale]:
    """Return the scales at which an image with this long side in pixels is searched.

    The small one has a margin, for faces that fill the image; the large one, for all others, only
    an image of more than twice the small one's pixels.
    """
    large = [(min(longest, LARGE_SIDE), 0.0)] if longest > 2 * SMALL_SIDE else []
    return [(SMALL_SIDE, 0.3), *large]


def shrink(image: ImageLike) -> Image.Image:
    """Resize an image to a long side of :data:`LARGE_SIDE`; a smaller one is returned as it is."""
    pil_image = to_image(image)
    scale = LARGE_SIDE / max(pil_image.size)
    if scale >= 1.0:
        return pil_image
    width, height = (max(1, round(side * scale)) for side in pil_image.size)
    return resize_image(pil_image, Resize(height, width))


class FaceDetector(Protocol):
    """A face detector."""

    def detect(
        self,
        image: ImageLike,
        *,
        min_score: float = ...,
        scales: Sequence[Scale] | None = None,
    ) -> list[Face]:
        """Detect all faces with a score of ``min_score`` or more; thread-safe.

        ``scales`` are those that are searched; None is all of :func:`search_scales`.
        """


class YuNet:
    """The detector that ships: YuNet with the weights of libfacedetection (3-clause BSD).

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023). ``tools/make_detector.py`` writes its file.

    Every image is searched at a small size with a gray margin, which finds a face that fills it; a
    large image is also searched at a larger size, for the smaller faces in it.
    """

    def __init__(self) -> None:
        """Load the network.

        Raises:
            ModelFileError: its file is missing or cannot be run.
        """
        import onnxruntime  # not before a face is searched for

        path = Path(__file__).parent / DETECTOR_NAME
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # images are small; threads are for several of them
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # memory would be reserved for each image size
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            raise ModelFileError(f"ONNX Runtime cannot run {path}: {error}") from error

    def detect(
        self,
        image: ImageLike,
        *,
        min_score: float = MIN_SCORE,
        scales: Sequence[Scale] | None = None,
    ) -> list[Face]:
        """Detect all faces, from those that fill the image down to 12 of 640 pixels; thread-safe.

        Args:
            image: ``uint8 [H, W, 3]``, RGB, upright, or a Pillow image.
            min_score: minimum score of a face, 0 to 1.
            scales: the scales that are searched; None is all of :func:`search_scales`.

        Returns:
            The faces, the highest score first.
        """
        return detect_at_scales(image, scales, partial(self._detect_at_scale, min_score=min_score))

    def _detect_at_scale(
        self, image: Image.Image, scale: Scale, min_score: float
    ) -> NDArray[np.float32]:
        """Detect faces in the image with its long side at ``scale[0]``.

        Returns:
            ``float32 [faces, 15]``: score, x, y, width, height, landmarks, in pixels of the image.
        """
        canvas = Letterbox.of(image, *scale)
        found = [
            _decode_output(values[0], stride, min_score)
            for values, stride in zip(
                self._session.run(None, {"pixels": canvas.pixels[None]}), _STRIDES, strict=True
            )
        ]
        table = np.concatenate(found)
        canvas.to_image_coords(table[:, 1:])
        return table


@cache
def default_detector() -> FaceDetector:
    """Return the detector that ships, loaded once.

    Raises:
        ModelFileError: its file is missing or cannot be run.
    """
    return YuNet()


def detect_at_scales(
    image: ImageLike,
    scales: Sequence[Scale] | None,
    detect_at_scale: Callable[[Image.Image, Scale], NDArray[np.float32]],
) -> list[Face]:
    """Detect faces at several scales. The small ones are made from the large one.

    Args:
        image: ``uint8 [H, W, 3]``, RGB, upright, or a Pillow image.
        scales: None is all of :func:`search_scales`.
        detect_at_scale: returns a table ``float32 [faces, 15]`` in pixels of the image it is given.

    Returns:
        The faces in pixels of ``image``, the highest score first.
    """
    pil_image = to_image(image)
    small = shrink(pil_image)
    wanted = search_scales(max(pil_image.size)) if scales is None else scales
    rows = nms(np.concatenate([detect_at_scale(small, scale) for scale in wanted]))
    factors = (pil_image.width / small.width, pil_image.height / small.height)
    return [_face(row).scaled(*factors) for row in rows]


def merge(faces: Sequence[Face]) -> list[Face]:
    """Remove duplicates among faces of one image that were detected apart, by :func:`nms`."""
    table = np.array(
        [
            (face.score, face.x, face.y, face.width, face.height, *face.landmarks.ravel())
            for face in faces
        ],
        np.float32,
    )
    return [_face(row) for row in nms(table.reshape(-1, 15))]


def _face(row: NDArray[np.float32]) -> Face:
    score, x, y, width, height = map(float, row[:5])
    return Face(x, y, width, height, score, row[5:].reshape(5, 2))


def _decode_output(
    values: NDArray[np.float32], stride: int, min_score: float
) -> NDArray[np.float32]:
    """Decode one output ``[rows, columns, 15]`` to a table ``[faces, 15]`` in canvas pixels."""
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
    """Apply greedy non-maximum suppression: of boxes on one face, the best remains.

    Boxes are on one face if they overlap, or if one lies mostly within the other and is not much
    smaller.

    Args:
        table: ``float32 [faces, 15]``: score, x, y, width, height, landmarks.

    Returns:
        The remaining rows, the highest score first.
    """
    selected = []
    remaining = table[np.argsort(-table[:, 0], kind="stable")]
    while len(remaining):
        best = remaining[0]
        selected.append(best)
        ends = np.minimum(best[1:3] + best[3:5], remaining[:, 1:3] + remaining[:, 3:5])
        overlap = np.clip(ends - np.maximum(best[1:3], remaining[:, 1:3]), 0, None).prod(1)
        areas = remaining[:, 3:5].prod(1)
        smaller, larger = np.minimum(areas, areas[0]), np.maximum(areas, areas[0])
        is_inside = (overlap > _NMS_CONTAINED * smaller) & (smaller > _NMS_AREA_RATIO * larger)
        remaining = remaining[(overlap < _NMS_IOU * (areas[0] + areas - overlap)) & ~is_inside]
    return selected
