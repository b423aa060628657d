"""Batches of an epoch: read one ahead, augmented and normalized on the training device."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.data.augmentation import augment, normalize, random_numbers
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices, count_steps
from facegender.training.recipe import Recipe, TrainOptions


@dataclass(frozen=True, slots=True)
class Batch:
    """This device's part of the images of one step.

    Attributes:
        x: input of the network, ``float32 [n, 3, H, W]``, channels last in memory.
        labels: index into ``LABELS``, ``int64 [n]``.
        targets: target probabilities of the loss, ``float32 [n, 2]``.
        count: images of this step on all devices.
    """

    x: Tensor
    labels: Tensor
    targets: Tensor
    count: int


class BatchLoader:
    """Loads this device's part of the batches of an epoch."""

    def __init__(
        self,
        cache: ImageCache,
        recipe: Recipe,
        device: torch.device,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        """Set images and settings.

        Args:
            cache: decoded images.
            recipe: batch size, augmentation, normalization, distillation.
            device: where batches are augmented and used.
            rank: index of this device, from 0.
            devices: number of devices that share each batch.
        """
        self.cache, self.recipe, self.device = cache, recipe, device
        self.rank, self.devices = rank, devices
        self.labels = torch.from_numpy(cache.labels)
        self.targets = target_probabilities(cache, recipe.train)

    def of_epoch(self, order: Indices, epoch: int, first: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch; the next one is read while one is used.

        Args:
            order: rows of the cache in the order of the epoch, ``int64``.
            epoch: from 0.
            first: index of the first batch, for an epoch that is resumed.
        """
        steps = count_steps(self.recipe.train, len(order), self.devices)
        starts = self.recipe.train.batch_size * np.arange(1, steps)
        batches = np.split(np.arange(len(order)), starts)

        def read(positions: Indices) -> Pixels:
            return read_rows(self.cache.context_pixels, order[self._own(positions)])

        ahead: deque[tuple[Indices, Future[Pixels]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for positions in batches[first:]:
                ahead.append((positions, pool.submit(read, positions)))
                if len(ahead) > 1:
                    yield self._make_batch(order, epoch, *ahead.popleft())
            for last in ahead:
                yield self._make_batch(order, epoch, *last)

    def _make_batch(
        self, order: Indices, epoch: int, positions: Indices, pixels: Future[Pixels]
    ) -> Batch:
        own = self._own(positions)
        rows = order[own]
        crop_matrices = self.cache.crop_matrices[rows]
        x = training_batch(pixels.result(), crop_matrices, own, self.recipe, epoch, self.device)
        labels, targets = self.labels[rows].to(self.device), self.targets[rows].to(self.device)
        return Batch(x, labels, targets, len(positions))

    def _own(self, positions: Indices) -> Indices:
        """Select the positions of this device."""
        return positions[self.rank :: self.devices]


def training_batch(
    pixels: Pixels,
    crop_matrices: NDArray[np.float32],
    positions: Indices,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Move images to the device, then crop, augment and normalize them.

    Args:
        pixels: rows of a cache's ``context_pixels``, ``uint8 [n, h, w, 3]``.
        crop_matrices: the same rows of its ``crop_matrices``, ``float32 [n, 2, 3]``.
        positions: of the images in the epoch, ``int64 [n]``; together with seed and epoch they
            determine all random numbers.
        recipe: all settings.
        epoch: from 0.
        device: where images are augmented.

    Returns:
        ``float32 [n, 3, H, W]``, channels last in memory.
    """
    x = augment(
        torch.from_numpy(pixels).to(device),
        torch.from_numpy(random_numbers(recipe.train.seed, epoch, positions)).to(device),
        recipe.augment,
        crop_matrices=torch.from_numpy(crop_matrices).to(device),
        size=(recipe.input.height, recipe.input.width),
        grayscale=recipe.input.grayscale,
    )
    return normalize(x, recipe.input).contiguous(memory_format=torch.channels_last)


def target_probabilities(cache: ImageCache, options: TrainOptions) -> Tensor:
    """Return the targets of the loss: labels, mixed with a teacher's predictions if there are any.

    The teacher has predicted every image once, without augmentation; an image has the same target
    however it is augmented (G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a
    neural network", 2015, at temperature 1).

    Args:
        cache: its labels and teacher.
        options: its ``distillation_weight``.

    Returns:
        ``float32 [N, 2]`` in the order of ``LABELS``, each row's sum 1.
    """
    label = functional.one_hot(torch.from_numpy(cache.labels), len(LABELS)).float()
    if cache.teacher is None or not options.distillation_weight:
        return label
    p_male = torch.from_numpy(cache.teacher)
    prediction = torch.stack([1 - p_male, p_male], 1)
    mixed = torch.lerp(label, prediction, options.distillation_weight)
    return torch.where(p_male.isfinite()[:, None], mixed, label)
