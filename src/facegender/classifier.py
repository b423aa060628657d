"""Classifier: pixels -> probabilities, with the model file that says how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import ModelFileError, UnreadablePictureError
from facegender.faces import Face, Framed, Framer
from facegender.images import Pixels, decode, from_image, read_file
from facegender.model_file import ModelDescription, ModelFile, read_model_file
from facegender.results import Box, Prediction, Status

BATCH = 16
"""Pictures in every run of the network. Always this many (the rest is black), so that the same
bits come out for a picture whatever stands beside it."""

Picture: TypeAlias = str | PathLike[str] | Image.Image | NDArray[Any]
"""A path, a Pillow picture, or ``uint8`` pixels: RGB ``[H, W, 3]`` or grey ``[H, W]``."""


class Classifier:
    """A network, ready to answer.

    Example:
        >>> classifier = Classifier.load()  # doctest: +SKIP
        >>> classifier.predict("anna.jpg").label  # doctest: +SKIP
        'female'
    """

    def __init__(self, model: ModelFile) -> None:
        """Take a model file that was read and verified; :meth:`load` does both."""
        self._session = model.session
        self._description = model.description
        self._input = model.session.get_inputs()[0].name
        self.framer = Framer(model.description.crop, model.description.resize)
        """Brings a picture before the network by the rules in the model file."""

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None, *, threads: int = 0) -> Classifier:
        """Load a network.

        Args:
            path: a model file, a run folder that holds one, or None for the one that ships.
            threads: for one run of the network; 0 is one for each core.

        Raises:
            ModelFileError: missing, of another kind, damaged, or with other labels.
        """
        return cls(read_model_file(None if path is None else Path(path), threads=threads))

    @property
    def description(self) -> ModelDescription:
        """Everything about the network but its weights: labels, sizes, figures, terms."""
        return self._description

    def probabilities(self, batch: Pixels) -> NDArray[np.float32]:
        """Run the network over pictures of its own size (see :attr:`framer`).

        Args:
            batch: ``uint8 [N, H, W, 3]``, RGB, of the description's size; any N.

        Returns:
            ``float32 [N, 2]``, in the order of ``description.labels``. A row does not depend on
            the other rows or on N.

        Raises:
            TypeError: not ``uint8``.
            ValueError: another shape.
            ModelFileError: the network gives something that is no probability.
        """
        resize = self._description.resize
        frame = (resize.height, resize.width, 3)
        if batch.dtype != np.uint8:
            raise TypeError(f"pixels are {batch.dtype}, not uint8")
        if batch.shape[1:] != frame:
            raise ValueError(f"pixels have the shape {batch.shape}, not (N, {frame[0]}, ...)")
        found = np.empty((len(batch), 2), dtype=np.float32)
        for start in range(0, len(batch), BATCH):
            part = batch[start : start + BATCH]
            padded = np.zeros((BATCH, *frame), dtype=np.uint8)
            padded[: len(part)] = part
            try:
                (output,) = self._session.run(None, {self._input: padded})
            except Exception as error:  # ONNX Runtime's own exceptions share no base but this
                raise ModelFileError(f"the network cannot be run: {error}") from error
            found[start : start + len(part)] = output[: len(part)]
        if not np.allclose(found.sum(axis=1), 1.0, atol=1e-3) or (found < 0).any():
            raise ModelFileError("the network gives numbers that are no probabilities")
        return found

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is one path, not a row of paths
        self, pictures: Picture, *, unknown_below: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, pictures: Sequence[Picture], *, unknown_below: float | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, pictures: Picture | Sequence[Picture], *, unknown_below: float | None = None
    ) -> Prediction | list[Prediction]:
        """Answer for one picture or for a list of them.

        Args:
            pictures: a path, a Pillow picture, or ``uint8`` pixels, RGB ``[H, W, 3]`` or grey
                ``[H, W]``; or a list of these.
            unknown_below: answers less probable than this are ``unknown``; None takes the
                network's own threshold.

        Returns:
            One row, or a list with a row for each picture. A picture that cannot be read has a
            row with the status ``unreadable``.

        Raises:
            TypeError: something that is no picture, or pixels that are not ``uint8``.
            ValueError: pixels of another shape, or a threshold outside 0.5 to 1.
        """
        if isinstance(pictures, (str, PathLike, Image.Image, np.ndarray)):
            return next(self._rows([pictures], unknown_below))
        return list(self._rows(pictures, unknown_below))

    def answer(
        self,
        file: str | None,
        probabilities: NDArray[np.float32],
        width: int,
        height: int,
        unknown_below: float | None = None,
        found: Face | None = None,
    ) -> Prediction:
        """Turn one row of :meth:`probabilities` into a result row for a picture.

        The threshold is held against the rounded probability, the one that is shown. Where both
        labels are exactly as probable there is no answer: the status is ``unknown``.

        Args:
            file: the picture's name.
            probabilities: ``float32 [2]``.
            width: of the upright picture in pixels.
            height: likewise.
            unknown_below: see :meth:`predict`.
            found: the face that the answer was read from; None for the whole picture.
        """
        threshold = self.threshold(unknown_below)
        best = int(probabilities.argmax())
        probability = min(1.0, max(0.5, round(float(probabilities[best]), 4)))
        is_known = probability >= threshold and probabilities[0] != probabilities[1]
        return Prediction(
            file=file,
            status=Status.OK if is_known else Status.UNKNOWN,
            face=0,
            label=self._description.labels[best] if is_known else None,
            probability=probability,
            box=_box(found, width, height),
            width=width,
            height=height,
        )

    def threshold(self, unknown_below: float | None) -> float:
        """Give the threshold below which an answer is ``unknown``: the caller's or the network's.

        Raises:
            ValueError: not within 0.5 to 1.
        """
        if unknown_below is None:
            return self._description.unknown_below
        if not 0.5 <= unknown_below <= 1.0:
            raise ValueError(f"unknown_below is {unknown_below}, not within 0.5 to 1")
        return unknown_below

    def _rows(
        self, pictures: Sequence[Picture], unknown_below: float | None
    ) -> Iterator[Prediction]:
        """Answer part by part, so that only one part's pixels are held."""
        self.threshold(unknown_below)
        for start in range(0, len(pictures), BATCH):
            part = [_read(picture, self.framer) for picture in pictures[start : start + BATCH]]
            frames = [framed.pixels for framed, _ in part if isinstance(framed, Framed)]
            found = iter(self.probabilities(np.stack(frames)) if frames else ())
            for picture, (framed, (height, width)) in zip(
                pictures[start : start + BATCH], part, strict=True
            ):
                if isinstance(framed, Prediction):
                    yield framed
                else:
                    yield self.answer(
                        _name(picture), next(found), width, height, unknown_below, framed.face
                    )


def _name(picture: Picture) -> str | None:
    return str(Path(picture)) if isinstance(picture, (str, PathLike)) else None


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


def _read(picture: Picture, framer: Framer) -> tuple[Framed | Prediction, tuple[int, int]]:
    """Bring a picture before the network, with its own height and width; or say why not."""
    try:
        if isinstance(picture, (str, PathLike)):
            data = read_file(Path(picture))
            if data is None:
                raise UnreadablePictureError("is no picture by its name and content")
            pixels = decode(data)
        elif isinstance(picture, Image.Image):
            pixels = from_image(picture)
        else:
            pixels = _from_array(picture)
    except UnreadablePictureError as error:
        return Prediction(_name(picture), Status.UNREADABLE, error=str(error)), (0, 0)
    return framer(pixels), (pixels.shape[0], pixels.shape[1])


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
