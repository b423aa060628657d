"""The loop: batches, augmentation, loss, weights; mixed precision, EMA, checkpoints, devices."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from facegender.errors import FacegenderError
from facegender.training.augment import as_floats, augment, normalise, random_numbers
from facegender.training.checkpoint import (
    BEST_NAME,
    EpochFigures,
    State,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)
from facegender.training.recipe import FitOptions, InputOptions, Recipe
from facegender.training.store import Store

CHECKPOINT_SECONDS = 120.0

# Networks that ran for hours in bf16 on a CPU; others crashed there, so they are left at fp32.
_BF16_ON_CPU = ("dlib_resnet", "resnet18", "resnet34", "resnet50")
_EVALUATION_BATCH = 256

Indices = NDArray[np.int64]


class StoppedError(FacegenderError):
    """Training was asked to stop; its checkpoint is on disk and ``--resume`` goes on from it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is, told after every step; counts are of pictures in this epoch."""

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float


def make_fabric(recipe: Recipe, devices: int | None = None) -> Fabric:
    """Choose devices and precision: CUDA when there is one, bf16 where it is fast and stable.

    Args:
        recipe: its ``fit.precision`` says ``auto``, ``32`` or ``bf16``.
        devices: how many devices; None takes all CUDA devices, or the one CPU.
    """
    cuda = torch.cuda.is_available()
    precision = recipe.fit.precision
    if precision == "auto":
        if cuda:
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = recipe.network.name in _BF16_ON_CPU and _cpu_has_bf16()
        precision = "bf16" if fast else "32"
    count: int | str = devices if devices else ("auto" if cuda else 1)
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=count,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def fit_network(
    network: nn.Module,
    store: Store,
    train: Indices,
    validation: Indices,
    recipe: Recipe,
    folder: Path,
    *,
    fabric: Fabric,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[EpochFigures], None] = lambda figures: None,
) -> list[EpochFigures]:
    """Train a network; leave the weights of its best epoch on validation in ``best.safetensors``.

    The same recipe, store and machine give the same weights bit for bit on one CPU, whether the
    run was stopped and resumed or not: random numbers are keyed by seed, epoch and place.

    Args:
        network: built and started; trained in place.
        store: the pictures.
        train: indices into the store to learn from, ``int64``.
        validation: indices to choose the epoch by.
        recipe: how.
        folder: the run folder, for checkpoints.
        fabric: devices and precision, launched.
        resume: go on from the folder's checkpoint.
        should_stop: asked after every step; True writes a checkpoint and stops.
        on_step: called after every step.
        on_epoch: called after every epoch.

    Returns:
        The figures of every epoch, also of those before a resume.

    Raises:
        StoppedError: ``should_stop`` said so; the checkpoint is written.
        InputError: there is nothing to resume, or it belongs to another recipe.
        FacegenderError: the loss is no number.
    """
    options = recipe.fit
    _keep_freed_memory()
    network = network.to(memory_format=torch.channels_last)
    optimizer = _make_optimizer(network, options)
    module, optimizer = fabric.setup(network, optimizer)
    average = AveragedModel(network, multi_avg_fn=_ema(options.ema), use_buffers=True)
    labels = torch.from_numpy(store.labels)
    weights = sampling_weights(store, train, options.balance)
    steps = math.ceil(len(train) / options.batch)
    state, history = State(), list[EpochFigures]()
    if resume:
        state, history = load_checkpoint(folder, recipe, network, average, optimizer)

    saved = time.monotonic()
    epochs = count_epochs(options, steps)
    while state.epoch < epochs:
        order = epoch_order(train, weights, options.seed, state.epoch)
        module.train()
        began, done_before = time.monotonic(), state.seen
        while state.step < steps:
            places = np.arange(state.step * options.batch, len(order))[: options.batch]
            at = state.epoch * steps + state.step
            rate = learning_rate(options, at, epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed((options.seed << 32) + at * fabric.world_size + fabric.global_rank)
            mine = places[fabric.global_rank :: fabric.world_size]
            x, y = _training_batch(store, labels, order, mine, state.epoch, recipe, fabric.device)
            with fabric.autocast():
                logits = module(x)
            losses = functional.cross_entropy(
                logits.float(), y, reduction="sum", label_smoothing=options.label_smoothing
            )
            fabric.backward(losses * (fabric.world_size / len(places)))
            if options.gradient_clip:
                fabric.clip_gradients(module, optimizer, max_norm=options.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            if options.ema:
                average.update_parameters(network)
            correct = (logits.argmax(1) == y).sum()
            sums = torch.stack([losses.detach().double(), correct.double()])
            sums = torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum"))
            state.loss_sum += float(sums[0])
            state.correct += int(sums[1])
            state.seen += len(places)
            state.step += 1
            if not math.isfinite(state.loss_sum):
                raise FacegenderError(
                    f"the loss is no longer a number in epoch {state.epoch + 1}, step "
                    f"{state.step}: lower fit.learning_rate (now {rate:.2g}), or set "
                    "fit.gradient_clip or fit.precision = '32' in the recipe"
                )
            on_step(
                Progress(
                    state.epoch,
                    epochs,
                    state.seen,
                    len(order),
                    state.loss_sum / state.seen,
                    state.correct / state.seen,
                )
            )
            stopping = _any(fabric, should_stop())
            if stopping or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(folder, recipe, network, average, optimizer, state, history, fabric)
                saved = time.monotonic()
            if stopping:
                raise StoppedError(
                    f"stopped in epoch {state.epoch + 1} of {epochs}. Go on with:  "
                    f"facegender train --resume --output {folder}"
                )
        rate_seen = (state.seen - done_before) / max(time.monotonic() - began, 1e-9)
        judged = average.module if options.ema else network
        rate = learning_rate(options, state.epoch * steps + steps - 1, epochs * steps)
        logits_seen = compute_logits(judged, store, validation, recipe.input, fabric=fabric)
        truth = labels[torch.from_numpy(validation)]
        figures = EpochFigures(
            epoch=state.epoch,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
            validation_loss=float(functional.cross_entropy(logits_seen, truth)),
            validation_accuracy=accuracy(logits_seen, truth),
            validation_count=len(validation),
            learning_rate=rate,
            pictures_per_second=rate_seen,
        )
        if not math.isfinite(figures.validation_loss):
            raise FacegenderError(
                f"the validation loss is no number after epoch {state.epoch + 1}: lower "
                f"fit.learning_rate (now {rate:.2g}) or set fit.gradient_clip in the recipe"
            )
        history.append(figures)
        if figures.validation_accuracy > state.best_accuracy:
            state.best_accuracy = figures.validation_accuracy
            if fabric.global_rank == 0:
                write_tensors(folder / BEST_NAME, judged.state_dict(), {"epoch": state.epoch})
        state = State(epoch=state.epoch + 1, best_accuracy=state.best_accuracy)
        save_checkpoint(folder, recipe, network, average, optimizer, state, history, fabric)
        saved = time.monotonic()
        on_epoch(figures)
    return history


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of pictures whose larger logit is their label: ``[N, 2]`` against ``[N]``."""
    return int((logits.argmax(1) == labels).sum()) / max(len(labels), 1)


