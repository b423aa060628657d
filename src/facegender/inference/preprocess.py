"""Preprocessing: from an image file to the inputs of the network. Runs in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np

from facegender.errors import InputError
from facegender.faces.alignment import Crop
from facegender.faces.face_aligner import FACE_MODES, FaceAligner, FaceCrop
from facegender.faces.tiles import DetailSource
from facegender.faces.yunet import LARGE_SIDE
from facegender.images.decode import DownscaledImage, decode_downscaled, decode_resized
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits, read_image_file
from facegender.images.pixels import Pixels, Resize, thumbnail, to_image

DETECTION_SIDE = LARGE_SIDE
"""Minimum long side in pixels at which a large JPEG is decoded to search for faces."""

NOT_AN_IMAGE = "not an image by name and content"
"""Why a file that the caller named as an image is not read."""


def check_face_mode(faces: str) -> None:
    """Check that ``faces`` is one of :data:`facegender.faces.face_aligner.FACE_MODES`.

    Raises:
        InputError: it is not.
    """
    if faces not in FACE_MODES:
        raise InputError(f"faces {faces!r} is not one of {', '.join(FACE_MODES)}")


@dataclass(frozen=True, slots=True)
class PreprocessOptions:
    """Everything that decides what the network gets from an image.

    Attributes:
        crop: the model's crop rule.
        resize: the model's input size.
        faces: one of :data:`facegender.faces.face_aligner.FACE_MODES`.
        limits: maximum size of an image.
        detector: a YuNet file for OpenCV; None takes the detector that ships.
        has_thumbnail: make a thumbnail of each image, for the report.
    """

    crop: Crop
    resize: Resize
    faces: str = "auto"
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS
    detector: Path | None = None
    has_thumbnail: bool = False

    def __post_init__(self) -> None:
        """Check the face mode.

        Raises:
            InputError: an unknown value of ``faces``.
        """
        check_face_mode(self.faces)


@dataclass(frozen=True, slots=True)
class PreprocessedImage:
    """The network's inputs from one image.

    Attributes:
        crops: one for each face, the main face first; empty if no face was found. The faces are in
            pixels of the full-size upright image.
        width: of the full-size upright image in pixels.
        height: of the full-size upright image in pixels.
        thumbnail: a small JPEG; empty if none was asked for.
    """

    crops: tuple[FaceCrop, ...]
    width: int
    height: int
    thumbnail: bytes = b""


def warm_up() -> None:
    """Do nothing: a worker process imports this module to call it."""


def preprocess_file(
    source: Path | bytes | Pixels, options: PreprocessOptions
) -> PreprocessedImage | None:
    """Decode an image file, find its faces and crop them at the network's input size.

    A large JPEG is decoded at a fraction of its size if the network's inputs lose nothing by it.

    Args:
        source: a file, its content, or its pixels as for :func:`preprocess_pixels`.
        options: how.

    Returns:
        The network's inputs, or None if the file is no image by name and content.

    Raises:
        UnreadableImageError: see :func:`facegender.images.decode.decode`.
    """
    if isinstance(source, np.ndarray):
        return preprocess_pixels(source, options)
    data = source if isinstance(source, bytes) else read_image_file(source, options.limits)
    if data is None:
        return None
    if options.faces == "whole" and not options.has_thumbnail:
        resized = decode_resized(data, options.resize, options.limits)
        return PreprocessedImage((FaceCrop(resized.pixels, None),), resized.width, resized.height)
    input_side = max(options.resize.width, options.resize.height)
    image = decode_downscaled(
        data, 2 * input_side if options.faces == "whole" else DETECTION_SIDE, options.limits
    )
    larger = _LargerImage(image, lambda side: decode_downscaled(data, side, options.limits))
    return _preprocess(image, options, larger)


def preprocess_pixels(pixels: Pixels, options: PreprocessOptions) -> PreprocessedImage:
    """Find the faces of a decoded image and crop them; see :func:`preprocess_file`.

    Args:
        pixels: ``uint8 [H, W, 3]``, RGB, upright.
        options: how.
    """
    image = DownscaledImage(to_image(pixels), pixels.shape[1], pixels.shape[0])
    return _preprocess(image, options, _LargerImage(image, lambda _: image))


class _LargerImage:
    """An image that is decoded again when more of its pixels are needed."""

    def __init__(self, image: DownscaledImage, decode: Callable[[int], DownscaledImage]) -> None:
        self._image, self._decode = image, decode

    def decode(self, long_side: int) -> DownscaledImage:
        """Return the image with at least this long side in pixels, or at full size."""
        if max(self._image.image.size) < long_side and self._image.scale > 1.0:
            self._image = self._decode(long_side)
        return self._image


def _preprocess(
    image: DownscaledImage, options: PreprocessOptions, larger: _LargerImage
) -> PreprocessedImage:
    aligner = _face_aligner(options.crop, options.resize, options.detector)
    source = DetailSource(max(image.width, image.height), lambda side: larger.decode(side).image)
    faces = aligner.find_faces(image.image, options.faces, source)
    input_side = max(options.resize.width, options.resize.height)
    smallest: float = input_side
    if image.scale > 1.0:
        smallest = min((aligner.crop_side(face) for face in faces if face), default=input_side)
    if smallest < input_side:
        # At this scale the crop of the smallest face would be enlarged: decode with more pixels
        enlarged = larger.decode(ceil(max(image.image.size) * input_side / smallest))
        faces = tuple(face and face.scaled(image.scale / enlarged.scale) for face in faces)
        image = enlarged
    pil_image, scale = image.image, image.scale
    crops = [aligner.align(pil_image, face) for face in faces]
    return PreprocessedImage(
        tuple(FaceCrop(crop.pixels, crop.face and crop.face.scaled(scale)) for crop in crops),
        image.width,
        image.height,
        thumbnail(pil_image) if options.has_thumbnail else b"",
    )


@cache
def _face_aligner(crop: Crop, resize: Resize, detector: Path | None) -> FaceAligner:
    if detector is None:
        return FaceAligner(crop, resize)
    from facegender.faces.opencv import OpenCVYuNet

    return FaceAligner(crop, resize, OpenCVYuNet(detector))
