"""Show a training batch: images as the network is given them, with their labels."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from facegender.training.data.augmentation import denormalize
from facegender.training.data.dataloader import training_batch
from facegender.training.data.image_cache import cache_in_memory
from facegender.training.data.image_rows import read_rows
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.evaluation.gallery import contact_sheet
from facegender.training.recipe import Recipe, with_changes

_REPORT_EVERY = 100


def show_batch(
    recipe: Recipe,
    inputs: Sequence[Path],
    metadata: Path | None = None,
    *,
    classes: Mapping[str, str] = LABEL_FOLDERS,
    count: int = 32,
    seed: int | None = None,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Image.Image:
    """Draw a random batch of images as the first epoch of a training would show them.

    They are processed exactly as in training: decoded, cropped, augmented and normalized. Only the
    normalization is undone.

    Args:
        recipe: preprocessing and augmentation.
        inputs: archives or folders.
        metadata: metadata table, or None.
        classes: labels by folder name.
        count: number of images.
        seed: of selection and augmentation; None takes the recipe's.
        on_image: called with the number of images read.
        on_skip: called with the name and reason of each file that is not a sample.

    Returns:
        A contact sheet with a label under each image.

    Raises:
        InputError: an archive is missing, or has no readable image.
    """
    seed = recipe.train.seed if seed is None else seed
    stream = stream_samples(inputs, metadata, on_skip=on_skip, classes=classes)
    selected = _select(stream, count, seed, on_image)
    cache = cache_in_memory(selected, recipe.input.aligner)
    rows = np.arange(len(cache.samples), dtype=np.int64)
    x = training_batch(
        read_rows(cache.context_pixels, rows),
        cache.crop_matrices,
        rows,
        with_changes(recipe, epochs=None, seed=seed),
        0,
        torch.device("cpu"),
    )
    captions = [sample.label for sample in cache.samples]
    return contact_sheet(list(denormalize(x, recipe.input)), captions)


def _select(
    stream: Iterable[tuple[Sample, bytes]],
    count: int,
    seed: int,
    on_image: Callable[[int], None] | None,
) -> list[tuple[Sample, bytes]]:
    """Select samples of a stream uniformly at random; only these are in memory."""
    rng = np.random.default_rng(seed)
    selected: list[tuple[float, int, tuple[Sample, bytes]]] = []
    for done, item in enumerate(stream, 1):
        entry = (-float(rng.random()), done, item)
        if len(selected) < count:
            heapq.heappush(selected, entry)
        else:
            heapq.heappushpop(selected, entry)
        if on_image and done % _REPORT_EVERY == 0:
            on_image(done)
    return [item for _, _, item in sorted(selected, reverse=True)]
