"""Accuracy lost for speed: cheaper arithmetic and decoding, compared with the full ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.speed.measure import Row
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.inference.preprocess import PreprocessOptions, preprocess_file, preprocess_pixels
from facegender.model.model_file import LABELS
from facegender.model.runtime import count_cores
from facegender.training.data.image_cache import decode_samples
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.data.split import read_split
from facegender.training.export.quantize import (
    MAX_ACCURACY_LOSS,
    MAX_UNKNOWN_CHANGE,
    QuantizationLoss,
)


def validation(
    archives: list[Path], split: Path, count: int | None
) -> Iterator[tuple[Sample, bytes]]:
    """Read the first validation images of a split, with their raw labels."""
    wanted = {
        (row.sample.archive, row.sample.file)
        for row in read_split(split)
        if row.subset == "validation"
    }
    found = (
        (sample, data)
        for sample, data in stream_samples(archives)
        if (sample.archive, sample.file) in wanted
    )
    return islice(found, count)


def measure_arithmetic(
    images: Iterator[tuple[Sample, bytes]], models: dict[str, Path], runtimes: tuple[str, ...]
) -> Row:
    """Compare every model on every runtime with the first of its size on ONNX Runtime (float32)."""
    classifiers = {
        f"{name}, {runtime}": Classifier.load(model, runtime=runtime)
        for name, model in models.items()
        for runtime in dict.fromkeys(("onnxruntime", *runtimes))
    }
    aligners = {each.aligner.resize: each.aligner for each in classifiers.values()}

    def align(image: Pixels) -> list[Pixels]:
        return [aligner(image).pixels for aligner in aligners.values()]

    labels, crops = [], []
    for sample, _, aligned, _ in decode_samples(images, align):
        if aligned is not None:
            labels.append(LABELS.index(sample.label))
            crops.append(aligned)
    sizes = list(aligners)
    result: Row = {}
    full: dict[int, tuple[str, NDArray[np.float32]]] = {}
    for name, classifier in classifiers.items():
        size = sizes.index(classifier.aligner.resize)
        found = classifier.probabilities(np.stack([aligned[size] for aligned in crops]))
        reference, answers = full.setdefault(size, (name, found))
        if name != reference:
            result[name] = {"runs": classifier.runtime, "against": reference} | compare(
                answers, found, np.array(labels), classifier.description.min_confidence
            )
    return result


def measure_decoding(images: Iterator[tuple[Sample, bytes]], side: int, model: Path) -> Row:
    """Compare downscaled decoding, as in ``predict``, with full; images have ``side`` pixels."""
    classifier = Classifier.load(model, runtime="onnxruntime")
    described = classifier.description
    every_options = [
        PreprocessOptions(described.crop, described.resize, faces) for faces in ("whole", "auto")
    ]

    def preprocess_both(image: tuple[Sample, bytes]) -> list[tuple[int, list[Pixels]]]:
        """For each of the options, return the label and the crops: decoded in full, downscaled."""
        sample, data = image
        large = _upscaled(data, side)
        full = decode(large)
        found = []
        for options in every_options:
            both = (preprocess_pixels(full, options), preprocess_file(large, options))
            crops = [each.crops[0].pixels for each in both if each and each.crops]
            found.append((LABELS.index(sample.label), crops))
        return found

    with ThreadPoolExecutor(count_cores()) as pool:
        read = list(pool.map(preprocess_both, images))
    result: Row = {}
    for number, options in enumerate(every_options):
        pairs = [found[number] for found in read if len(found[number][1]) == 2]
        labels = np.array([label for label, _ in pairs])
        full, downscaled = (
            classifier.probabilities(np.stack([crops[way] for _, crops in pairs])) for way in (0, 1)
        )
        against = {"against": "decoding in full", "side": side}
        result[f"downscaled decoding, {options.faces}"] = against | compare(
            full, downscaled, labels, described.min_confidence
        )
    return result


def _upscaled(data: bytes, side: int) -> bytes:
    image = Image.fromarray(decode(data))
    scale = side / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def compare(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    labels: NDArray[np.int64],
    threshold: float,
) -> Row:
    """Compute accuracy and the fraction of ``unknown`` in percent, and their changes in points."""
    loss = QuantizationLoss.between(before, after, labels, threshold)
    lost = round(loss.accuracy_before - loss.accuracy_after, 3)
    change = round(abs(loss.unknown_after - loss.unknown_before), 3)
    return asdict(loss) | {
        "points_lost": lost,
        "unknown_change": change,
        "within": lost <= MAX_ACCURACY_LOSS and change <= MAX_UNKNOWN_CHANGE,
    }
