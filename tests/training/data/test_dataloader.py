"""Batches of an epoch: their images, devices, prefetching, and the targets of the loss."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from facegender.training.data import dataloader as loader
from facegender.training.data.dataloader import BatchLoader, target_probabilities, training_batch
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import Sample
from facegender.training.recipe import AugmentOptions, Recipe, TrainOptions

CPU = torch.device("cpu")
BATCH = 16


@pytest.fixture
def noisy(recipe: Recipe) -> Recipe:
    fit = replace(recipe.train, batch_size=BATCH)
    return replace(
        recipe, augment=AugmentOptions(rotation_degrees=45, gaussian_noise_std=0.05), train=fit
    )


def drawn(count: int, cache: ImageCache) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, len(cache.samples), count)


@pytest.mark.parametrize(
    ("count", "sizes"), [(48, [16] * 3), (50, [16, 16, 16, 2]), (49, [16, 16, 17]), (5, [5])]
)
def test_every_position_of_an_epoch_comes_once_in_order(
    count: int, sizes: list[int], cache: ImageCache, noisy: Recipe
) -> None:
    order = drawn(count, cache)
    batches = list(BatchLoader(cache, noisy, CPU).of_epoch(order, 3))
    assert [batch.count for batch in batches] == [len(batch.x) for batch in batches] == sizes
    ends = np.cumsum(sizes)
    for batch, places in zip(batches, np.split(np.arange(count), ends[:-1]), strict=True):
        rows = order[places]
        expected = training_batch(
            cache.context_pixels[rows], cache.crop_matrices[rows], places, noisy, 3, CPU
        )
        assert torch.equal(batch.x, expected)
        assert batch.labels.tolist() == cache.labels[rows].tolist()
        assert batch.targets.argmax(1).tolist() == cache.labels[rows].tolist()


def test_an_epoch_is_resumed_at_any_batch(cache: ImageCache, noisy: Recipe) -> None:
    order, batches = drawn(50, cache), BatchLoader(cache, noisy, CPU)
    whole = list(batches.of_epoch(order, 0))
    for first in range(5):
        rest = list(batches.of_epoch(order, 0, first))
        assert len(rest) == 4 - first
        assert all(torch.equal(a.x, b.x) for a, b in zip(rest, whole[first:], strict=True))


@pytest.mark.parametrize("count", [48, 49, 53, 54])  # up to 5 left over: one or two for each
def test_devices_share_a_batch_and_none_has_fewer_than_two(
    count: int, cache: ImageCache, noisy: Recipe
) -> None:
    order = drawn(count, cache)
    parts = [list(BatchLoader(cache, noisy, CPU, rank, 3).of_epoch(order, 1)) for rank in range(3)]
    sizes = [batch.count for batch in parts[0]]
    assert sum(sizes) == count
    for at, places in enumerate(np.split(np.arange(count), np.cumsum(sizes)[:-1])):
        for rank, part in enumerate(parts):
            rows = order[places[rank::3]]
            assert len(rows) >= 2 and part[at].count == len(places)
            shown = (cache.context_pixels[rows], cache.crop_matrices[rows], places[rank::3])
            assert torch.equal(part[at].x, training_batch(*shown, noisy, 1, CPU))
            assert part[at].labels.tolist() == cache.labels[rows].tolist()


def test_the_next_batch_is_read_while_one_is_used(
    cache: ImageCache, noisy: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = threading.Semaphore(0), []

    def noted(values: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        reads.append(len(rows))
        some = read_rows(values, rows)
        read.release()
        return some

    monkeypatch.setattr(loader, "read_rows", noted)
    batches = BatchLoader(cache, noisy, CPU).of_epoch(drawn(64, cache), 0)
    for number in range(1, 4):
        next(batches)
        assert all(read.acquire(timeout=60) for _ in range(2 if number == 1 else 1))
        assert len(reads) == number + 1, "one ahead, not more"
    batches.close()


def test_a_read_error_ends_the_epoch(
    cache: ImageCache, noisy: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(values: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(loader, "read_rows", broken)
    with pytest.raises(OSError, match="Input/output"):
        next(BatchLoader(cache, noisy, CPU).of_epoch(drawn(64, cache), 0))


def test_targets_are_labels_mixed_with_a_teachers_predictions() -> None:
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    samples = [
        Sample("a", name, label)
        for name, label in zip("xyz", ("female", "male", "male"), strict=True)
    ]
    no_crop = np.full((3, 2, 3), np.nan, np.float32)
    teacher = np.array([0.25, 0.5, np.nan], np.float32)
    cache = ImageCache(samples, [""] * 3, [""] * 3, pixels, pixels, no_crop, teacher)
    target = target_probabilities(cache, TrainOptions(distillation_weight=0.8))
    assert target.numpy() == pytest.approx(np.array([[0.8, 0.2], [0.4, 0.6], [0, 1]]))
    assert target_probabilities(cache, TrainOptions()).tolist() == [[1, 0], [0, 1], [0, 1]]
