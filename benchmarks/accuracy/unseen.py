"""Sources never trained on: leave one out, train, and measure on it.

    python benchmarks/accuracy/unseen.py --data ../shared/data --split runs/best/split.csv \
        --runs runs/unseen --recipe fast --epochs 2 -o benchmarks/results/unseen.json

For each source a network is trained from dlib's weights on all others (their test part left out as
ever) and measured on the whole source. The figures say how a recipe does on pictures of a kind that
it has not seen, and are what recipes are chosen by, beside validation; the network that ships has
seen all sources. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facegender.model_file import LABELS, MODEL_NAME
from facegender.training.evaluation.evaluate import write_json
from facegender.training.evaluation.measure import measure
from facegender.training.samples import Sample
from facegender.training.split import read_split, write_split

SOURCES = ("scut", "bollywood", "googleface", "adience", "utkface")
CORRECTIONS = Path("recipes/corrections.csv")


def train(without: str, given: argparse.Namespace) -> Path:
    """Train without one source, whose pictures all stand in the test part."""
    run = given.runs / f"without-{without}"
    if (run / MODEL_NAME).is_file():
        return run
    command = [sys.executable, "-m", "facegender", "train", "-o", str(run)]
    if (run / "run.json").is_file():
        command += ["--resume"]
    else:
        split = given.runs / f"without-{without}.csv"
        rows = [
            replace(row, part="test") if row.sample.source == without and row.part else row
            for row in read_split(given.split)
        ]
        # a group that has a picture of the source goes with it: nobody stands on two sides
        gone = {row.group for row in rows if row.part == "test" and row.group}
        rows = [replace(row, part="test") if row.group in gone else row for row in rows]
        given.runs.mkdir(parents=True, exist_ok=True)
        write_split(split, rows)
        command += [*map(str, archives(given.data)), "--table", str(given.data / "faces.csv")]
        command += ["--recipe", given.recipe, "--epochs", str(given.epochs), "--split", str(split)]
        command += ["--corrections", str(CORRECTIONS), "--pretrained", "dlib"]
    subprocess.run(command, check=True)
    return run


def archives(data: Path) -> list[Path]:
    return sorted(data.glob("faces-*.tar.gz"))


def measured(run: Path, source: str, given: argparse.Namespace) -> dict[str, Any]:
    """Score the run's test part and measure the source's pictures in it, of all ages."""
    scores = run / "unseen.csv"
    if not scores.is_file():
        command = [sys.executable, "-m", "facegender", "evaluate", str(run), "--part", "test"]
        command += [*map(str, archives(given.data)), "--table", str(given.data / "faces.csv")]
        subprocess.run([*command, "--scores", str(scores)], check=True)
    with scores.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    samples = [
        Sample(row["archive"], row["file"], row["label"], "", source, row["age"], row["race"])
        for row in rows
    ]
    p_male = np.array([float(row["p_male"]) for row in rows])
    labels = np.array([LABELS.index(sample.label) for sample in samples])
    return measure(samples, np.column_stack([1 - p_male, p_male]), labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    result: dict[str, Any] = {"recipe": given.recipe, "epochs": given.epochs, "sources": {}}
    for source in SOURCES:
        figures = measured(train(source, given), source, given)
        result["sources"][source] = figures
        write_json(given.output, result)
        worse = min(figures["recall"].values(), key=lambda recall: recall["share"])
        print(source, json.dumps({"balanced": figures["balanced_accuracy"], "worse": worse}))


if __name__ == "__main__":
    main()
