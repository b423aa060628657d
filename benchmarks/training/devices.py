"""Training by two processes beside training by one, with three seeds each.

    python benchmarks/training/devices.py faces-0.tar.gz --metadata faces.csv \\
        --split runs/best/split.csv --runs runs -o benchmarks/results/devices.json

Six runs of ``quick``, two to three minutes each on two idle cores: by one process and by two (gloo)
with the seeds 0, 1 and 2. All have the same split, so the same validation pictures. Runs that are
finished are taken as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import fmean

from facegender.files import write_json
from facegender.training.run_folder import METRICS_NAME

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    found = {}
    for devices, seed in product((1, 2), SEEDS):
        run = given.runs / f"quick-{seed}-{devices}"
        if not (run / METRICS_NAME).is_file():
            command = [sys.executable, "-m", "facegender", "train", *map(str, given.archives)]
            command += ["--metadata", str(given.table), "--split", str(given.split)]
            command += ["--recipe", "quick", "--epochs", str(given.epochs), "--seed", str(seed)]
            subprocess.run([*command, "--devices", str(devices), "-o", str(run)], check=True)
        measured = json.loads((run / METRICS_NAME).read_text())["validation"]
        found[f"{devices} process{'es' * (devices > 1)}, seed {seed}"] = {
            "accuracy": measured["accuracy"],
            "log_loss": measured["log_loss"],
        }
    shares = [run["accuracy"]["value"] for run in found.values()]
    by_one, by_two = shares[: len(SEEDS)], shares[len(SEEDS) :]
    result = {
        "epochs": given.epochs,
        "runs": found,
        "mean by one, by two": [round(fmean(by_one), 5), round(fmean(by_two), 5)],
        "spread by one, by two": [round(max(some) - min(some), 5) for some in (by_one, by_two)],
    }
    write_json(given.output, result)
    print(given.output.read_text())


if __name__ == "__main__":
    main()
