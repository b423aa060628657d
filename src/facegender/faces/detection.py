"""Detect all faces of an image, also rotated ones, and select the main one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot

import numpy as np

from facegender.faces.yunet import GRAY, Face, FaceDetector, YuNet
from facegender.images.pixels import ImageLike, Resize, resize_image, to_image

CONFIDENT_SCORE = 0.9
"""With a face of this score or more, no rotation of the image is tried."""

MIN_ROTATION_GAIN = 0.03
"""A rotation of the image is used if it raises the highest score by this much."""

ROTATED_MIN_SCORE = 0.7
"""Minimum score of a face in a rotated image."""

MAIN_FACE_MIN_AREA = 0.7
"""Faces of at least this fraction of the largest face's area can be the main face."""


def select_main_face(faces: Sequence[Face], width: int, height: int) -> Face | None:
    """Select the main face: the largest; of several of similar size, the most central one.

    Args:
        faces: the faces of an image.
        width: of the image in pixels.
        height: of the image in pixels.

    Returns:
        The main face, or None without faces.
    """

    def distance_to_center(face: Face) -> float:
        return hypot(
            (face.x + face.width / 2) / width - 0.5, (face.y + face.height / 2) / height - 0.5
        )

    largest = max((face.width * face.height for face in faces), default=0.0)
    large = [face for face in faces if face.width * face.height >= MAIN_FACE_MIN_AREA * largest]
    return min(large, key=distance_to_center, default=None)


def detect_multi_orientation(image: ImageLike, detector: FaceDetector) -> list[Face]:
    """Detect all faces; if none is confident, also in the image rotated by 90, 180 and 270 degrees.

    A sideways or upside-down face is detected with a low score, if at all, and with wrong
    landmarks. If nothing is found, the image is first tried again with a wide gray margin.

    Args:
        image: pixels ``uint8 [H, W, 3]``, or a Pillow image.
        detector: the face detector.

    Returns:
        The faces in pixels of ``image``, the highest score first.
    """
    pil_image = to_image(image)
    found = detector.detect(pil_image)
    if _max_score(found) >= CONFIDENT_SCORE:
        return found
    width, height = pil_image.size
    scale = max(1.0, max(height, width) / YuNet.LARGE_SIDE)
    size = Resize(max(1, round(height / scale)), max(1, round(width / scale)))
    small = np.asarray(resize_image(pil_image, size))
    if not found:
        border = round(0.6 * max(small.shape[:2]))
        margins = ((border, border), (border, border), (0, 0))
        padded = np.pad(small, margins, constant_values=GRAY)
        found = [_translated(face, border).scaled(scale) for face in detector.detect(padded)]
    candidates = [found]
    for quarter_turns in (1, 2, 3):
        rotated = np.ascontiguousarray(np.rot90(small, quarter_turns))
        rows, columns = rotated.shape[:2]
        faces = detector.detect(rotated, min_score=ROTATED_MIN_SCORE)
        candidates.append(
            [_rotated_back(face, columns, rows, quarter_turns).scaled(scale) for face in faces]
        )
    best = max(candidates, key=_max_score)
    return best if _max_score(best) >= _max_score(found) + MIN_ROTATION_GAIN else found


def _max_score(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _translated(face: Face, border: int) -> Face:
    landmarks = face.landmarks - np.float32(border)
    return replace(face, x=face.x - border, y=face.y - border, landmarks=landmarks)


def _rotated_back(face: Face, width: int, height: int, quarter_turns: int) -> Face:
    """Map a face of an image of this size, rotated by ``np.rot90``, to the image before that."""
    corners = ((face.x, face.y), (face.x + face.width, face.y + face.height))
    points = np.array([*corners, *face.landmarks], np.float32)
    for _ in range(quarter_turns):
        points = np.column_stack((np.float32(height) - points[:, 1], points[:, 0]))
        width, height = height, width
    low, high = points[:2].min(0), points[:2].max(0)
    x, y = map(float, low)
    return Face(x, y, float(high[0] - x), float(high[1] - y), face.score, points[2:])
