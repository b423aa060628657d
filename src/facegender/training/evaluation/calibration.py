"""Calibration: a temperature from the validation subset, and how far confidence is from accuracy.

Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


def find_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Find the temperature whose softmax has the lowest cross-entropy with smoothed labels.

    A label counts as ``(N + 1) / (N + 2)`` certain, as in J. Platt's "Probabilistic Outputs for
    Support Vector Machines" (1999): a few correct images do not prove certainty.

    Args:
        logits: ``float [N, 2]`` of validation images; never of test images.
        labels: index into ``LABELS``, ``int64 [N]``.

    Returns:
        What logits are to be divided by, from 0.05 to 20.
    """
    logits = logits.astype(np.float64)
    smoothing = 1.0 / (len(labels) + 2.0)
    targets = np.full(logits.shape, smoothing)
    targets[np.arange(len(labels)), labels] = 1.0 - smoothing

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers of similar confidence: count, mean confidence, and accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15
) -> list[ReliabilityBin]:
    """Compare confidence with accuracy in bins of equal mass.

    Args:
        probabilities: ``float [N, 2]``.
        labels: index into ``LABELS``, ``int64 [N]``.
        bins: number of bins; fewer where there are fewer images.

    Returns:
        The bins, least confident first.
    """
    confidence = probabilities.max(1).astype(np.float64)
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    return [
        ReliabilityBin(len(rows), float(confidence[rows].mean()), float(correct[rows].mean()))
        for rows in np.array_split(order, bins)
        if len(rows)
    ]


def calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15
) -> float:
    """Compute the expected calibration error (ECE) over the bins of :func:`reliability`.

    Args:
        probabilities: ``float [N, 2]``.
        labels: index into ``LABELS``, ``int64 [N]``.
        bins: number of bins.

    Returns:
        Mean absolute difference of confidence and accuracy, weighted by count; 0 to 1.
    """
    found = reliability(probabilities, labels, bins)
    errors = [abs(one.confidence - one.accuracy) * one.count for one in found]
    return float(sum(errors) / max(len(labels), 1))
