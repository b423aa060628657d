"""How fast ``predict`` is, against what bounds it and against what others do; every row a ratio.

    python benchmarks/speed/run.py --data ../shared/data --split runs/best/split.csv \
        --fast runs/fast/model.onnx -o benchmarks/results/speed.json

In the environment of ``facegender[train]`` with ``benchmarks/speed/requirements.txt``; the peers as
``benchmarks/accuracy/peers.py`` says. About 100 minutes on two idle cores, of which the audit takes
17, growth 20 and making the pictures 3, once; nothing else should run, and every row says how busy
the machine was with other things before it, and which processor it had. Each row is written when it
is done, and the same command goes on where it was stopped: rows that the output has already are
left as they are, unless ``--again``. ``--rows`` names rows to run alone, ``--small`` tries
everything out in a few minutes (its figures say nothing). Beside the output it leaves a plot and
the table that it prints.

What is compared is measured in turns, one round after the other; a ratio is the median over the
rounds, its spread the smallest and the largest of them.
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

from images import Bench, say
from measure import Row
from plots import draw
from rows import ROWS
from table import table

import facegender
from facegender.model.model_file import shipped_model
from facegender.model.runtime import count_cores

PACKAGES = ("onnxruntime", "openvino", "simplejpeg", "pillow", "numpy", "torch", "torchvision")


def versions() -> Row:
    found = {"facegender": facegender.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def busy() -> float | None:
    """The share of all cores' time that others take now, 0 to 1; None where Linux is not."""

    def ticks() -> tuple[int, int]:
        counts = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(counts), sum(counts) - counts[3] - counts[4]  # but idle, and waiting for a disk

    try:
        before = ticks()
        time.sleep(2.0)
        whole, used = (after - at for after, at in zip(ticks(), before, strict=True))
    except OSError:
        return None
    return round(used / whole, 3)


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
    parser.add_argument("--split", type=Path, metavar="FILE.csv", help="of the run that ships")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runtimes", nargs="+", help="default: onnxruntime, and openvino if there")
    parser.add_argument("--pictures", type=int, default=20_000, help="of whole, auto, peers, user")
    parser.add_argument("--some", type=int, default=2000, help="pictures of the others")
    parser.add_argument("--few", type=int, default=100, help="for peers and the user's way")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4, help="of training, in each round")
    parser.add_argument(
        "--growth",
        type=int,
        nargs="+",
        default=[1000, 10_000, 100_000, 200_000, 1_000_000],
        metavar="LINKS",
    )
    parser.add_argument("--audited", type=int, default=0, help="pictures to audit; 0 is all")
    parser.add_argument("--judged", type=int, help="validation pictures; all where not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each limit in each round")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for the pictures; kept")
    parser.add_argument("--again", action="store_true", help="also rows that the output has")
    parser.add_argument("--small", action="store_true", help="only try it out")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    if given.small:
        given.images, given.some, given.few, given.photos = 120, 60, 8, 4
        given.steps, given.growth, given.rounds, given.seconds = 1, [100, 400], 2, 0.1
        given.audited, given.judged = 400, 100
    models = {"default": given.model} | ({"fast": given.fast} if given.fast else {})
    models |= {name: Path(file) for name, file in given.also}
    there = ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)
    result: Row = {"rows": {}}
    if given.output.exists():
        result = json.loads(given.output.read_text())
    command = "python benchmarks/speed/run.py " + " ".join(
        Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]
    )
    with scratch(given.scratch) as place:
        bench = Bench(
            data=given.data.resolve(),
            place=place,
            split=given.split and given.split.resolve(),
            models={name: path.resolve() for name, path in models.items()},
            runtimes=tuple(given.runtimes or there),
            images=given.images,
            some=given.some,
            few=given.few,
            photos=given.photos,
            steps=given.steps,
            growth=tuple(given.growth),
            audited=given.audited,
            judged=given.judged,
            rounds=given.rounds,
            seconds=given.seconds,
        )
        began = time.monotonic()
        for at, name in enumerate(given.rows, 1):
            if name in result["rows"] and not given.again:
                say(f"{name}: there already")
                continue
            say(f"{name} ({at} of {len(given.rows)}, {time.monotonic() - began:.0f} s so far)")
            others_busy = busy()
            row_began = time.monotonic()
            try:
                row = ROWS[name](bench)
            except Exception as error:
                say(f"  {name} failed: {type(error).__name__}: {error}")
                continue
            row["measured"] = {
                "when": datetime.now(UTC).isoformat(timespec="minutes"),
                "took_seconds": round(time.monotonic() - row_began),
                "others_busy": others_busy,
                "rounds": given.rounds,
                "is_trial": given.small,
                "command": command,
                "machine": machine(),
                "versions": versions(),
            }
            result["rows"][name] = row
            given.output.parent.mkdir(parents=True, exist_ok=True)
            unfinished = given.output.with_suffix(".tmp")
            unfinished.write_text(json.dumps(result, indent=1) + "\n")
            unfinished.replace(given.output)
    draw(result["rows"], given.output.with_suffix(".png"))
    text = table(result)
    given.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
