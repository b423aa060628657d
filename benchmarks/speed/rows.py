"""Every row of the table: what is measured against what. A row is a function of the bench."""

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

import given_up
import limits
import others
import profiles
from images import Bench, say
from measure import Row, floor, in_turns, predict, ratios
from PIL import Image

from facegender.faces.yunet import Letterbox, YuNet
from facegender.inference.preprocess import DETECTION_SIDE
from facegender.model.runtime import count_cores

HERE = Path(__file__).resolve().parent
SHOWN = 512
"""Pictures that a network is shown by itself."""

MOST_REPEATED = 10_000
"""Links up to which ``growth`` is measured in every round; more of them once."""

MEMORY_AT = 200_000
"""Pictures for which memory has an aim."""


def row_whole(bench: Bench) -> Row:
    """``predict --faces whole``, every network by every runtime, over the floor of the same run."""
    return {"target": 0.9} | {
        f"{name}, {runtime}": _over_floor(bench, name, runtime, "whole")
        for name in bench.models
        for runtime in bench.runtimes
    }


def row_auto(bench: Bench) -> Row:
    """``predict --faces auto`` over a floor that has the detector's graph in it; no target."""
    return {
        f"default, {runtime}": _over_floor(bench, "default", runtime, "auto")
        for runtime in bench.runtimes
    }


def _over_floor(bench: Bench, name: str, runtime: str, faces: str) -> Row:
    model, folder = bench.models[name], bench.crops(bench.images)
    files = sorted(folder.iterdir())[: bench.some]
    pixels = limits.shown(model, _spread(folder), faces)
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
            side = len(Letterbox.of(crop, *YuNet.scales(crop)[0]).pixels)
        bounds["detector"] = lambda: limits.detector_rate(side, count_cores(), bench.seconds)
    say(f"  {name}, {runtime}, {bench.images:,} pictures")
    found = in_turns(
        bench.rounds,
        **bounds,
        predict=lambda: bench.images / predict(folder, model, runtime, faces=faces)[0],
    )
    lowest = floor(*(found[bound] for bound in bounds))
    return {
        "pictures": bench.images,
        "network_tried": tried,
        "network_best": best,
        "decoder": limits.decoder_name(),
        "runs": found | {"floor": [round(rate, 1) for rate in lowest]},
        **ratios(found["predict"], lowest),
    }


