"""Speed of training steps and of the stages of an audit, measured in a process of its own."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def training_rates(data: Path, images: int, steps: int) -> tuple[float, float]:
    """Measure training steps as ``train`` does them and on tensors that are ready, in turns.

    Returns:
        Images per second of both, for recipe ``best``.
    """
    import tarfile
    import tempfile

    from facegender.training.data.image_cache import cache_in_memory
    from facegender.training.data.samples import Sample
    from facegender.training.loop import fit
    from facegender.training.loop.devices import make_fabric
    from facegender.training.models.networks import build_network
    from facegender.training.recipe import read_recipe

    recipe = read_recipe("best")
    with tarfile.open(data / "faces-0.tar.gz") as tar:
        some = []
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and member.name.endswith(".webp"):
                label = "male" if "male" in member.name.split("/")[:-1] else "female"
                some.append((Sample("faces-0", member.name, label), stream.read()))
            if len(some) == images:
                break
    cache = cache_in_memory(some, recipe.input.aligner)
    batch = recipe.train.batch_size
    order = np.resize(np.arange(len(cache.labels)), batch * (steps + 1))
    network = build_network(recipe.network.name)
    seconds = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        loop = fit._Loop(network, cache, recipe, Path(folder), make_fabric(recipe, 1))
        batches = loop.loader.of_epoch(order, 0)
        ready = next(batches)
        loop.steps, loop.epochs = 10, 1
        loop.step(ready)  # warm up
        for _ in range(steps):
            began = time.perf_counter()
            loop.step(next(batches))
            seconds[0] += time.perf_counter() - began
            began = time.perf_counter()
            loop.step(ready)
            seconds[1] += time.perf_counter() - began
    return batch * steps / seconds[0], batch * steps / seconds[1]


def audit_stages(archives: list[Path], table: Path, cache_root: Path) -> dict[str, Any]:
    """Audit archives for the first time; measure the seconds of each stage, and the peak in MB.

    The peak includes the memory-mapped pixels of the image cache, which the system can reclaim.
    """
    from facegender.training.audit import audit as module
    from facegender.training.console import Console

    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = work(*args, **kwargs)
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began
            return result

        return call

    for stage, name in (
        ("reading", "_read_images"),
        ("decoding, face detection and alignment", "open_image_cache"),
        ("embeddings", "read_embeddings"),
        ("near duplicates", "find_near_duplicates"),
        ("label issues", "find_label_issues"),
        ("writing", "write_findings"),
    ):
        setattr(module, name, timed(stage, getattr(module, name)))
    began = time.perf_counter()
    found = module.audit(
        archives,
        cache_root / "audit",
        metadata=table,
        cache_root=cache_root,
        console=Console(quiet=True),
    )
    total = time.perf_counter() - began
    reading = seconds.pop("reading")
    within = ("decoding, face detection and alignment", "embeddings")
    seconds["decoding again, for image statistics"] = reading - sum(
        seconds[name] for name in within
    )
    seconds["everything else"] = total - sum(seconds.values())
    return {
        "images": len(found.audited.cache.samples),
        "seconds": round(total, 1),
        "stages": {stage: round(value, 2) for stage, value in seconds.items()},
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    import json
    import tempfile

    what, data, *arguments = sys.argv[1:]
    if what == "training":
        print(json.dumps(training_rates(Path(data), *map(int, arguments))))
    else:
        with tempfile.TemporaryDirectory(dir=data) as cache_root:
            table, *archives = map(Path, arguments)
            print(json.dumps(audit_stages(archives, table, Path(cache_root))))
