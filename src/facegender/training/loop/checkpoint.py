"""Checkpoints: everything that a stopped run needs to continue, in one file without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.training.loop.history import EpochMetrics
from facegender.training.recipe import Recipe, TrainOptions, recipe_from

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"


@dataclass(slots=True)
class TrainingState:
    """The part of a checkpoint that is not a tensor: position of the run and sums of its epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_accuracy: float = -1.0


def load_weights(network: nn.Module, path: Path) -> None:
    """Load all tensors of a network from a safetensors file that :func:`write_tensors` wrote."""
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def checkpoint_bytes(network: nn.Module, options: TrainOptions) -> int:
    """Return the size of a checkpoint: weights, their average, the optimizer's state.

    Args:
        network: the network in training.
        options: its optimizer.
    """
    weights = sum(int(value.nbytes) for value in network.state_dict().values())
    parameters = sum(int(value.nbytes) for value in network.parameters())
    states = 2 if options.optimizer == "adamw" else int(options.momentum > 0)
    return 2 * weights + states * parameters


def save_checkpoint(
    folder: Path,
    recipe: Recipe,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    history: Sequence[EpochMetrics],
) -> None:
    """Write weights, average, optimizer, position and history to one file, without pickle."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value
    write_tensors(
        folder / CHECKPOINT_NAME,
        tensors,
        {
            "recipe": asdict(recipe),
            "state": asdict(state),
            "history": [asdict(metrics) for metrics in history],
        },
    )


def _is_recipe(stored: dict[str, Any], recipe: Recipe) -> bool:
    """Return whether a stored recipe is this one; a key that is newer has its default."""
    try:
        return recipe_from(stored) == recipe
    except ValueError:
        return False


def load_checkpoint(
    folder: Path,
    recipe: Recipe,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> tuple[TrainingState, list[EpochMetrics]]:
    """Restore what :func:`save_checkpoint` wrote into network, average and optimizer.

    Returns:
        Position and history; those of a new run if the folder has no checkpoint.

    Raises:
        InputError: the checkpoint is damaged, or is of another recipe.
    """
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return TrainingState(), []
    try:
        with safe_open(path, framework="pt") as file:
            values = {key: json.loads(text) for key, text in file.metadata().items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"The checkpoint {path} is damaged ({error}). Start again in another output folder."
        ) from error
    if not _is_recipe(values["recipe"], recipe):
        raise InputError(f"{path} is of another recipe. Choose another output folder.")
    own: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}}
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:  # same memory format as the parameter
                value = torch.empty_like(parameter).copy_(value)
            states.setdefault(int(number), {})[name] = value
        else:
            own[kind][rest] = value
    network.load_state_dict(own["network"])
    average.load_state_dict(own["average"])
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    history = [EpochMetrics(**metrics) for metrics in values["history"]]
    return TrainingState(**values["state"]), history


def write_tensors(path: Path, tensors: dict[str, Any], values: dict[str, Any]) -> None:
    """Write tensors and JSON values to a safetensors file atomically."""
    data = save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        {key: json.dumps(value) for key, value in values.items()},
    )
    with atomic_write(path) as file:
        file.buffer.write(data)
        file.flush()
        os.fsync(file.fileno())
