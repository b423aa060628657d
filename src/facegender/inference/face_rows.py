"""Result rows from the network's probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from facegender.faces.yunet import Face
from facegender.inference.preprocess import PreprocessedImage
from facegender.results.predictions import Box, Prediction, Status


def face_rows(
    file: str | None,
    image: PreprocessedImage,
    probabilities: Iterator[NDArray[np.float32]],
    labels: Sequence[str],
    threshold: float,
) -> tuple[Prediction, ...]:
    """Make the result rows of an image from the probabilities of its crops.

    The threshold is compared with the rounded probability, which is the one shown. If both labels
    are equally probable the status is ``unknown``.

    Args:
        file: name of the image.
        image: the preprocessed image.
        probabilities: of its crops, ``float32 [2]`` each.
        labels: in the order of the probabilities.
        threshold: answers below it are ``unknown``.

    Returns:
        One row per face, or one row with the status ``no_face``.
    """
    width, height = image.width, image.height
    if not image.crops:
        return (Prediction(file, Status.NO_FACE, width=width, height=height),)
    rows = []
    for index, crop in enumerate(image.crops):
        pair = next(probabilities)
        best = int(pair.argmax())
        probability = min(1.0, max(0.5, round(float(pair[best]), 4)))
        is_confident = probability >= threshold and pair[0] != pair[1]
        rows.append(
            Prediction(
                file=file,
                status=Status.OK if is_confident else Status.UNKNOWN,
                face_index=index,
                label=labels[best],
                probability=probability,
                box=_box(crop.face, width, height),
                detection_score=round(crop.face.score, 2) if crop.face else None,
                crop="aligned" if crop.face else "none",
                width=width,
                height=height,
            )
        )
    return tuple(rows)


def _box(face: Face | None, width: int, height: int) -> Box:
    """Return a face's box in whole pixels, clipped to an image of this size; the image for None."""
    if face is None:
        return Box(0, 0, width, height)
    left, top = (
        min(max(0, round(low)), side - 1) for low, side in ((face.x, width), (face.y, height))
    )
    right = min(max(left + 1, round(face.x + face.width)), width)
    bottom = min(max(top + 1, round(face.y + face.height)), height)
    return Box(left, top, right - left, bottom - top)
