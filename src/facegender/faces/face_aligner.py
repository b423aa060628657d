"""FaceAligner: from a decoded image to the faces that a network takes as input.

Training, evaluation and prediction all use it, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facegender.faces.alignment import ALIGNED_CROP, Crop, align_crop, estimate_similarity
from facegender.faces.detection import detect_multi_orientation, select_main_face
from facegender.faces.tiles import DetailSource
from facegender.faces.yunet import Face, FaceDetector, default_detector
from facegender.images.pixels import ImageLike, Pixels, Resize, resize_image, to_image

FACE_MODES = ("auto", "detect", "whole")
"""How the faces of an image are found; see :meth:`FaceAligner.find_faces`."""

CLOSE_UP_FRACTION = 0.5
"""An image is a close-up if the aligned crop of its main face covers this fraction or more."""


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """One input of the network.

    Attributes:
        pixels: ``uint8 [H, W, 3]`` at the network's input size.
        face: the face that was cropped; None if it is the full image.
    """

    pixels: Pixels
    face: Face | None


@dataclass(frozen=True, slots=True)
class FaceAligner:
    """Finds faces and crops them by the rules in the model file.

    Attributes:
        crop: how a face is cropped.
        resize: the network's input size.
        detector: the face detector; None takes the one that ships.
    """

    crop: Crop
    resize: Resize
    detector: FaceDetector | None = None

    def __call__(self, image: ImageLike) -> FaceCrop:
        """Crop the main face of an image with one label, as in training.

        Args:
            image: pixels ``uint8 [H, W, 3]``, upright, or a Pillow image.

        Returns:
            The crop of the main face; the full image if none is found or the crop rule is
            ``none``.
        """
        if self.crop.rule == "none":
            return self.align(image, None)
        pil_image = to_image(image)
        return self.align(
            pil_image, select_main_face(self._detector().detect(pil_image), *pil_image.size)
        )

    def find_faces(
        self, image: ImageLike, faces: str, source: DetailSource | None = None
    ) -> tuple[Face | None, ...]:
        """Find the faces of an image by one of :data:`FACE_MODES`.

        ``whole`` takes the full image as one face. ``detect`` finds every face. ``auto`` finds
        them too, but in a close-up keeps only the main face; by the crop rule ``none`` a close-up
        and an image without a face are taken in full.

        Args:
            image: pixels ``uint8 [H, W, 3]``, upright, or a Pillow image.
            faces: ``auto``, ``detect`` or ``whole``.
            source: the same image with more pixels, for small faces; None takes ``image``.

        Returns:
            The faces, the main one first (see :func:`select_main_face`); empty if none is found.
            None stands for the full image.
        """
        if faces == "whole":
            return (None,)
        pil_image = to_image(image)
        width, height = pil_image.size

        def shows_close_up(found: Sequence[Face]) -> bool:
            main = select_main_face(found, width, height)
            return main is not None and crop_fraction(main, width, height) >= CLOSE_UP_FRACTION

        found = detect_multi_orientation(
            pil_image,
            self._detector(),
            is_enough=shows_close_up if faces == "auto" else None,
            source=source,
        )
        main = select_main_face(found, width, height)
        if main is None:
            # a network that was trained on full images takes them also at prediction
            return (None,) if faces == "auto" and self.crop.rule == "none" else ()
        if faces == "auto" and crop_fraction(main, width, height) >= CLOSE_UP_FRACTION:
            return (main if self.crop.rule == "aligned" else None,)
        return (main, *(face for face in found if face is not main))

    def align(self, image: ImageLike, face: Face | None) -> FaceCrop:
        """Crop one face, or resize the full image for None, to the network's input size.

        Args:
            image: pixels ``uint8 [H, W, 3]``, or a Pillow image.
            face: in pixels of ``image``.
        """
        if face is None:
            return FaceCrop(np.asarray(resize_image(to_image(image), self.resize)), None)
        return FaceCrop(align_crop(image, face.landmarks, self._crop(), self.resize), face)

    def crop_side(self, face: Face) -> float:
        """Return the side of a face's crop, in pixels of the image."""
        return float(np.hypot(*estimate_similarity(face.landmarks, self._crop())[:, 0]))

    def _crop(self) -> Crop:
        """Return the rule for a detected face; :data:`ALIGNED_CROP` where the model has none."""
        return self.crop if self.crop.rule == "aligned" else ALIGNED_CROP

    def _detector(self) -> FaceDetector:
        return self.detector or default_detector()


def crop_fraction(face: Face, width: int, height: int) -> float:
    """Return the area of a face's aligned crop as a fraction of its image; may exceed 1."""
    return float(abs(np.linalg.det(estimate_similarity(face.landmarks, ALIGNED_CROP)[:, :2]))) / (
        width * height
    )
