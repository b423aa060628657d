"""What is given up for speed: answers of cheaper ways held against those of the full ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from measure import Row
from numpy.typing import NDArray
from PIL import Image

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
    """The first pictures that a split has for validation, with their labels as they came."""
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


def of_arithmetic(
    images: Iterator[tuple[Sample, bytes]], models: dict[str, Path], runtimes: tuple[str, ...]
) -> Row:
    """Every network by every runtime, against the first of its size by ONNX Runtime (float32)."""
    classifiers = {
        f"{name}, {runtime}": Classifier.load(model, runtime=runtime)
        for name, model in models.items()
        for runtime in dict.fromkeys(("onnxruntime", *runtimes))
    }
    framers = {each.aligner.resize: each.aligner for each in classifiers.values()}

    def cut(image: Pixels) -> list[Pixels]:
        return [aligner(image).pixels for aligner in framers.values()]

    labels, crops = [], []
    for sample, _, cuts, _ in decode_samples(images, cut):
        if cuts is not None:
            labels.append(LABELS.index(sample.label))
            crops.append(cuts)
    sizes = list(framers)
    result: Row = {}
    full: dict[int, tuple[str, NDArray[np.float32]]] = {}
    for name, classifier in classifiers.items():
        at = sizes.index(classifier.aligner.resize)
        found = classifier.probabilities(np.stack([cuts[at] for cuts in crops]))
        reference, answers = full.setdefault(at, (name, found))
        if name != reference:
            result[name] = {"runs": classifier.runtime, "against": reference} | judged(
                answers, found, np.array(labels), classifier.description.min_confidence
            )
    return result


def of_decoding(images: Iterator[tuple[Sample, bytes]], side: int, model: Path) -> Row:
    """Pictures enlarged to ``side`` pixels, read as ``predict`` does and decoded whole first."""
    classifier = Classifier.load(model, runtime="onnxruntime")
    described = classifier.description
    readers = [
        PreprocessOptions(described.crop, described.resize, faces) for faces in ("whole", "auto")
    ]

    def both_ways(image: tuple[Sample, bytes]) -> list[tuple[int, list[Pixels]]]:
        """For each reader the label and the face as decoded whole and smaller."""
        sample, data = image
        large = _enlarged(data, side)
        whole = decode(large)
        found = []
        for reader in readers:
            readings = (preprocess_pixels(whole, reader), preprocess_file(large, reader))
            faces = [
                each.crop_matrices[0].pixels for each in readings if each and each.crop_matrices
            ]
            found.append((LABELS.index(sample.label), faces))
        return found

    with ThreadPoolExecutor(count_cores()) as pool:
        read = list(pool.map(both_ways, images))
    result: Row = {}
    for at, reader in enumerate(readers):
        kept = [found[at] for found in read if len(found[at][1]) == 2]
        labels = np.array([label for label, _ in kept])
        whole, smaller = (
            classifier.probabilities(np.stack([faces[way] for _, faces in kept])) for way in (0, 1)
        )
        against = {"against": "decoding whole", "side": side}
        result[f"decoding smaller, {reader.faces}"] = against | judged(
            whole, smaller, labels, described.min_confidence
        )
    return result


def _enlarged(data: bytes, side: int) -> bytes:
    image = Image.fromarray(decode(data))
    scale = side / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def judged(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    labels: NDArray[np.int64],
    threshold: float,
) -> Row:
    """Accuracy and share of ``unknown`` in percent, and by how many points they moved."""
    loss = QuantizationLoss.between(before, after, labels, threshold)
    lost = round(loss.accuracy_before - loss.accuracy_after, 3)
    moved = round(abs(loss.unknown_after - loss.unknown_before), 3)
    return asdict(loss) | {
        "points_lost": lost,
        "unknown_moved": moved,
        "within": lost <= MAX_ACCURACY_LOSS and moved <= MAX_UNKNOWN_CHANGE,
    }
