"""Speed of ``predict``, compared with its upper bounds and with other frameworks, as ratios.

    python -m benchmarks.speed.run --data ../shared/data --split runs/best/split.csv \
        --fast runs/fast/model.onnx -o benchmarks/results/speed.json

Runs in the environment of ``facegender[train]`` with ``benchmarks/speed/requirements.txt``; the
baselines as ``benchmarks/accuracy/baselines.py`` says. It takes about 100 minutes on two idle
cores, of which the audit takes 17, growth 20 and making the images 3, once; nothing else should
run. Every row records the other load on the machine before it, and the processor. Each row is
written when it is done, and the same command continues where it was stopped: rows that the output
already has are kept, unless ``--again``. ``--rows`` names rows to run alone; ``--small`` tries
everything in a few minutes (its results mean nothing). Beside the output it writes a plot, and the
table that it prints.

What is compared is measured in turns, one round after the other; a ratio is the median over the
rounds, its spread the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import facegender
from benchmarks.speed.images import Bench, log
from benchmarks.speed.measure import Row
from benchmarks.speed.plots import draw
from benchmarks.speed.rows import ROWS
from benchmarks.speed.table import table
from facegender.model.model_file import shipped_model
from facegender.model.runtime import count_cores

PACKAGES = ("onnxruntime", "openvino", "simplejpeg", "pillow", "numpy", "torch", "torchvision")


def versions() -> Row:
    found = {"facegender": facegender.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def other_load() -> float | None:
    """Measure the fraction of all cores' time that is in use now; None unless on Linux."""

    def ticks() -> tuple[int, int]:
        counts = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(counts), sum(counts) - counts[3] - counts[4]  # without idle and iowait

    try:
        before = ticks()
        time.sleep(2.0)
        total, used = (now - then for now, then in zip(ticks(), before, strict=True))
    except OSError:
        return None
    return round(used / total, 3)


def machine() -> Row:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": model or platform.processor(),
        "cores": count_cores(),
        "arithmetic": [flag for flag in flags if flag.startswith(("avx", "amx", "fma"))],
        "system": platform.platform(),
    }


@contextmanager
def scratch_folder(path: Path | None) -> Iterator[Path]:
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path.resolve()
        return
    folder = Path(tempfile.gettempdir(), "facegender-speed")  # kept for the next run
    folder.mkdir(exist_ok=True)
    yield folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", type=Path, default=shipped_model(), metavar="FILE.onnx")
    parser.add_argument(
        "--fast", type=Path, metavar="FILE.onnx", help="the model file of that recipe"
    )
    parser.add_argument(
        "--also",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="another model file, such as: int8 f.onnx",
    )
    parser.add_argument(
        "--split", type=Path, metavar="FILE.csv", help="of the run whose model ships"
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runtimes", nargs="+", help="default: onnxruntime, openvino")
    parser.add_argument("--images", type=int, default=20_000, help="for most rows")
    parser.add_argument("--some", type=int, default=2000, help="images for the other rows")
    parser.add_argument("--few", type=int, default=100, help="images for baselines and torch")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4, help="of training, per round")
    parser.add_argument(
        "--growth",
        type=int,
        nargs="+",
        default=[1000, 10_000, 100_000, 200_000, 1_000_000],
        metavar="LINKS",
    )
    parser.add_argument("--audited", type=int, default=0, help="images to audit; 0: all")
    parser.add_argument("--validation", type=int, help="validation images; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="per bound and round")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for the images; kept")
    parser.add_argument("--again", action="store_true", help="also rows that exist")
    parser.add_argument("--small", action="store_true", help="only try everything")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    if options.small:
        options.images, options.some, options.few, options.photos = 120, 60, 8, 4
        options.steps, options.growth, options.rounds, options.seconds = 1, [100, 400], 2, 0.1
        options.audited, options.validation = 400, 100
    models = {"default": options.model} | ({"fast": options.fast} if options.fast else {})
    models |= {name: Path(file) for name, file in options.also}
    installed = ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)
    result: Row = {"rows": {}}
    if options.output.exists():
        result = json.loads(options.output.read_text())
    command = "python -m benchmarks.speed.run " + " ".join(
        Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]
    )
    with scratch_folder(options.scratch) as scratch:
        bench = Bench(
            data=options.data.resolve(),
            scratch=scratch,
            split=options.split and options.split.resolve(),
            models={name: path.resolve() for name, path in models.items()},
            runtimes=tuple(options.runtimes or installed),
            images=options.images,
            some=options.some,
            few=options.few,
            photos=options.photos,
            steps=options.steps,
            growth=tuple(options.growth),
            audited=options.audited,
            validation=options.validation,
            rounds=options.rounds,
            seconds=options.seconds,
        )
        began = time.monotonic()
        for number, name in enumerate(options.rows, 1):
            if name in result["rows"] and not options.again:
                log(f"{name}: exists")
                continue
            log(
                f"{name} ({number} of {len(options.rows)}, {time.monotonic() - began:.0f} s so far)"
            )
            load = other_load()
            row_began = time.monotonic()
            try:
                row = ROWS[name](bench)
            except Exception as error:
                log(f"  {name} failed: {type(error).__name__}: {error}")
                continue
            row["measured"] = {
                "when": datetime.now(UTC).isoformat(timespec="minutes"),
                "took_seconds": round(time.monotonic() - row_began),
                "other_load": load,
                "rounds": options.rounds,
                "is_trial": options.small,
                "command": command,
                "machine": machine(),
                "versions": versions(),
            }
            result["rows"][name] = row
            options.output.parent.mkdir(parents=True, exist_ok=True)
            unfinished = options.output.with_suffix(".tmp")
            unfinished.write_text(json.dumps(result, indent=1) + "\n")
            unfinished.replace(options.output)
    draw(result["rows"], options.output.with_suffix(".png"))
    text = table(result)
    options.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
