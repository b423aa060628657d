"""Store -> batches of an epoch: read one ahead, augmented and normalised on the training device."""

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
    """One step's pictures, of which each device has its share.

    ``x`` is ``float32 [n, 3, H, W]``, channels last in memory, ``labels`` ``int64 [n]`` and
    ``targets`` ``float32 [n, 2]``: what the loss asks for. ``count`` is of all devices.
    """

    x: Tensor
    labels: Tensor
    targets: Tensor
    count: int


class BatchLoader:
    """Gives the batches of any epoch of a recipe, this device's share of them."""

    def __init__(
        self,
        cache: ImageCache,
        recipe: Recipe,
        device: torch.device,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        """Take the pictures and how they are shown.

        Args:
            cache: the pictures.
            recipe: batch size, augmentation, normalisation, distillation.
            device: where batches are augmented, and wanted.
            rank: which of the devices this is, from 0.
            devices: how many share each batch.
        """
        self.cache, self.recipe, self.device = cache, recipe, device
        self.rank, self.devices = rank, devices
        self.labels = torch.from_numpy(cache.labels)
        self.targets = target_probabilities(cache, recipe.train)

    def of_epoch(self, order: Indices, epoch: int, first: int = 0) -> Generator[Batch]:
        """Give the batches of an epoch; the disk is asked for the next while one is learned from.

        Args:
            order: indices into the store, as the epoch shows them.
            epoch: from 0.
            first: the batch to begin with, where an epoch goes on.
        """
        size, steps = (
            self.recipe.train.batch_size,
            count_steps(self.recipe.train, len(order), self.devices),
        )
        batches = np.split(np.arange(len(order)), size * np.arange(1, steps))

        def read(places: Indices) -> Pixels:
            return read_rows(self.cache.context_pixels, order[self._mine(places)])

        ahead: deque[tuple[Indices, Future[Pixels]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for places in batches[first:]:
                ahead.append((places, pool.submit(read, places)))
                if len(ahead) > 1:
                    yield self._make(order, epoch, *ahead.popleft())
            for last in ahead:
                yield self._make(order, epoch, *last)

    def _make(self, order: Indices, epoch: int, places: Indices, pixels: Future[Pixels]) -> Batch:
        mine = self._mine(places)
        rows = order[mine]
        crop_matrices = self.cache.crop_matrices[rows]
        x = training_batch(pixels.result(), crop_matrices, mine, self.recipe, epoch, self.device)
        labels, targets = self.labels[rows].to(self.device), self.targets[rows].to(self.device)
        return Batch(x, labels, targets, len(places))

    def _mine(self, places: Indices) -> Indices:
        return places[self.rank :: self.devices]


def training_batch(
    pixels: Pixels,
    crop_matrices: NDArray[np.float32],
    places: Indices,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Move pictures to the device, cut, augment and normalise them for a place in an epoch.

    Args:
        pixels: rows of a store's ``wide``, ``uint8 [n, h, w, 3]``.
        crop_matrices: the same rows of its ``frames``, ``float32 [n, 2, 3]``.
        places: where in the epoch each is shown, ``int64 [n]``; with seed and epoch they decide
            every random number.
        recipe: how.
        epoch: from 0.
        device: where the work is done.

    Returns:
        ``float32 [n, 3, H, W]``, channels last in memory: what the network is given.
    """
    x = augment(
        torch.from_numpy(pixels).to(device),
        torch.from_numpy(random_numbers(recipe.train.seed, epoch, places)).to(device),
        recipe.augment,
        crop_matrices=torch.from_numpy(crop_matrices).to(device),
        size=(recipe.input.height, recipe.input.width),
        grayscale=recipe.input.grayscale,
    )
    return normalize(x, recipe.input).contiguous(memory_format=torch.channels_last)


def target_probabilities(cache: ImageCache, options: TrainOptions) -> Tensor:
    """What the loss asks for: each picture's label, mixed with its teacher's answer if it has one.

    The teacher is another network that answered once for every picture as it is; the same answer
    is asked for however the picture is turned, covered or made worse (G. Hinton, O. Vinyals and
    J. Dean, "Distilling the knowledge in a neural network", 2015, at temperature 1).

    Returns:
        ``float32 [N, 2]`` in the order of ``LABELS``, each row's sum 1.
    """
    label = functional.one_hot(torch.from_numpy(cache.labels), len(LABELS)).float()
    if cache.teacher is None or not options.distillation_weight:
        return label
    p_male = torch.from_numpy(cache.teacher)
    taught = torch.stack([1 - p_male, p_male], 1)
    mixed = torch.lerp(label, taught, options.distillation_weight)
    return torch.where(p_male.isfinite()[:, None], mixed, label)
