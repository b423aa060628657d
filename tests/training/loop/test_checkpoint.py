"""Checkpoints have everything that a run needs, are written atomically, and contain no code."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from facegender.errors import InputError
from facegender.training.loop.checkpoint import (
    CHECKPOINT_NAME,
    TrainingState,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    write_tensors,
)
from facegender.training.loop.history import EpochMetrics
from facegender.training.recipe import Recipe

FIGURES = EpochMetrics(0, 0.7, 0.5, 0.6, 2 / 3, 30, 1e-3, 123.4)
STATE = TrainingState(epoch=1, step=2, loss_sum=0.1 + 0.2, correct=5, seen=7, best_accuracy=2 / 3)


def subsets(
    seed: int, *, sgd: bool = False
) -> tuple[nn.Module, AveragedModel, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network = network.to(memory_format=torch.channels_last)
    average = AveragedModel(network, use_buffers=True)
    kind = torch.optim.SGD if sgd else torch.optim.AdamW
    return (
        network,
        average,
        kind(network.parameters(), lr=0.1, **({"momentum": 0.9} if sgd else {})),
    )


def learn(network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        network(torch.rand((4, 3, 3, 3))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(network)


@pytest.mark.parametrize("sgd", [False, True])
def test_round_trip(tmp_path: Path, recipe: Recipe, sgd: bool) -> None:
    network, average, optimizer = subsets(1, sgd=sgd)
    learn(network, average, optimizer)
    save_checkpoint(tmp_path, recipe, network, average, optimizer, STATE, [FIGURES])
    other, other_average, other_optimizer = subsets(2, sgd=sgd)
    state, history = load_checkpoint(tmp_path, recipe, other, other_average, other_optimizer)
    assert (state, history) == (STATE, [FIGURES])
    for one, two in ((network, other), (average, other_average)):
        for (key, value), (name, loaded) in zip(
            one.state_dict().items(), two.state_dict().items(), strict=True
        ):
            assert key == name
            assert torch.equal(value, loaded), key
    assert int(other_average.n_averaged) == 3
    old, new = optimizer.state_dict(), other_optimizer.state_dict()
    assert old["param_groups"] == new["param_groups"]
    assert old["state"].keys() == new["state"].keys()
    for number, values in old["state"].items():
        assert values.keys() == new["state"][number].keys()
        for key, value in values.items():
            assert torch.equal(value, new["state"][number][key])
            assert value.stride() == new["state"][number][key].stride()


def test_one_file_and_nothing_unfinished(tmp_path: Path, recipe: Recipe) -> None:
    for _ in range(2):
        save_checkpoint(tmp_path, recipe, *subsets(1), TrainingState(), [])
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]
    keys = load_file(tmp_path / CHECKPOINT_NAME).keys()  # plain safetensors: no pickle
    assert {key.split(".")[0] for key in keys} == {"network", "average"}


def test_without_a_checkpoint_a_run_starts_from_the_beginning(
    tmp_path: Path, recipe: Recipe
) -> None:
    assert load_checkpoint(tmp_path, recipe, *subsets(1)) == (TrainingState(), [])


def test_another_recipe_is_refused_and_nothing_is_loaded(tmp_path: Path, recipe: Recipe) -> None:
    save_checkpoint(tmp_path, recipe, *subsets(1), TrainingState(), [])
    network, average, optimizer = subsets(2)
    before = [value.clone() for value in network.state_dict().values()]
    with pytest.raises(InputError, match="another recipe"):
        load_checkpoint(tmp_path, replace(recipe, name="other"), network, average, optimizer)
    assert all(map(torch.equal, network.state_dict().values(), before))


def test_all_weights_are_loaded(tmp_path: Path) -> None:
    network, *_ = subsets(1)
    other, *_ = subsets(2)
    write_tensors(tmp_path / "best.safetensors", network.state_dict(), {"epoch": 3})
    load_weights(other, tmp_path / "best.safetensors")
    assert all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))
    short = dict(network.state_dict())
    del short["0.bias"]
    write_tensors(tmp_path / "short.safetensors", short, {})
    with pytest.raises(RuntimeError, match=r"0\.bias"):
        load_weights(other, tmp_path / "short.safetensors")


def test_metrics_are_plain_values() -> None:
    assert EpochMetrics(**asdict(FIGURES)) == FIGURES
