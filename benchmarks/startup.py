"""Import time, cold start with ten small images, and installed size.

Run it with the Python of a virtual environment that has only the light install:

    .venv/bin/python -m benchmarks.startup --output benchmarks/results/startup.json

Times are of new processes, medians over the runs; a ratio below 1 is within its limit.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

LIMITS = {"cold_start_seconds": 1.5, "install_megabytes": 350.0}


def seconds(command: list[str], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(round(time.perf_counter() - began, 3))
    return times


def megabytes(folder: Path) -> float:
    sizes = (path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return round(sum(sizes) / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        for number in range(10):
            pixels = rng.integers(0, 255, (200, 200, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
        # isolated (-I), so that the checkout is not imported by accident
        predict = [sys.executable, "-I", "-m", "facegender", "predict", name]
        cold = seconds([*predict, "-o", f"{name}/results.json"], options.runs)
    bare = seconds([sys.executable, "-I", "-c", "pass"], options.runs)
    imports = seconds([sys.executable, "-I", "-c", "import facegender"], options.runs)
    measured = {
        "cold_start_seconds": statistics.median(cold),
        "install_megabytes": megabytes(Path(sys.prefix)),
    }
    result = {
        **measured,
        "cold_start_runs": cold,
        "import_seconds": round(statistics.median(imports) - statistics.median(bare), 3),
        **{f"{key}_over_limit": round(measured[key] / LIMITS[key], 3) for key in LIMITS},
        "limits": LIMITS,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("facegender", "onnxruntime", "numpy")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
