"""Checks before training: the network can overfit a few images, and the disk is large enough."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from facegender.errors import FacegenderError, OutputError
from facegender.model.model_file import LABELS
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.loop.checkpoint import checkpoint_bytes
from facegender.training.recipe import Recipe, TrainOptions

STEPS = 60
"""Maximum number of steps; the check ends as soon as the images are learned."""

IMAGES = 16
"""Maximum number of images, half of each label."""

_LEARNING_RATE, _WARMUP_STEPS = 1e-3, 10
_LEARNED = 0.2 * math.log(2)  # a fifth of the loss of guessing


@dataclass(frozen=True, slots=True)
class OverfitResult:
    """Result of the check; the losses are without augmentation, at the start and at the end."""

    images: int
    steps: int
    before: float
    after: float


def overfit_small_batch(
    network: nn.Module,
    cache: ImageCache,
    train: Indices,
    recipe: Recipe,
    fabric: Fabric,
    *,
    on_image: Callable[[int], None] = lambda done: None,
) -> OverfitResult:
    """Overfit a copy of the network to one small batch, without augmentation.

    If that fails, so will the run: images that are all alike, a wrong normalization, bad weights,
    or a precision that gives NaN. The optimizer is AdamW, not the recipe's, so that a learning
    rate for a long run does not decide. Neither the network nor the random state changes.

    Args:
        network: with its initial weights.
        cache: decoded images.
        train: rows of the training subset, of both labels.
        recipe: its input and seed are used.
        fabric: device and precision.
        on_image: called with the number of images shown so far.

    Raises:
        FacegenderError: the loss is NaN or infinite, or does not fall.
    """
    labels = cache.labels
    rows = _select_rows(train, labels)
    pixels = torch.from_numpy(read_rows(cache.pixels, rows))
    y = torch.from_numpy(labels[rows]).to(fabric.device)
    x = normalize(to_float(pixels.to(fabric.device), recipe.input.grayscale), recipe.input)
    losses: list[float] = []
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(recipe.train.seed)
        copied = copy.deepcopy(network).to(fabric.device).train()
        optimizer = torch.optim.AdamW(copied.parameters(), _LEARNING_RATE, weight_decay=0.0)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / _WARMUP_STEPS)
            with fabric.autocast():
                logits = copied(x)
            loss = functional.cross_entropy(logits.float(), y)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise FacegenderError(
                    f"Sanity check: the loss is NaN or infinite in step {step + 1}. Check "
                    "input.mean, input.std and the initial weights, or set train.precision = '32' "
                    "in the recipe."
                )
            on_image(len(losses) * len(rows))
            if max(losses[-3:]) < _LEARNED and step >= 2:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(copied.parameters(), 1.0)
            optimizer.step()
    before, after = losses[0], min(losses[-5:])
    if after > max(0.7 * before, _LEARNED):
        raise FacegenderError(
            f"Sanity check: the network could not overfit {len(rows)} training images in {STEPS} "
            f"steps (loss {before:.3f}, then {after:.3f}; guessing has {math.log(2):.3f}). Look "
            "at the images with 'facegender show-batch', and check the labels and input.mean, "
            "input.std and dropout in the recipe. --no-sanity-check trains without this check."
        )
    return OverfitResult(len(rows), len(losses), before, after)


def _select_rows(train: Indices, labels: Indices) -> Indices:
    """Select up to :data:`IMAGES` rows of the training subset, half of each label."""
    selected = []
    for label in range(len(LABELS)):
        rows = train[labels[train] == label]
        count = min(len(rows), IMAGES // 2)
        selected.append(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(selected))


def check_disk_space(folder: Path, network: nn.Module, options: TrainOptions) -> None:
    """Check that the disk has room for checkpoints, weights and model file.

    Args:
        folder: the run folder; files in it count as free, because they are replaced.
        network: its size is used.
        options: its optimizer.

    Raises:
        OutputError: it does not; with the space that is needed and free.
    """
    weights = sum(value.nbytes for value in network.state_dict().values())
    # a new checkpoint is written beside the old one; best, saved_model and model.onnx follow
    needed = 2 * checkpoint_bytes(network, options) + 4 * weights
    replaced = sum(item.stat().st_size for item in folder.iterdir() if item.is_file())
    free = shutil.disk_usage(folder).free
    if free + replaced < needed:
        raise OutputError(
            f"Checkpoints and weights of this run need up to {needed / 1e6:,.0f} MB, and "
            f"{free / 1e6:,.0f} MB are free at {folder}. Free some space, or name another --output."
        )