def _spread(folder: Path) -> list[Path]:
    """Pictures from all over a folder, whose order is that of the data."""
    files = sorted(folder.iterdir())
    return files[:: max(1, len(files) // SHOWN)][:SHOWN]


def row_peak(bench: Bench) -> Row:
    """A large matrix product on all cores by several libraries, G multiply-adds a second."""
    rates = {
        name: partial(limits.product_rate, product, bench.seconds)
        for name, product in limits.products(bench.runtimes, count_cores()).items()
    }
    return {"unit": "G multiply-adds/s", "runs": in_turns(bench.rounds, **rates)}


def row_peers(bench: Bench) -> Row:
    """``predict`` (start and all) over each peer (its start not counted), on crops of one folder.

    Peers are asked twice: to find the face first, and to take each picture as the face. Ours by
    ``auto`` is held against the first, by ``whole`` against both.
    """
    files = sorted(bench.crops(bench.images).iterdir())[: bench.few]
    them: dict[str, Callable[[], float]] = {}
    missing: Row = {}
    for peer in others.published():
        try:
            others.peer_rate(peer, files[:2], whole=True)
        except Exception as error:  # not installed here: the row says so
            missing[peer.name] = str(error).splitlines()[0]
            continue
        for way, whole in (("finds faces", False), ("whole", True)):
            them[f"{peer.name} {peer.version}, {way}"] = partial(
                others.peer_rate, peer, files, whole
            )
    return _against(bench, them, ("whole", "auto")) | {
        "targets": {"fast": 6, "default": 3},
        "pictures_of_the_peers": bench.few,
        "missing": missing,
    }


def _against(bench: Bench, them: dict[str, Callable[[], float]], ways: tuple[str, ...]) -> Row:
    """Hold every network by every runtime against others; ``auto`` over fewer pictures."""
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
        for faces in ways
        for key in (f"{name}, {runtime}, {faces}",)
    }
    found = in_turns(bench.rounds, **them, **ours)
    over = {
        other: {
            key: ratios(found[key], found[other])
            for key in ours
            if not (key.endswith("auto") and other.endswith("whole"))
        }
        for other in them
    }
    return {"pictures": counts, "runs": found, "over": over, "megabytes": memory}


def row_user(bench: Bench) -> Row:
    """``predict`` over a torch script that loads all and asks a ResNet-18 at 224 one by one."""
    folder = bench.crops(bench.images)
    memory: list[float] = []

    def user() -> float:
        command = [sys.executable, str(HERE / "others.py"), str(folder), str(bench.few)]
        rate, peak = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        memory.append(round(peak, 1))
        return float(rate)

    each = 224 * 224 * 3 * 4 / 1e6
    row = _against(bench, {"the user's way": user}, ("whole",))
    return row | {
        "targets": {"fast": 40, "default": 20},
        "pictures_of_the_user": bench.few,
        "weights": "random",
        "megabytes_of_the_user": memory,
        "megabytes_a_picture_of_the_user": round(each, 2),
        "megabytes_of_the_user_with_all_pictures": round(
            statistics.median(memory) + each * (bench.images - bench.few)
        ),
    }


def row_photos(bench: Bench) -> Row:
    """Photos of 12 megapixels, faces found, over decoding alone at the scale that is looked at."""
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
    """Points of accuracy and of ``unknown`` given up for speed, on the validation split."""
    if bench.split is None:
        raise ValueError("name the split of the run: --split runs/best/split.csv")
    images = partial(given_up.validation, bench.archives(), bench.split)
    return {
        "target": "at most 0.1 points lost, unknown moved by at most 1",
        **given_up.of_arithmetic(images(bench.judged), bench.models, bench.runtimes),
        **given_up.of_decoding(images(bench.some), 1600, bench.models["default"]),
    }


def row_start(bench: Bench) -> Row:
    """Seconds of the whole command with ten pictures: its rows come together, at its end."""
    folder = bench.crops(10)
    result: Row = {"target": "under 0.7 s"}
    for faces in ("whole", "auto"):
        measures = {
            runtime: lambda runtime=runtime, faces=faces: predict(
                folder, bench.models["default"], runtime, faces=faces
            )[0]
            for runtime in bench.runtimes
        }
        found = in_turns(bench.rounds, **measures)
        result[faces] = {
            runtime: {"seconds": statistics.median(values), "runs": values}
            for runtime, values in found.items()
        }
    return result


def row_growth(bench: Bench) -> Row:
    """Time and memory over many links to few pictures: straight and flat."""
    name = "fast" if "fast" in bench.models else "default"
    runtime = bench.runtimes[-1]
    points = []
    for count in bench.growth:
        folder = bench.links(count)
        runs = []
        for _ in range(bench.rounds if count <= MOST_REPEATED else 1):
            runs.append(predict(folder, bench.models[name], runtime))
            say(f"    {count:,}: {runs[-1][0]:.1f} s, {runs[-1][1]:.0f} MB with reading processes")
        seconds, megabytes = (
            [round(each[at], digits) for each in runs] for at, digits in ((0, 2), (1, 0))
        )
        points.append(
            {
                "pictures": count,
                "seconds": statistics.median(seconds),
                "megabytes": statistics.median(megabytes),
                "runs": {"seconds": seconds, "megabytes": megabytes},
            }
        )
    most = min(MEMORY_AT, max(bench.growth))
    took, held = predict(bench.links(most), bench.models["default"], bench.runtimes[0])
    return {
        "target": "under 400 MB at 200,000",
        "network": f"{name}, {runtime}",
        "memory": "of the command and its reading processes together, what they share once (PSS)",
        "points": points,
        "default": {
            "pictures": most,
            "runtime": bench.runtimes[0],
            "seconds": round(took, 1),
            "megabytes": round(held),
        },
    }


def row_cores(bench: Bench) -> Row:
    """Throughput on two cores over one, by everything that runs."""
    if count_cores() < 2 or shutil.which("taskset") is None:
        raise OSError("needs two cores and taskset")
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
    """Pictures a second of ``predict --faces whole`` under way: two runs, their difference."""
    few = max(10, count // 10)
    times = [
        predict(bench.links(number, side), bench.models["default"], runtime, only=only)[0]
        for number in (few, few + count)
    ]
    return count / (times[1] - times[0])


def row_training(bench: Bench) -> Row:
    """Pictures a second of training steps over the same steps on tensors that are ready."""
    pairs = []
    for number in range(bench.rounds):
        pairs.append(_learning("training", bench.data, 256, bench.steps))
        say(f"    {number + 1}/{bench.rounds}: {pairs[-1][0]:.1f} of {pairs[-1][1]:.1f}")
    ours, ready = ([round(pair[at], 2) for pair in pairs] for at in (0, 1))
    return {"target": 0.95, "runs": {"train": ours, "tensors": ready}, **ratios(ours, ready)}


def row_audit(bench: Bench) -> Row:
    """A first ``audit`` of all archives and its stages, once; nothing is decoded beforehand."""
    found = _learning("audit", bench.place, bench.data / "faces.csv", *bench.labelled())
    minutes = found["seconds"] / found["pictures"] * 100_000 / 60
    return {
        "target": "100,000 pictures within 30 minutes, below 4 GB",
        **found,
        "minutes_of_100000": round(minutes, 1),
    }


def _learning(*arguments: object) -> Row:
    command = [sys.executable, str(HERE / "learning.py"), *map(str, arguments)]
    found: Row = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    return found


def row_shapes(bench: Bench) -> Row:
    """Pictures a second against the size of the pictures and the batch of the network."""
    sizes: Row = {}
    for side in (64, 200, 400, 800, 1600):
        count = max(20, min(bench.some, bench.some * 400 // side))
        rate = partial(_without_start, bench, count, side, bench.runtimes[0])
        sizes[str(side)] = {"pictures": count, **in_turns(bench.rounds, runs=rate)}
    model, tried = bench.models["default"], (1, 2, 4, 8, 16, 32, 64)
    pixels = limits.shown(model, _spread(bench.crops(bench.images)), "whole")
    batches = {
        runtime: limits.network_rates(model, runtime, count_cores(), bench.seconds, tried, pixels)
        for runtime in bench.runtimes
    }
    return {"sizes": sizes, "batches": batches}


def row_profile(bench: Bench) -> Row:
    """Where the time goes, by py-spy: percent of its samples in each stage."""
    folders = {
        "whole": bench.crops(bench.images),
        "auto": bench.crops(bench.some),
        "detect": bench.large(),
    }
    return {
        "what": "default network by ONNX Runtime, start included; detect: photos of 12 megapixels",
        "percent": {
            faces: profiles.shares(folder, bench.models["default"], faces)
            for faces, folder in folders.items()
        },
    }


ROWS: dict[str, Callable[[Bench], Row]] = {
    name.removeprefix("row_"): value
    for name, value in list(globals().items())
    if name.startswith("row_")
}
