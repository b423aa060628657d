"""Accuracy on sources that a network was not trained on.

    python -m benchmarks.accuracy.held_out_sources --data ../shared/data \
        --split runs/best/split.csv --runs runs/held-out --recipe best --epochs 6 \
        --open-networks open-networks -o benchmarks/results/held_out_sources.json

For each source a network is trained from dlib's weights on all others (without their test images)
and measured on all images of the source, alone and in its ensemble. The results show how a recipe
does on images of an unseen kind, and recipes are chosen by them and by validation; the network that
ships has seen all sources. A stopped benchmark continues where it was.

The ensemble's two small networks learn from the run's training images, so not from the source
either; in the stored results they had learned from images of all sources, without labels. A recipe
without an [ensemble] is measured alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.run import utkface_groups
from facegender.files import write_json
from facegender.inference.classifier import Classifier
from facegender.model.model_file import MODEL_NAME
from facegender.training.console import Console
from facegender.training.data.samples import age_in_years
from facegender.training.data.split import SPLIT_NAME, read_split, write_split
from facegender.training.dataset import load_images
from facegender.training.ensemble.ensemble import TRAINED_NAME
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.evaluation.metrics import Metrics, compute_metrics
from facegender.training.run_folder import ENSEMBLE_FOLDER, REQUEST_NAME, open_run

SOURCES = ("scut", "bollywood", "googleface", "adience", "utkface")
CORRECTIONS = Path("recipes/corrections.csv")


def train(source: str, options: argparse.Namespace) -> Path:
    """Train without one source: all its images are in the test subset. Return the run folder."""
    run: Path = options.runs / f"without-{source}"
    if (run / MODEL_NAME).is_file():
        return run
    command = [sys.executable, "-m", "facegender", "train", "-o", str(run)]
    if (run / REQUEST_NAME).is_file():
        command += ["--resume"]
    else:
        split = options.runs / f"without-{source}.csv"
        rows = [
            replace(row, subset="test") if row.sample.source == source and row.subset else row
            for row in read_split(options.split)
        ]
        # A duplicate group with an image of the source goes along: no group is split
        groups = {row.group for row in rows if row.subset == "test" and row.group}
        rows = [replace(row, subset="test") if row.group in groups else row for row in rows]
        options.runs.mkdir(parents=True, exist_ok=True)
        write_split(split, rows)
        archives = sorted(map(str, options.data.glob("faces-*.tar.gz")))
        command += [*archives, "--metadata", str(options.data / "faces.csv")]
        command += ["--recipe", options.recipe, "--epochs", str(options.epochs)]
        command += ["--split", str(split), "--corrections", str(CORRECTIONS)]
        command += ["--pretrained", "dlib"]
        if options.open_networks:
            command += ["--open-networks", str(options.open_networks)]
    subprocess.run(command, check=True)
    return run


def measure(model: Path, run: Path, source: str) -> dict[str, Any]:
    """Measure a model file on all images of the source that the run left out, with raw labels.

    Returns:
        Metrics of ``all`` images and of those ``from_13`` (aged 13 or more, or of unknown age), and
        the accuracy of UTKFace's ten ``groups``, ages 18 to 60.
    """
    request, recipe = open_run(None, None, run, resume=True)
    console = Console()
    cache = load_images(request, recipe, run, console)
    subsets = {
        (row.sample.archive, row.sample.file): row.subset for row in read_split(run / SPLIT_NAME)
    }
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
    from_13 = np.flatnonzero([age is None or age >= 13 for age in ages])

    def metrics(chosen: np.ndarray) -> Metrics:
        return compute_metrics(
            [samples[row] for row in chosen], probabilities[chosen], labels[chosen]
        )

    return {
        "groups": utkface_groups(samples, probabilities[:, 1].astype(np.float64)),
        "all": metrics(np.arange(len(rows))).to_dict(),
        "from_13": metrics(from_13).to_dict(),
    }


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
    parser.add_argument(
        "--open-networks", type=Path, metavar="FOLDER", help="for a recipe with an [ensemble]"
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    sources: dict[str, dict[str, Any]] = {}
    result = {"recipe": options.recipe, "epochs": options.epochs, "sources": sources}
    for source in options.sources:
        run = train(source, options)
        models = {"alone": run / MODEL_NAME}
        if options.open_networks:
            models = {
                "alone": run / ENSEMBLE_FOLDER / TRAINED_NAME,
                "ensemble": run / MODEL_NAME,
            }
        sources[source] = {}
        for name, model in models.items():
            metrics = measure(model, run, source)
            sources[source][name] = metrics
            write_json(options.output, result)
            for ages in ("all", "from_13"):
                recall = {label: one["value"] for label, one in metrics[ages]["recall"].items()}
                print(source, name, ages, metrics[ages]["balanced_accuracy"], recall, flush=True)


if __name__ == "__main__":
    main()