def compute_logits(
    network: nn.Module,
    store: Store,
    indices: Indices,
    options: InputOptions,
    *,
    fabric: Fabric | None = None,
) -> Tensor:
    """Run a network over pictures of a store, unchanged by augmentation.

    With several devices each takes its share, and every one gets the whole.

    Returns:
        ``float32 [len(indices), 2]`` on the CPU, in the order of ``indices``.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    device = fabric.device if fabric else torch.device("cpu")
    logits = torch.zeros((len(indices), 2))
    places = np.arange(rank, len(indices), world)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(places), _EVALUATION_BATCH):
            some = places[start : start + _EVALUATION_BATCH]
            pixels = torch.from_numpy(np.ascontiguousarray(store.pixels[indices[some]]))
            x = normalise(as_floats(pixels.to(device), options.grey), options)
            x = x.contiguous(memory_format=torch.channels_last)
            if fabric:
                with fabric.autocast():
                    given = network(x)
            else:
                given = network(x)
            logits[torch.from_numpy(some)] = given.float().cpu()
    network.train(was_training)
    if fabric and world > 1:
        summed = fabric.all_reduce(logits.to(device), reduce_op="sum")
        logits = torch.as_tensor(summed).cpu()
    return logits


def count_epochs(options: FitOptions, steps: int) -> int:
    """How many epochs of so many steps: the recipe's, or more where its ``least_steps`` asks so."""
    return max(options.epochs, math.ceil(options.least_steps / steps))


