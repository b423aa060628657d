"""Training by two processes beside training by one with three seeds.

    python benchmarks/training/devices.py faces-0.tar.gz --table faces.csv \\
        --split runs/best/split.csv --runs runs -o benchmarks/results/devices.json

Four runs of ``quick``, two minutes each on two idle cores: by one process with the seeds 0, 1 and
2, by two processes (gloo) with seed 0. All have the same split, so the same validation pictures.
Runs that are finished are taken as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from facegender.training.evaluation.evaluate import write_json
from facegender.training.run_folder import METRICS_NAME

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    found = {}
    for seed, devices in [*((seed, 1) for seed in SEEDS), (0, 2)]:
        run = given.runs / f"quick-{seed}-{devices}"
        if not (run / METRICS_NAME).is_file():
            command = [sys.executable, "-m", "facegender", "train", *map(str, given.archives)]
            command += ["--table", str(given.table), "--split", str(given.split)]
            command += ["--recipe", "quick", "--epochs", str(given.epochs), "--seed", str(seed)]
            subprocess.run([*command, "--devices", str(devices), "-o", str(run)], check=True)
        measured = json.loads((run / METRICS_NAME).read_text())["validation"]
        found[f"{devices} process{'es' * (devices > 1)}, seed {seed}"] = {
            "accuracy": measured["accuracy"],
            "log_loss": measured["log_loss"],
        }
    *by_one, by_two = (run["accuracy"]["share"] for run in found.values())
    result = {
        "epochs": given.epochs,
        "runs": found,
        "accuracy by one": [min(by_one), max(by_one)],
        "accuracy by two": by_two,
        "by two less the mean by one": round(by_two - sum(by_one) / len(by_one), 5),
    }
    write_json(given.output, result)
    print(given.output.read_text())


if __name__ == "__main__":
    main()
