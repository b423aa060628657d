"""The images that detectors are compared on, with the boxes of their faces.

The boxes on the photos are in ``photos.csv``, written by ``truth.py``: two families of detectors
agree on them. All other scenes are made from the photos, so their boxes are known too. Random
numbers are keyed by a fixed seed and the number of the image.
"""

from __future__ import annotations

import csv
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data as skimage_data

from facegender.images.decode import decode
from facegender.images.pixels import Pixels, Resize, resize

TRUTH = Path(__file__).parent / "photos.csv"
SEED = 4
GRAY = (128, 128, 128)
MIN_IOU = 0.4
ROTATIONS = (15, 30, 45, 90, 180, 270)
CROWDS = (4, 9, 25)
SMALL_SIDE = 160
CANVAS = 800
FACELESS = (
    "brick", "cell", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass", "gravel",
    "horse", "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page",
    "retina", "rocket", "shepp_logan_phantom", "text",
)  # fmt: skip

Boxes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and its faces.

    Attributes:
        condition: how it was made; for a crop of the data, ``crop`` and its source.
        name: of the image it was made from.
        pixels: ``uint8 [H, W, 3]``.
        faces: ``float64 [faces, 4]``, x, y, width, height. A crop of the data has none: its face
            fills the middle, but its box is not known.
        rotation: in degrees, counterclockwise.
    """

    condition: str
    name: str
    pixels: Pixels
    faces: Boxes
    rotation: int = 0


def iou(box: NDArray[np.floating], boxes: Boxes) -> Boxes:
    """Compute the intersection over union of one box with each of many."""
    ends = np.minimum(box[:2] + box[2:4], boxes[:, :2] + boxes[:, 2:4])
    shared = np.clip(ends - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
    union = box[2] * box[3] + boxes[:, 2:4].prod(1) - shared
    return np.asarray(shared / union)


def judge(found: Boxes, scene: Scene) -> tuple[NDArray[np.bool_], int, int]:
    """Compare detected boxes, most confident first, with a scene.

    Returns:
        Which boxes are correct; how many faces were missed; how many boxes are wrong.
    """
    correct = np.zeros(len(found), bool)
    if scene.condition.startswith("crop "):
        correct[:1] = [covers_middle(box, scene.pixels) for box in found[:1]]
        for at, box in enumerate(found[1:], 1):
            correct[at] = not correct.any() and covers_middle(box, scene.pixels)
        return correct, int(not correct.any()), int((~correct).sum())
    is_missed = np.ones(len(scene.faces), bool)
    wrong = 0
    for at, box in enumerate(found):
        overlaps = iou(box, scene.faces) * is_missed
        if len(overlaps) and overlaps.max() >= MIN_IOU:
            is_missed[overlaps.argmax()] = False
            correct[at] = True
        else:
            wrong += 1
    return correct, int(is_missed.sum()), wrong


def covers_middle(box: NDArray[np.floating], pixels: Pixels) -> bool:
    """Tell whether a box covers the center of the image and a tenth of its area."""
    height, width = pixels.shape[:2]
    x, y, across, down = box[:4]
    holds = x < width / 2 < x + across and y < height / 2 < y + down
    return bool(holds and across * down > 0.1 * width * height)


def read_photos(folder: Path, count: int | None = None) -> list[Scene]:
    """Read the photos and the boxes of their faces."""
    faces: dict[str, list[list[float]]] = defaultdict(list)
    with TRUTH.open(newline="") as file:
        for row in csv.DictReader(file):
            faces[row["file"]].append([float(row[key]) for key in ("x", "y", "width", "height")])
    return [
        Scene("photo", name, pixels, np.array(faces[name], np.float64).reshape(-1, 4))
        for name, pixels in islice(read_files(folder), count)
    ]


def read_files(folder: Path) -> Iterator[tuple[str, Pixels]]:
    """Read the photos, named by number and file name, since some share a file name."""
    with tarfile.open(folder / "photos.tar") as archive:
        for number, member in enumerate(archive):
            file = archive.extractfile(member)
            assert file
            yield f"{number} {member.name}", decode(file.read())


def read_crops(folder: Path, each: int) -> list[Scene]:
    """Read a random sample of every source from the first archive of the data."""
    sources: dict[str, list[str]] = defaultdict(list)
    with (folder / "faces.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["archive"] == "faces-0.tar.gz":
                sources[row["source"]].append(row["file"])
    rng = np.random.default_rng(SEED)
    chosen = {
        name: source
        for source, names in sorted(sources.items())
        for name in rng.permutation(sorted(names))[:each].tolist()
    }
    scenes = []
    with tarfile.open(folder / "faces-0.tar.gz") as archive:
        for member in archive:
            if member.name in chosen:
                stream = archive.extractfile(member)
                assert stream
                source = chosen[member.name]
                pixels = decode(stream.read())
                scenes.append(Scene(f"crop {source}", member.name, pixels, np.zeros((0, 4))))
    return scenes


def make_all(photos: Sequence[Scene], each: int) -> Iterator[Scene]:
    """Make all scenes from the photos; ``each`` of them rotated, and a quarter as many crowds."""
    for number, photo in enumerate(photos):
        yield shrunk(photo)
        if len(photo.faces):
            yield tight(photo, 1.0)
            yield tight(photo, 0.8)
        if number < each:
            for degrees in ROTATIONS:
                yield rotated(photo, degrees)
    heads = [photo for photo in photos if len(photo.faces) == 1]
    for count in CROWDS:
        for number in range(max(1, each // 4)):
            yield crowd(heads, count, number)
    yield from faceless(photos)


def shrunk(photo: Scene) -> Scene:
    """Downscale a photo to a long side of 160 pixels."""
    height, width = photo.pixels.shape[:2]
    scale = SMALL_SIDE / max(height, width)
    size = Resize(max(1, round(height * scale)), max(1, round(width * scale)))
    ratio = np.array([size.width / width, size.height / height] * 2)
    return Scene(
        f"shrunk to {SMALL_SIDE} px",
        photo.name,
        resize(photo.pixels, size),
        photo.faces * ratio,
    )


def tight(photo: Scene, fraction: float) -> Scene:
    """Crop the largest face of a photo, to a fraction of its box."""
    x, y, width, height = photo.faces[photo.faces[:, 2:].prod(1).argmax()]
    x, y = x + width * (1 - fraction) / 2, y + height * (1 - fraction) / 2
    left, top = max(0, round(x)), max(0, round(y))
    crop = photo.pixels[
        top : max(top + 1, round(y + fraction * height)),
        left : max(left + 1, round(x + fraction * width)),
    ]
    box = np.array([[0.0, 0.0, crop.shape[1], crop.shape[0]]])
    name = "tight crop" if fraction == 1 else f"inner {fraction:.0%} of the face"
    return Scene(name, photo.name, np.ascontiguousarray(crop), box)


def rotated(photo: Scene, degrees: int) -> Scene:
    """Rotate a photo counterclockwise, with gray corners; a face is taken as an ellipse."""
    height, width = photo.pixels.shape[:2]
    image = Image.fromarray(photo.pixels).rotate(
        degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=GRAY
    )
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def rotate(boxes: Boxes) -> Boxes:
        middle = boxes[:, :2] + boxes[:, 2:] / 2 - (width / 2, height / 2)
        middle = middle @ np.array([[cos, -sin], [sin, cos]]) + (image.width / 2, image.height / 2)
        sides = np.sqrt(boxes[:, 2:] ** 2 @ np.array([[cos**2, sin**2], [sin**2, cos**2]]))
        return np.column_stack([middle - sides / 2, sides])

    return Scene(
        f"rotated by {degrees}°",
        photo.name,
        np.asarray(image),
        rotate(photo.faces),
        degrees,
    )


def crowd(photos: Sequence[Scene], count: int, number: int) -> Scene:
    """Paste the heads of ``count`` photos into a grid, at random sizes and places in its cells."""
    rng = np.random.default_rng([SEED, count, number])
    canvas = np.full((CANVAS, CANVAS, 3), rng.integers(60, 200, 3), np.uint8)
    cell = CANVAS // round(count**0.5)
    boxes = []
    for at, pick in enumerate(rng.choice(len(photos), count, replace=count > len(photos))):
        photo = photos[pick]
        height, width = photo.pixels.shape[:2]
        x, y, across, down = photo.faces[0]
        reach = 0.9 * max(across, down)
        left, right = (int(np.clip(x + across / 2 + shift, 0, width)) for shift in (-reach, reach))
        top, bottom = (int(np.clip(y + down / 2 + shift, 0, height)) for shift in (-reach, reach))
        head = photo.pixels[top:bottom, left:right]
        scale = cell * rng.uniform(0.5, 0.95) / max(head.shape[:2])
        height, width = (max(1, int(side * scale)) for side in head.shape[:2])
        size = Resize(height, width)
        free = cell - np.array([size.width, size.height])
        corner = (rng.uniform(0, 1, 2) * free).astype(int)
        corner += cell * np.array([at % (CANVAS // cell), at // (CANVAS // cell)])
        rows, columns = (
            slice(start, start + side)
            for start, side in zip(corner[::-1], (size.height, size.width), strict=True)
        )
        canvas[rows, columns] = resize(head, size)
        place = (np.array([x - left, y - top]) * scale + corner).tolist()
        boxes.append([*place, across * scale, down * scale])
    return Scene(f"crowd of {count}", f"{number}", canvas, np.array(boxes))


def faceless(photos: Sequence[Scene]) -> Iterator[Scene]:
    """Give patches of photos without faces, images of scikit-image, noise and gradients."""
    nothing = np.zeros((0, 4))
    for number, photo in enumerate(photos):
        rng = np.random.default_rng([SEED, number])
        if (patch := _patch(photo, rng)) is not None:
            yield Scene("no face: patch of a photo", photo.name, patch, nothing)
    for name in FACELESS:
        values = getattr(skimage_data, name)()
        if values.dtype != np.uint8:
            values = (values.astype(np.float64) / max(values.max(), 1e-9) * 255).astype(np.uint8)
        image = Image.fromarray(values).convert("RGB")
        half = (image.width // 2, image.height // 2)
        corners = [(x, y) for x in (0, half[0]) for y in (0, half[1])]
        parts = [image.crop((x, y, x + half[0], y + half[1])) for x, y in corners]
        for at, part in enumerate([image, *parts]):
            yield Scene("no face: scikit-image", f"{name} {at}", np.asarray(part), nothing)
    for number in range(20):
        yield Scene("no face: noise, gradient", f"{number}", _texture(number), nothing)


def _patch(photo: Scene, rng: np.random.Generator) -> Pixels | None:
    """Cut a random square that keeps half a face's size away from every face."""
    height, width = photo.pixels.shape[:2]
    grown = np.column_stack([photo.faces[:, :2] - photo.faces[:, 2:] / 2, photo.faces[:, 2:] * 2])
    for _ in range(60):
        side = int(rng.integers(96, max(97, min(height, width) * 2 // 3)))
        if side >= min(height, width):
            return None
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if not iou(np.array([x, y, side, side], np.float64), grown).any():
            return np.ascontiguousarray(photo.pixels[y : y + side, x : x + side])
    return None


def _texture(number: int) -> Pixels:
    rng = np.random.default_rng([SEED, number])
    if number % 2:
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        return np.asarray(corners.resize((400, 300), Image.Resampling.BICUBIC))
    grain = 2 ** (number // 2 % 6)
    noise = Image.fromarray(rng.integers(0, 256, (320 // grain, 320 // grain, 3), np.uint8))
    return np.asarray(noise.resize((320, 320), Image.Resampling.BICUBIC))
