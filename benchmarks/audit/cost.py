"""What an audit of all pictures costs: seconds and memory of the whole command, from scratch.

    python benchmarks/audit/cost.py ARCHIVE... --table faces.csv \\
        -o benchmarks/results/audit_cost.json

Nothing decoded before is used. Memory is the most that was resident at once, mapped files too
(``ru_maxrss``), so it is an upper limit of what the command needs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facegender.training.evaluation.evaluate import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--place", type=Path, help="where there is room for 130 kB a picture")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory(dir=given.place) as place:
        folder = Path(place) / "found"
        command = [sys.executable, "-m", "facegender", "audit", *map(str, given.archives)]
        command += ["-o", str(folder), "--quiet"]
        command += ["--table", str(given.table)] if given.table else []
        for name in ("from scratch", "again"):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            code = subprocess.run(command).returncode
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if code not in (0, 1):  # 1: some pictures are unreadable
                raise SystemExit(f"the audit ended with {code}")
            runs[name] = {
                "seconds": round(time.monotonic() - began, 1),
                "CPU seconds": round(
                    after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
                ),
                "load of the machine at the end": round(os.getloadavg()[0], 1),
            }
        counts = json.loads((folder / "audit.json").read_text())["counts"]
    count = counts["pictures"]
    seconds = runs["from scratch"]["seconds"]
    write_json(
        given.output,
        {
            "pictures": count,
            "cores": os.cpu_count(),
            "runs": runs,
            "minutes for 100,000 at that rate": round(seconds / count * 100_000 / 60, 1),
            "most gigabytes resident": round(after.ru_maxrss * 1024 / 1e9, 2),
        },
    )
    print(given.output.read_text())


if __name__ == "__main__":
    main()
