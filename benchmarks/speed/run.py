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
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from measure import Row
from pictures import Bench, say
from plots import draw
from rows import ROWS
from table import table

from facegender.model_file import shipped_model
from facegender.runtime import cores

PACKAGES = ("facegender", "onnxruntime", "openvino", "simplejpeg", "pillow", "numpy", "torch")


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