def learning_rate(options: FitOptions, step: int, steps: int) -> float:
    """Rate at a step: a straight rise over the warm-up, then level or half a cosine down to 0."""
    warm = options.warmup * steps
    if step < warm:
        return options.learning_rate * (step + 1) / (warm + 1)
    if options.schedule == "constant":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def sampling_weights(store: Store, train: Indices, balance: float) -> NDArray[np.float64]:
    """How often each training picture is shown in an epoch on average, ``float64 [len(train)]``.

    Groups are (source, label). At 0 every picture is shown once; at 1 every group as often as any
    other; between, a group's share goes with its size to the power of ``1 - balance``.
    """
    keys = [(store.samples[i].source, store.samples[i].label) for i in train]
    _, which, counts = np.unique(
        np.array(["\0".join(key) for key in keys]), return_inverse=True, return_counts=True
    )
    weights = counts[which].astype(np.float64) ** -balance
    return np.asarray(weights * (len(train) / weights.sum()))


def epoch_order(train: Indices, weights: NDArray[np.float64], seed: int, epoch: int) -> Indices:
    """Order in which an epoch shows pictures, as many as ``train`` has; keyed by seed and epoch.

    A picture with weight 2.3 comes twice, and a third time in three epochs out of ten.
    """
    rng = np.random.default_rng([seed, epoch])
    times = np.floor(weights + rng.random(len(train))).astype(np.int64)
    order = rng.permutation(np.repeat(train, times))
    if len(order) < len(train):
        order = np.concatenate([order, rng.choice(train, len(train) - len(order))])
    return order[: len(train)]


def _training_batch(
    store: Store,
    labels: Tensor,
    order: Indices,
    places: Indices,
    epoch: int,
    recipe: Recipe,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Read, move to the device, augment and normalise one batch."""
    indices = order[places]
    pixels = torch.from_numpy(np.ascontiguousarray(store.pixels[indices])).to(device)
    numbers = torch.from_numpy(random_numbers(recipe.fit.seed, epoch, places)).to(device)
    x = augment(pixels, numbers, recipe.augment, grey=recipe.input.grey)
    x = normalise(x, recipe.input).contiguous(memory_format=torch.channels_last)
    return x, labels[torch.from_numpy(indices)].to(device)


def _make_optimizer(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """Build the optimiser; biases and norms (one-dimensional weights) do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1]},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
    return torch.optim.AdamW(groups, options.learning_rate, weight_decay=options.weight_decay)


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """Average weights with a decay that starts low, so that short runs have an average too."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        seen = float(count)
        now = min(decay, (1.0 + seen) / (10.0 + seen))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - now)
            else:
                mean.copy_(value)

    return update


def _any(fabric: Fabric, flag: bool) -> bool:
    """Tell whether any device says so."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum"))


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory; giving each tensor back to the kernel costs a tenth of speed."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def _cpu_has_bf16() -> bool:
    """Tell whether the CPU has bf16 arithmetic (AVX-512 BF16 or AMX) that oneDNN uses."""
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
