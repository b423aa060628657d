"""How long the loop waits for pictures: the share of an epoch's time spent on reading them.

    python benchmarks/training/input_wait.py ARCHIVE... --metadata faces.csv --recipe best \\
        --runs runs --steps 40 -o benchmarks/results/input_wait.json

Steps are the loop's own, on pictures drawn as an epoch draws them. Waiting is the time from asking
for a batch until its pixels are in memory, read from the store's file; cutting and augmenting them
is counted apart, as it is done by the same processor (or by the GPU, where there is one). All
is done twice: with nothing of the store in memory, and with the same pictures again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegender.errors import StoppedError
from facegender.files import write_json
from facegender.training.data import dataloader as loader
from facegender.training.data.dataloader import BatchLoader
from facegender.training.data.image_cache import ImageCache, cache_path, open_image_cache
from facegender.training.loop.devices import make_fabric
from facegender.training.loop.fit import fit_network
from facegender.training.models.networks import build_network
from facegender.training.recipe import Recipe, read_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where .store is")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    recipe, cache_root = read_recipe(given.recipe), given.runs / ".store"
    cache = open_image_cache(given.archives, given.table, recipe.input.aligner, cache_root)
    forget(cache_path(given.archives, given.table, recipe.input.aligner, cache_root))
    spent = {"getting": 0.0, "preparing": 0.0}
    watch(spent)
    result = {
        name: measured(cache, recipe, given.steps, spent)
        for name in ("from the disk", "again, the same pictures")
    }
    write_json(given.output, result)
    print(given.output.read_text())


def forget(folder: Path) -> None:
    """Have the system let go of what it holds of a folder's files in memory (Linux)."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def watch(spent: dict[str, float]) -> None:
    """Add up the seconds that the loop takes to get batches, and of these to prepare them."""

    def timed(name, work):
        def call(*args, **kwargs):
            began = time.perf_counter()
            result = work(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent[name] += time.perf_counter() - began
            return result

        return call

    epoch_of = BatchLoader.of_epoch

    def timed_epoch(*args, **kwargs):
        batches = epoch_of(*args, **kwargs)
        take = timed("getting", next)
        with contextlib.suppress(StopIteration):
            while True:
                yield take(batches)

    loader.training_batch = timed("preparing", loader.training_batch)
    BatchLoader.of_epoch = timed_epoch


def measured(
    cache: ImageCache, recipe: Recipe, steps: int, spent: dict[str, float]
) -> dict[str, Any]:
    """Take some steps of a new run; what they waited for, as shares of their time."""
    ends: list[float] = []
    seen: list[dict[str, float]] = []

    def on_step(_):
        ends.append(time.perf_counter())
        seen.append(dict(spent))

    rows = np.arange(len(cache.samples))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(StoppedError):
        fit_network(
            build_network(recipe.network.name, dropout=recipe.network.dropout),
            cache,
            rows,
            rows[:1],
            recipe,
            Path(folder),
            fabric=make_fabric(recipe, 1),
            should_stop=lambda: len(ends) > steps,
            on_step=on_step,
        )
    seconds = ends[-1] - ends[0]  # the first step, in which everything is set up, is left out
    spans = {name: seen[-1][name] - seen[0][name] for name in spent}
    done = len(ends) - 1
    return {
        "recipe": recipe.name,
        "pictures in the store": len(rows),
        "gigabytes of the store": round(
            (cache.pixels.nbytes + cache.context_pixels.nbytes) / 1e9, 2
        ),
        "batch": recipe.train.batch_size,
        "steps": done,
        "seconds": round(seconds, 2),
        "pictures per second": round(done * recipe.train.batch_size / seconds, 1),
        "waiting for pictures": round((spans["getting"] - spans["preparing"]) / seconds, 5),
        "cutting and augmenting them": round(spans["preparing"] / seconds, 5),
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {os.cpu_count()} cores",
        "load of the machine at the end": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
