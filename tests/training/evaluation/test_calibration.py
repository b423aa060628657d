"""Temperature and calibration error against tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from facegender.training.evaluation.calibration import calibration_error, find_temperature


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0, 8.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(5)
    true = rng.normal(0, 2, 200_000)
    labels = (rng.random(len(true)) < 1 / (1 + np.exp(-true))).astype(np.int64)
    logits = np.stack([np.zeros_like(true), true * temperature], 1).astype(np.float32)
    assert find_temperature(logits, labels) == pytest.approx(temperature, rel=0.02)


def test_exact_temperature_of_a_small_table() -> None:
    # One margin, right three times in four, a label being 5/6 certain: the best answer is
    # (3 * 5/6 + 1/6) / 4 = 2/3, so margin / T = ln 2.
    logits = np.array([[0.0, 4.0]] * 4)
    labels = np.array([1, 1, 1, 0])
    assert find_temperature(logits, labels) == pytest.approx(4 / np.log(2), rel=1e-4)


def test_two_correct_answers_do_not_prove_certainty() -> None:
    logits = np.array([[0.0, 1.0], [1.0, 0.0]])
    # labels are 3/4 certain, so margin / T = ln 3
    assert find_temperature(logits, np.array([1, 0])) == pytest.approx(1 / np.log(3), rel=1e-4)


def test_temperature_stays_in_its_bounds() -> None:
    logits = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert 19.9 < find_temperature(logits, np.array([0, 1])) <= 20


def test_temperature_keeps_huge_logits_finite() -> None:
    logits = np.array([[0.0, 1e4], [0.0, 1e4], [1e4, 0.0], [1e4, 0.0]])
    assert np.isfinite(find_temperature(logits, np.array([1, 1, 0, 1])))


def table(confidences: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are all male, correct where the label is male."""
    male = np.array(confidences)
    return np.stack([1 - male, male], 1), np.array(right).astype(np.int64)


@pytest.mark.parametrize(
    ("confidences", "right", "bins", "expected"),
    [
        ([0.75] * 4, [True, True, True, False], 1, 0.0),  # perfect calibration
        ([0.6] * 5 + [0.8] * 5, [True] * 3 + [False] * 2 + [True] * 4 + [False], 2, 0.0),
        ([1.0] * 4, [True, True, False, False], 1, 0.5),  # wholly overconfident
        ([0.9] * 10, [True] * 7 + [False] * 3, 1, 0.2),
        ([0.6] * 4, [True] * 4, 1, 0.4),  # underconfident
        ([0.6] * 5 + [0.9] * 5, [True] * 5 + [False] * 5, 2, (0.4 + 0.9) / 2),
        ([0.6, 0.9, 0.9], [True, True, False], 2, (abs(0.75 - 1) * 2 + 0.9) / 3),  # uneven bins
        ([0.7], [True], 15, 0.3),  # fewer images than bins
        ([], [], 15, 0.0),
    ],
)
def test_calibration_error_by_hand(
    confidences: list[float], right: list[bool], bins: int, expected: float
) -> None:
    probabilities, labels = table(confidences, right)
    assert calibration_error(probabilities.reshape(-1, 2), labels, bins) == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    male = np.linspace(0.01, 0.99, 100)
    labels = rng.integers(0, 2, 100)
    probabilities = np.stack([1 - male, male], 1)
    shuffled = rng.permutation(100)
    assert calibration_error(probabilities, labels, 1) == pytest.approx(
        calibration_error(probabilities[shuffled], labels[shuffled], 1)
    )
