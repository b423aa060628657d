"""The training loop: steps, epochs, the best weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from facegender.errors import FacegenderError, InputError, StoppedError
from facegender.training.data.dataloader import Batch, BatchLoader
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.sampler import Indices, count_steps, epoch_order, sampling_weights
from facegender.training.loop.checkpoint import (
    BEST_NAME,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)
from facegender.training.loop.devices import Processes, keep_freed_memory
from facegender.training.loop.history import EpochMetrics, StepProgress
from facegender.training.loop.logits import accuracy, compute_logits
from facegender.training.loop.lr_schedule import count_epochs, learning_rate
from facegender.training.loop.optimizer import ema_update, make_optimizer
from facegender.training.recipe import Recipe

CHECKPOINT_SECONDS = 120.0
"""Time between checkpoints within a long epoch."""

SHORT_SECONDS = 10.0
"""Minimum time between checkpoints at the end of epochs: writing them would dominate short ones."""


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
    """Train a network, and write the weights of its best epoch on validation to a file.

    The same recipe, cache and machine give the same weights bit for bit on one CPU, whether the
    run was stopped and resumed or not: random numbers are keyed by seed, epoch and position.

    Args:
        network: with its initial weights; trained in place.
        cache: decoded images.
        train: rows of the cache to train on, ``int64``.
        validation: rows of the cache to select the best epoch by, ``int64``.
        recipe: all settings.
        folder: the run folder, for checkpoints and ``best.safetensors``.
        fabric: devices and precision, launched.
        resume: continue from the folder's checkpoint.
        should_stop: asked after every step and epoch; True stops after writing a checkpoint.
        on_step: called after every step.
        on_epoch: called after every epoch.

    Returns:
        The metrics of every epoch, including those before a resume. These are fewer epochs than
        the recipe has if its ``patience`` ended training.

    Raises:
        StoppedError: ``should_stop`` returned True; the checkpoint is written.
        InputError: the checkpoint is of another recipe, or there are fewer than two images for
            each device.
        FacegenderError: the loss is NaN or infinite.
    """
    if len(train) < 2 * fabric.world_size:
        raise InputError(
            f"{len(train):,} training images are too few for {fabric.world_size} device(s): "
            "two per device are needed."
        )
    loop = _Loop(network, cache, recipe, folder, fabric)
    if resume:
        loop.load()
    weights = sampling_weights(
        cache, train, recipe.train.sampling_balance, recipe.train.sampling_groups
    )
    loop.steps = count_steps(recipe.train, len(train), fabric.world_size)
    loop.epochs = count_epochs(recipe.train, loop.steps)
    while not loop.is_over():
        state = loop.state
        order = epoch_order(train, weights, recipe.train.seed, state.epoch)
        started, seen_before = time.monotonic(), state.seen
        with closing(loop.loader.of_epoch(order, state.epoch, first=state.step)) as batches:
            for batch in batches:
                loop.step(batch)
                on_step(loop.progress(len(order)))
                stopping = loop.processes.any(should_stop())
                if stopping or loop.is_due(CHECKPOINT_SECONDS):
                    loop.save()
                if stopping:
                    raise loop.stopped(f"in epoch {state.epoch + 1} of {loop.epochs}")
        speed = (state.seen - seen_before) / max(time.monotonic() - started, 1e-9)
        metrics = loop.end_epoch(validation, speed)
        stopping = loop.processes.any(should_stop())
        is_due = loop.is_due(SHORT_SECONDS)
        if stopping or loop.is_over() or is_due:
            loop.save()
        on_epoch(metrics)
        if stopping:
            raise loop.stopped(f"after epoch {state.epoch + 1} of {loop.epochs}")
    return loop.history


def is_early_stop(history: Sequence[EpochMetrics], patience: int) -> bool:
    """Return whether the last ``patience`` epochs had no better validation accuracy (0: never).

    This depends on the history alone, which a checkpoint contains, so a resumed run ends at the
    same epoch as an uninterrupted one.
    """
    if not patience or len(history) <= patience:
        return False
    accuracies = [metrics.validation_accuracy for metrics in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


class _Loop:
    """The network in training and its state: optimizer, average, position, history."""

    def __init__(
        self, network: nn.Module, cache: ImageCache, recipe: Recipe, folder: Path, fabric: Fabric
    ) -> None:
        keep_freed_memory()
        self.cache, self.recipe, self.folder, self.fabric = cache, recipe, folder, fabric
        self.processes = Processes(fabric)
        self.network = network.to(memory_format=torch.channels_last)
        self.loader = BatchLoader(
            cache, recipe, fabric.device, fabric.global_rank, fabric.world_size
        )
        self.module, self.optimizer = fabric.setup(
            self.network, make_optimizer(self.network, recipe.train)
        )
        self.average = AveragedModel(
            self.network, multi_avg_fn=ema_update(recipe.train.ema_decay), use_buffers=True
        )
        self.steps = self.epochs = 0  # steps of an epoch, epochs of the run
        self.state = TrainingState()
        self.history: list[EpochMetrics] = []
        self._saved = time.monotonic()

    def is_over(self) -> bool:
        """Return whether the last epoch is done."""
        patience = self.recipe.train.patience
        return self.state.epoch >= self.epochs or is_early_stop(self.history, patience)

    def is_due(self, seconds: float) -> bool:
        """Return whether the last checkpoint is older than this, in any process."""
        return self.processes.any(time.monotonic() - self._saved > seconds)

    def load(self) -> None:
        """Restore the folder's checkpoint, if there is one."""
        self.state, self.history = load_checkpoint(
            self.folder, self.recipe, self.network, self.average, self.optimizer
        )

    def save(self) -> None:
        """Write a checkpoint."""
        self.processes.on_main(save_checkpoint)(
            self.folder,
            self.recipe,
            self.network,
            self.average,
            self.optimizer,
            self.state,
            self.history,
        )
        self._saved = time.monotonic()

    def stopped(self, when: str) -> StoppedError:
        """Wait until the checkpoint is on disk, and say how to continue."""
        self.processes.wait()
        return StoppedError(
            f"stopped {when}. To continue:  facegender train --resume --output {self.folder}"
        )

    def progress(self, total: int) -> StepProgress:
        """Return the progress of an epoch of ``total`` images."""
        state = self.state
        return StepProgress(
            epoch=state.epoch,
            epochs=self.epochs,
            done=state.seen,
            total=total,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
        )

    def step(self, batch: Batch) -> None:
        """Train on one batch and add it to the sums of the epoch."""
        options, fabric, state = self.recipe.train, self.fabric, self.state
        at = state.epoch * self.steps + state.step
        rate = learning_rate(options, at, self.epochs * self.steps)
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

    def end_epoch(self, validation: Indices, images_per_second: float) -> EpochMetrics:
        """Evaluate the epoch on validation, and write its weights if they are the best so far."""
        state, options = self.state, self.recipe.train
        network = self.average.module if options.ema_decay else self.network
        if self.fabric.world_size > 1:  # running statistics differ; those of rank 0 are written
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
        last_step = (state.epoch + 1) * self.steps - 1
        rate = learning_rate(options, last_step, self.epochs * self.steps)
        logits = compute_logits(
            network, self.cache, validation, self.recipe.input, fabric=self.fabric
        )
        labels = self.loader.labels[validation]
        metrics = EpochMetrics(
            epoch=state.epoch,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
            validation_loss=float(functional.cross_entropy(logits, labels)),
            validation_accuracy=accuracy(logits, labels),
            validation_count=len(validation),
            learning_rate=rate,
            images_per_second=images_per_second,
        )
        self._check_finite(metrics.validation_loss, rate)
        self.history.append(metrics)
        best = max(state.best_accuracy, metrics.validation_accuracy)
        if best > state.best_accuracy:
            self.processes.on_main(write_tensors)(
                self.folder / BEST_NAME, network.state_dict(), {"epoch": state.epoch}
            )
        self.state = TrainingState(epoch=state.epoch + 1, best_accuracy=best)
        return metrics

    def _check_finite(self, loss: float, rate: float) -> None:
        """Raise if the loss is NaN or infinite, before any of its weights are written.

        Raises:
            FacegenderError: it is.
        """
        if not math.isfinite(loss):
            raise FacegenderError(
                f"The loss is NaN or infinite in epoch {self.state.epoch + 1}, step "
                f"{self.state.step}. Lower train.learning_rate (now {rate:.2g}), or set "
                "train.max_grad_norm or train.precision = '32' in the recipe."
            )
