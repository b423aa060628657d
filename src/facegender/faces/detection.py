"""Find all faces in an image, also rotated ones, and choose the main one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot

import numpy as np

from facegender.faces.yunet import Face, FaceDetector, YuNet
from facegender.images.pixels import ImageLike, Resize, resize_image, to_image

CONFIDENT_SCORE = (
    0.9  # of a face that stands upright; those that lie are seen, too, but less surely
)
MIN_ROTATION_GAIN = 0.03  # by which a turn of the picture must make the surest face surer
ROTATED_MIN_SCORE = 0.7  # at a turn of the picture
NEARLY_LARGEST = 0.7  # of the largest face, by area: as large as that
_GRAY = 128


def select_main_face(faces: Sequence[Face], width: int, height: int) -> Face | None:
    """Choose the face that a picture shows: the largest, where near in size the more central one.

    Args:
        faces: what a detector found.
        width: of the picture in pixels.
        height: likewise.
    """

    def aside(face: Face) -> float:
        return hypot(
            (face.x + face.width / 2) / width - 0.5, (face.y + face.height / 2) / height - 0.5
        )

    most = max((face.width * face.height for face in faces), default=0.0)
    large = [face for face in faces if face.width * face.height >= NEARLY_LARGEST * most]
    return min(large, key=aside, default=None)


def detect_multi_orientation(image: ImageLike, detector: FaceDetector) -> list[Face]:
    """Find all faces; look again with more around where there are none, and at the four turns.

    A face that lies on its side or on its head is found less surely, if at all, and its landmarks
    are wrong; so the picture is turned where no face is sure.

    Args:
        image: pixels ``uint8 [H, W, 3]``, upright by what its file says, or Pillow's.
        detector: what looks.

    Returns:
        The faces in the picture's own pixels, the surest first.
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
        around = ((border, border), (border, border), (0, 0))
        padded = np.pad(small, around, constant_values=_GRAY)
        found = [_translated(face, border).scaled(scale) for face in detector.detect(padded)]
    views = [found]
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(small, turns))
        rows, columns = turned.shape[:2]
        seen = detector.detect(turned, min_score=ROTATED_MIN_SCORE)
        views.append([_rotated_back(face, columns, rows, turns).scaled(scale) for face in seen])
    best = max(views, key=_max_score)
    return best if _max_score(best) >= _max_score(found) + MIN_ROTATION_GAIN else found


def _max_score(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _translated(face: Face, border: int) -> Face:
    landmarks = face.landmarks - np.float32(border)
    return replace(face, x=face.x - border, y=face.y - border, landmarks=landmarks)


def _rotated_back(face: Face, width: int, height: int, turns: int) -> Face:
    """Bring a face from a picture that was turned by quarters (``np.rot90``) to the picture."""
    ends = ((face.x, face.y), (face.x + face.width, face.y + face.height))
    points = np.array([*ends, *face.landmarks], np.float32)
    for _ in range(turns):
        points = np.column_stack((np.float32(height) - points[:, 1], points[:, 0]))
        width, height = height, width
    low, high = points[:2].min(0), points[:2].max(0)
    x, y = map(float, low)
    return Face(x, y, float(high[0] - x), float(high[1] - y), face.score, points[2:])
