"""The loop: batches, loss, weights; EMA, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from facegender.errors import FacegenderError, InputError, StoppedError
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.data.dataloader import Batch, BatchLoader
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices, count_steps, epoch_order, sampling_weights
from facegender.training.loop.checkpoint import (
    BEST_NAME,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)
from facegender.training.loop.devices import keep_freed_memory
from facegender.training.loop.history import EpochMetrics, StepProgress
from facegender.training.loop.lr_schedule import count_epochs, learning_rate
from facegender.training.recipe import InputOptions, Recipe, TrainOptions

CHECKPOINT_SECONDS = 120.0
"""An epoch that takes longer leaves checkpoints on the way."""

SHORT_SECONDS = 10.0
"""Epochs that take less share a checkpoint: of a small archive, writing them would take longer."""

_EVALUATION_BATCH = 256


def fit_network(
    network: nn.Module,
    cache: ImageCache,
    train: Indices,
    validation: Indices,
    recipe: Recipe,
    folder: Path,
    *,
    fabric: Fabric,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepProgress], None] = lambda progress: None,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
) -> list[EpochMetrics]:
    """Train a network; leave the weights of its best epoch on validation in ``best.safetensors``.

    The same recipe, store and machine give the same weights bit for bit on one CPU, whether the
    run was stopped and resumed or not: random numbers are keyed by seed, epoch and place.

    Args:
        network: built and started; trained in place.
        cache: the pictures.
        train: indices into the store to learn from, ``int64``.
        validation: indices to choose the epoch by.
        recipe: how.
        folder: the run folder, for checkpoints.
        fabric: devices and precision, launched.
        resume: go on from the folder's checkpoint.
        should_stop: asked after every step and every epoch; True stops, with a checkpoint on disk.
        on_step: called after every step.
        on_epoch: called after every epoch.

    Returns:
        The figures of every epoch, also of those before a resume; fewer epochs than the recipe
        names where its ``patience`` ran out.

    Raises:
        StoppedError: ``should_stop`` said so; the checkpoint is written.
        InputError: the checkpoint belongs to another recipe, or there are fewer than two pictures
            for each device.
        FacegenderError: the loss is no number.
    """
    if len(train) < 2 * fabric.world_size:
        raise InputError(
            f"{len(train):,} pictures to learn from are too few for {fabric.world_size} device(s)"
        )
    loop = _Loop(network, cache, recipe, folder, fabric)
    if resume:
        loop.load()
    weights = sampling_weights(cache, train, recipe.train.sampling_balance)
    steps = count_steps(recipe.train, len(train), fabric.world_size)
    epochs = count_epochs(recipe.train, steps)
    saved = time.monotonic()

    def is_over() -> bool:
        patience = recipe.train.patience
        return loop.state.epoch >= epochs or is_early_stop(loop.history, patience)

    while not is_over():
        state = loop.state
        order = epoch_order(train, weights, recipe.train.seed, state.epoch)
        began, seen_before = time.monotonic(), state.seen
        with closing(loop.loader.of_epoch(order, state.epoch, first=state.step)) as batches:
            for batch in batches:
                loop.step(batch, steps, epochs)
                on_step(loop.progress(epochs, len(order)))
                stopping = _any(fabric, should_stop())
                if stopping or _any(fabric, time.monotonic() - saved > CHECKPOINT_SECONDS):
                    loop.save()
                    saved = time.monotonic()
                if stopping:
                    fabric.barrier()  # all wait until the first one's checkpoint is on disk
                    raise _stopped(f"in epoch {state.epoch + 1} of {epochs}", folder)
        speed = (state.seen - seen_before) / max(time.monotonic() - began, 1e-9)
        metrics = loop.end_epoch(validation, steps, epochs, speed)
        stopping = _any(fabric, should_stop())
        is_due = _any(fabric, time.monotonic() - saved > SHORT_SECONDS)
        if stopping or is_over() or is_due:
            loop.save()
            saved = time.monotonic()
        on_epoch(metrics)
        if stopping:
            fabric.barrier()
            raise _stopped(f"after epoch {state.epoch + 1} of {epochs}", folder)
    return loop.history


def is_early_stop(history: Sequence[EpochMetrics], patience: int) -> bool:
    """Tell whether the last ``patience`` epochs brought no better validation accuracy (0: never).

    It is read off the history alone, which a checkpoint holds, so a resumed run stops where an
    unbroken one does.
    """
    if not patience or len(history) <= patience:
        return False
    accuracies = [metrics.validation_accuracy for metrics in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


def _stopped(when: str, folder: Path) -> StoppedError:
    """Say where the loop stopped and how to go on."""
    return StoppedError(f"stopped {when}. Go on with:  facegender train --resume --output {folder}")


class _Loop:
    """The network in training and all that moves with it: optimiser, average, place, history."""

    def __init__(
        self, network: nn.Module, cache: ImageCache, recipe: Recipe, folder: Path, fabric: Fabric
    ) -> None:
        keep_freed_memory()
        self.cache, self.recipe, self.folder, self.fabric = cache, recipe, folder, fabric
        self.network = network.to(memory_format=torch.channels_last)
        place = (fabric.global_rank, fabric.world_size)
        self.loader = BatchLoader(cache, recipe, fabric.device, *place)
        self.module, self.optimizer = fabric.setup(
            self.network, _make_optimizer(self.network, recipe.train)
        )
        self.average = AveragedModel(
            self.network, multi_avg_fn=_ema(recipe.train.ema_decay), use_buffers=True
        )
        self.state = TrainingState()
        self.history: list[EpochMetrics] = []

    def load(self) -> None:
        """Go to where the folder's checkpoint is, if there is one."""
        self.state, self.history = load_checkpoint(
            self.folder, self.recipe, self.network, self.average, self.optimizer
        )

    def save(self) -> None:
        """Write a checkpoint, from the first process only."""
        if self.fabric.global_rank == 0:
            save_checkpoint(
                self.folder,
                self.recipe,
                self.network,
                self.average,
                self.optimizer,
                self.state,
                self.history,
            )

    def progress(self, epochs: int, total: int) -> StepProgress:
        """Say where the loop is, of so many epochs, in an epoch of so many pictures."""
        state = self.state
        return StepProgress(
            epoch=state.epoch,
            epochs=epochs,
            done=state.seen,
            total=total,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
        )

    def step(self, batch: Batch, steps: int, epochs: int) -> None:
        """Learn from one batch and add it to the sums of the epoch."""
        options, fabric, state = self.recipe.train, self.fabric, self.state
        at = state.epoch * steps + state.step
        rate = learning_rate(options, at, epochs * steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((options.seed << 32) + at * fabric.world_size + fabric.global_rank)
        self.module.train()
        with fabric.autocast():
            logits = self.module(batch.x)
        loss = functional.cross_entropy(
            logits.float(), batch.targets, reduction="sum", label_smoothing=options.label_smoothing
        )
        fabric.backward(loss * (fabric.world_size / batch.count))
        if options.max_grad_norm:
            fabric.clip_gradients(self.module, self.optimizer, max_norm=options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if options.ema_decay:
            self.average.update_parameters(self.network)
        correct = (logits.argmax(1) == batch.labels).sum()
        sums = torch.stack([loss.detach().double(), correct.double()])
        sums = torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum"))
        state.loss_sum += float(sums[0])
        state.correct += int(sums[1])
        state.seen += batch.count
        state.step += 1
        self._check_finite(state.loss_sum, rate)

    def end_epoch(self, validation: Indices, steps: int, epochs: int, speed: float) -> EpochMetrics:
        """Judge the epoch on validation and keep its weights if they are the best."""
        state, options = self.state, self.recipe.train
        judged = self.average.module if options.ema_decay else self.network
        if self.fabric.world_size > 1:  # each has its own running statistics; the first's are kept
            for buffer in judged.buffers():
                torch.distributed.broadcast(buffer, 0)
        rate = learning_rate(options, (state.epoch + 1) * steps - 1, epochs * steps)
        logits = compute_logits(
            judged, self.cache, validation, self.recipe.input, fabric=self.fabric
        )
        truth = self.loader.labels[validation]
        metrics = EpochMetrics(
            epoch=state.epoch,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
            validation_loss=float(functional.cross_entropy(logits, truth)),
            validation_accuracy=accuracy(logits, truth),
            validation_count=len(validation),
            learning_rate=rate,
            images_per_second=speed,
        )
        self._check_finite(metrics.validation_loss, rate)
        self.history.append(metrics)
        best = max(state.best_accuracy, metrics.validation_accuracy)
        if best > state.best_accuracy and self.fabric.global_rank == 0:
            write_tensors(self.folder / BEST_NAME, judged.state_dict(), {"epoch": state.epoch})
        self.state = TrainingState(epoch=state.epoch + 1, best_accuracy=best)
        return metrics

    def _check_finite(self, loss: float, rate: float) -> None:
        """Stop before weights that are no numbers are kept.

        Raises:
            FacegenderError: the loss is none.
        """
        if not math.isfinite(loss):
            raise FacegenderError(
                f"the loss is no longer a number in epoch {self.state.epoch + 1}, step "
                f"{self.state.step}: lower train.learning_rate (now {rate:.2g}), or set "
                "train.max_grad_norm or train.precision = '32' in the recipe"
            )


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of pictures whose larger logit is their label: ``[N, 2]`` against ``[N]``."""
    return int((logits.argmax(1) == labels).sum()) / max(len(labels), 1)


def compute_logits(
    network: nn.Module,
    cache: ImageCache,
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
            pixels = torch.from_numpy(read_rows(cache.pixels, indices[some]))
            x = normalize(to_float(pixels.to(device), options.grayscale), options)
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


def _make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
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
