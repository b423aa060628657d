"""Memory and resume over many pictures: links to a few, so that only the names are many.

    python benchmarks/predict/soak.py faces --sizes 2000 200000 -o benchmarks/results/soak.json

Each size is one ``facegender predict`` of a folder of links, the whole command; its own peak of
memory is read while it runs (Linux), without the reading processes, whose memory does not depend
on how many pictures there are and stands beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from facegender.training.evaluation.evaluate import write_json


def memory(process: int) -> tuple[float, float]:
    """Give the peak of a process and the sum of its children's, in MB."""

    def peak(number: str) -> float:
        try:
            text = Path(f"/proc/{number}/status").read_text()
        except OSError:
            return 0.0
        line = next((line for line in text.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
        return int(line.split()[1]) / 1024

    children = Path(f"/proc/{process}/task/{process}/children")
    numbers = children.read_text().split() if children.exists() else []
    return peak(str(process)), sum(map(peak, numbers))


def run(sources: list[Path], count: int, faces: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "out.json")
        photos.mkdir()
        for n in range(count):
            (photos / f"photo_{n}.jpg").symlink_to(sources[n % len(sources)])
        command = [sys.executable, "-m", "facegender", "predict", str(photos), "-o", str(out), "-q"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--faces", faces])
        own = others = 0.0
        while process.poll() is None:
            now, beside = memory(process.pid)
            own, others = max(own, now), max(others, beside)
            time.sleep(0.2)
        seconds = time.perf_counter() - began
        assert process.returncode == 0 and len(json.loads(out.read_text())) == count
    return {
        "pictures": count,
        "seconds": round(seconds, 1),
        "megabytes": round(own, 1),
        "megabytes_of_reading_processes": round(others, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="pictures to link to")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 200_000])
    parser.add_argument("--faces", default="whole")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    sources = [path.resolve() for path in sorted(given.folder.iterdir()) if path.suffix == ".jpg"]
    rows = [run(sources, size, given.faces) for size in given.sizes]
    first, last = rows[0], rows[-1]
    grown = (last["megabytes"] - first["megabytes"]) * 1e6 / (last["pictures"] - first["pictures"])
    result = {"faces": given.faces, "runs": rows, "bytes_a_picture": round(grown)}
    write_json(given.output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
