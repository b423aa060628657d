"""Predict a stream of images in memory, paths and open files; see ``Classifier.predict_many``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import length_hint
from pathlib import Path

import numpy as np

from facegender.errors import UnreadableImageError
from facegender.inference.face_classifier import FaceClassifier
from facegender.inference.image_inputs import ImageInput, image_name, to_source
from facegender.inference.pipeline import (
    FileResult,
    PixelsFile,
    PredictOptions,
    predict_files,
    start_workers,
)
from facegender.inference.preprocess import NOT_AN_IMAGE
from facegender.inputs.sources import InputFile
from facegender.results.predictions import Prediction, Status, unreadable_row


def predict_images(
    images: Iterable[ImageInput],
    classifier: FaceClassifier,
    faces: str = "auto",
    min_confidence: float | None = None,
) -> Iterator[Prediction]:
    """Classify images one after the other, each by its main face.

    Args:
        images: what :meth:`Classifier.predict` takes.
        classifier: the network.
        faces: as for :meth:`Classifier.predict`.
        min_confidence: as for :meth:`Classifier.predict`.

    Raises:
        InputError: an unknown value of ``faces``.
        ValueError: ``min_confidence`` outside 0.5 to 1.
        Exception: what the iterable raises, or :func:`to_source` for something that is not an
            image; after the rows of the images before it.
    """
    options = PredictOptions(faces=faces, min_confidence=min_confidence)
    classifier.threshold(min_confidence)
    return _predict(images, classifier, options)


def _predict(
    images: Iterable[ImageInput], classifier: FaceClassifier, options: PredictOptions
) -> Iterator[Prediction]:
    total = length_hint(images, -1)
    errors: list[Exception] = []
    with start_workers(None if total < 0 else total, options.timeout) as pool:
        files = _to_files(images, errors)
        for result in predict_files(files, classifier, options, pool=pool):
            yield _to_row(result)
    if errors:
        raise errors[0]


def _to_files(images: Iterable[ImageInput], errors: list[Exception]) -> Iterator[InputFile]:
    """Yield images as files; the first error ends the stream and is appended to ``errors``.

    It is raised only after the rows of the images before it, which are read ahead.
    """
    try:
        for image in images:
            yield _to_file(image)
    except Exception as error:
        errors.append(error)


def _to_file(image: ImageInput) -> InputFile:
    key = image_name(image) or ""
    try:
        source = to_source(image)
    except UnreadableImageError as error:
        return InputFile(key, problem=str(error))
    if isinstance(source, np.ndarray):
        return PixelsFile(key, size=source.nbytes, pixels=source)
    if isinstance(source, Path):
        return InputFile(key, path=source, size=_size(source))
    return InputFile(key, data=source, size=len(source))


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it cannot be read, which is reported when it is read."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _to_row(result: FileResult) -> Prediction:
    row = result.rows[0]
    name = result.file.key or None
    if row.status == Status.SKIPPED:
        return unreadable_row(name, NOT_AN_IMAGE)
    return row if row.file == name else replace(row, file=name)
