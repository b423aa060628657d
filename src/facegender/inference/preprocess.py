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
from facegender.faces.face_aligner import FACES, Framed, Framer
from facegender.faces.yunet import YuNet
from facegender.images.decode import Reduced, decode_fitted, decode_reduced
from facegender.images.formats import LIMITS, Limits, read_file
from facegender.images.pixels import Pixels, Resize, as_image

LOOK = YuNet.FAR
"""Long side in pixels that a large JPEG has at least when it is looked at for faces."""


def check_faces(faces: str) -> None:
    """Refuse what is none of :data:`FACES`.

    Raises:
        InputError: another word.
    """
    if faces not in FACES:
        raise InputError(f"faces {faces!r} is not one of {', '.join(FACES)}")


@dataclass(frozen=True, slots=True)
class Reader:
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
    limits: Limits = LIMITS
    detector: Path | None = None
    has_thumbnail: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no way to take a picture.

        Raises:
            InputError: another word for ``faces``.
        """
        check_faces(self.faces)


@dataclass(frozen=True, slots=True)
class Reading:
    """A picture that was read: its faces as the network sees them, none where it shows none.

    ``width`` and ``height`` are those of the upright picture, in which the faces' boxes lie.
    """

    frames: tuple[Framed, ...]
    width: int
    height: int
    thumbnail: bytes = b""


def get_ready() -> None:
    """Do nothing: to be asked for it, a process has loaded this module."""


def read_picture(source: Path | bytes, reader: Reader) -> Reading | None:
    """Read a picture file, find what it shows, and bring it to the network's size.

    A large JPEG is decoded smaller where that shows the network no less.

    Args:
        source: a file, or its content.
        reader: how.

    Returns:
        None where a file is no picture by name and content.

    Raises:
        UnreadablePictureError: it cannot be read whole; see
            :func:`facegender.images.decode.decode`.
    """
    data = source if isinstance(source, bytes) else read_file(source, reader.limits)
    if data is None:
        return None
    if reader.faces == "whole" and not reader.has_thumbnail:
        fitted = decode_fitted(data, reader.resize, reader.limits)
        return Reading((Framed(fitted.pixels, None),), fitted.width, fitted.height)
    needed = max(reader.resize.width, reader.resize.height)
    picture = decode_reduced(data, 2 * needed if reader.faces == "whole" else LOOK, reader.limits)
    return _reading(picture, reader, lambda side: decode_reduced(data, side, reader.limits))


def read_pixels(pixels: Pixels, reader: Reader) -> Reading:
    """Find what a decoded picture ``uint8 [H, W, 3]`` shows; see :func:`read_picture`."""
    whole = Reduced(as_image(pixels), pixels.shape[1], pixels.shape[0])
    return _reading(whole, reader, lambda _: whole)


def _reading(picture: Reduced, reader: Reader, decode_larger: Callable[[int], Reduced]) -> Reading:
    framer = _framer(reader.crop, reader.resize, reader.detector)
    faces = framer.find(picture.image, reader.faces)
    needed = max(reader.resize.width, reader.resize.height)
    smallest: float = needed
    if picture.scale > 1.0:
        smallest = min((framer.side(face) for face in faces if face), default=needed)
    if smallest < needed:
        # A face so small that at this scale the network would see less than there is
        larger = decode_larger(ceil(max(picture.image.size) * needed / smallest))
        faces = tuple(face and face.scaled(picture.scale / larger.scale) for face in faces)
        picture = larger
    image, scale = picture.image, picture.scale
    frames = [framer.frame(image, face) for face in faces]
    return Reading(
        tuple(Framed(frame.pixels, frame.face and frame.face.scaled(scale)) for frame in frames),
        picture.width,
        picture.height,
        _thumbnail(image) if reader.has_thumbnail else b"",
    )


def _thumbnail(image: Image.Image) -> bytes:
    from facegender.images.pixels import thumbnail  # with all that writes the report's page

    return thumbnail(image)


@cache
def _framer(crop: Crop, resize: Resize, detector: Path | None) -> Framer:
    if detector is None:
        return Framer(crop, resize)
    from facegender.faces.opencv import OpenCVYuNet

    return Framer(crop, resize, OpenCVYuNet(detector))
