"""The order of images and the learning rate, against values computed by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made import make_image_cache
from numpy.typing import NDArray

from facegender.training.data.image_cache import ImageCache
from facegender.training.data.sampler import epoch_order, sampling_weights
from facegender.training.data.samples import Sample
from facegender.training.loop.lr_schedule import count_epochs, learning_rate
from facegender.training.recipe import TrainOptions

Indices = NDArray[np.int64]


def grouped(sizes: dict[tuple[str, str], int]) -> tuple[ImageCache, Indices]:
    samples = [
        Sample("a", f"{source}{label}{i}", label, source=source)
        for (source, label), size in sizes.items()
        for i in range(size)
    ]
    blank = [""] * len(samples)
    cache = make_image_cache(samples, blank, np.zeros((len(samples), 1, 1, 3), np.uint8))
    return cache, np.arange(len(samples), dtype=np.int64)


SIZES = {("web", "male"): 60, ("web", "female"): 25, ("film", "male"): 10, ("", "female"): 5}


def test_without_balance_each_image_is_sampled_once() -> None:
    cache, train = grouped(SIZES)
    weights = sampling_weights(cache, train[::2], 0.0)
    np.testing.assert_array_equal(weights, np.ones(50))
    order = epoch_order(train[::2], weights, 0, 0)
    np.testing.assert_array_equal(np.sort(order), train[::2])
    assert not np.array_equal(order, train[::2])


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_sampling_balance(balance: float) -> None:
    cache, train = grouped(SIZES)
    weights = sampling_weights(cache, train, balance)
    assert weights.sum() == pytest.approx(100)
    aims = {key: size ** (1 - balance) for key, size in SIZES.items()}
    shown = Counter(
        (cache.samples[i].source, cache.samples[i].label)
        for epoch in range(200)
        for i in epoch_order(train, weights, 1, epoch)
    )
    for key, aim in aims.items():
        expected = aim / sum(aims.values())
        of_group = [
            w for w, s in zip(weights, cache.samples, strict=True) if (s.source, s.label) == key
        ]
        assert sum(of_group) / 100 == pytest.approx(expected)
        assert shown[key] / 20_000 == pytest.approx(expected, abs=0.01)


def test_old_people_can_be_a_group_of_their_own() -> None:
    ages = ["25"] * 6 + ["70", "(60, 100)"]
    samples = [Sample("a", f"{i}", "male", source="web", age=age) for i, age in enumerate(ages)]
    blank = [""] * len(samples)
    cache = make_image_cache(samples, blank, np.zeros((len(samples), 1, 1, 3), np.uint8))
    train = np.arange(len(samples), dtype=np.int64)
    np.testing.assert_array_equal(sampling_weights(cache, train, 1.0), np.ones(8))
    weights = sampling_weights(cache, train, 1.0, ("source", "label", "over_60"))
    np.testing.assert_allclose(weights, [4 / 6] * 6 + [2.0] * 2)


def test_epoch_order_is_keyed_by_seed_and_epoch() -> None:
    cache, train = grouped(SIZES)
    weights = sampling_weights(cache, train, 0.7)
    orders = {
        (seed, epoch): epoch_order(train, weights, seed, epoch).tobytes()
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert epoch_order(train, weights, 2, 1).tobytes() == orders[2, 1]
    assert len(epoch_order(train, weights, 2, 1)) == len(train)


def test_epoch_order_is_full_if_weights_are_too_small() -> None:
    train = np.arange(10, dtype=np.int64)
    order = epoch_order(train, np.full(10, 0.05), 0, 0)
    assert len(order) == 10
    assert set(order) <= set(train)


def test_learning_rate() -> None:
    level = TrainOptions(learning_rate=0.4)
    assert {learning_rate(level, step, 10) for step in range(10)} == {0.4}
    warm = replace(level, warmup_fraction=0.3)
    assert [learning_rate(warm, step, 10) for step in range(5)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4]
    )
    cosine = replace(level, lr_schedule="cosine")
    assert [learning_rate(cosine, step, 4) for step in range(5)] == pytest.approx(
        [0.4, 0.4 * (1 + 0.5**0.5) / 2, 0.2, 0.4 * (1 - 0.5**0.5) / 2, 0.0]
    )
    both = [learning_rate(replace(warm, lr_schedule="cosine"), step, 100) for step in range(101)]
    assert max(both) == both[30] == 0.4
    assert both[100] == pytest.approx(0)
    assert all(later < sooner for sooner, later in pairwise(both[30:]))


@pytest.mark.parametrize(
    ("min_steps", "steps", "expected"),
    [(0, 5, 2), (10, 5, 2), (11, 5, 3), (12, 5, 3), (100, 1, 100), (100, 1000, 2)],
)
def test_min_steps_add_epochs(min_steps: int, steps: int, expected: int) -> None:
    assert count_epochs(TrainOptions(epochs=2, min_steps=min_steps), steps) == expected
