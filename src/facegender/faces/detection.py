"""Detect all faces of an image, also rotated ones, and select the main one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot

import numpy as np
from PIL import Image

from facegender.faces.tiles import DetailSource, add_small_faces
from facegender.faces.yunet import GRAY, Face, FaceDetector, merge, search_scales, shrink
from facegender.images.pixels import ImageLike, to_image

CONFIDENT_SCORE = 0.9
"""With a face of this score or more, no rotation of the image is tried."""

MIN_ROTATION_GAIN = 0.03
"""A rotation of the image is used if it raises the highest score by this much."""

ROTATED_MIN_SCORE = 0.7
"""Minimum score of a face in a rotated image."""

SMALL_SCALE_FACE = 0.2
"""From this fraction of the long side across, a face is searched at the small scale only when the
image is rotated."""

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


def detect_multi_orientation(
    image: ImageLike,
    detector: FaceDetector,
    *,
    is_enough: Callable[[Sequence[Face]], bool] | None = None,
    source: DetailSource | None = None,
) -> list[Face]:
    """Detect all faces; if none is confident, also in the image rotated by 90, 180 and 270 degrees.

    A sideways or upside-down face is detected with a low score, if at all, and with wrong
    landmarks. If nothing is found, the image is first tried again with a wide gray margin. A large
    image is searched at finer scales by :func:`~facegender.faces.tiles.add_small_faces`.

    Args:
        image: pixels ``uint8 [H, W, 3]``, or a Pillow image.
        detector: the face detector.
        is_enough: tells from the faces found at the first scale, in pixels of ``image``, that the
            others need no search; None searches all scales.
        source: the same image with more pixels; None takes ``image``.

    Returns:
        The faces in pixels of ``image``, the highest score first.
    """
    pil_image = to_image(image)
    small = shrink(pil_image)
    factors = (pil_image.width / small.width, pil_image.height / small.height)
    first, *others = search_scales(max(pil_image.size))
    found = detector.detect(small, scales=[first])
    if others:
        if (
            is_enough is not None
            and _max_score(found) >= CONFIDENT_SCORE
            and is_enough([face.scaled(*factors) for face in found])
        ):
            return [face.scaled(*factors) for face in found]
        found = merge([*found, *detector.detect(small, scales=others)])
    if _max_score(found) < CONFIDENT_SCORE:
        found, is_upright = _detect_rotated(small, found, detector)
    else:
        is_upright = True
    faces = [face.scaled(*factors) for face in found]
    if not is_upright:
        return faces
    source = source or DetailSource(max(pil_image.size), lambda _: pil_image)
    return add_small_faces(faces, pil_image, source, detector)


def _detect_rotated(
    image: Image.Image, found: list[Face], detector: FaceDetector
) -> tuple[list[Face], bool]:
    """Detect faces in the image with a margin, if nothing was found in it, and rotated.

    Returns:
        The faces of the best orientation, and whether that is the image as it is.
    """
    pixels = np.asarray(image)
    if not found:
        border = round(0.6 * max(image.size))
        margins = ((border, border), (border, border), (0, 0))
        padded = np.pad(pixels, margins, constant_values=GRAY)
        found = [face.moved(-border, -border) for face in detector.detect(padded)]
    # A face that is seen at the small scale is seen there at any rotation
    scales = search_scales(max(image.size))
    best_width = max(found, key=lambda face: face.score).width if found else 0.0
    if best_width >= SMALL_SCALE_FACE * max(image.size):
        scales = scales[:1]
    candidates = [found]
    for quarter_turns in (1, 2, 3):
        rotated = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
        rows, columns = rotated.shape[:2]
        faces = detector.detect(rotated, min_score=ROTATED_MIN_SCORE, scales=scales)
        candidates.append([_rotated_back(face, columns, rows, quarter_turns) for face in faces])
    best = max(candidates, key=_max_score)
    if _max_score(best) >= _max_score(found) + MIN_ROTATION_GAIN:
        return best, False
    return found, True


def _max_score(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


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
