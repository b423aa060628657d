"""The loop counts images, trains, and ends the same whether it was stopped or not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import make_image_cache
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from facegender.errors import FacegenderError, InputError, StoppedError
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.samples import Sample
from facegender.training.loop import fit
from facegender.training.loop.checkpoint import (
    BEST_NAME,
    CHECKPOINT_NAME,
    load_weights,
    write_tensors,
)
from facegender.training.loop.devices import make_fabric
from facegender.training.loop.fit import fit_network
from facegender.training.loop.history import EpochMetrics, StepProgress
from facegender.training.loop.logits import accuracy, compute_logits
from facegender.training.loop.lr_schedule import learning_rate
from facegender.training.models.networks import build_network
from facegender.training.recipe import (
    AugmentOptions,
    InputOptions,
    NetworkOptions,
    Recipe,
    TrainOptions,
    write_toml,
)

Indices = NDArray[np.int64]
ALL_ON = TrainOptions(
    epochs=2,
    batch_size=16,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup_fraction=0.2,
    lr_schedule="cosine",
    label_smoothing=0.1,
    ema_decay=0.9,
    max_grad_norm=1.0,
    sampling_balance=0.4,
    precision="32",
)
SGD = TrainOptions(epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.01, precision="32")
NOISY = AugmentOptions(
    rotation_degrees=45,
    scale=1.2,
    color_jitter=0.2,
    gaussian_noise_std=0.05,
    random_erasing_prob=0.2,
    pad_edge_prob=0.5,
)


def built(recipe: Recipe, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(recipe.network.name, dropout=recipe.network.dropout)


class Fitter:
    """A cache and its subsets; a call trains a network on them in a folder."""

    def __init__(self, cache: ImageCache, train: Indices, validation: Indices) -> None:
        self.cache, self.train, self.validation = cache, train, validation

    def __call__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        resume: bool = False,
        seed: int = 0,
        stop_after: int | None = None,
    ) -> tuple[nn.Module, list[EpochMetrics]]:
        folder.mkdir(exist_ok=True)
        network = built(recipe, seed)
        steps: list[StepProgress] = []
        fabric = make_fabric(recipe, 1)
        history = fit_network(
            network,
            self.cache,
            self.train,
            self.validation,
            recipe,
            folder,
            fabric=fabric,
            resume=resume,
            should_stop=lambda: len(steps) == stop_after,
            on_step=steps.append,
        )
        return network.cpu(), history


@pytest.fixture
def fitter(cache: ImageCache, train_rows: Indices, validation_rows: Indices) -> Fitter:
    return Fitter(cache, train_rows, validation_rows)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def without_speed(history: list[EpochMetrics]) -> list[EpochMetrics]:
    return [replace(metrics, images_per_second=0.0) for metrics in history]


# Counting


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[2, 1], [0, 3], [5, 6], [1, 0]], [0, 1, 0, 0], 3 / 4),
        ([[0, 1]] * 7, [1, 1, 1, 0, 0, 0, 0], 3 / 7),
        ([[0, 1]], [0], 0.0),
        ([], [], 0.0),
    ],
)
def test_accuracy_by_hand(logits: list[list[float]], labels: list[int], expected: float) -> None:
    table = torch.tensor(logits, dtype=torch.float32).reshape(-1, 2)
    assert accuracy(table, torch.tensor(labels, dtype=torch.int64)) == expected


class FirstPixel(nn.Module):
    """Returns red and green of the first pixel: a network whose logits are known."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2, 0, 0]


