"""The checks before training: what can be overfitted passes, and nothing changes."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from facegender.errors import FacegenderError, OutputError
from facegender.training.data.image_cache import ImageCache
from facegender.training.loop import overfit_check as sanity_check
from facegender.training.loop.checkpoint import CHECKPOINT_NAME, checkpoint_bytes
from facegender.training.loop.devices import make_fabric
from facegender.training.loop.fit import fit_network
from facegender.training.loop.overfit_check import check_disk_space, overfit_small_batch
from facegender.training.models.networks import build_network
from facegender.training.recipe import InputOptions, NetworkOptions, Recipe, TrainOptions

Train = NDArray[np.int64]


@pytest.fixture
def fabric(recipe: Recipe) -> Fabric:
    return make_fabric(recipe, 1)


def test_faces_and_noise_can_be_overfitted(
    cache: ImageCache, train_rows: Train, recipe: Recipe, fabric: Fabric
) -> None:
    rng = np.random.default_rng(0)
    noise = replace(cache, pixels=rng.integers(0, 256, cache.pixels.shape).astype(np.uint8))
    for images in (cache, noise):
        reported: list[int] = []
        network = build_network(recipe.network.name)
        result = overfit_small_batch(
            network, images, train_rows, recipe, fabric, on_image=reported.append
        )
        assert result.images == 16 and result.steps < sanity_check.STEPS
        assert result.after < 0.2 < result.before
        assert reported == [16 * (step + 1) for step in range(result.steps)]


def test_images_that_are_all_alike_cannot_be_overfitted(
    cache: ImageCache, train_rows: Train, recipe: Recipe, fabric: Fabric
) -> None:
    blank = replace(cache, pixels=np.full_like(cache.pixels, 90))
    with pytest.raises(FacegenderError, match=r"could not overfit.*--no-sanity-check"):
        overfit_small_batch(build_network(recipe.network.name), blank, train_rows, recipe, fabric)


def test_nan_weights_are_reported(
    cache: ImageCache, train_rows: Train, recipe: Recipe, fabric: Fabric
) -> None:
    network = build_network(recipe.network.name)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(FacegenderError, match="the loss is NaN or infinite in step 1"):
        overfit_small_batch(network, cache, train_rows, recipe, fabric)


def test_two_images_are_enough(cache: ImageCache, recipe: Recipe, fabric: Fabric) -> None:
    network = build_network(recipe.network.name)
    two = np.array([0, 1], np.int64)
    assert overfit_small_batch(network, cache, two, recipe, fabric).images == 2


def test_neither_weights_nor_random_numbers_change(
    cache: ImageCache, train_rows: Train, recipe: Recipe, fabric: Fabric
) -> None:
    torch.manual_seed(3)
    network = build_network(recipe.network.name).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    overfit_small_batch(network, cache, train_rows, recipe, fabric)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not network.training
    assert all(value.grad is None for value in network.parameters())


@pytest.mark.parametrize(("optimizer", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_the_size_of_a_checkpoint(
    cache: ImageCache, train_rows: Train, tmp_path: Path, optimizer: str, momentum: float
) -> None:
    recipe = Recipe(
        "one",
        NetworkOptions("test_resnet"),
        InputOptions(32, 32),
        train=TrainOptions(
            1, batch_size=64, optimizer=optimizer, momentum=momentum, precision="32"
        ),
    )
    network = build_network("test_resnet")
    foretold = checkpoint_bytes(network, recipe.train)
    one_device = make_fabric(recipe, 1)
    fit_network(network, cache, train_rows, train_rows, recipe, tmp_path, fabric=one_device)
    size = (tmp_path / CHECKPOINT_NAME).stat().st_size
    assert foretold <= size < 1.05 * foretold + 50_000


def test_a_full_disk_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, options = build_network("test_resnet"), TrainOptions()
    check_disk_space(tmp_path, network, options)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(sanity_check.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(OutputError, match=r"need up to \d+ MB, and 1 MB are free"):
        check_disk_space(tmp_path, network, options)
    # a resume writes over what is there
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"0" * 30_000_000)
    check_disk_space(tmp_path, network, options)
