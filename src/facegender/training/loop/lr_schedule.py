"""How many steps and epochs a run has, and the learning rate of each step."""

from __future__ import annotations

import math

from facegender.training.recipe import TrainOptions


def count_epochs(options: TrainOptions, steps: int) -> int:
    """How many epochs of so many steps: the recipe's, or more where its ``least_steps`` asks so."""
    return max(options.epochs, math.ceil(options.min_steps / steps))


def learning_rate(options: TrainOptions, step: int, steps: int) -> float:
    """Rate at a step: a straight rise over the warm-up, then level or half a cosine down to 0."""
    warm = options.warmup_fraction * steps
    if step < warm:
        return options.learning_rate * (step + 1) / (warm + 1)
    if options.lr_schedule == "constant":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
