"""Classifier: pixels -> probabilities, with the model file that says how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import ModelFileError, UnreadableImageError
from facegender.faces.face_aligner import FaceAligner
from facegender.faces.yunet import Face
from facegender.images.decode import from_pil_image
from facegender.images.pixels import Pixels
from facegender.inference.preprocess import (
    PreprocessedImage,
    PreprocessOptions,
    preprocess_file,
    preprocess_pixels,
)
from facegender.model.model_file import ModelDescription, ModelFile, read_model_file
from facegender.model.runtime import BATCH_SIZE, count_cores
from facegender.results.predictions import Box, Prediction, Status

ImageInput: TypeAlias = str | PathLike[str] | Image.Image | NDArray[Any]
"""A path, a Pillow picture, or ``uint8`` pixels: RGB ``[H, W, 3]`` or grey ``[H, W]``."""


class Classifier:
    """A network, ready to answer.

    Example:
        >>> classifier = Classifier.load()
        >>> classifier.predict("faces/eileen_collins.jpg").label
        'female'
    """

    def __init__(self, model: ModelFile, threads: int = 1) -> None:
        """Take a model file that was read and verified; :meth:`load` does both."""
        self._network = model.network
        self._description = model.description
        self.digest: str = model.digest
        """SHA-256 of the model file, in hex."""
        self.runtime = model.network.name
        """What runs the network, where, and in which arithmetic."""
        self.threads = threads
        """How many runs of the network go on side by side."""
        self.aligner = FaceAligner(model.description.crop, model.description.resize)
        """Brings a picture before the network by the rules in the model file."""

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        runtime: str = "auto",
        threads: int = 0,
    ) -> Classifier:
        """Load a network.

        Args:
            path: a model file, a run folder that holds one, or None for the one that ships.
            runtime: what runs it, one of :data:`facegender.model.runtime.RUNTIMES`.
            threads: how many runs of it may go on side by side; 0 is one for each core.

        Returns:
            The classifier, ready to answer.

        Raises:
            InputError: another word for ``runtime``, or one that is not installed.
            ModelFileError: missing, of another kind, damaged, or with other labels.
        """
        threads = threads or count_cores()
        file = None if path is None else Path(path)
        return cls(read_model_file(file, runtime=runtime, threads=threads), threads)

    @property
    def description(self) -> ModelDescription:
        """Everything about the network but its weights: labels, sizes, figures, terms."""
        return self._description

    def probabilities(self, batch: Pixels, *, is_alone: bool = False) -> NDArray[np.float32]:
        """Run the network over pictures of its own size (see :attr:`framer`).

        Args:
            batch: ``uint8 [N, H, W, 3]``, RGB, of the description's size; any N.
            is_alone: it is no part of many, whose answers would have to be the same to the last
                bit; one picture is then answered without the rest of a run.

        Returns:
            ``float32 [N, 2]``, in the order of ``description.labels``. A row does not depend on
            the other rows or on N.

        Raises:
            TypeError: not ``uint8``.
            ValueError: another shape.
            ModelFileError: the network gives something that is no probability.
        """
        resize = self._description.resize
        crop = (resize.height, resize.width, 3)
        if batch.dtype != np.uint8:
            raise TypeError(f"pixels are {batch.dtype}, not uint8")
        if batch.shape[1:] != crop:
            raise ValueError(f"pixels have the shape {batch.shape}, not (N, {crop[0]}, ...)")
        size = 1 if len(batch) == 1 and is_alone else BATCH_SIZE
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        if len(parts) > 1 and self.threads > 1:
            with ThreadPoolExecutor(self.threads, "facegender-network") as pool:
                answers = list(pool.map(self._run, parts))
        else:
            answers = [self._run(part, size) for part in parts]
        found = np.concatenate([np.empty((0, 2), np.float32), *answers])
        if not np.allclose(found.sum(axis=1), 1.0, atol=1e-3) or (found < 0).any():
            raise ModelFileError("the network gives numbers that are no probabilities")
        return found

    def _run(self, part: Pixels, size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Run the network once, over ``size`` pictures of which the last may be black."""
        if len(part) < size:
            full = np.zeros((size, *part.shape[1:]), dtype=np.uint8)
            full[: len(part)] = part
        else:
            full = np.ascontiguousarray(part)
        return self._network(full)[: len(part)]

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is one path, not a row of paths
        self, images: ImageInput, *, faces: str = ..., min_confidence: float | None = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Sequence[ImageInput], *, faces: str = ..., min_confidence: float | None = ...
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        faces: str = "auto",
        min_confidence: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Answer for one picture or for a list of them: of several faces the one that it shows.

        Example:
            >>> rows = classifier.predict(["faces/joe_biden.jpg", "faces/CREDITS.md"])
            >>> [row.status.value for row in rows]
            ['ok', 'unreadable']

        Args:
            images: a path, a Pillow picture, or ``uint8`` pixels, RGB ``[H, W, 3]`` or grey
                ``[H, W]``; or a list of these.
            faces: ``detect`` finds faces, ``whole`` takes each picture as one face, as it is;
                ``auto`` finds them too, and by a network that learned from whole pictures takes a
                picture that one face fills as it is.
            min_confidence: answers less probable than this are ``unknown``; None takes the
                network's own threshold.

        Returns:
            One row, or a list with a row for each picture. A picture that cannot be read has a
            row with the status ``unreadable``, one without a face ``no_face``.

        Raises:
            TypeError: something that is no picture, or pixels that are not ``uint8``.
            ValueError: pixels of another shape, or a threshold outside 0.5 to 1.
            InputError: another word for ``faces``.
        """
        if isinstance(images, (str, PathLike, Image.Image, np.ndarray)):
            return next(self._rows([images], faces, min_confidence))[0]
        return [rows[0] for rows in self._rows(images, faces, min_confidence)]

    def predict_faces(
        self, image: ImageInput, *, faces: str = "detect", min_confidence: float | None = None
    ) -> list[Prediction]:
        """Answer for every face in a picture, the one that it shows first.

        Example:
            >>> for row in classifier.predict_faces("faces/barack_obama_speaking.jpg"):
            ...     print(row.face_index, row.label, row.box.width > 100)
            0 male True

        Args:
            image: as for :meth:`predict`.
            faces: likewise.
            min_confidence: likewise.

        Returns:
            A row for each face; or one without an answer (``no_face``, ``unreadable``).

        Raises:
            TypeError, ValueError, InputError: as :meth:`predict`.
        """
        return list(next(self._rows([image], faces, min_confidence)))

    def find_faces(self, image: ImageInput) -> list[Face]:
        """Find every face in a picture and answer for none: where they are, and how surely.

        Example:
            >>> (face,) = classifier.find_faces("faces/eileen_collins.jpg")
            >>> face.score > 0.9, face.landmarks.shape
            (True, (5, 2))

        Args:
            image: as for :meth:`predict`.

        Returns:
            The faces, the one that the picture shows first; none where there is none.

        Raises:
            UnreadableImageError: the picture cannot be read whole.
            TypeError, ValueError: as :meth:`predict`.
        """
        read = _read(
            image, PreprocessOptions(self._description.crop, self._description.resize, "detect")
        )
        if isinstance(read, Prediction):
            raise UnreadableImageError(f"{read.file or 'the image'}: {read.error}")
        return [crop.face for crop in read.crops if crop.face is not None]

    def rows(
        self,
        file: str | None,
        reading: PreprocessedImage,
        probabilities: Iterator[NDArray[np.float32]],
        min_confidence: float | None = None,
    ) -> tuple[Prediction, ...]:
        """Turn a picture's probabilities into its result rows.

        The threshold is held against the rounded probability, the one that is shown. Where both
        labels are exactly as probable the status is ``unknown``.

        Args:
            file: the picture's name.
            reading: the picture.
            probabilities: what :meth:`probabilities` gave for its frames, ``float32 [2]`` each.
            min_confidence: see :meth:`predict`.
        """
        threshold = self.threshold(min_confidence)
        width, height = reading.width, reading.height
        if not reading.crops:
            return (Prediction(file, Status.NO_FACE, width=width, height=height),)
        rows = []
        for index, crop in enumerate(reading.crops):
            both = next(probabilities)
            best = int(both.argmax())
            probability = min(1.0, max(0.5, round(float(both[best]), 4)))
            is_known = probability >= threshold and both[0] != both[1]
            rows.append(
                Prediction(
                    file=file,
                    status=Status.OK if is_known else Status.UNKNOWN,
                    face_index=index,
                    label=self._description.labels[best],
                    probability=probability,
                    box=_box(crop.face, width, height),
                    detection_score=round(crop.face.score, 2) if crop.face else None,
                    crop="aligned" if crop.face else "whole",
                    width=width,
                    height=height,
                )
            )
        return tuple(rows)

    def threshold(self, min_confidence: float | None) -> float:
        """Give the threshold below which an answer is ``unknown``: the caller's or the network's.

        Raises:
            ValueError: not within 0.5 to 1.
        """
        if min_confidence is None:
            return self._description.min_confidence
        if not 0.5 <= min_confidence <= 1.0:
            raise ValueError(f"min_confidence is {min_confidence}, not within 0.5 to 1")
        return min_confidence

    def _rows(
        self, images: Sequence[ImageInput], faces: str, min_confidence: float | None
    ) -> Iterator[tuple[Prediction, ...]]:
        """Answer part by part, so that only one part's pixels are held."""
        reader = PreprocessOptions(self._description.crop, self._description.resize, faces)
        self.threshold(min_confidence)
        is_alone = len(images) == 1
        size = BATCH_SIZE * self.threads
        with ThreadPoolExecutor(self.threads, "facegender-reader") as pool:
            for start in range(0, len(images), size):
                part = images[start : start + size]
                read = list(pool.map(partial(_read, reader=reader), part))
                readings = [each for each in read if isinstance(each, PreprocessedImage)]
                pixels = [crop.pixels for reading in readings for crop in reading.crops]
                found = iter(
                    self.probabilities(np.stack(pixels), is_alone=is_alone) if pixels else ()
                )
                for image, each in zip(part, read, strict=True):
                    if isinstance(each, Prediction):
                        yield (each,)
                    else:
                        yield self.rows(_name(image), each, found, min_confidence)


