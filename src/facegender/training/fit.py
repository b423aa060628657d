"""The loop: batches, augmentation, loss, weights; EMA, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from facegender.errors import FacegenderError, StoppedError
from facegender.model_file import LABELS
from facegender.training.augment import as_floats, augment, normalise, random_numbers
from facegender.training.checkpoint import (
    BEST_NAME,
    EpochFigures,
    State,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)
from facegender.training.devices import keep_freed_memory
from facegender.training.recipe import FitOptions, InputOptions, Recipe
from facegender.training.schedule import (
    Indices,
    count_epochs,
    count_steps,
    epoch_order,
    learning_rate,
    sampling_weights,
)
from facegender.training.store import Store, read_rows

CHECKPOINT_SECONDS = 120.0
"""An epoch that takes longer leaves checkpoints on the way."""

SHORT_SECONDS = 10.0
"""Epochs that take less share a checkpoint: of a small archive, writing them would take longer."""

_EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is, told after every step; counts are of pictures in this epoch."""

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float


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
        should_stop: asked after every step and every epoch; True stops, with a checkpoint on disk.
        on_step: called after every step.
        on_epoch: called after every epoch.

    Returns:
        The figures of every epoch, also of those before a resume; fewer epochs than the recipe
        names where its ``patience`` ran out.

    Raises:
        StoppedError: ``should_stop`` said so; the checkpoint is written.
        InputError: there is nothing to resume, or it belongs to another recipe.
        FacegenderError: the loss is no number.
    """
    loop = _Loop(network, store, recipe, folder, fabric)
    if resume:
        loop.load()
    weights = sampling_weights(store, train, recipe.fit.balance)
    steps = count_steps(recipe.fit, len(train))
    epochs = count_epochs(recipe.fit, steps)
    saved = time.monotonic()

    def is_over() -> bool:
        patience = recipe.fit.patience
        return loop.state.epoch >= epochs or is_out_of_patience(loop.history, patience)

    while not is_over():
        state = loop.state
        order = epoch_order(train, weights, recipe.fit.seed, state.epoch)
        began, seen_before = time.monotonic(), state.seen
        while state.step < steps:
            loop.step(order, steps, epochs)
            on_step(
                Progress(
                    epoch=state.epoch,
                    epochs=epochs,
                    done=state.seen,
                    total=len(order),
                    loss=state.loss_sum / state.seen,
                    accuracy=state.correct / state.seen,
                )
            )
            stopping = _any(fabric, should_stop())
            if stopping or _any(fabric, time.monotonic() - saved > CHECKPOINT_SECONDS):
                loop.save()
                saved = time.monotonic()
            if stopping:
                raise _stopped(f"in epoch {state.epoch + 1} of {epochs}", folder)
        speed = (state.seen - seen_before) / max(time.monotonic() - began, 1e-9)
        figures = loop.end_epoch(validation, steps, epochs, speed)
        stopping = _any(fabric, should_stop())
        is_due = _any(fabric, time.monotonic() - saved > SHORT_SECONDS)
        if stopping or is_over() or is_due:
            loop.save()
            saved = time.monotonic()
        on_epoch(figures)
        if stopping:
            raise _stopped(f"after epoch {state.epoch + 1} of {epochs}", folder)
    return loop.history


def is_out_of_patience(history: Sequence[EpochFigures], patience: int) -> bool:
    """Tell whether the last ``patience`` epochs brought no better validation accuracy (0: never).

    It is read off the history alone, which a checkpoint holds, so a resumed run stops where an
    unbroken one does.
    """
    if not patience or len(history) <= patience:
        return False
    accuracies = [figures.validation_accuracy for figures in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


def _stopped(when: str, folder: Path) -> StoppedError:
    """Say where the loop stopped and how to go on."""
    return StoppedError(f"stopped {when}. Go on with:  facegender train --resume --output {folder}")


class _Loop:
    """The network in training and all that moves with it: optimiser, average, place, history."""

    def __init__(
        self, network: nn.Module, store: Store, recipe: Recipe, folder: Path, fabric: Fabric
    ) -> None:
        keep_freed_memory()
        self.store, self.recipe, self.folder, self.fabric = store, recipe, folder, fabric
        self.network = network.to(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(store.labels)
        self.targets = wanted(store, recipe.fit)
        self.module, self.optimizer = fabric.setup(
            self.network, _make_optimizer(self.network, recipe.fit)
        )
        self.average = AveragedModel(
            self.network, multi_avg_fn=_ema(recipe.fit.ema), use_buffers=True
        )
        self.state = State()
        self.history: list[EpochFigures] = []

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

    def step(self, order: Indices, steps: int, epochs: int) -> None:
        """Learn from one batch and add it to the sums of the epoch."""
        options, fabric, state = self.recipe.fit, self.fabric, self.state
        places = np.arange(state.step * options.batch, len(order))
        if state.step < steps - 1:  # the last batch is what is left
            places = places[: options.batch]
        at = state.epoch * steps + state.step
        rate = learning_rate(options, at, epochs * steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((options.seed << 32) + at * fabric.world_size + fabric.global_rank)
        self.module.train()
        x, y, target = self._batch(order, places[fabric.global_rank :: fabric.world_size])
        with fabric.autocast():
            logits = self.module(x)
        loss = functional.cross_entropy(
            logits.float(), target, reduction="sum", label_smoothing=options.label_smoothing
        )
        fabric.backward(loss * (fabric.world_size / len(places)))
        if options.gradient_clip:
            fabric.clip_gradients(self.module, self.optimizer, max_norm=options.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if options.ema:
            self.average.update_parameters(self.network)
        sums = torch.stack([loss.detach().double(), (logits.argmax(1) == y).sum().double()])
        sums = torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum"))
        state.loss_sum += float(sums[0])
        state.correct += int(sums[1])
        state.seen += len(places)
        state.step += 1
        self._check_finite(state.loss_sum, rate)

    def end_epoch(self, validation: Indices, steps: int, epochs: int, speed: float) -> EpochFigures:
        """Judge the epoch on validation and keep its weights if they are the best."""
        state, options = self.state, self.recipe.fit
        judged = self.average.module if options.ema else self.network
        rate = learning_rate(options, (state.epoch + 1) * steps - 1, epochs * steps)
        logits = compute_logits(
            judged, self.store, validation, self.recipe.input, fabric=self.fabric
        )
        truth = self.labels[torch.from_numpy(validation)]
        figures = EpochFigures(
            epoch=state.epoch,
            loss=state.loss_sum / state.seen,
            accuracy=state.correct / state.seen,
            validation_loss=float(functional.cross_entropy(logits, truth)),
            validation_accuracy=accuracy(logits, truth),
            validation_count=len(validation),
            learning_rate=rate,
            pictures_per_second=speed,
        )
        self._check_finite(figures.validation_loss, rate)
        self.history.append(figures)
        best = max(state.best_accuracy, figures.validation_accuracy)
        if best > state.best_accuracy and self.fabric.global_rank == 0:
            write_tensors(self.folder / BEST_NAME, judged.state_dict(), {"epoch": state.epoch})
        self.state = State(epoch=state.epoch + 1, best_accuracy=best)
        return figures

    def _batch(self, order: Indices, places: Indices) -> tuple[Tensor, Tensor, Tensor]:
        """Give the pictures at some places as the network is shown them, labels and targets."""
        device = self.fabric.device
        x = training_batch(self.store, order, places, self.recipe, self.state.epoch, device)
        rows = torch.from_numpy(order[places])
        return x, self.labels[rows].to(device), self.targets[rows].to(device)

    def _check_finite(self, loss: float, rate: float) -> None:
        """Stop before weights that are no numbers are kept.

        Raises:
            FacegenderError: the loss is none.
        """
        if not math.isfinite(loss):
            raise FacegenderError(
                f"the loss is no longer a number in epoch {self.state.epoch + 1}, step "
                f"{self.state.step}: lower fit.learning_rate (now {rate:.2g}), or set "
                "fit.gradient_clip or fit.precision = '32' in the recipe"
            )


def wanted(store: Store, options: FitOptions) -> Tensor:
    """What the loss asks for: each picture's label, mixed with its teacher's answer if it has one.

    The teacher is another network that answered once for every picture as it is; the same answer
    is asked for however the picture is turned, covered or made worse (G. Hinton, O. Vinyals and
    J. Dean, "Distilling the knowledge in a neural network", 2015, at temperature 1).

    Returns:
        ``float32 [N, 2]`` in the order of ``LABELS``, each row's sum 1.
    """
    label = functional.one_hot(torch.from_numpy(store.labels), len(LABELS)).float()
    if store.teacher is None or not options.distill:
        return label
    p_male = torch.from_numpy(store.teacher)
    taught = torch.stack([1 - p_male, p_male], 1)
    mixed = torch.lerp(label, taught, options.distill)
    return torch.where(p_male.isfinite()[:, None], mixed, label)


def training_batch(
    store: Store,
    order: Indices,
    places: Indices,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Read, move to the device, augment and normalise the pictures at some places of an epoch.

    Args:
        store: the pictures.
        order: indices into the store, as the epoch shows them.
        places: places in ``order``; with seed and epoch they decide every random number.
        recipe: how.
        epoch: from 0.
        device: where the work is done.

    Returns:
        ``float32 [len(places), 3, H, W]``, channels last in memory: what the network is given.
    """
    indices = order[places]
    pixels = torch.from_numpy(read_rows(store.wide, indices)).to(device)
    numbers = random_numbers(recipe.fit.seed, epoch, places)
    x = augment(
        pixels,
        torch.from_numpy(numbers).to(device),
        recipe.augment,
        frames=torch.from_numpy(store.frames[indices]).to(device),
        size=(recipe.input.height, recipe.input.width),
        grey=recipe.input.grey,
    )
    return normalise(x, recipe.input).contiguous(memory_format=torch.channels_last)


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
            pixels = torch.from_numpy(read_rows(store.pixels, indices[some]))
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
