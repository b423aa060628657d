"""Classifier: a loaded model that classifies images, faces and batches of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from facegender.errors import ModelFileError, UnreadableImageError
from facegender.faces.face_aligner import FaceAligner
from facegender.faces.yunet import Face
from facegender.images.pixels import Pixels
from facegender.inference.face_rows import face_rows
from facegender.inference.image_inputs import (
    ImageInput,
    image_name,
    is_single_image,
    iterate_images,
    preprocess_image,
    preprocess_or_row,
)
from facegender.inference.preprocess import PreprocessedImage, PreprocessOptions
from facegender.model.model_file import (
    ModelDescription,
    ModelFile,
    read_model_file,
    shipped_name,
)
from facegender.model.runtime import BATCH_SIZE, count_cores
from facegender.results.predictions import Prediction


class Classifier:
    """A loaded model.

    Example:
        >>> classifier = Classifier.load()
        >>> classifier.predict("faces/eileen_collins.jpg").label
        'female'
    """

    def __init__(self, model: ModelFile, threads: int = 1, runtime: str = "auto") -> None:
        """Use a model file that was read and verified; :meth:`load` does both.

        Args:
            model: the model file.
            threads: number of concurrent runs of the network.
            runtime: the runtime that was asked for, with which a pickled classifier loads again.
        """
        self._path = Path(shipped_name(model.path) or model.path.absolute())
        self._requested_runtime = runtime
        self._network = model.network
        self._description = model.description
        self.digest: str = model.digest
        """SHA-256 of the model file, in hex."""
        self.runtime = model.network.name
        """Runtime, version, device and precision that run the network."""
        self.threads = threads
        """Number of concurrent runs of the network."""
        self.aligner = FaceAligner(model.description.crop, model.description.resize)
        """Crops faces at the network's input size by the rules in the model file."""

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        runtime: str = "auto",
        threads: int = 0,
    ) -> Classifier:
        """Load a model file.

        Args:
            path: a model file, a run folder that has one, the name of a model that ships (``best``,
                ``fast`` or ``open``), or None for ``best``.
            runtime: one of :data:`facegender.model.runtime.RUNTIMES`.
            threads: number of concurrent runs of the network; 0 is one per core.

        Returns:
            The classifier.

        Raises:
            InputError: an unknown runtime, or one that is not installed.
            ModelFileError: the file is missing, damaged, or not a model file that this version
                supports.
        """
        threads = threads or count_cores()
        file = None if path is None else Path(path)
        return cls(read_model_file(file, runtime=runtime, threads=threads), threads, runtime)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the model file's path; it is loaded again, once per process.

        The same file must be there: :class:`ModelFileError` says if it is missing or has changed.
        """
        return _load_again, (self._path, self.digest, self._requested_runtime, self.threads)

    def __repr__(self) -> str:
        """Return name, input size, runtime and digest."""
        resize = self._description.resize
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"<Classifier {self._description.name!r}: {resize.width}x{resize.height} pixels, "
            f"{self.runtime}, {threads}, sha256 {self.digest[:12]}>"
        )

    @property
    def description(self) -> ModelDescription:
        """Everything about the network except its weights: labels, sizes, metrics, terms."""
        return self._description

    def probabilities(self, batch: Pixels, *, is_alone: bool = False) -> NDArray[np.float32]:
        """Run the network on crops at its input size (see :attr:`aligner`).

        Args:
            batch: ``uint8 [N, H, W, 3]``, RGB, at the description's size; any N.
            is_alone: run a single crop without padding the batch: faster, but its last bits may
                differ from those in a batch.

        Returns:
            ``float32 [N, 2]``, in the order of ``description.labels``. A row does not depend on
            the other rows or on N.

        Raises:
            TypeError: not ``uint8``.
            ValueError: another shape.
            ModelFileError: the network's outputs are not probabilities.
        """
        resize = self._description.resize
        shape = (resize.height, resize.width, 3)
        if batch.dtype != np.uint8:
            raise TypeError(f"Expected uint8 pixels, got {batch.dtype}")
        if batch.shape[1:] != shape:
            expected = f"(N, {resize.height}, {resize.width}, 3)"
            raise ValueError(f"Expected pixels of shape {expected}, got {batch.shape}")
        size = 1 if len(batch) == 1 and is_alone else BATCH_SIZE
        batches = [batch[start : start + size] for start in range(0, len(batch), size)]
        if len(batches) > 1 and self.threads > 1:
            with ThreadPoolExecutor(self.threads, "facegender-network") as pool:
                results = list(pool.map(self._run, batches))
        else:
            results = [self._run(each, size) for each in batches]
        probabilities = np.concatenate([np.empty((0, 2), np.float32), *results])
        errors = np.abs(probabilities.sum(axis=1) - 1.0)
        if not (errors < 1e-3).all() or (probabilities < 0).any():  # NaN is not below either
            raise ModelFileError("The outputs of the network are not probabilities")
        return probabilities

    def _run(self, batch: Pixels, size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Run the network once, on a batch that is padded with black to ``size``."""
        if len(batch) < size:
            padded = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
            padded[: len(batch)] = batch
        else:
            padded = np.ascontiguousarray(batch)
        return self._network(padded)[: len(batch)]

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is one path, not a sequence of paths
        self, images: ImageInput, *, faces: str = ..., min_confidence: float | None = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Iterable[ImageInput], *, faces: str = ..., min_confidence: float | None = ...
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        faces: str = "auto",
        min_confidence: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Classify one image or several, each by its main face, in this process.

        For thousands of images use :meth:`predict_many`, which also reads them concurrently.

        Example:
            >>> rows = classifier.predict(["faces/joe_biden.jpg", "faces/CREDITS.md"])
            >>> [row.status.value for row in rows]
            ['ok', 'unreadable']
            >>> with open("faces/joe_biden.jpg", "rb") as file:
            ...     classifier.predict(file).label
            'male'

        Args:
            images: a path, the content of an image file (``bytes``), an open binary file, a Pillow
                image, or ``uint8`` pixels, RGB ``[H, W, 3]`` or gray ``[H, W]``; or an iterable of
                these, or pixels ``[N, H, W, 3]``.
            faces: ``detect`` finds every face, ``whole`` takes each image as one face, ``auto``
                finds faces and, in a close-up, ignores extra detections.
            min_confidence: answers below it are ``unknown``; None takes the model's own.

        Returns:
            One row, or a list with one row per image. The status is ``unreadable`` if an image
            cannot be read, ``unsupported`` if its format is not read here, ``no_face`` if it has
            no face.

        Raises:
            TypeError: something that is not an image, or pixels that are not ``uint8``.
            ValueError: pixels of another shape, or ``min_confidence`` outside 0.5 to 1.
            InputError: an unknown value of ``faces``.
        """
        if is_single_image(images):
            return next(self._rows([images], faces, min_confidence))[0]
        several = iterate_images(images)
        return [rows[0] for rows in self._rows(several, faces, min_confidence)]

    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        faces: str = "auto",
        min_confidence: float | None = None,
    ) -> Iterator[Prediction]:
        """Classify a stream of images, each by its main face, as fast as ``facegender predict``.

        Images are read in other processes, one per core, and classified in batches. Starting the
        processes takes about half a second: below a hundred images :meth:`predict` is as fast. An
        image that crashes its decoder or takes longer than a minute costs its own row.

        Example:
            >>> paths = sorted(Path("faces").glob("*.jpg"))
            >>> sum(row.label == "male" for row in classifier.predict_many(paths))
            5

        Args:
            images: any iterable of what :meth:`predict` takes; a generator is read little by
                little, about a hundred images ahead.
            faces: as for :meth:`predict`.
            min_confidence: as for :meth:`predict`.

        Returns:
            One row per image, in the order of the images; the rows of :meth:`predict`.

        Raises:
            TypeError, ValueError, InputError: as :meth:`predict`; for a wrong image after the rows
                of the images before it.
        """
        from facegender.inference.image_stream import predict_images

        several = [images] if is_single_image(images) else iterate_images(images)
        return predict_images(several, self, faces, min_confidence)

    @overload
    def predict_faces(  # type: ignore[overload-overlap]  # as above
        self, images: ImageInput, *, faces: str = ..., min_confidence: float | None = ...
    ) -> list[Prediction]: ...

    @overload
    def predict_faces(
        self, images: Iterable[ImageInput], *, faces: str = ..., min_confidence: float | None = ...
    ) -> list[list[Prediction]]: ...

    def predict_faces(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        faces: str = "detect",
        min_confidence: float | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Classify every face of one image or several, the main face first.

        Example:
            >>> for row in classifier.predict_faces("faces/barack_obama_speaking.jpg"):
            ...     print(row.face_index, row.label, row.box.width > 100)
            0 male True

        Args:
            images: as for :meth:`predict`.
            faces: as for :meth:`predict`.
            min_confidence: as for :meth:`predict`.

        Returns:
            For each image a list with one row per face, or one row without an answer (``no_face``,
            ``unreadable``, ``unsupported``); for a single image only its list.

        Raises:
            TypeError, ValueError, InputError: as :meth:`predict`.
        """
        if is_single_image(images):
            return list(next(self._rows([images], faces, min_confidence)))
        several = iterate_images(images)
        return [list(rows) for rows in self._rows(several, faces, min_confidence)]

    def find_faces(self, image: ImageInput) -> list[Face]:
        """Detect every face of an image, without classifying it.

        Example:
            >>> (face,) = classifier.find_faces("faces/eileen_collins.jpg")
            >>> face.score > 0.9, face.landmarks.shape
            (True, (5, 2))

        Args:
            image: as for :meth:`predict`.

        Returns:
            The faces, the main face first; empty if there is none.

        Raises:
            UnreadableImageError: the image cannot be read (:class:`UnsupportedImageError`: its
                format is not read here).
            TypeError, ValueError: as :meth:`predict`.
        """
        options = PreprocessOptions(self._description.crop, self._description.resize, "detect")
        try:
            crops = preprocess_image(image, options).crops
        except UnreadableImageError as error:
            raise type(error)(f"{image_name(image) or 'the image'}: {error}") from error
        return [crop.face for crop in crops if crop.face is not None]

    def rows(
        self,
        file: str | None,
        image: PreprocessedImage,
        probabilities: Iterator[NDArray[np.float32]],
        min_confidence: float | None = None,
    ) -> tuple[Prediction, ...]:
        """Make the result rows of an image from its probabilities.

        See :func:`facegender.inference.face_rows.face_rows`.
        """
        threshold = self.threshold(min_confidence)
        return face_rows(file, image, probabilities, self._description.labels, threshold)

    def threshold(self, min_confidence: float | None) -> float:
        """Return the threshold below which an answer is ``unknown``.

        Args:
            min_confidence: the caller's threshold, or None for the model's own.

        Raises:
            ValueError: not within 0.5 to 1.
        """
        if min_confidence is None:
            return self._description.min_confidence
        if not 0.5 <= min_confidence <= 1.0:
            raise ValueError(f"min_confidence {min_confidence} is not within 0.5 to 1")
        return min_confidence

    def _rows(
        self, images: Iterable[ImageInput], faces: str, min_confidence: float | None
    ) -> Iterator[tuple[Prediction, ...]]:
        """Classify in chunks, so that only one chunk's pixels are in memory."""
        options = PreprocessOptions(self._description.crop, self._description.resize, faces)
        self.threshold(min_confidence)
        remaining = iter(images)
        size = BATCH_SIZE * self.threads
        chunk = list(islice(remaining, size))
        if len(chunk) == 1:  # a thread would only cost time
            yield self._chunk_rows(chunk, [preprocess_or_row(chunk[0], options)], min_confidence)[0]
            return
        with ThreadPoolExecutor(self.threads, "facegender-preprocess") as pool:
            while chunk:
                outcomes = list(pool.map(partial(preprocess_or_row, options=options), chunk))
                yield from self._chunk_rows(chunk, outcomes, min_confidence)
                chunk = list(islice(remaining, size))

    def _chunk_rows(
        self,
        images: list[ImageInput],
        outcomes: list[PreprocessedImage | Prediction],
        min_confidence: float | None,
    ) -> list[tuple[Prediction, ...]]:
        readable = [each for each in outcomes if isinstance(each, PreprocessedImage)]
        pixels = [crop.pixels for each in readable for crop in each.crops]
        is_alone = len(images) == 1
        probabilities = iter(
            self.probabilities(np.stack(pixels), is_alone=is_alone) if pixels else ()
        )
        return [
            (outcome,)
            if isinstance(outcome, Prediction)
            else self.rows(image_name(image), outcome, probabilities, min_confidence)
            for image, outcome in zip(images, outcomes, strict=True)
        ]


@lru_cache(maxsize=4)
def _load_again(path: Path, digest: str, runtime: str, threads: int) -> Classifier:
    """Load the classifier of a pickle; several pickles of one classifier share it.

    Raises:
        ModelFileError: the model file is missing or has changed.
    """
    classifier = Classifier.load(path, runtime=runtime, threads=threads)
    if classifier.digest != digest:
        raise ModelFileError(
            f"{path} is not the model of the pickled classifier: its "
            "SHA-256 differs. Load it with Classifier.load and pickle it again"
        )
    return classifier
