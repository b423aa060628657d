"""Quantized networks and OpenVINO: the accuracy loss is measured and stored in the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from facegender.inference.classifier import Classifier
from facegender.training.console import Console
from facegender.training.export.quantize import QuantizationLoss, QuantizationLossError, convert_run

QUIET = Console(quiet=True)


def test_int8_file_is_a_model_file_with_its_loss_in_it(run_folder: Path, tmp_path: Path) -> None:
    loss = convert_run(run_folder, tmp_path / "a" / "int8.onnx", "onnx-int8", terms="changed")
    given = Classifier.load(run_folder)
    small = Classifier.load(tmp_path / "a" / "int8.onnx", runtime="onnxruntime")
    assert "int8" in small.runtime
    assert small.description.terms == "changed"
    assert small.description.resize == given.description.resize
    assert small.description.crop == given.description.crop
    assert small.description.metrics["int8"]["validation"]["images"] == loss.images > 0
    frame = (given.description.resize.height, given.description.resize.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (40, *frame), dtype=np.uint8)
    alone = np.concatenate([small.probabilities(pixels[n : n + 1]) for n in range(40)])
    assert np.array_equal(small.probabilities(pixels), alone)
    assert np.abs(alone - given.probabilities(pixels)).max() < 0.2


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO not installed")
def test_openvino_files_answer_alike(run_folder: Path, tmp_path: Path) -> None:
    import openvino

    convert_run(run_folder, tmp_path / "net.xml", "openvino", console=QUIET)
    given = Classifier.load(run_folder, runtime="onnxruntime")
    network = openvino.Core().read_model(tmp_path / "net.xml")
    assert given.description.name in network.get_rt_info(["facegender"]).astype(str)
    frame = (given.description.resize.height, given.description.resize.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *frame), dtype=np.uint8)
    found = openvino.compile_model(network, "CPU")([pixels])[0]
    assert np.abs(found - given.probabilities(pixels)).max() < 0.05


@pytest.mark.parametrize(
    ("after", "is_refused"),
    [
        ([0.9] * 500 + [0.1] * 500, False),
        ([0.9] * 500 + [0.1] * 498 + [0.6] * 2, True),  # two of 1,000 are now wrong
        ([0.9] * 500 + [0.1] * 489 + [0.4] * 11, True),  # correct, but eleven unknown
        ([0.9] * 500 + [0.1] * 490 + [0.4] * 10, False),
    ],
)
def test_a_loss_is_refused_by_its_size(after: list[float], is_refused: bool) -> None:
    male = np.array([0.9] * 500 + [0.1] * 500)
    labels = (male > 0.5).astype(np.int64)
    tables = [np.column_stack((1 - p, p)) for p in (male, np.array(after))]
    loss = QuantizationLoss.between(tables[0], tables[1], labels, 0.8)
    if is_refused:
        with pytest.raises(QuantizationLossError, match="No file was written"):
            loss.check()
    else:
        loss.check()
