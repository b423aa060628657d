"""Small faces in large images: search an image again at a finer scale, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image

from facegender.faces.yunet import LARGE_SIDE, Face, FaceDetector, merge
from facegender.images.pixels import Resize, resize_image

SMALL_FACE = 32
"""A face of less pixels across at the last scale is a sign of faces too small for that scale."""

SHORT_SIDE = 240
"""A panorama with fewer pixels down its short side at the last scale is searched at a finer one."""

TILE_OVERLAP = 160
"""Pixels by which tiles overlap. Larger faces are found at the scale before."""

MAX_TILES = 25
"""Maximum number of tiles of one scale."""

TILE_MIN_SCORE = 0.7
"""Minimum score of a face in a tile."""

_MIN_GAIN = 1.5  # a finer scale has at least this many times the pixels along a side
_EDGE = 2  # pixels; a box nearer to an inner edge of its tile may be a part of a face


@dataclass(frozen=True, slots=True)
class DetailSource:
    """The image that is searched, with more pixels.

    Attributes:
        long_side: of the full-size image in pixels.
        decode: returns the image with a long side of at least the given number of pixels, or at
            full size.
    """

    long_side: int
    decode: Callable[[int], Image.Image]


def add_small_faces(
    found: Sequence[Face], image: Image.Image, source: DetailSource, detector: FaceDetector
) -> list[Face]:
    """Search an image at finer and finer scales while there is a sign of smaller faces.

    A scale has twice the pixels of the last one along a side; the first one was 640. It is searched
    if the image has these pixels, :data:`MAX_TILES` tiles cover it, and at the last scale there was
    no face, or one below :data:`SMALL_FACE`, or a short side below :data:`SHORT_SIDE`.

    Args:
        found: the faces in pixels of ``image``, detected at 640 pixels.
        image: as it was searched.
        source: the same image with more pixels.
        detector: the face detector.

    Returns:
        All faces in pixels of ``image``, the highest score first.
    """
    faces = list(found)
    longest, shortest = max(image.size), min(image.size)
    side = min(longest, LARGE_SIDE)
    while source.long_side >= _MIN_GAIN * side:
        is_wide = shortest * side < SHORT_SIDE * longest
        smallest = min((face.width for face in faces), default=0.0)
        if not is_wide and smallest * side >= SMALL_FACE * longest:
            break
        side = min(2 * side, source.long_side)
        if len(_tiles(side, max(1, round(shortest * side / longest)))) > MAX_TILES:
            break
        detail = source.decode(side)
        finer = detect_in_tiles(detail, side, detector)
        factors = (image.width / detail.width, image.height / detail.height)
        faces = merge([*faces, *(face.scaled(*factors) for face in finer)])
    return faces


def detect_in_tiles(image: Image.Image, side: int, detector: FaceDetector) -> list[Face]:
    """Detect faces of up to :data:`TILE_OVERLAP` pixels in an image with this long side.

    Args:
        image: RGB, upright, at least this large.
        side: long side in pixels at which it is searched.
        detector: the face detector.

    Returns:
        The faces in pixels of ``image``; one in the overlap of tiles may be there more than once.
    """
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    resized = resize_image(image, Resize(height, width))
    factors = (image.width / width, image.height / height)
    faces = []
    for left, top, right, bottom in _tiles(width, height):
        tile = resized.crop((left, top, right, bottom))
        inner = (
            _EDGE if left else -width,
            _EDGE if top else -height,
            right - left - _EDGE if right < width else 2 * width,
            bottom - top - _EDGE if bottom < height else 2 * height,
        )
        scales = [(max(tile.size), 0.0)]
        for face in detector.detect(tile, min_score=TILE_MIN_SCORE, scales=scales):
            if max(face.width, face.height) <= TILE_OVERLAP and _is_within(face, inner):
                faces.append(face.moved(left, top).scaled(*factors))
    return faces


def _tiles(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of the tiles that cover an image."""
    return [
        (left, top, min(left + LARGE_SIDE, width), min(top + LARGE_SIDE, height))
        for top in _starts(height)
        for left in _starts(width)
    ]


def _starts(length: int) -> list[int]:
    """Return where the tiles along a side start, evenly spaced."""
    count = max(1, ceil((length - TILE_OVERLAP) / (LARGE_SIDE - TILE_OVERLAP)))
    return [round(at * (length - LARGE_SIDE) / max(1, count - 1)) for at in range(count)]


def _is_within(face: Face, box: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = box
    return (
        face.x >= left
        and face.y >= top
        and face.x + face.width <= right
        and face.y + face.height <= bottom
    )
