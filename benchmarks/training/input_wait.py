"""Fraction of the training time in which the loop waits for images.

    python -m benchmarks.training.input_wait ARCHIVE... --metadata faces.csv --recipe best \\
        --runs runs --steps 40 -o benchmarks/results/input_wait.json

Steps are the loop's own, on images drawn as in an epoch. Waiting is the time from the request of a
batch until its pixels, read from the image cache, are in memory; cropping and augmenting them is
counted separately, since the same processor does it (or the GPU, if there is one). Everything is
measured twice: with nothing of the image cache in memory, and with the same images again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from facegender.errors import StoppedError
from facegender.files import write_json
from facegender.training.data import dataloader
from facegender.training.data.dataloader import BatchLoader
from facegender.training.data.image_cache import (
    ImageCache,
    cache_folder,
    cache_path,
    open_image_cache,
)
from facegender.training.loop.devices import make_fabric
from facegender.training.loop.fit import fit_network
from facegender.training.loop.history import StepProgress
from facegender.training.models.networks import build_network
from facegender.training.recipe import Recipe, read_recipe

P = ParamSpec("P")
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="has the image cache")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    recipe, cache_root = read_recipe(options.recipe), cache_folder(options.runs / "benchmark")
    inputs = (options.archives, options.metadata, recipe.input.aligner, cache_root)
    cache = open_image_cache(*inputs)
    drop_page_cache(cache_path(*inputs))
    spent = {"get": 0.0, "prepare": 0.0}
    watch(spent)
    result = {
        name: measured(cache, recipe, options.steps, spent) for name in ("from disk", "from memory")
    }
    write_json(options.output, result)
    print(options.output.read_text())


def drop_page_cache(folder: Path) -> None:
    """Drop a folder's files from the page cache (Linux)."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def watch(spent: dict[str, float]) -> None:
    """Make the loader add up the seconds that it takes to get batches and to prepare them."""

    def timed(name: str, work: Callable[P, T]) -> Callable[P, T]:
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.perf_counter()
            result = work(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent[name] += time.perf_counter() - began
            return result

        return call

    of_epoch = BatchLoader.of_epoch

    def timed_epoch(*args: Any, **kwargs: Any) -> Iterator[Any]:
        batches = of_epoch(*args, **kwargs)
        take = timed("get", batches.__next__)
        with contextlib.suppress(StopIteration):
            while True:
                yield take()

    vars(dataloader)["training_batch"] = timed("prepare", dataloader.training_batch)
    setattr(BatchLoader, "of_epoch", timed_epoch)  # noqa: B010  (mypy refuses an assignment)


def measured(
    cache: ImageCache, recipe: Recipe, steps: int, spent: dict[str, float]
) -> dict[str, Any]:
    """Run some steps of a new run; return the fraction of their time spent on waiting."""
    ends: list[float] = []
    totals: list[dict[str, float]] = []

    def on_step(_: StepProgress) -> None:
        ends.append(time.perf_counter())
        totals.append(dict(spent))

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
    seconds = ends[-1] - ends[0]  # without the first step, which includes the setup
    spans = {name: totals[-1][name] - totals[0][name] for name in spent}
    done = len(ends) - 1
    cached_bytes = cache.pixels.nbytes + cache.context_pixels.nbytes
    return {
        "recipe": recipe.name,
        "cached_images": len(rows),
        "cached_gigabytes": round(cached_bytes / 1e9, 2),
        "batch_size": recipe.train.batch_size,
        "steps": done,
        "seconds": round(seconds, 2),
        "images_per_second": round(done * recipe.train.batch_size / seconds, 1),
        "waiting_fraction": round((spans["get"] - spans["prepare"]) / seconds, 5),
        "augmenting_fraction": round(spans["prepare"] / seconds, 5),
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {os.cpu_count()} cores",
        "load_average_at_end": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
