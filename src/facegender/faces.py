"""Find faces in a picture, and cut one out by the model's crop rule.

Training, evaluation and use all bring pictures before the network through a :class:`Framer`, so
that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, floor, hypot

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.detector import Face, FaceDetector, YuNet, default_detector
from facegender.images import Pixels, Resize, Upright, as_image, fitted
from facegender.model_file import Crop

ALIGNED = Crop(
    "aligned", ((0.344, 0.385), (0.656, 0.385), (0.5, 0.563), (0.371, 0.745), (0.629, 0.745))
)
"""The crop rule of the networks that ship: forehead to chin, ear to ear, with little around."""

FACES = ("auto", "detect", "whole")
"""The ways to bring a picture before the network; see :meth:`Framer.find`."""

_SURE = 0.9  # of a face that stands upright; those that lie are seen, too, but less surely
_GAIN = 0.03  # by which a turn of the picture must make the surest face surer
_TURNED_SCORE = 0.7  # at a turn of the picture
_NEARLY = 0.7  # of the largest face, by area: as large as that
_FILLED = 0.5  # of a picture that is a face crop, at least this share is its face's crop
_GREY = 128
_CORNERS = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)  # of a crop


def largest(faces: Sequence[Face], width: int, height: int) -> Face | None:
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
    large = [face for face in faces if face.width * face.height >= _NEARLY * most]
    return min(large, key=aside, default=None)


@dataclass(frozen=True, slots=True)
class Framed:
    """What the network looks at: ``pixels`` at its size, and the face they were cut around.

    ``face`` is None where the whole picture was taken.
    """

    pixels: Pixels
    face: Face | None


@dataclass(frozen=True, slots=True)
class Framer:
    """Brings a picture before the network, by the rules that its model file states.

    By the rule ``aligned`` the face that the picture shows is cut out and turned upright; the
    whole picture is taken where no face is found, and by the rule ``whole``.
    """

    crop: Crop
    resize: Resize
    detector: FaceDetector | None = None

    def __call__(self, picture: Upright) -> Framed:
        """Bring a picture of one labelled face to the network's size, as training does.

        Args:
            picture: pixels ``uint8 [H, W, 3]``, upright, or Pillow's.

        Returns:
            ``uint8 [resize.height, resize.width, 3]``, and the face; the whole picture where none
            was found.
        """
        if self.crop.rule == "whole":
            return self.frame(picture, None)
        image = as_image(picture)
        return self.frame(image, largest(self._detector().detect(image), *image.size))

    def find(self, picture: Upright, faces: str) -> tuple[Face | None, ...]:
        """Find what a picture shows, in any of :data:`FACES`' ways.

        ``whole`` takes the picture as one face, as it is. ``detect`` finds every face. ``auto``
        finds them too; where one fills the picture, which makes it a face crop, the others are
        left out, and by the crop rule ``whole`` it is taken as it is.

        Args:
            picture: pixels ``uint8 [H, W, 3]``, upright, or Pillow's.
            faces: ``auto``, ``detect`` or ``whole``.

        Returns:
            The faces, the one that the picture shows first (see :func:`largest`); none where none
            was found; a single None stands for the whole picture.
        """
        if faces == "whole":
            return (None,)
        image = as_image(picture)
        width, height = image.size
        found = search(image, self._detector())
        shown = largest(found, width, height)
        if shown is None:
            # A network that learned from pictures as they are is asked about them as they are
            return (None,) if faces == "auto" and self.crop.rule == "whole" else ()
        if faces == "auto" and _filled(shown, width, height) >= _FILLED:
            return (shown if self.crop.rule == "aligned" else None,)
        return (shown, *(face for face in found if face is not shown))

    def frame(self, picture: Upright, face: Face | None) -> Framed:
        """Bring one face, or the whole picture for None, to the network's size."""
        if face is None:
            return Framed(np.asarray(fitted(as_image(picture), self.resize)), None)
        return Framed(cut(picture, face.landmarks, self._crop(), self.resize), face)

    def side(self, face: Face) -> float:
        """How many pixels of its picture a face's crop is wide."""
        return float(np.hypot(*place(face.landmarks, self._crop())[:, 0]))

    def _crop(self) -> Crop:
        """The rule to cut a found face by; one that learned from whole crops gets ours."""
        return self.crop if self.crop.rule == "aligned" else ALIGNED

    def _detector(self) -> FaceDetector:
        return self.detector or default_detector()


def search(picture: Upright, detector: FaceDetector) -> list[Face]:
    """Find all faces; look again with more around where there are none, and at the four turns.

    A face that lies on its side or on its head is found less surely, if at all, and its landmarks
    are wrong; so the picture is turned where no face is sure.

    Args:
        picture: pixels ``uint8 [H, W, 3]``, upright by what its file says, or Pillow's.
        detector: what looks.

    Returns:
        The faces in the picture's own pixels, the surest first.
    """
    image = as_image(picture)
    found = detector.detect(image)
    if _surest(found) >= _SURE:
        return found
    width, height = image.size
    scale = max(1.0, max(height, width) / YuNet.FAR)
    size = Resize(max(1, round(height / scale)), max(1, round(width / scale)))
    small = np.asarray(fitted(image, size))
    if not found:
        border = round(0.6 * max(small.shape[:2]))
        around = ((border, border), (border, border), (0, 0))
        padded = np.pad(small, around, constant_values=_GREY)
        found = [_moved(face, border).scaled(scale) for face in detector.detect(padded)]
    views = [found]
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(small, turns))
        rows, columns = turned.shape[:2]
        seen = detector.detect(turned, min_score=_TURNED_SCORE)
        views.append([_turned_back(face, columns, rows, turns).scaled(scale) for face in seen])
    best = max(views, key=_surest)
    return best if _surest(best) >= _surest(found) + _GAIN else found


