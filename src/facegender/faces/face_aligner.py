"""Find faces in a picture, and cut one out by the model's crop rule.

Training, evaluation and use all bring pictures before the network through a :class:`Framer`, so
that they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegender.faces.alignment import ALIGNED, Crop, cut, place
from facegender.faces.detection import largest, search
from facegender.faces.yunet import Face, FaceDetector, default_detector
from facegender.images.pixels import Pixels, Resize, Upright, as_image, fitted

FACES = ("auto", "detect", "whole")
"""The ways to bring a picture before the network; see :meth:`Framer.find`."""
_FILLED = 0.5  # of a picture that is a face crop, at least this share is its face's crop


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


def _filled(face: Face, width: int, height: int) -> float:
    """How much of the picture a face's aligned crop would take, as a share; may be over 1."""
    return float(abs(np.linalg.det(place(face.landmarks, ALIGNED)[:, :2]))) / (width * height)
