"""The rows of the table. A row is a function of the bench and returns what it measured."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.accuracy.baselines import BASELINES
from benchmarks.speed import accuracy_loss, frameworks, limits, profiles
from benchmarks.speed.images import Bench, log
from benchmarks.speed.measure import Row, combined_rate, in_turns, predict, ratios
from facegender.faces.yunet import Letterbox, search_scales
from facegender.inference.preprocess import DETECTION_SIDE
from facegender.model.runtime import count_cores

NETWORK_IMAGES = 512
"""Images on which a network is measured alone."""

MAX_REPEATED = 10_000
"""Up to so many links ``growth`` is measured in every round; more of them once."""

TRAINING = "benchmarks.speed.training"
MEMORY_IMAGES = 200_000
"""Number of images for which memory has a target."""


def row_whole(bench: Bench) -> Row:
    """``predict --faces whole``, every network on every runtime, over the bound of its round."""
    return {"target": 0.9} | {
        f"{name}, {runtime}": _over_bound(bench, name, runtime, "whole")
        for name in bench.models
        for runtime in bench.runtimes
    }


def row_auto(bench: Bench) -> Row:
    """``predict --faces auto`` over a bound that includes the detector's graph; no target."""
    return {
        f"default, {runtime}": _over_bound(bench, "default", runtime, "auto")
        for runtime in bench.runtimes
    }


def _over_bound(bench: Bench, name: str, runtime: str, faces: str) -> Row:
    model, folder = bench.models[name], bench.crops(bench.images)
    files = sorted(folder.iterdir())[: bench.some]
    pixels = limits.preprocess(model, _spread(folder), faces)
    tried = limits.network_rates(model, runtime, count_cores(), bench.seconds, (16, 32, 64), pixels)
    best = max(tried, key=lambda key: tried[key])
    batch = int(best.split()[1].rstrip(","))
    bounds: dict[str, Callable[[], float]] = {
        "decode": lambda: limits.decode_rate(files, count_cores()),
        "network": lambda: limits.network_rates(
            model, runtime, count_cores(), bench.seconds, (batch,), pixels, best
        )[best],
    }
    if faces == "auto":
        with Image.open(files[0]) as crop:
            side = len(Letterbox.of(crop, *search_scales(max(crop.size))[0]).pixels)
        bounds["detector"] = lambda: limits.detector_rate(side, count_cores(), bench.seconds)
    log(f"  {name}, {runtime}, {bench.images:,} images")
    found = in_turns(
        bench.rounds,
        **bounds,
        predict=lambda: bench.images / predict(folder, model, runtime, faces=faces)[0],
    )
    bound = combined_rate(*(found[name] for name in bounds))
    return {
        "images": bench.images,
        "network_tried": tried,
        "network_best": best,
        "decoder": limits.decoder_name(),
        "runs": found | {"bound": [round(rate, 1) for rate in bound]},
        **ratios(found["predict"], bound),
    }


