"""Exact and near copies are found and joined, within a set and between two."""

from __future__ import annotations

import numpy as np
import pytest
from made import store_of
from PIL import Image

from facegender.training.audit.near_duplicates import (
    ComparedImages,
    chain,
    find_near_duplicates,
    group_pairs,
    join,
)
from facegender.training.data.samples import Sample


def images(count: int = 5, seed: int = 0) -> ComparedImages:
    """Pictures of blurred noise, each unlike all others; features by chance."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (count, 12, 12, 3), dtype=np.uint8)
    pixels = np.stack([np.array(Image.fromarray(x).resize((128, 128), 3)) for x in small])
    samples = [Sample("a", f"male/{seed}-{n}.png", "male") for n in range(count)]
    cache = store_of(samples, [f"{seed}b{n}" for n in range(count)], pixels)
    features = rng.normal(size=(count, 256)).astype(np.float16)
    return ComparedImages(
        cache, [f"{seed}p{n}" for n in range(count)], features, np.ones(count, bool)
    )


def with_copy(given: ComparedImages, row: int, of: int) -> None:
    given.cache.pixels[row] = given.cache.pixels[of][:, ::-1] // 2 + 60
    given.features[row] = given.features[of] * np.float16(1.01)


@pytest.mark.parametrize("count", [5, 300], ids=["all pairs", "proposed by features"])
def test_a_mirrored_duller_copy_is_found_and_nothing_else(count: int) -> None:
    given = images(count)
    with_copy(given, 3, 1)
    (pair,) = find_near_duplicates(given)
    assert (pair.row, pair.other, pair.kind, pair.mirrored) == (1, 3, "photo", True)
    assert pair.agreement > 0.97


def test_exact_copies_need_no_features() -> None:
    given = images()
    given.cache.digests[4] = given.cache.digests[0]
    given.digests[2] = given.digests[1]  # type: ignore[index]
    given.use[:] = False
    assert [(p.row, p.other, p.kind) for p in find_near_duplicates(given)] == [
        (0, 4, "bytes"),
        (1, 2, "pixels"),
    ]


def test_leaks_between_two_sets() -> None:
    first, second = images(6), images(4, seed=1)
    second.cache.pixels[2] = first.cache.pixels[5]
    second.cache.digests[0] = first.cache.digests[1]
    assert [(p.row, p.other, p.kind) for p in find_near_duplicates(first, second)] == [
        (1, 0, "bytes"),
        (5, 2, "photo"),
    ]
    second.use[2] = False
    assert len(find_near_duplicates(first, second)) == 1


def test_unreadable_images_are_no_copies_of_each_other() -> None:
    given = images(3)
    given.cache.digests[:] = ["of no bytes", "of no bytes", "x"]
    given.cache.errors[:] = ["empty file", "empty file", ""]
    assert find_near_duplicates(given) == []


def test_groups_are_joined_over_chains() -> None:
    numbers = join(6, [(0, 3), (3, 5), *chain(["", "k", "", "", "k", ""])])
    assert group_pairs(numbers) == [(0, 3, 5), (1, 4)]
