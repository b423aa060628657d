"""Before hours of work: can this network learn at all, and will the disk hold what it leaves?"""

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
"""Most steps of the check; it ends as soon as the pictures are known by heart."""

IMAGES = 16
"""Most pictures that it learns by heart, half of each label."""

_RATE, _WARM_STEPS = 1e-3, 10
_LEARNED = 0.2 * math.log(2)  # a fifth of what guessing gives


@dataclass(frozen=True, slots=True)
class OverfitResult:
    """How the check went: losses without augmentation, before and after."""

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
    """Let a copy of the network learn one small batch by heart, without augmentation.

    Where that fails, so will the run: pictures that are all alike, a wrong normalisation, weights
    or an arithmetic that gives no numbers. The step is AdamW's, not the recipe's, so that a rate
    meant for hours does not decide. The network, and all random numbers after it, stay as they are.

    Args:
        network: built and started.
        cache: the pictures.
        train: indices of the training part; both labels are in it.
        recipe: its input and precision count.
        fabric: device and precision.
        on_image: called with the number of pictures shown so far.

    Raises:
        FacegenderError: the loss is no number, or does not come down.
    """
    labels = cache.labels
    halves = [train[labels[train] == index] for index in range(len(LABELS))]
    chosen = np.concatenate(
        [
            half[np.linspace(0, len(half) - 1, min(len(half), IMAGES // 2)).astype(np.int64)]
            for half in halves
        ]
    )
    pixels = torch.from_numpy(read_rows(cache.pixels, np.sort(chosen)))
    y = torch.from_numpy(labels[np.sort(chosen)]).to(fabric.device)
    x = normalize(to_float(pixels.to(fabric.device), recipe.input.grayscale), recipe.input)
    losses: list[float] = []
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(recipe.train.seed)
        learner = copy.deepcopy(network).to(fabric.device).train()
        optimizer = torch.optim.AdamW(learner.parameters(), _RATE, weight_decay=0.0)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min(1.0, (step + 1) / _WARM_STEPS)
            with fabric.autocast():
                logits = learner(x)
            loss = functional.cross_entropy(logits.float(), y)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise FacegenderError(
                    f"self check: the loss is no number in step {step + 1}, before anything is "
                    "learned: look at input.mean and input.std and at the starting weights, or set "
                    "train.precision = '32' in the recipe"
                )
            on_image(len(losses) * len(chosen))
            if max(losses[-3:]) < _LEARNED and step >= 2:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
    before, after = losses[0], min(losses[-5:])
    if after > max(0.7 * before, _LEARNED):
        raise FacegenderError(
            f"self check: {len(chosen)} training pictures could not be learned by heart in {STEPS} "
            f"steps (loss {before:.3f}, then {after:.3f}; guessing gives {math.log(2):.3f}). Look "
            "at the pictures with 'facegender show-batch', at input.mean, input.std and dropout in "
            "the recipe, and at the labels; --no-sanity-check trains all the same"
        )
    return OverfitResult(len(chosen), len(losses), before, after)


def check_disk_space(folder: Path, network: nn.Module, options: TrainOptions) -> None:
    """See that the disk will hold checkpoints, weights and model file; old ones are replaced.

    Raises:
        OutputError: it will not; with how much is needed and free.
    """
    weights = sum(value.nbytes for value in network.state_dict().values())
    # a file is written beside the one that it replaces; best, saved_model and model.onnx follow
    needed = 2 * checkpoint_bytes(network, options) + 4 * weights
    there = sum(item.stat().st_size for item in folder.iterdir() if item.is_file())
    free = shutil.disk_usage(folder).free
    if free + there < needed:
        raise OutputError(
            f"checkpoints and weights of this run take up to {needed / 1e6:,.0f} MB and "
            f"{free / 1e6:,.0f} MB are free at {folder}: free some space, or name another --output"
        )
