"""One picture file -> what the network looks at. Runs in processes of its own; see ``isolated``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from PIL import Image

from facegender.errors import InputError
from facegender.faces.alignment import Crop
from facegender.faces.face_aligner import FACE_MODES, FaceAligner, FaceCrop
from facegender.faces.yunet import YuNet
from facegender.images.decode import DownscaledImage, decode_downscaled, decode_resized
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits, read_image_file
from facegender.images.pixels import Pixels, Resize, to_image

DETECTION_SIDE = YuNet.LARGE_SIDE
"""Long side in pixels that a large JPEG has at least when it is looked at for faces."""


def check_face_mode(faces: str) -> None:
    """Refuse what is none of :data:`FACES`.

    Raises:
        InputError: another word.
    """
    if faces not in FACE_MODES:
        raise InputError(f"faces {faces!r} is not one of {', '.join(FACE_MODES)}")


@dataclass(frozen=True, slots=True)
class PreprocessOptions:
    """How pictures are read: everything that decides what the network will see.

    Attributes:
        crop: the model's rule to cut a face out.
        resize: the model's size.
        faces: one of :data:`FACES`.
        limits: what a picture may cost.
        detector: a YuNet file for OpenCV instead of the detector that ships.
        has_thumbnail: make a small JPEG of each picture, for the report.
    """

    crop: Crop
    resize: Resize
    faces: str = "auto"
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS
    detector: Path | None = None
    has_thumbnail: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no way to take a picture.

        Raises:
            InputError: another word for ``faces``.
        """
        check_face_mode(self.faces)


@dataclass(frozen=True, slots=True)
class PreprocessedImage:
    """A picture that was read: its faces as the network sees them, none where it shows none.

    ``width`` and ``height`` are those of the upright picture, in which the faces' boxes lie.
    """

    crops: tuple[FaceCrop, ...]
    width: int
    height: int
    thumbnail: bytes = b""


def warm_up() -> None:
    """Do nothing: to be asked for it, a process has loaded this module."""


def preprocess_file(source: Path | bytes, reader: PreprocessOptions) -> PreprocessedImage | None:
    """Read a picture file, find what it shows, and bring it to the network's size.

    A large JPEG is decoded smaller where that shows the network no less.

    Args:
        source: a file, or its content.
        reader: how.

    Returns:
        None where a file is no picture by name and content.

    Raises:
        UnreadableImageError: it cannot be read whole; see
            :func:`facegender.images.decode.decode`.
    """
    data = source if isinstance(source, bytes) else read_image_file(source, reader.limits)
    if data is None:
        return None
    if reader.faces == "whole" and not reader.has_thumbnail:
        fitted = decode_resized(data, reader.resize, reader.limits)
        return PreprocessedImage((FaceCrop(fitted.pixels, None),), fitted.width, fitted.height)
    needed = max(reader.resize.width, reader.resize.height)
    image = decode_downscaled(
        data, 2 * needed if reader.faces == "whole" else DETECTION_SIDE, reader.limits
    )
    return _preprocess(image, reader, lambda side: decode_downscaled(data, side, reader.limits))


def preprocess_pixels(pixels: Pixels, reader: PreprocessOptions) -> PreprocessedImage:
    """Find what a decoded picture ``uint8 [H, W, 3]`` shows; see :func:`preprocess_file`."""
    whole = DownscaledImage(to_image(pixels), pixels.shape[1], pixels.shape[0])
    return _preprocess(whole, reader, lambda _: whole)


def _preprocess(
    image: DownscaledImage,
    reader: PreprocessOptions,
    decode_larger: Callable[[int], DownscaledImage],
) -> PreprocessedImage:
    aligner = _face_aligner(reader.crop, reader.resize, reader.detector)
    faces = aligner.find_faces(image.image, reader.faces)
    needed = max(reader.resize.width, reader.resize.height)
    smallest: float = needed
    if image.scale > 1.0:
        smallest = min((aligner.crop_side(face) for face in faces if face), default=needed)
    if smallest < needed:
        # A face so small that at this scale the network would see less than there is
        larger = decode_larger(ceil(max(image.image.size) * needed / smallest))
        faces = tuple(face and face.scaled(image.scale / larger.scale) for face in faces)
        image = larger
    pil_image, scale = image.image, image.scale
    crops = [aligner.align(pil_image, face) for face in faces]
    return PreprocessedImage(
        tuple(FaceCrop(crop.pixels, crop.face and crop.face.scaled(scale)) for crop in crops),
        image.width,
        image.height,
        _thumbnail(pil_image) if reader.has_thumbnail else b"",
    )


def _thumbnail(image: Image.Image) -> bytes:
    from facegender.images.pixels import thumbnail  # with all that writes the report's page

    return thumbnail(image)


@cache
def _face_aligner(crop: Crop, resize: Resize, detector: Path | None) -> FaceAligner:
    if detector is None:
        return FaceAligner(crop, resize)
    from facegender.faces.opencv import OpenCVYuNet

    return FaceAligner(crop, resize, OpenCVYuNet(detector))
