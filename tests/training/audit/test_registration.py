"""Registration confirms duplicates, however they were made, and rejects other faces."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from facegender.images.pixels import Pixels
from facegender.training.audit.audit import AUDIT_ALIGNER
from facegender.training.audit.registration import register
from facegender.training.data.image_cache import ImageCache, cache_in_memory
from facegender.training.data.samples import Sample

UP = Image.Transpose.FLIP_LEFT_RIGHT


def cache_of(images: list[Image.Image]) -> ImageCache:
    files = []
    for number, image in enumerate(images):
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append((Sample("a", f"male/{number}.png", "male"), file.getvalue()))
    return cache_in_memory(files, AUDIT_ALIGNER)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    ("change", "is_mirrored"),
    [
        (lambda x: x.resize((x.width // 2, x.height // 2)), False),
        (lambda x: jpeg(x, 30), False),
        (lambda x: x.crop((12, 20, x.width - 10, x.height - 5)), False),
        (lambda x: x.transpose(UP), True),
        (lambda x: x.convert("L").convert("RGB"), False),
        (lambda x: jpeg(x.transpose(UP).crop((15, 5, 150, 180)).resize((90, 110)), 50), True),
    ],
    ids=["resized", "recompressed", "cropped", "mirrored", "grayscale", "all"],
)
def test_a_duplicate_agrees(astronaut: Pixels, change: object, is_mirrored: bool) -> None:
    face = Image.fromarray(astronaut[20:220, 140:310])
    cache = cache_of([face, change(face)])  # type: ignore[operator]
    found = register(cache, np.array([0]), cache, np.array([1]))
    assert found.correlation[0] > 0.95
    assert found.mirrored[0] == is_mirrored


def test_another_image_does_not_agree(astronaut: Pixels) -> None:
    face = Image.fromarray(astronaut[20:220, 140:310])
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (200, 170, 3), dtype=np.uint8))
    # the same face with its lower half redrawn, as another moment would have it
    other = np.array(face)
    other[110:] = np.roll(other[110:], 25, 1)[::-1]
    cache = cache_of([face, noise, Image.fromarray(other)])
    found = register(cache, np.array([0, 0]), cache, np.array([1, 2]))
    assert (found.correlation < 0.9).all()
