"""Find faces in a picture, and cut one out by the model's crop rule.

Training, evaluation and use all bring pictures before the network through a :class:`FaceAligner`, so
that they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegender.faces.alignment import ALIGNED_CROP, Crop, align_crop, estimate_similarity
from facegender.faces.detection import detect_multi_orientation, select_main_face
from facegender.faces.yunet import Face, FaceDetector, default_detector
from facegender.images.pixels import ImageLike, Pixels, Resize, resize_image, to_image

FACE_MODES = ("auto", "detect", "whole")
"""The ways to bring a picture before the network; see :meth:`FaceAligner.find`."""
CLOSE_UP_FRACTION = 0.5  # of a picture that is a face crop, at least this share is its face's crop


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """What the network looks at: ``pixels`` at its size, and the face they were cut around.

    ``face`` is None where the whole picture was taken.
    """

    pixels: Pixels
    face: Face | None


@dataclass(frozen=True, slots=True)
class FaceAligner:
    """Brings a picture before the network, by the rules that its model file states.

    By the rule ``aligned`` the face that the picture shows is cut out and turned upright; the
    whole picture is taken where no face is found, and by the rule ``whole``.
    """

    crop: Crop
    resize: Resize
    detector: FaceDetector | None = None

    def __call__(self, image: ImageLike) -> FaceCrop:
        """Bring a picture of one labelled face to the network's size, as training does.

        Args:
            image: pixels ``uint8 [H, W, 3]``, upright, or Pillow's.

        Returns:
            ``uint8 [resize.height, resize.width, 3]``, and the face; the whole picture where none
            was found.
        """
        if self.crop.rule == "whole":
            return self.align(image, None)
        pil_image = to_image(image)
        return self.align(
            pil_image, select_main_face(self._detector().detect(pil_image), *pil_image.size)
        )

    def find_faces(self, image: ImageLike, faces: str) -> tuple[Face | None, ...]:
        """Find what a picture shows, in any of :data:`FACE_MODES`' ways.

        ``whole`` takes the picture as one face, as it is. ``detect`` finds every face. ``auto``
        finds them too; where one fills the picture, which makes it a face crop, the others are
        left out, and by the crop rule ``whole`` it is taken as it is.

        Args:
            image: pixels ``uint8 [H, W, 3]``, upright, or Pillow's.
            faces: ``auto``, ``detect`` or ``whole``.

        Returns:
            The faces, the one that the picture shows first (see :func:`largest`); none where none
            was found; a single None stands for the whole picture.
        """
        if faces == "whole":
            return (None,)
        pil_image = to_image(image)
        width, height = pil_image.size
        found = detect_multi_orientation(pil_image, self._detector())
        shown = select_main_face(found, width, height)
        if shown is None:
            # A network that learned from pictures as they are is asked about them as they are
            return (None,) if faces == "auto" and self.crop.rule == "whole" else ()
        if faces == "auto" and crop_fraction(shown, width, height) >= CLOSE_UP_FRACTION:
            return (shown if self.crop.rule == "aligned" else None,)
        return (shown, *(face for face in found if face is not shown))

    def align(self, image: ImageLike, face: Face | None) -> FaceCrop:
        """Bring one face, or the whole picture for None, to the network's size."""
        if face is None:
            return FaceCrop(np.asarray(resize_image(to_image(image), self.resize)), None)
        return FaceCrop(align_crop(image, face.landmarks, self._crop(), self.resize), face)

    def crop_side(self, face: Face) -> float:
        """How many pixels of its picture a face's crop is wide."""
        return float(np.hypot(*estimate_similarity(face.landmarks, self._crop())[:, 0]))

    def _crop(self) -> Crop:
        """The rule to cut a found face by; one that learned from whole crops gets ours."""
        return self.crop if self.crop.rule == "aligned" else ALIGNED_CROP

    def _detector(self) -> FaceDetector:
        return self.detector or default_detector()


def crop_fraction(face: Face, width: int, height: int) -> float:
    """How much of the picture a face's aligned crop would take, as a share; may be over 1."""
    return float(abs(np.linalg.det(estimate_similarity(face.landmarks, ALIGNED_CROP)[:, :2]))) / (
        width * height
    )
