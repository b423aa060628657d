"""Accuracy of training with one process and with two, with three seeds each.

    python -m benchmarks.training.devices faces-0.tar.gz --metadata faces.csv \\
        --split runs/best/split.csv --runs runs -o benchmarks/results/devices.json

Six runs of ``quick``, two to three minutes each on two idle cores: with one process and with two
(gloo), and the seeds 0, 1 and 2. All use the same split, so the same validation images. Finished
runs are reused.
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
    options = parser.parse_args()
    found = {}
    for devices, seed in product((1, 2), SEEDS):
        run = options.runs / f"quick-{seed}-{devices}"
        if not (run / METRICS_NAME).is_file():
            command = [sys.executable, "-m", "facegender", "train", *map(str, options.archives)]
            command += ["--metadata", str(options.metadata), "--split", str(options.split)]
            command += ["--recipe", "quick", "--epochs", str(options.epochs), "--seed", str(seed)]
            subprocess.run([*command, "--devices", str(devices), "-o", str(run)], check=True)
        measured = json.loads((run / METRICS_NAME).read_text())["validation"]
        found[f"{devices} process{'es' * (devices > 1)}, seed {seed}"] = {
            "accuracy": measured["accuracy"],
            "log_loss": measured["log_loss"],
        }
    accuracies = [run["accuracy"]["value"] for run in found.values()]
    one, two = accuracies[: len(SEEDS)], accuracies[len(SEEDS) :]
    result = {
        "epochs": options.epochs,
        "runs": found,
        "mean_of_one_and_two": [round(fmean(one), 5), round(fmean(two), 5)],
        "range_of_one_and_two": [round(max(some) - min(some), 5) for some in (one, two)],
    }
    write_json(options.output, result)
    print(options.output.read_text())


if __name__ == "__main__":
    main()
