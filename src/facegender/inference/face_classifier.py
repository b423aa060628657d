"""What the pipeline needs of a classifier; :class:`~facegender.Classifier` has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facegender.images.pixels import Pixels
from facegender.inference.preprocess import PreprocessedImage
from facegender.model.model_file import ModelDescription
from facegender.results.predictions import Prediction


class FaceClassifier(Protocol):
    """A loaded network: from crops to probabilities to rows.

    Attributes:
        threads: number of batches that may run at the same time.
    """

    threads: int

    @property
    def description(self) -> ModelDescription:
        """Everything about the network except its weights."""

    def threshold(self, min_confidence: float | None) -> float:
        """Return the caller's minimum confidence, or the model's own for None."""

    def probabilities(self, batch: Pixels) -> NDArray[np.float32]:
        """Map crops ``uint8 [N, H, W, 3]`` to probabilities ``float32 [N, 2]``."""

    def rows(
        self,
        file: str | None,
        image: PreprocessedImage,
        probabilities: Iterator[NDArray[np.float32]],
        min_confidence: float | None = None,
    ) -> tuple[Prediction, ...]:
        """Return the result rows of one image."""
