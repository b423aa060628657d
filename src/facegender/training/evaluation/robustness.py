"""Accuracy against image corruption: rotation, low resolution, blur and JPEG compression."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.training.data.image_cache import decode_samples
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.data.samples import stream_samples
from facegender.training.evaluation.corruptions import (
    BLURS,
    DEGREES,
    QUALITIES,
    SIZES,
    CorruptFunction,
    blurred,
    clean,
    compressed,
    downscaled,
    rotated,
)
from facegender.training.evaluation.metrics import Proportion, proportion
from facegender.training.evaluation.predictions_table import PredictionsTable


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of corruption; ``steps`` maps strengths in ``unit`` to functions, mildest first."""

    name: str
    unit: str
    steps: Mapping[float, CorruptFunction]


CORRUPTIONS = (
    Corruption(
        "rotation",
        "degrees to either side, borders mirrored",
        {degrees: rotated(degrees, "photo") for degrees in DEGREES},
    ),
    Corruption(
        "downscaling", "pixels of the longer side", {side: downscaled(side) for side in SIZES}
    ),
    Corruption(
        "blur", "sigma as a fraction of the longer side", {size: blurred(size) for size in BLURS}
    ),
    Corruption("JPEG", "quality", {quality: compressed(quality) for quality in QUALITIES}),
)


@dataclass(frozen=True, slots=True)
class RobustnessPoint:
    """Accuracy at one strength of a corruption."""

    strength: float
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class RobustnessCurve:
    """Accuracy at every strength of one of :data:`CORRUPTIONS`, mildest first."""

    name: str
    unit: str
    points: tuple[RobustnessPoint, ...]


@dataclass(frozen=True, slots=True)
class Robustness:
    """Accuracy on the images as they are, and under every corruption."""

    clean: Proportion
    curves: tuple[RobustnessCurve, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form: ``clean``, and each corruption by its name."""
        return {"clean": self.clean.to_dict()} | {
            curve.name: {
                "unit": curve.unit,
                "points": [
                    {"strength": point.strength, "accuracy": point.accuracy.to_dict()}
                    for point in curve.points
                ],
            }
            for curve in self.curves
        }


def choose_samples(predictions: PredictionsTable, count: int, seed: int = 0) -> PredictionsTable:
    """Draw images to corrupt, from those that the network was not trained on if there are any.

    Args:
        predictions: all images.
        count: how many; all where there are fewer.
        seed: of the draw.
    """
    rows = [row for row, subset in enumerate(predictions.subsets) if subset != "train"]
    rows = rows or list(range(len(predictions.subsets)))
    drawn = np.random.default_rng(seed).permutation(rows)[:count]
    return predictions.pick(np.sort(drawn))


def measure_robustness(
    classifier: Classifier,
    inputs: Sequence[Path],
    predictions: PredictionsTable,
    *,
    metadata: Path | None = None,
    classes: Mapping[str, str] = LABEL_FOLDERS,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> Robustness:
    """Classify the same images again under every corruption and strength.

    Args:
        classifier: the network.
        inputs: archives or folders that hold the images.
        predictions: the images, as :func:`choose_samples` gives them; their labels count.
        metadata: the metadata table that they were read with; it may be their only label.
        classes: labels by folder name.
        seed: of what is random in a corruption, together with the pixels of the image.
        on_image: called with the number of images done.
    """
    labels = {(one.archive, one.file): one.label for one in predictions.samples}
    functions = [clean, *(step for kind in CORRUPTIONS for step in kind.steps.values())]

    def corrupted(pixels: Pixels) -> Pixels:
        key = zlib.crc32(pixels.tobytes())
        return np.stack(
            [
                classifier.aligner(corrupt(pixels, None, np.random.default_rng([seed, key]))).pixels
                for corrupt in functions
            ]
        )

    stream = (
        (sample, data)
        for sample, data in stream_samples(inputs, metadata, classes=classes)
        if (sample.archive, sample.file) in labels
    )
    correct = []
    for sample, _, images, _ in decode_samples(stream, corrupted):
        if images is None:
            continue
        is_male = classifier.probabilities(images)[:, 1] > 0.5
        correct.append(is_male == (labels[sample.archive, sample.file] == "male"))
        if on_image:
            on_image(len(correct))
    columns = iter(np.array(correct, bool).reshape(-1, len(functions)).T)
    return Robustness(
        clean=proportion(next(columns)),
        curves=tuple(
            RobustnessCurve(
                kind.name,
                kind.unit,
                tuple(
                    RobustnessPoint(strength, proportion(next(columns))) for strength in kind.steps
                ),
            )
            for kind in CORRUPTIONS
        ),
    )
