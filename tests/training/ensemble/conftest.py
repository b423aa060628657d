"""A published network that stands in for the real one, in the file that its package has."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from fake_members import red_is_male

from facegender.training.ensemble.options import EnsembleOptions


@pytest.fixture
def open_networks(tmp_path: Path) -> Path:
    """A folder as ``--open-networks`` takes it."""
    folder = tmp_path / "open-networks"
    classifier = folder / EnsembleOptions().gender_classifier
    classifier.parent.mkdir(parents=True)
    onnx.save(red_is_male(3.0), classifier)
    return folder
