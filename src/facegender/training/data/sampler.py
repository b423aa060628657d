"""Which images an epoch shows, in which order and batches: pure functions of recipe and seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from facegender.training.data.image_cache import ImageCache
from facegender.training.recipe import TrainOptions

Indices = NDArray[np.int64]


def count_steps(options: TrainOptions, images: int, devices: int = 1) -> int:
    """How many batches an epoch has; what would leave a device one picture joins the batch before.

    Normalisation over a batch of one is not defined.
    """
    left_over = 2 * devices - 1
    return max(1, math.ceil((images - left_over) / options.batch_size))


def sampling_weights(cache: ImageCache, train: Indices, balance: float) -> NDArray[np.float64]:
    """How often each training picture is shown in an epoch on average, ``float64 [len(train)]``.

    Groups are (source, label). At 0 every picture is shown once; at 1 every group as often as any
    other; between, a group's share goes with its size to the power of ``1 - balance``.
    """
    keys = [(cache.samples[i].source, cache.samples[i].label) for i in train]
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
