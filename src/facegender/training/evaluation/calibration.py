"""Temperature from the validation part: what the network says is as sure as it is right.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


def find_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Find the temperature whose softmax has the least cross-entropy on softened labels.

    As in Platt's "Probabilistic Outputs for Support Vector Machines" (1999), a label counts as
    ``(N + 1) / (N + 2)`` certain: a few pictures that are all right do not prove certainty.

    Args:
        logits: ``float [N, 2]`` of validation pictures; never of test pictures.
        labels: ``int64 [N]``.

    Returns:
        A number from 0.05 to 20; logits are to be divided by it.
    """
    context_pixels = logits.astype(np.float64)
    doubt = 1.0 / (len(labels) + 2.0)
    targets = np.full(context_pixels.shape, doubt)
    targets[np.arange(len(labels)), labels] = 1.0 - doubt

    def loss(log_temperature: float) -> float:
        return float(
            -(targets * log_softmax(context_pixels / np.exp(log_temperature), axis=1)).mean()
        )

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers that are about as sure: how many, their mean certainty, and the share right."""

    count: int
    confidence: float
    accuracy: float


def reliability(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15
) -> list[Bin]:
    """Compare what answers say of themselves with what they are, over bins of equal mass.

    Args:
        probabilities: ``float [N, 2]``.
        labels: ``int64 [N]``.
        bins: how many bins; fewer where there are fewer pictures.

    Returns:
        The bins, the least sure first.
    """
    confidence = probabilities.max(1).astype(np.float64)
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    return [
        Bin(len(subset), float(confidence[subset].mean()), float(correct[subset].mean()))
        for subset in np.array_split(order, bins)
        if len(subset)
    ]


def calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15
) -> float:
    """Expected calibration error of the answers, over the bins of :func:`reliability`.

    Returns:
        The mean distance between certainty and accuracy, weighted by count; 0 to 1.
    """
    found = reliability(probabilities, labels, bins)
    gaps = [abs(item.confidence - item.accuracy) * item.count for item in found]
    return float(sum(gaps) / max(len(labels), 1))