def _name(image: ImageInput) -> str | None:
    return str(Path(image)) if isinstance(image, (str, PathLike)) else None


def _box(face: Face | None, width: int, height: int) -> Box:
    """Where an answer was read from, within a picture of that size."""
    if face is None:
        return Box(0, 0, width, height)
    left, top = (
        min(max(0, round(low)), side - 1) for low, side in ((face.x, width), (face.y, height))
    )
    right = min(max(left + 1, round(face.x + face.width)), width)
    bottom = min(max(top + 1, round(face.y + face.height)), height)
    return Box(left, top, right - left, bottom - top)


def _read(image: ImageInput, reader: PreprocessOptions) -> PreprocessedImage | Prediction:
    """Bring a picture before the network, or say why not."""
    try:
        if isinstance(image, (str, PathLike)):
            reading = preprocess_file(Path(image), reader)
            if reading is None:
                raise UnreadableImageError("is no picture by its name and content")
            return reading
        if isinstance(image, Image.Image):
            return preprocess_pixels(from_pil_image(image), reader)
        return preprocess_pixels(_from_array(image), reader)
    except UnreadableImageError as error:
        return Prediction(_name(image), Status.UNREADABLE, error=str(error))


def _from_array(values: object) -> Pixels:
    """Check pixels from a caller; grey ones become three equal channels."""
    if not isinstance(values, np.ndarray):
        raise TypeError(
            f"{type(values).__name__} is no picture: give a path, a Pillow picture or pixels"
        )
    if values.dtype != np.uint8:
        raise TypeError(f"pixels are {values.dtype}, not uint8 (0 to 255)")
    is_grey = values.ndim == 2
    if not is_grey and (values.ndim != 3 or values.shape[2] != 3):
        raise ValueError(
            f"pixels have the shape {values.shape}, not (H, W, 3) or (H, W); "
            "give several pictures as a list"
        )
    if values.size == 0:
        raise ValueError(f"pixels have the shape {values.shape}: there are none")
    rgb = np.repeat(values[:, :, None], 3, axis=2) if is_grey else values
    return np.ascontiguousarray(rgb)
