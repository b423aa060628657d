"""The optimizer of a recipe, and the exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facegender.training.recipe import TrainOptions


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Build the optimizer; biases and normalization (one-dimensional weights) do not decay."""
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


def ema_update(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of an ``AveragedModel`` by an exponential moving average.

    The decay starts low and rises to ``decay``, so that a short run has a useful average too.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        updates = float(count)
        decay_now = min(decay, (1.0 + updates) / (10.0 + updates))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - decay_now)
            else:
                mean.copy_(value)

    return update
