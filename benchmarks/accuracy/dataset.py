"""The labeled images that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from facegender.images.decode import decode
from facegender.training.console import Console
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.data.subsets import assign_subsets

TEST_FRACTION = 0.2


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One readable image of the data."""

    sample: Sample
    digest: str
    data: bytes
    width: int
    height: int


def read_images(data: Path, console: Console) -> tuple[list[LabeledImage], list[LabeledImage]]:
    """Read the data; return the images of the test subset, and all others."""
    archives = sorted(data.glob("faces-*.tar.gz"))
    images: list[LabeledImage] = []
    with console.counting("reading images") as count:
        for done, (sample, content) in enumerate(stream_samples(archives, data / "faces.csv"), 1):
            height, width = decode(content).shape[:2]
            digest = sha256(content).hexdigest()
            images.append(LabeledImage(sample, digest, content, width, height))
            if done % 500 == 0:
                count(done)
    samples, digests = [item.sample for item in images], [item.digest for item in images]
    rows = assign_subsets(samples, digests, seed=0, test=TEST_FRACTION)
    test = [item for item, row in zip(images, rows, strict=True) if row.subset == "test"]
    other = [item for item, row in zip(images, rows, strict=True) if row.subset != "test"]
    return test, other


def draw_images(images: Sequence[LabeledImage], count: int) -> list[LabeledImage]:
    """Draw distinct images by their digests, always the same."""
    distinct = {item.digest: item for item in images}
    order = sorted(distinct, key=lambda digest: sha256(digest.encode()).digest())
    return [distinct[digest] for digest in order[:count]]