PLAIN = InputOptions(height=2, width=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def colored(reds: list[int], labels: str) -> ImageCache:
    """Images with the given red and 100 of green, labeled ``f`` or ``m``."""
    pixels = np.zeros((len(reds), 2, 2, 3), np.uint8)
    pixels[..., 0] = np.array(reds)[:, None, None]
    pixels[..., 1] = 100
    names = {"f": "female", "m": "male"}
    samples = [Sample("a", f"{i}.png", names[letter]) for i, letter in enumerate(labels)]
    return make_image_cache(samples, [""] * len(reds), pixels)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_logits_of_every_image_in_order_whatever_the_last_batch(count: int) -> None:
    reds = [(7 * i) % 256 for i in range(count)]
    cache = colored(reds, "f" * count)
    order = np.random.default_rng(0).permutation(count)
    for fabric in (None, make_fabric(Recipe("r", train=TrainOptions(precision="32")), 1)):
        logits = compute_logits(FirstPixel(), cache, order, PLAIN, fabric=fabric)
        assert logits.dtype == torch.float32
        np.testing.assert_allclose(logits[:, 0], np.array(reds)[order] / 255, atol=1e-6)
        np.testing.assert_allclose(logits[:, 1], 100 / 255, atol=1e-6)


def test_accuracy_is_counted_over_images_not_over_batches() -> None:
    # 256 right and 2 wrong: the mean over batches of 256 and 2 would be 0.5.
    cache = colored([200] * 256 + [200, 200], "f" * 256 + "mm")
    logits = compute_logits(FirstPixel(), cache, np.arange(258), PLAIN)
    assert accuracy(logits, torch.from_numpy(cache.labels)) == 256 / 258


def test_logits_leave_a_network_in_its_mode() -> None:
    cache = colored([1, 2], "fm")
    for mode in (True, False):
        network = FirstPixel().train(mode)
        compute_logits(network, cache, np.arange(2), PLAIN)
        assert network.training is mode


def test_history_counts_by_hand(fitter: Fitter, recipe: Recipe, tmp_path: Path) -> None:
    network, history = fitter(replace(recipe, train=replace(SGD, epochs=1)), tmp_path / "run")
    (metrics,) = history
    assert metrics.validation_count == 30
    network.eval()
    right, losses = 0, 0.0
    for index in fitter.validation:
        x = normalize(
            to_float(torch.from_numpy(fitter.cache.pixels[index][None]), False), recipe.input
        )
        with torch.no_grad():
            chances = network(x).softmax(1)[0]
        label = int(fitter.cache.labels[index])
        right += int(chances.argmax()) == label
        losses -= math.log(float(chances[label]))
    assert metrics.validation_accuracy == right / 30
    assert metrics.validation_loss == pytest.approx(losses / 30, rel=1e-4)


def test_progress_counts_images_of_uneven_batches(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    steps: list[StepProgress] = []
    recipe = replace(recipe, train=replace(SGD, epochs=2))
    fit_network(
        built(recipe),
        fitter.cache,
        fitter.train,
        fitter.validation,
        recipe,
        tmp_path,
        fabric=make_fabric(recipe, 1),
        on_step=steps.append,
    )
    assert [step.done for step in steps] == [16, 32, 48, 64, 70] * 2
    assert [step.epoch for step in steps] == [0] * 5 + [1] * 5
    assert {step.total for step in steps} == {70}
    rights = [step.accuracy * step.done for step in steps]
    np.testing.assert_allclose(rights, np.round(rights), atol=1e-9)


# Order and rate


def test_history_has_the_learning_rate_of_each_epochs_last_step(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    options = replace(SGD, lr_schedule="cosine", min_steps=11)
    _, history = fitter(replace(recipe, train=options), tmp_path / "run")
    assert [metrics.learning_rate for metrics in history] == [
        learning_rate(options, step, 15) for step in (4, 9, 14)
    ]


# Learning


@pytest.mark.parametrize(
    "options", [replace(ALL_ON, epochs=5), replace(SGD, epochs=4)], ids=["adamw", "sgd"]
)
def test_a_tiny_network_can_be_trained(
    fitter: Fitter, recipe: Recipe, tmp_path: Path, options: TrainOptions
) -> None:
    _, history = fitter(replace(recipe, train=options), tmp_path / "run")
    assert history[-1].validation_accuracy > 0.95
    assert history[-1].loss < history[0].loss
    best = built(recipe, seed=5)
    load_weights(best, tmp_path / "run" / BEST_NAME)
    logits = compute_logits(best, fitter.cache, fitter.validation, recipe.input)
    truth = torch.from_numpy(fitter.cache.labels[fitter.validation])
    assert accuracy(logits, truth) == max(metrics.validation_accuracy for metrics in history)


def test_the_same_seed_gives_the_same_bits(fitter: Fitter, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, augment=NOISY, train=replace(ALL_ON, epochs=1))
    one, _ = fitter(recipe, tmp_path / "one")
    two, _ = fitter(recipe, tmp_path / "two")
    other, _ = fitter(replace(recipe, train=replace(recipe.train, seed=1)), tmp_path / "three")
    assert same_weights(one, two)
    assert not same_weights(one, other)


# Stopping


STOPPED = {"adamw": ALL_ON, "sgd": SGD, "bf16": replace(ALL_ON, precision="bf16")}


@pytest.fixture(scope="module", params=STOPPED)
def uninterrupted(
    request: pytest.FixtureRequest,
    cache: ImageCache,
    train_rows: Indices,
    validation_rows: Indices,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Recipe, Path, nn.Module, list[EpochMetrics]]:
    """A recipe, and the result of an uninterrupted run."""
    recipe = Recipe(
        "stopped",
        network=NetworkOptions("test_resnet", dropout=0.3),
        input=InputOptions(height=32, width=32),
        augment=NOISY,
        train=STOPPED[request.param],
    )
    folder = tmp_path_factory.mktemp("whole")
    return recipe, folder, *Fitter(cache, train_rows, validation_rows)(recipe, folder)


@pytest.mark.parametrize("stop_after", [3, 5, 8, 10])  # 5 steps an epoch
def test_a_stopped_run_ends_bit_for_bit_as_an_uninterrupted_one(
    fitter: Fitter,
    uninterrupted: tuple[Recipe, Path, nn.Module, list[EpochMetrics]],
    tmp_path: Path,
    stop_after: int,
) -> None:
    recipe, folder, whole, history = uninterrupted
    with pytest.raises(StoppedError, match="--resume"):
        fitter(recipe, tmp_path / "broken", stop_after=stop_after)
    resumed, again = fitter(recipe, tmp_path / "broken", resume=True, seed=99)
    assert without_speed(again) == without_speed(history)
    assert same_weights(resumed, whole)
    assert (tmp_path / "broken" / BEST_NAME).read_bytes() == (folder / BEST_NAME).read_bytes()


def test_a_run_may_be_stopped_many_times(fitter: Fitter, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, augment=NOISY, train=ALL_ON)
    whole, history = fitter(recipe, tmp_path / "whole")
    stops = 0
    while True:
        try:
            resumed, again = fitter(
                recipe, tmp_path / "broken", resume=stops > 0, seed=stops, stop_after=3
            )
            break
        except StoppedError:
            stops += 1
    assert stops == 3
    assert without_speed(again) == without_speed(history)
    assert same_weights(resumed, whole)


def test_resume_after_the_end_changes_nothing(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, train=replace(SGD, epochs=1))
    whole, history = fitter(recipe, tmp_path / "run")
    again, same = fitter(recipe, tmp_path / "run", resume=True, seed=3)
    assert same == history
    assert same_weights(again, whole)


def test_resume_before_the_first_checkpoint_starts_from_the_beginning(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, train=replace(SGD, epochs=1))
    whole, _ = fitter(recipe, tmp_path / "whole")
    resumed, _ = fitter(recipe, tmp_path / "broken", resume=True)
    assert same_weights(resumed, whole)


@pytest.mark.parametrize(
    ("accuracies", "patience", "expected"),
    [
        ([0.5, 0.6, 0.6, 0.6], 0, False),
        ([0.5, 0.6, 0.6, 0.6], 2, True),
        ([0.5, 0.6, 0.6, 0.6], 3, False),
        ([0.5, 0.6, 0.5, 0.7], 2, False),
        ([0.9, 0.6, 0.7, 0.8], 3, True),
        ([0.9], 1, False),
        ([0.9, 0.9], 1, True),
        ([], 1, False),
    ],
)
def test_patience_by_hand(accuracies: list[float], patience: int, expected: bool) -> None:
    history = [EpochMetrics(n, 0, 0, 0, share, 9, 0, 0) for n, share in enumerate(accuracies)]
    assert fit.is_early_stop(history, patience) is expected


@pytest.mark.parametrize("stop_after", [3, 10, 12])  # 5 steps an epoch
def test_a_run_that_ends_early_does_so_after_a_resume_too(
    fitter: Fitter, recipe: Recipe, tmp_path: Path, stop_after: int
) -> None:
    options = replace(SGD, epochs=40, learning_rate=1e-9, patience=2)  # too small to train
    recipe = replace(recipe, augment=NOISY, train=options)
    whole, history = fitter(recipe, tmp_path / "whole")
    assert len(history) < 40
    assert fit.is_early_stop(history, 2) and not fit.is_early_stop(history[:-1], 2)
    with pytest.raises(StoppedError):
        fitter(recipe, tmp_path / "broken", stop_after=stop_after)
    resumed, again = fitter(recipe, tmp_path / "broken", resume=True, seed=5)
    assert without_speed(again) == without_speed(history)
    assert same_weights(resumed, whole)
    further, same = fitter(recipe, tmp_path / "broken", resume=True, seed=6)
    assert same == again and same_weights(further, whole)


def test_a_checkpoint_from_before_a_recipe_key_existed_is_accepted(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        fitter(replace(recipe, train=SGD), tmp_path / "run", stop_after=2)
    path = tmp_path / "run" / CHECKPOINT_NAME
    with safe_open(path, framework="pt") as file:
        facts = {key: json.loads(text) for key, text in file.metadata().items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del facts["recipe"]["train"]["patience"]
    write_tensors(path, tensors, facts)
    _, history = fitter(replace(recipe, train=SGD), tmp_path / "run", resume=True)
    assert len(history) == SGD.epochs


def test_resume_with_another_recipe_is_refused(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        fitter(replace(recipe, train=SGD), tmp_path / "run", stop_after=2)
    before = (tmp_path / "run" / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(InputError, match="another recipe"):
        fitter(replace(recipe, train=replace(SGD, momentum=0.8)), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CHECKPOINT_NAME).read_bytes() == before


def test_a_nan_loss_stops_the_run(fitter: Fitter, recipe: Recipe, tmp_path: Path) -> None:
    wild = replace(recipe, train=replace(SGD, learning_rate=1e30))
    with pytest.raises(FacegenderError, match=r"NaN or infinite.*Lower train\.learning_rate"):
        fitter(wild, tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT_NAME).exists()


def test_weights_of_a_nan_loss_are_not_written(
    fitter: Fitter, recipe: Recipe, tmp_path: Path
) -> None:
    wild = replace(recipe, train=replace(SGD, epochs=1, batch_size=128, learning_rate=1e38))
    with pytest.raises(FacegenderError, match="loss is NaN or infinite"):
        fitter(wild, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_one_image_is_too_few(fitter: Fitter, recipe: Recipe, tmp_path: Path) -> None:
    alone = Fitter(fitter.cache, fitter.train[:1], fitter.validation)
    with pytest.raises(InputError, match="1 training images are too few for 1 device"):
        alone(recipe, tmp_path / "run")


# Other processes

SCRIPT = """
import json, os, signal, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np, torch
from torch import nn
from facegender.model.model_file import LABELS
from facegender.training.data import dataloader
from facegender.training.loop import fit
from facegender.training.loop.logits import compute_logits
from facegender.training.loop.devices import make_fabric
from facegender.training.models.networks import build_network
from facegender.training.recipe import read_recipe
from facegender.training.data.samples import Sample
from facegender.training.data.image_cache import ImageCache
torch.set_num_threads(1)

def main():
    what, folder = sys.argv[1], Path(sys.argv[2])
    recipe = read_recipe(folder.parent / "recipe.toml")
    labels = np.load(folder.parent / "labels.npy")
    samples = [Sample("a", str(n), LABELS[label]) for n, label in enumerate(labels)]
    blank = [""] * len(samples)
    pixels = np.load(folder.parent / "pixels.npy")
    no_crop = np.full((len(samples), 2, 3), np.nan, np.float32)
    cache = ImageCache(samples, blank, blank, pixels, pixels, no_crop)
    torch.manual_seed(0)
    network = build_network(recipe.network.name)
    if what == "logits":
        fabric = make_fabric(recipe, 2)
        fabric.launch()
        logits = compute_logits(network, cache, np.arange(99), recipe.input, fabric=fabric)
        np.save(folder / f"{fabric.global_rank}.npy", logits.numpy())
        torch.distributed.destroy_process_group()
        return
    if what in ("plain", "normalized"):
        fabric = make_fabric(recipe, 2)
        fabric.launch()
        shown = []
        batch_of = dataloader.training_batch
        def noted(pixels, matrices, places, recipe, epoch, device):
            shown.append((epoch, places.tolist()))
            return batch_of(pixels, matrices, places, recipe, epoch, device)
        dataloader.training_batch = noted
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if what == "plain":
            network = nn.Sequential(*layers, nn.Linear(8, 2))
        history = fit.fit_network(network, cache, np.arange(70), np.arange(70, 100), recipe, folder,
            fabric=fabric)
        facts = {"shown": shown, "history": [asdict(metrics) for metrics in history]}
        (folder / f"{fabric.global_rank}.json").write_text(json.dumps(facts))
        torch.distributed.destroy_process_group()
        return
    fit.CHECKPOINT_SECONDS = 0.0
    steps = []
    def step(progress):
        steps.append(progress)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
    fit.fit_network(network, cache, np.arange(70), np.arange(70, 100), recipe, folder,
        fabric=make_fabric(recipe, 1), on_step=step)

main()
"""


@pytest.fixture
def start_script(
    tmp_path: Path, cache: ImageCache, recipe: Recipe
) -> Callable[..., subprocess.CompletedProcess[str]]:
    np.save(tmp_path / "pixels.npy", cache.pixels)
    np.save(tmp_path / "labels.npy", cache.labels)
    (tmp_path / "recipe.toml").write_text(write_toml(recipe), encoding="utf-8")

    def start(what: str, folder: Path) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        return subprocess.run(
            [sys.executable, str(script), what, str(folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=500,
        )

    return start


def test_resume_after_kill_9(
    fitter: Fitter,
    recipe: Recipe,
    tmp_path: Path,
    start_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    (tmp_path / "broken").mkdir()
    done = start_script("kill", tmp_path / "broken")
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, history = fitter(recipe, tmp_path / "whole")
    resumed, again = fitter(recipe, tmp_path / "broken", resume=True, seed=9)
    assert without_speed(again) == without_speed(history)
    assert same_weights(resumed, whole)


def test_two_processes_give_the_same_logits_as_one(
    cache: ImageCache,
    recipe: Recipe,
    tmp_path: Path,
    start_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    (tmp_path / "out").mkdir()
    done = start_script("logits", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    one, two = (np.load(tmp_path / "out" / f"{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(one, two)
    alone = compute_logits(built(recipe), cache, np.arange(99), recipe.input)
    np.testing.assert_allclose(one, alone.numpy(), atol=1e-5)
    truth = torch.from_numpy(cache.labels[:99])
    assert accuracy(torch.from_numpy(one), truth) == accuracy(alone, truth)


def plain_network() -> nn.Module:
    """A network without batch normalization, which each process would compute on its own."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 2))


def trained_by_two(
    start_script: Callable[..., subprocess.CompletedProcess[str]], what: str, folder: Path
) -> list[dict[str, Any]]:
    """Train in two processes, and return what each of them wrote."""
    folder.mkdir()
    done = start_script(what, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_training_by_two_processes_is_training_by_one(
    fitter: Fitter,
    recipe: Recipe,
    tmp_path: Path,
    start_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Every image is used once per epoch, by one of the two, with the same metrics."""
    one, two = trained_by_two(start_script, "plain", tmp_path / "two")
    for epoch in range(recipe.train.epochs):
        places = [set(some) for facts in (one, two) for at, some in facts["shown"] if at == epoch]
        assert sum(map(len, places)) == len(set.union(*places)) == 70
    (tmp_path / "one").mkdir()
    history = fit_network(
        plain_network(),
        fitter.cache,
        fitter.train,
        fitter.validation,
        recipe,
        tmp_path / "one",
        fabric=make_fabric(recipe, 1),
    )
    for metrics, *others in zip(history, one["history"], two["history"], strict=True):
        for other in others:
            assert other["validation_count"] == 30
            for name in ("accuracy", "validation_accuracy"):
                assert other[name] == getattr(metrics, name)
            for name in ("loss", "validation_loss"):
                assert other[name] == pytest.approx(getattr(metrics, name), rel=1e-4)
    assert history[-1].loss < history[0].loss


def test_two_processes_write_the_weights_that_they_evaluated(
    fitter: Fitter,
    recipe: Recipe,
    tmp_path: Path,
    start_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Running statistics differ between them; the metrics are of those that are written."""
    folder = tmp_path / "two"
    history = trained_by_two(start_script, "normalized", folder)[0]["history"]
    best = max(history, key=lambda metrics: metrics["validation_accuracy"])
    network = built(recipe)
    load_weights(network, folder / BEST_NAME)
    logits = compute_logits(network, fitter.cache, fitter.validation, recipe.input)
    labels = torch.from_numpy(fitter.cache.labels[fitter.validation])
    assert accuracy(logits, labels) == best["validation_accuracy"]
    loss = float(nn.functional.cross_entropy(logits, labels))
    assert loss == pytest.approx(best["validation_loss"], rel=1e-4)


def test_checkpoints_are_written_within_an_epoch(
    fitter: Fitter, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    recipe = replace(recipe, train=replace(SGD, epochs=1))
    seen: list[bool] = []
    fit_network(
        built(recipe),
        fitter.cache,
        fitter.train,
        fitter.validation,
        recipe,
        tmp_path,
        fabric=make_fabric(recipe, 1),
        on_step=lambda _: seen.append((tmp_path / CHECKPOINT_NAME).exists()),
    )
    assert seen == [False, True, True, True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST_NAME, CHECKPOINT_NAME]
