"""Precision is chosen by what is possible, stable, and measured to be faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from facegender.training import prepare
from facegender.training.console import Console
from facegender.training.loop import precision
from facegender.training.loop.devices import is_one_process, make_fabric
from facegender.training.recipe import Recipe, read_recipe
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train


class Slow(nn.Module):
    """A network that is slow in one precision, or returns NaN."""

    def __init__(self, in_half: Callable[[], float], in_whole: Callable[[], float]) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.ways = {True: in_half, False: in_whole}

    def forward(self, x: Tensor) -> Tensor:
        times = self.ways[torch.is_autocast_enabled("cpu")]()
        return self.last(x.mean((2, 3))) * times


def waiting(steps: int) -> Callable[[], float]:
    """Work that takes a time proportional to ``steps``."""

    def work() -> float:
        for _ in range(steps):
            torch.randn(40_000).sort()
        return 1.0

    return work


@pytest.mark.parametrize(
    ("half", "whole", "least", "most"),
    [
        (waiting(0), waiting(40), 2.0, float("inf")),
        (waiting(40), waiting(0), 0.0, 0.5),
        (lambda: float("nan"), waiting(1), 0.0, 0.0),
    ],
    ids=["faster", "slower", "no number"],
)
def test_the_ratio_of_two_speeds(
    recipe: Recipe,
    half: Callable[[], float],
    whole: Callable[[], float],
    least: float,
    most: float,
) -> None:
    network = Slow(half, whole)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    assert least <= precision.measure_bf16_speedup(network, recipe) <= most
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())


@pytest.mark.parametrize(("times", "expected"), [(1.7, "bf16"), (0.9, "32"), (0.0, "32")])
def test_a_run_stores_the_precision_that_was_chosen(
    request_of_run: TrainRequest,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: float,
    expected: str,
) -> None:
    asked: list[str] = []

    def measured(network: nn.Module, recipe: Recipe) -> float:
        asked.append(recipe.network.name)
        return times

    monkeypatch.setattr(prepare, "bf16_may_be_faster", lambda recipe: True)
    monkeypatch.setattr(prepare, "measure_bf16_speedup", measured)
    auto = replace(recipe, train=replace(recipe.train, epochs=1, precision="auto"))
    train(request_of_run, auto, tmp_path / "run", sanity_check=False, console=Console(quiet=True))
    assert asked == ["test_resnet"]
    assert read_recipe(tmp_path / "run" / "config.toml").train.precision == expected
    train(None, None, tmp_path / "run", resume=True, console=Console(quiet=True))
    assert asked == ["test_resnet"]  # a resume goes on in the same arithmetic
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]


def test_an_explicit_precision_is_not_measured(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "bf16_may_be_faster", lambda recipe: True)
    network = nn.Linear(1, 1)
    assert (
        prepare.resolve_precision(network, recipe, Console(quiet=True)) is recipe
    )  # asks for "32"
    auto = replace(recipe, train=replace(recipe.train, precision="auto"))
    monkeypatch.setattr(prepare, "bf16_may_be_faster", lambda recipe: False)
    resolved = prepare.resolve_precision(network, auto, Console(quiet=True))
    assert resolved.train.precision == "32"  # for good: a resume elsewhere does not change it


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about CPUs")
@pytest.mark.parametrize(
    ("name", "has_bf16", "expected"),
    [("dlib_resnet", True, True), ("dlib_resnet", False, False), ("mobilenetv3", True, False)],
)
def test_bf16_on_a_cpu_needs_instructions_and_a_stable_network(
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    has_bf16: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: has_bf16)
    named = replace(recipe, network=replace(recipe.network, name=name))
    named = replace(named, train=replace(named.train, precision="auto"))
    assert precision.bf16_may_be_faster(named) is expected
    assert make_fabric(named, 1)._precision.precision == ("bf16-mixed" if expected else "32-true")


def test_several_processes_do_not_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert is_one_process(None) and is_one_process(1) and not is_one_process(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert not is_one_process(None) and is_one_process(1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_one_process(1)
