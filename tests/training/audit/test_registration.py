"""Laying one picture over another finds copies, however made, and refuses other faces."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from facegender.images.pixels import Pixels
from facegender.training.audit.audit import AUDIT_ALIGNER
from facegender.training.audit.registration import register
from facegender.training.data.image_cache import ImageCache, _keep
from facegender.training.data.samples import Sample

UP = Image.Transpose.FLIP_LEFT_RIGHT


def store_of_images(images: list[Image.Image]) -> ImageCache:
    kept = [_keep(np.array(image), AUDIT_ALIGNER) for image in images]
    samples = [Sample("a", f"male/{n}.png", "male") for n in range(len(kept))]
    return ImageCache(
        samples,
        [f"{n:064x}" for n in range(len(kept))],
        [""] * len(kept),
        np.stack([entry.pixels for entry in kept]),
        np.stack([entry.context_pixels for entry in kept]),
        np.stack([entry.align for entry in kept]),
    )


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
    ids=["resized", "recompressed", "cropped", "mirrored", "grey", "all"],
)
def test_a_copy_agrees(astronaut: Pixels, change: object, is_mirrored: bool) -> None:
    face = Image.fromarray(astronaut[20:220, 140:310])
    cache = store_of_images([face, change(face)])  # type: ignore[operator]
    likeness = register(cache, np.array([0]), cache, np.array([1]))
    assert likeness.detail[0] > 0.95
    assert likeness.mirrored[0] == is_mirrored


def test_another_image_does_not(astronaut: Pixels) -> None:
    face = Image.fromarray(astronaut[20:220, 140:310])
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (200, 170, 3), dtype=np.uint8))
    # the same face with its lower half redrawn, as another moment would have it
    other = np.array(face)
    other[110:] = np.roll(other[110:], 25, 1)[::-1]
    cache = store_of_images([face, noise, Image.fromarray(other)])
    likeness = register(cache, np.array([0, 0]), cache, np.array([1, 2]))
    assert (likeness.detail < 0.9).all()