def _surest(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _moved(face: Face, border: int) -> Face:
    landmarks = face.landmarks - np.float32(border)
    return replace(face, x=face.x - border, y=face.y - border, landmarks=landmarks)


def _turned_back(face: Face, width: int, height: int, turns: int) -> Face:
    """Bring a face from a picture that was turned by quarters (``np.rot90``) to the picture."""
    ends = ((face.x, face.y), (face.x + face.width, face.y + face.height))
    points = np.array([*ends, *face.landmarks], np.float32)
    for _ in range(turns):
        points = np.column_stack((np.float32(height) - points[:, 1], points[:, 0]))
        width, height = height, width
    low, high = points[:2].min(0), points[:2].max(0)
    x, y = map(float, low)
    return Face(x, y, float(high[0] - x), float(high[1] - y), face.score, points[2:])


def _filled(face: Face, width: int, height: int) -> float:
    """How much of the picture a face's aligned crop would take, as a share; may be over 1."""
    return float(abs(np.linalg.det(place(face.landmarks, ALIGNED)[:, :2]))) / (width * height)


def place(landmarks: NDArray[np.floating], crop: Crop) -> NDArray[np.float64]:
    """Find where a crop lies in its picture: the similarity that fits the landmarks best.

    Least squares over turn, size and shift (S. Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 1991, without reflection).

    Args:
        landmarks: ``float [5, 2]`` in the picture.
        crop: its ``points`` are where the landmarks shall lie.

    Returns:
        ``float64 [2, 3]``: takes ``(u, v, 1)``, 0 to 1 across and down the crop, to the picture.

    Raises:
        ValueError: all landmarks are one point.
    """
    middle, aside, spread = _points(crop)
    given = landmarks.astype(np.float64) @ (1, 1j)
    turn = (aside * given).sum() / spread
    if not abs(turn) > 1e-6:
        raise ValueError("the landmarks are one point")
    shift = given.mean() - turn * middle
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


@cache
def _points(crop: Crop) -> tuple[complex, NDArray[np.complex128], float]:
    """A crop's points as complex numbers, for then a similarity is one product and one sum.

    Returns:
        Their middle, how far each is from it (conjugated), and the sum of the squares of that.
    """
    points = np.array(crop.points) @ (1, 1j)
    aside = points - points.mean()
    return points.mean(), aside.conj(), (abs(aside) ** 2).sum()


def cut(picture: Upright, landmarks: NDArray[np.floating], crop: Crop, resize: Resize) -> Pixels:
    """Cut a face out, upright, at the network's size; beyond the picture its edge is repeated.

    Args:
        picture: pixels ``uint8 [H, W, 3]``, or Pillow's.
        landmarks: ``float [5, 2]`` in its pixels.
        crop: where they shall lie.
        resize: the network's size; the crop is stretched to it.

    Returns:
        ``uint8 [resize.height, resize.width, 3]``.
    """
    matrix = place(landmarks, crop)
    image = as_image(picture)
    reach = matrix @ _CORNERS
    ends = list(zip(reach.min(1).tolist(), reach.max(1).tolist(), strict=True))
    # The part of the picture that the crop touches, made smaller where the crop is (antialiasing)
    (left, right), (top, bottom) = (
        _within(low, high, side) for (low, high), side in zip(ends, image.size, strict=True)
    )
    part = image.crop((left, top, right, bottom))
    scale = min(1.0, max(resize.width, resize.height) / float(np.hypot(*matrix[:, 0])))
    columns, rows = (max(1, round(count * scale)) for count in part.size)
    times = (columns / part.width, rows / part.height)
    part = fitted(part, Resize(rows, columns, resize.filter))
    # ... and with its edges repeated as far as the crop reaches
    across, down = (
        (max(0, 1 - floor((low - first) * by)), max(0, ceil((high - first) * by) + 1 - side))
        for (low, high), first, by, side in zip(ends, (left, top), times, part.size, strict=True)
    )
    if any((*across, *down)):
        part = Image.fromarray(_with_edges(np.asarray(part), across, down))
    step = matrix[:, :2] * np.array(times)[:, None] * (1 / resize.width, 1 / resize.height)
    shift = (matrix[:, 2] - (left, top)) * times + (across[0], down[0])
    data = [*step[0], shift[0], *step[1], shift[1]]
    size = (resize.width, resize.height)
    return np.asarray(part.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))


def _within(low: float, high: float, side: int) -> tuple[int, int]:
    """Whole pixels of ``side`` that reach from low to high; one at least."""
    first = min(max(floor(low), 0), side - 1)
    return first, min(max(ceil(high), first + 1), side)


def _with_edges(pixels: Pixels, across: tuple[int, int], down: tuple[int, int]) -> Pixels:
    """Repeat the edges so many times before and after (``np.pad`` takes nine times as long)."""
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = (
        (before, before + side) for (before, _), side in ((across, width), (down, height))
    )
    wide = np.empty((height + sum(down), width + sum(across), 3), np.uint8)
    wide[top:bottom, left:right] = pixels
    wide[:top, left:right], wide[bottom:, left:right] = pixels[0], pixels[-1]
    wide[:, :left], wide[:, right:] = wide[:, left : left + 1], wide[:, right - 1 : right]
    return wide
