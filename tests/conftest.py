"""A small real model file and folders of files, for all tests of the light core."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import build_model
from skimage.data import astronaut as read_astronaut

from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # inherited from a shell that started this with &
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for the processes that tests stop


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(build_model())
    return path


@pytest.fixture(scope="session")
def classifier(model_path: Path) -> Classifier:
    return Classifier.load(model_path, threads=1)


@pytest.fixture(scope="session")
def astronaut() -> Pixels:
    """Eileen Collins, 512x512, one face (NASA, public domain; it ships with scikit-image)."""
    return np.ascontiguousarray(read_astronaut())


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of files from ``name=bytes`` pairs."""

    def make(files: dict[str, bytes], name: str = "photos") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for key, data in files.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        return folder

    return make
