"""Checkpoints: all that a stopped run needs to go on, in one file without pickle."""

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
    """What a checkpoint holds besides tensors: where the run is and its running sums."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_accuracy: float = -1.0


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict that this program wrote (safetensors), every tensor of it."""
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def checkpoint_bytes(network: nn.Module, options: TrainOptions) -> int:
    """How large a checkpoint of a network will be: weights, their averages, the optimiser's state.

    Args:
        network: built.
        options: its optimiser counts.
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
    """Write weights, averages, optimiser and place into one file, without pickle."""
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
    """Tell whether a stored recipe is this one; a key that came later has its default."""
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
    """Read back what :func:`save_checkpoint` wrote."""
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return TrainingState(), []
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: json.loads(text) for key, text in file.metadata().items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}): begin again in another output folder"
        ) from error
    if not _is_recipe(facts["recipe"], recipe):
        raise InputError(f"{path} was trained by another recipe: choose another output folder")
    own: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}}
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:  # laid out in memory as its parameter is
                value = torch.empty_like(parameter).copy_(value)
            states.setdefault(int(number), {})[name] = value
        else:
            own[kind][rest] = value
    network.load_state_dict(own["network"])
    average.load_state_dict(own["average"])
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    history = [EpochMetrics(**metrics) for metrics in facts["history"]]
    return TrainingState(**facts["state"]), history


def write_tensors(path: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write a safetensors file whole or not at all."""
    data = save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        {key: json.dumps(value) for key, value in facts.items()},
    )
    with atomic_write(path) as file:
        file.buffer.write(data)
        file.flush()
        os.fsync(file.fileno())
