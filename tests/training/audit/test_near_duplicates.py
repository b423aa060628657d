"""Exact and near duplicates are found and grouped, within a set and between two."""

from __future__ import annotations

import numpy as np
import pytest
from made import make_image_cache
from PIL import Image

from facegender.training.audit.near_duplicates import (
    ComparedImages,
    find_near_duplicates,
    link_equal,
    list_groups,
    number_groups,
)
from facegender.training.data.samples import Sample


def images(count: int = 5, seed: int = 0) -> ComparedImages:
    """Images of blurred noise, each unlike all others, with random embeddings."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (count, 12, 12, 3), dtype=np.uint8)
    pixels = np.stack([np.array(Image.fromarray(x).resize((128, 128), 3)) for x in small])
    samples = [Sample("a", f"male/{seed}-{n}.png", "male") for n in range(count)]
    cache = make_image_cache(samples, [f"{seed}b{n}" for n in range(count)], pixels)
    embeddings = rng.normal(size=(count, 256)).astype(np.float16)
    return ComparedImages(
        cache, [f"{seed}p{n}" for n in range(count)], embeddings, np.ones(count, bool)
    )


def add_duplicate(given: ComparedImages, row: int, of: int) -> None:
    given.cache.pixels[row] = given.cache.pixels[of][:, ::-1] // 2 + 60
    given.embeddings[row] = given.embeddings[of] * np.float16(1.01)


@pytest.mark.parametrize("count", [5, 300], ids=["all pairs", "proposed by embeddings"])
def test_a_mirrored_duplicate_of_lower_contrast_is_found_and_nothing_else(count: int) -> None:
    given = images(count)
    add_duplicate(given, 3, 1)
    (pair,) = find_near_duplicates(given)
    assert (pair.row, pair.other, pair.kind, pair.mirrored) == (1, 3, "near", True)
    assert pair.correlation > 0.97


def test_exact_duplicates_need_no_embeddings() -> None:
    given = images()
    given.cache.digests[4] = given.cache.digests[0]
    given.digests[2] = given.digests[1]  # type: ignore[index]
    given.usable[:] = False
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
        (5, 2, "near"),
    ]
    second.usable[2] = False
    assert len(find_near_duplicates(first, second)) == 1


def test_unreadable_images_are_no_duplicates_of_each_other() -> None:
    given = images(3)
    given.cache.digests[:] = ["of no bytes", "of no bytes", "x"]
    given.cache.errors[:] = ["empty file", "empty file", ""]
    assert find_near_duplicates(given) == []


def test_groups_are_joined_over_chains() -> None:
    numbers = number_groups(6, [(0, 3), (3, 5), *link_equal(["", "k", "", "", "k", ""])])
    assert list_groups(numbers) == [(0, 3, 5), (1, 4)]
