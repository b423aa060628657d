"""What the network sees: a training batch with the normalisation undone, labels under it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from facegender.training.data.augmentation import denormalize
from facegender.training.data.dataloader import training_batch
from facegender.training.data.image_cache import cache_in_memory
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.evaluation.gallery import contact_sheet
from facegender.training.recipe import Recipe, with_changes


def show_batch(
    recipe: Recipe,
    inputs: Sequence[Path],
    table: Path | None = None,
    *,
    count: int = 32,
    seed: int | None = None,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Image.Image:
    """Draw pictures out of archives and give them as the first epoch of a training would.

    They go the very way of the loop: read, cut, augmented, normalised; then only the normalisation
    is undone.

    Args:
        recipe: how pictures are cut, augmented and normalised.
        inputs: archives or folders.
        table: as for a training.
        count: how many pictures.
        seed: which pictures, and what is done to them; None takes the recipe's.
        on_image: called with the number of pictures looked through.
        on_skip: called with the name and reason of a member that was passed over.

    Raises:
        InputError: no such archive, or no readable picture in it.
    """
    seed = recipe.train.seed if seed is None else seed
    drawn = _draw(stream_samples(inputs, table, on_skip=on_skip), count, seed, on_image)
    cache = cache_in_memory(drawn, recipe.input.aligner)
    places = np.arange(len(cache.samples), dtype=np.int64)
    seeded = with_changes(recipe, epochs=None, seed=seed)
    x = training_batch(
        read_rows(cache.context_pixels, places),
        cache.crop_matrices,
        places,
        seeded,
        0,
        torch.device("cpu"),
    )
    captions = [sample.label for sample in cache.samples]
    return contact_sheet(list(denormalize(x, recipe.input)), captions)


def _draw(
    stream: Iterable[tuple[Sample, bytes]],
    count: int,
    seed: int,
    on_image: Callable[[int], None] | None,
) -> list[tuple[Sample, bytes]]:
    """Choose some of a stream at random, every one as likely; only these are held in memory."""
    rng = np.random.default_rng(seed)
    kept: list[tuple[float, int, tuple[Sample, bytes]]] = []
    for done, item in enumerate(stream, 1):
        entry = (-float(rng.random()), done, item)
        if len(kept) < count:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
        if on_image and done % 100 == 0:
            on_image(done)
    return [item for _, _, item in sorted(kept, reverse=True)]
