"""The order and number of images in an epoch: pure functions of recipe and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from facegender.training.data.image_cache import ImageCache
from facegender.training.data.samples import Sample, age_in_years
from facegender.training.recipe import TrainOptions

Indices = NDArray[np.int64]

_GROUP_OF: dict[str, Callable[[Sample], str]] = {
    "source": lambda sample: sample.source,
    "label": lambda sample: sample.label,
    "over_60": lambda sample: str((age_in_years(sample.age) or 0) >= 60),
}


def count_steps(options: TrainOptions, images: int, devices: int = 1) -> int:
    """Return the number of batches of an epoch.

    A last batch that would leave a device a single image is joined to the batch before it, because
    batch normalization of one image is not defined.

    Args:
        options: its batch size.
        images: of an epoch.
        devices: that share each batch.
    """
    left_over = 2 * devices - 1
    return max(1, math.ceil((images - left_over) / options.batch_size))


def sampling_weights(
    cache: ImageCache, train: Indices, balance: float, groups: Sequence[str] = ("source", "label")
) -> NDArray[np.float64]:
    """Return how often each training image is sampled in an epoch, on average.

    With a balance of 0 every image is sampled once, with 1 every group equally often; between, a
    group's part is proportional to its size to the power of ``1 - balance``.

    Args:
        cache: its samples have what tells the groups apart.
        train: rows of the cache to train on, ``int64 [N]``.
        balance: from 0 to 1.
        groups: what tells them apart, as in ``TrainOptions.sampling_groups``.

    Returns:
        ``float64 [N]`` with a sum of ``N``.
    """
    names = ["\0".join(_GROUP_OF[group](cache.samples[row]) for group in groups) for row in train]
    _, group_of_row, counts = np.unique(np.array(names), return_inverse=True, return_counts=True)
    weights = counts[group_of_row].astype(np.float64) ** -balance
    return np.asarray(weights * (len(train) / weights.sum()))


def epoch_order(train: Indices, weights: NDArray[np.float64], seed: int, epoch: int) -> Indices:
    """Return the rows of an epoch in order, as many as ``train`` has; keyed by seed and epoch.

    An image with a weight of 2.3 is sampled twice, and a third time in three of ten epochs.

    Args:
        train: rows of the cache to train on, ``int64 [N]``.
        weights: what :func:`sampling_weights` returned, ``float64 [N]``.
        seed: of the recipe.
        epoch: from 0.

    Returns:
        ``int64 [N]``.
    """
    rng = np.random.default_rng([seed, epoch])
    times = np.floor(weights + rng.random(len(train))).astype(np.int64)
    order = rng.permutation(np.repeat(train, times))
    if len(order) < len(train):
        order = np.concatenate([order, rng.choice(train, len(train) - len(order))])
    return order[: len(train)]
