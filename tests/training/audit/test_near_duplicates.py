"""Exact and near copies are found and joined, within a set and between two."""

from __future__ import annotations

import numpy as np
import pytest
from made import store_of
from PIL import Image

from facegender.training.audit.near_duplicates import Pictures, chain, find_copies, groups_of, join
from facegender.training.data.samples import Sample


def pictures(count: int = 5, seed: int = 0) -> Pictures:
    """Pictures of blurred noise, each unlike all others; features by chance."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (count, 12, 12, 3), dtype=np.uint8)
    pixels = np.stack([np.array(Image.fromarray(x).resize((128, 128), 3)) for x in small])
    samples = [Sample("a", f"male/{seed}-{n}.png", "male") for n in range(count)]
    store = store_of(samples, [f"{seed}b{n}" for n in range(count)], pixels)
    features = rng.normal(size=(count, 256)).astype(np.float16)
    return Pictures(store, [f"{seed}p{n}" for n in range(count)], features, np.ones(count, bool))


def with_copy(given: Pictures, row: int, of: int) -> None:
    given.store.pixels[row] = given.store.pixels[of][:, ::-1] // 2 + 60
    given.features[row] = given.features[of] * np.float16(1.01)


@pytest.mark.parametrize("count", [5, 300], ids=["all pairs", "proposed by features"])
def test_a_mirrored_duller_copy_is_found_and_nothing_else(count: int) -> None:
    given = pictures(count)
    with_copy(given, 3, 1)
    (pair,) = find_copies(given)
    assert (pair.row, pair.other, pair.kind, pair.mirrored) == (1, 3, "photo", True)
    assert pair.agreement > 0.97


def test_exact_copies_need_no_features() -> None:
    given = pictures()
    given.store.digests[4] = given.store.digests[0]
    given.digests[2] = given.digests[1]  # type: ignore[index]
    given.use[:] = False
    assert [(p.row, p.other, p.kind) for p in find_copies(given)] == [
        (0, 4, "bytes"),
        (1, 2, "pixels"),
    ]


def test_leaks_between_two_sets() -> None:
    first, second = pictures(6), pictures(4, seed=1)
    second.store.pixels[2] = first.store.pixels[5]
    second.store.digests[0] = first.store.digests[1]
    assert [(p.row, p.other, p.kind) for p in find_copies(first, second)] == [
        (1, 0, "bytes"),
        (5, 2, "photo"),
    ]
    second.use[2] = False
    assert len(find_copies(first, second)) == 1


def test_unreadable_pictures_are_no_copies_of_each_other() -> None:
    given = pictures(3)
    given.store.digests[:] = ["of no bytes", "of no bytes", "x"]
    given.store.errors[:] = ["empty file", "empty file", ""]
    assert find_copies(given) == []


def test_groups_are_joined_over_chains() -> None:
    numbers = join(6, [(0, 3), (3, 5), *chain(["", "k", "", "", "k", ""])])
    assert groups_of(numbers) == [(0, 3, 5), (1, 4)]
