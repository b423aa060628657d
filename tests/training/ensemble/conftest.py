"""Published networks of random weights, in the files that their packages have."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_members import FACE_RES_WIDTHS, red_is_male

from facegender.training.ensemble.options import EnsembleOptions


@pytest.fixture(scope="session")
def face_res_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv1/convolution/merged_input": (3, 3, 3, 32),
        "conv1_bn/batchnorm_1/sub": (32,),
        "feats/kernel": (1024, 256),
        "feats/bias": (256,),
        "gender_pred/kernel": (256, 1),
        "gender_pred/bias": (1,),
    }
    for block, (inputs, outputs) in enumerate(pairwise(FACE_RES_WIDTHS), 1):
        shapes[f"conv_dw_{block}/depthwise_kernel"] = (3, 3, inputs, 1)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/mul"] = (inputs,)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/sub"] = (inputs,)
        shapes[f"conv_pw_{block}/convolution/merged_input"] = (1, 1, inputs, outputs)
        shapes[f"conv_pw_{block}_bn/batchnorm_1/sub"] = (outputs,)
    values = {
        name: (rng.normal(0, 1.5 / np.sqrt(np.prod(shape[:3])), shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name in values:
        if name.endswith("/mul"):
            values[name] = np.ones_like(values[name]) * 2
    return values


@pytest.fixture
def open_networks(face_res_weights: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """A folder as ``--open-networks`` takes it."""
    folder, options = tmp_path / "open-networks", EnsembleOptions()
    classifier, face_res = folder / options.gender_classifier, folder / options.face_res
    classifier.parent.mkdir(parents=True)
    onnx.save(red_is_male(3.0), classifier)
    face_res.mkdir(parents=True)
    entries = [
        {"name": name, "shape": list(value.shape), "dtype": "float32"}
        for name, value in face_res_weights.items()
    ]
    manifest = {"weightsManifest": [{"weights": entries, "paths": ["faceres-deep.bin"]}]}
    (face_res / "faceres-deep.json").write_text(json.dumps(manifest))
    data = b"".join(value.tobytes() for value in face_res_weights.values())
    (face_res / "faceres-deep.bin").write_bytes(data)
    return folder