def _spread(folder: Path) -> list[Path]:
    """Pick files from all over a folder, whose order is that of the data."""
    files = sorted(folder.iterdir())
    return files[:: max(1, len(files) // NETWORK_IMAGES)][:NETWORK_IMAGES]


def row_peak(bench: Bench) -> Row:
    """A large matrix product on all cores with several libraries, G multiply-adds per second."""
    rates = {
        name: partial(limits.product_rate, product, bench.seconds)
        for name, product in limits.products(bench.runtimes, count_cores()).items()
    }
    return {"unit": "G multiply-adds/s", "runs": in_turns(bench.rounds, **rates)}


def row_baselines(bench: Bench) -> Row:
    """``predict``, start included, over each baseline without its start, on crops of one folder.

    Baselines are measured twice: detecting the face first, and taking each image as the face.
    ``auto`` is compared with the first, ``whole`` with both.
    """
    files = sorted(bench.crops(bench.images).iterdir())[: bench.few]
    rates: dict[str, Callable[[], float]] = {}
    missing: Row = {}
    for baseline in BASELINES:
        try:
            frameworks.baseline_rate(baseline, files[:2], full_image=True)
        except Exception as error:  # not installed here: the row says so
            missing[baseline.name] = str(error).splitlines()[0]
            continue
        for mode, full_image in (("detecting", False), ("full image", True)):
            rates[f"{baseline.name} {baseline.version}, {mode}"] = partial(
                frameworks.baseline_rate, baseline, files, full_image
            )
    return _against(bench, rates, ("whole", "auto")) | {
        "targets": {"fast": 6, "default": 3},
        "baseline_images": bench.few,
        "missing": missing,
    }


def _against(
    bench: Bench, others: dict[str, Callable[[], float]], face_modes: tuple[str, ...]
) -> Row:
    """Compare every network on every runtime with others; ``auto`` on fewer images."""
    counts = {"whole": bench.images, "auto": bench.some}
    memory: dict[str, list[float]] = {}

    def rate(key: str, model: Path, runtime: str, faces: str) -> float:
        count = counts[faces]
        seconds, peak = predict(bench.crops(count), model, runtime, faces=faces)
        memory.setdefault(key, []).append(round(peak))
        return count / seconds

    ours = {
        key: partial(rate, key, model, runtime, faces)
        for name, model in bench.models.items()
        for runtime in bench.runtimes
        for faces in face_modes
        for key in (f"{name}, {runtime}, {faces}",)
    }
    found = in_turns(bench.rounds, **others, **ours)
    over = {
        other: {
            key: ratios(found[key], found[other])
            for key in ours
            if not (key.endswith("auto") and other.endswith("full image"))
        }
        for other in others
    }
    return {"images": counts, "runs": found, "over": over, "megabytes": memory}


def row_torch_script(bench: Bench) -> Row:
    """``predict`` over a torch script that loads all images and runs a ResNet-18 one by one."""
    folder = bench.crops(bench.images)
    memory: list[float] = []

    def script() -> float:
        rate, peak = _run_module("benchmarks.speed.frameworks", folder, bench.few)
        memory.append(round(peak, 1))
        return float(rate)

    per_image = 224 * 224 * 3 * 4 / 1e6
    row = _against(bench, {"torch script": script}, ("whole",))
    return row | {
        "targets": {"fast": 40, "default": 20},
        "script_images": bench.few,
        "weights": "random",
        "script_megabytes": memory,
        "script_megabytes_per_image": round(per_image, 2),
        "script_megabytes_with_all_images": round(
            statistics.median(memory) + per_image * (bench.images - bench.few)
        ),
    }


def _run_module(module: str, *arguments: object) -> Any:
    """Run a module in a process of its own; return what its last line says, as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def row_photos(bench: Bench) -> Row:
    """Photos of 12 megapixels with face detection, over decoding alone at the detection scale."""
    folder = bench.large()
    files = sorted(folder.iterdir())
    result: Row = {"target": 0.6, "photos": len(files), "decoded_to_at_least": DETECTION_SIDE}
    for runtime in bench.runtimes:
        found = in_turns(
            bench.rounds,
            decode=lambda: limits.decode_rate(files, count_cores(), reduced=DETECTION_SIDE),
            predict=lambda: (
                len(files) / predict(folder, bench.models["default"], runtime, faces="detect")[0]  # noqa: B023
            ),
        )
        result[runtime] = {"runs": found, **ratios(found["predict"], found["decode"])}
    return result


def row_accuracy(bench: Bench) -> Row:
    """Points of accuracy and of ``unknown`` lost for speed, on the validation subset."""
    if bench.split is None:
        raise ValueError("the split of the run is needed: --split runs/best/split.csv")
    images = partial(accuracy_loss.validation, bench.archives(), bench.split)
    return {
        "target": "at most 0.1 points lost, unknown changed by at most 1",
        **accuracy_loss.measure_arithmetic(images(bench.validation), bench.models, bench.runtimes),
        **accuracy_loss.measure_decoding(images(bench.some), 1600, bench.models["default"]),
    }


def row_start(bench: Bench) -> Row:
    """Seconds of the whole command with ten images: their rows come together at the end."""
    folder = bench.crops(10)
    result: Row = {"target": "under 0.7 s"}
    for faces in ("whole", "auto"):
        measures = {
            runtime: partial(_seconds, folder, bench.models["default"], runtime, faces)
            for runtime in bench.runtimes
        }
        found = in_turns(bench.rounds, **measures)
        result[faces] = {
            runtime: {"seconds": statistics.median(values), "runs": values}
            for runtime, values in found.items()
        }
    return result


def _seconds(folder: Path, model: Path, runtime: str, faces: str) -> float:
    return predict(folder, model, runtime, faces=faces)[0]


def row_growth(bench: Bench) -> Row:
    """Time and memory over many links to few images; expected are linear time and flat memory."""
    name = "fast" if "fast" in bench.models else "default"
    runtime = bench.runtimes[-1]
    points = []
    for count in bench.growth:
        folder = bench.links(count)
        runs = []
        for _ in range(bench.rounds if count <= MAX_REPEATED else 1):
            runs.append(predict(folder, bench.models[name], runtime))
            log(f"    {count:,}: {runs[-1][0]:.1f} s, {runs[-1][1]:.0f} MB with worker processes")
        seconds = [round(each[0], 2) for each in runs]
        megabytes = [round(each[1]) for each in runs]
        points.append(
            {
                "images": count,
                "seconds": statistics.median(seconds),
                "megabytes": statistics.median(megabytes),
                "runs": {"seconds": seconds, "megabytes": megabytes},
            }
        )
    most = min(MEMORY_IMAGES, max(bench.growth))
    took, peak = predict(bench.links(most), bench.models["default"], bench.runtimes[0])
    return {
        "target": "under 400 MB at 200,000",
        "network": f"{name}, {runtime}",
        "memory": "of the command and its worker processes; shared memory counts once (PSS)",
        "points": points,
        "default": {
            "images": most,
            "runtime": bench.runtimes[0],
            "seconds": round(took, 1),
            "megabytes": round(peak),
        },
    }


def row_cores(bench: Bench) -> Row:
    """Throughput on two cores over one, for every runtime."""
    if count_cores() < 2 or shutil.which("taskset") is None:
        raise OSError("two cores and taskset are needed")
    first = tuple(sorted(os.sched_getaffinity(0))[:2])
    rate = partial(_without_start, bench, 5 * bench.some, 200)
    result: Row = {"target": 1.8}
    for runtime in bench.runtimes:
        found = in_turns(
            bench.rounds,
            one=partial(rate, runtime, only=first[:1]),
            two=partial(rate, runtime, only=first),
        )
        result[runtime] = {"runs": found, **ratios(found["two"], found["one"])}
    return result


def _without_start(
    bench: Bench, count: int, side: int, runtime: str, *, only: tuple[int, ...] = ()
) -> float:
    """Measure images per second of ``predict --faces whole``: the difference of two runs."""
    few = max(10, count // 10)
    times = [
        predict(bench.links(number, side), bench.models["default"], runtime, only=only)[0]
        for number in (few, few + count)
    ]
    return count / (times[1] - times[0])


def row_training(bench: Bench) -> Row:
    """Images per second of training steps over the same steps on tensors that are ready."""
    pairs = []
    for number in range(bench.rounds):
        pairs.append(_run_module(TRAINING, "training", bench.data, 256, bench.steps))
        log(f"    {number + 1}/{bench.rounds}: {pairs[-1][0]:.1f} of {pairs[-1][1]:.1f}")
    ours, ready = ([round(pair[i], 2) for pair in pairs] for i in (0, 1))
    return {"target": 0.95, "runs": {"train": ours, "tensors": ready}, **ratios(ours, ready)}


def row_audit(bench: Bench) -> Row:
    """A first ``audit`` of all archives and its stages, once, without an image cache."""
    table = bench.data / "faces.csv"
    found: Row = _run_module(TRAINING, "audit", bench.scratch, table, *bench.labeled())
    minutes = found["seconds"] / found["images"] * 100_000 / 60
    return {
        "target": "100,000 images within 30 minutes, below 4 GB",
        **found,
        "minutes_per_100000": round(minutes, 1),
    }


def row_shapes(bench: Bench) -> Row:
    """Images per second by the size of the images and the batch size of the network."""
    sizes: Row = {}
    for side in (64, 200, 400, 800, 1600):
        count = max(20, min(bench.some, bench.some * 400 // side))
        rate = partial(_without_start, bench, count, side, bench.runtimes[0])
        sizes[str(side)] = {"images": count, **in_turns(bench.rounds, runs=rate)}
    model, tried = bench.models["default"], (1, 2, 4, 8, 16, 32, 64)
    pixels = limits.preprocess(model, _spread(bench.crops(bench.images)), "whole")
    batches = {
        runtime: limits.network_rates(model, runtime, count_cores(), bench.seconds, tried, pixels)
        for runtime in bench.runtimes
    }
    return {"sizes": sizes, "batches": batches}


def row_profile(bench: Bench) -> Row:
    """Where the time is spent: percentage of py-spy's samples in each stage."""
    folders = {
        "whole": bench.crops(bench.images),
        "auto": bench.crops(bench.some),
        "detect": bench.large(),
    }
    return {
        "note": "default network on ONNX Runtime, start included; detect: photos of 12 megapixels",
        "percent": {
            faces: profiles.profile(folder, bench.models["default"], faces)
            for faces, folder in folders.items()
        },
    }


ROWS: dict[str, Callable[[Bench], Row]] = {
    name.removeprefix("row_"): value
    for name, value in list(globals().items())
    if name.startswith("row_")
}
