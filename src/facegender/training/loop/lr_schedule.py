"""The number of epochs of a run, and the learning rate of each step."""

from __future__ import annotations

import math

from facegender.training.recipe import TrainOptions


def count_epochs(options: TrainOptions, steps: int) -> int:
    """Return the number of epochs: the recipe's, or more if its ``min_steps`` needs more.

    Args:
        options: of the recipe.
        steps: steps per epoch.
    """
    return max(options.epochs, math.ceil(options.min_steps / steps))


def learning_rate(options: TrainOptions, step: int, steps: int) -> float:
    """Return the learning rate of a step: a linear warmup, then constant or a half cosine to 0.

    Args:
        options: of the recipe.
        step: from 0.
        steps: of the whole run.
    """
    warmup = options.warmup_fraction * steps
    if step < warmup:
        return options.learning_rate * (step + 1) / (warmup + 1)
    if options.lr_schedule == "constant":
        return options.learning_rate
    angle = math.pi * (step - warmup) / (steps - warmup)
    return options.learning_rate * 0.5 * (1 + math.cos(angle))
