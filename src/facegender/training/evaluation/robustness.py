"""Accuracy against how bad a picture is: turned, small, blurred, compressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.training.data.image_cache import decode_samples
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
from facegender.training.evaluation.metrics import proportion
from facegender.training.evaluation.predictions_table import PredictionsTable


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to make pictures worse: its name, its unit, and how strongly (mildest first)."""

    name: str
    unit: str
    steps: dict[float, CorruptFunction]


CORRUPTIONS = (
    Corruption(
        "turn",
        "degrees to either side, surroundings mirrored",
        {degrees: rotated(degrees, "photo") for degrees in DEGREES},
    ),
    Corruption("size", "pixels of the longer side", {side: downscaled(side) for side in SIZES}),
    Corruption("blur", "sigma, share of the longer side", {size: blurred(size) for size in BLURS}),
    Corruption("JPEG", "quality", {quality: compressed(quality) for quality in QUALITIES}),
)


def choose_samples(scores: PredictionsTable, count: int, seed: int = 0) -> PredictionsTable:
    """Draw pictures to make worse: those not learned from, where there are any.

    Args:
        scores: what was judged.
        count: how many; all where there are no more.
        seed: of the draw.
    """
    rows = [row for row, subset in enumerate(scores.subsets) if subset != "train"]
    rows = rows or list(range(len(scores.subsets)))
    drawn = np.random.default_rng(seed).permutation(rows)[:count]
    return scores.pick(np.sort(drawn))


def measure_robustness(
    classifier: Classifier,
    inputs: Sequence[Path],
    scores: PredictionsTable,
    *,
    table: Path | None = None,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Judge the same pictures again, made worse in every way and strength.

    Args:
        classifier: the network.
        inputs: the archives that the pictures are in.
        scores: the pictures, as :func:`choose_samples` gives them; their labels count.
        table: the table that they were read with; it may be all that labels them.
        seed: of what is random in a damage; together with the picture it decides.
        on_image: called with the number of pictures done.

    Returns:
        ``clean`` as a share (see :func:`facegender.training.evaluation.metrics.proportion`), and each of
        :data:`CORRUPTIONS` as ``{unit, points: [{at, accuracy}, ...]}``.
    """
    labels = {(one.archive, one.file): one.label for one in scores.samples}
    changes = [clean, *(change for damage in CORRUPTIONS for change in damage.steps.values())]

    def worsened(pixels: Pixels) -> Pixels:
        key = zlib.crc32(pixels.tobytes())
        return np.stack(
            [
                classifier.aligner(change(pixels, None, np.random.default_rng([seed, key]))).pixels
                for change in changes
            ]
        )

    stream = (
        (sample, data)
        for sample, data in stream_samples(inputs, table)
        if (sample.archive, sample.file) in labels
    )
    right = []
    for sample, _, images, _ in decode_samples(stream, worsened):
        if images is None:
            continue
        answers = classifier.probabilities(images)[:, 1] > 0.5
        right.append(answers == (labels[sample.archive, sample.file] == "male"))
        if on_image:
            on_image(len(right))
    outcomes = np.array(right).reshape(-1, len(changes))
    result: dict[str, Any] = {"clean": proportion(outcomes[:, 0])}
    place = 1
    for damage in CORRUPTIONS:
        points = []
        for at in damage.steps:
            points.append({"at": at, "accuracy": proportion(outcomes[:, place])})
            place += 1
        result[damage.name] = {"unit": damage.unit, "points": points}
    return result
