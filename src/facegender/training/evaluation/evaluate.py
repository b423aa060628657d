"""Evaluate a model file on labeled images: one predictions table, and example images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import LABELS
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.image_cache import ImageCache, decode_samples
from facegender.training.data.image_rows import read_rows
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.data.split import SPLIT_NAME, SUBSETS, read_split
from facegender.training.evaluation.gallery import Gallery
from facegender.training.evaluation.metrics import Metrics, table_metrics
from facegender.training.evaluation.predictions_table import PredictionsTable, make_predictions

_BATCH_SIZE = 512


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        predictions: a row per image.
        unreadable: name and reason of every file that could not be read.
        galleries: example images by subset.
    """

    predictions: PredictionsTable
    unreadable: list[tuple[str, str]]
    galleries: dict[str, Gallery]

    def metrics(self) -> dict[str, Metrics]:
        """Compute the metrics of every subset on its own."""
        return {
            name: table_metrics(self.predictions.of_subset(name))
            for name in sorted(set(self.predictions.subsets))
        }


@dataclass(frozen=True, slots=True)
class _LabeledImage:
    """An image as the network receives it, ``uint8 [H, W, 3]``, and the subset that it is in."""

    sample: Sample
    subset: str
    pixels: Pixels


def predict_cached(
    classifier: Classifier,
    cache: ImageCache,
    indices: NDArray[np.int64],
    *,
    on_image: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Run the model file on images of a cache that was made with its own preprocessing.

    Args:
        classifier: the model file.
        cache: decoded images.
        indices: rows of the cache, ``int64 [N]``.
        on_image: called with the number of images done.

    Returns:
        Probabilities ``float32 [N, 2]`` in the order of ``LABELS``: the same as ``predict`` gives
        for the same files.
    """
    probabilities = np.zeros((len(indices), len(LABELS)), np.float32)
    for start in range(0, len(indices), _BATCH_SIZE):
        rows = indices[start : start + _BATCH_SIZE]
        probabilities[start : start + len(rows)] = classifier.probabilities(
            read_rows(cache.pixels, rows)
        )
        if on_image:
            on_image(start + len(rows))
    return probabilities


def evaluate(
    model: Path,
    inputs: Sequence[Path],
    metadata: Path | None = None,
    *,
    subset: str | None = None,
    corrections: Path | None = None,
    classes: Mapping[str, str] = LABEL_FOLDERS,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Evaluation:
    """Run a model file on labeled images, decoded as ``predict`` decodes them.

    A run folder (or the model file in it) has the split of the run: images are identified by
    content (SHA-256), and each is in its subset of that split, or in ``new``.

    Args:
        model: a model file or a run folder.
        inputs: archives or folders.
        metadata: CSV joined on the path inside the archive.
        subset: only images of this one; None is all but ``test``, which is measured on request
            only.
        corrections: a CSV of corrected labels to measure by; lines that are not reviewed do not
            count.
        classes: labels by folder name.
        on_image: called with the number of images done.
        on_skip: called with the name and reason of every skipped file.

    Raises:
        FacegenderError: the model or an archive is missing, or the subset has no image.
    """
    if subset not in (None, "new", *SUBSETS):
        raise InputError(f"Unknown subset {subset!r}: use {', '.join(SUBSETS)} or new")
    classifier = Classifier.load(model)
    corrected = read_corrections(corrections).reviewed if corrections else {}
    unreadable: list[tuple[str, str]] = []
    stream = stream_samples(inputs, metadata, on_skip=on_skip, classes=classes)
    images = _read_images(stream, classifier, _run_subsets(model), subset, corrected, unreadable)
    samples: list[Sample] = []
    subsets: list[str] = []
    probabilities: list[NDArray[np.float32]] = []
    galleries: dict[str, Gallery] = {}
    while batch := list(islice(images, _BATCH_SIZE)):
        pixels = np.stack([image.pixels for image in batch])
        samples += (image.sample for image in batch)
        subsets += (image.subset for image in batch)
        probabilities.append(classifier.probabilities(pixels))
        table = make_predictions(samples[-len(batch) :], subsets[-len(batch) :], probabilities[-1])
        for name in set(table.subsets):
            rows = [row for row, its_subset in enumerate(table.subsets) if its_subset == name]
            galleries.setdefault(name, Gallery()).add(table.pick(rows), pixels[rows])
        if on_image:
            on_image(len(samples))
    if not samples:
        raise InputError(_why_nothing(subset, unreadable))
    predictions = make_predictions(samples, subsets, np.concatenate(probabilities))
    return Evaluation(predictions, unreadable, galleries)


def _run_subsets(model: Path) -> dict[str, str]:
    """Read the subset of every image of the model's run, by SHA-256; empty without a split."""
    path = (model if model.is_dir() else model.parent) / SPLIT_NAME
    if not path.is_file():
        return {}
    return {row.sha256: row.subset for row in read_split(path) if row.subset}


def _read_images(
    stream: Iterator[tuple[Sample, bytes]],
    classifier: Classifier,
    subsets: Mapping[str, str],
    subset: str | None,
    corrections: Mapping[str, str],
    unreadable: list[tuple[str, str]],
) -> Iterator[_LabeledImage]:
    """Yield the readable images of a subset; others are appended to ``unreadable``."""

    def is_wanted(data: bytes) -> bool:
        its_subset = subsets.get(sha256(data).hexdigest(), "new")
        return its_subset != "test" if subset is None else its_subset == subset

    wanted = ((sample, data) for sample, data in stream if is_wanted(data))  # before decoding
    decoded = decode_samples(wanted, lambda image: classifier.aligner(image).pixels)
    for sample, digest, pixels, error in decoded:
        if pixels is None:
            unreadable.append((sample.file, error))
            continue
        (corrected,) = apply_corrections([sample], [digest], corrections)
        if corrected is not None:
            yield _LabeledImage(corrected, subsets.get(digest, "new"), pixels)


def _why_nothing(subset: str | None, unreadable: Sequence[tuple[str, str]]) -> str:
    if unreadable:
        file, error = unreadable[0]
        return f"All {len(unreadable):,} images are unreadable; {file}: {error}"
    if subset:
        return f"No image to evaluate: none is in the subset {subset!r}"
    return "No image to evaluate: all are in the test subset; to evaluate it, add --subset test"
