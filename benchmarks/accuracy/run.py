"""Accuracy of one or more model files and of the baselines, with intervals and plots.

    python -m benchmarks.accuracy.run MODEL... --data ../shared/data \
        -o benchmarks/results/accuracy

Every model file is run on the test subset of the data (20 %, grouped by person and content; always
the same images, see ``split.py``), as they are and corrupted (``corruptions.py``); the baselines
(``baselines.py``) on as many of its images as ``--baselines`` says. ``accuracy.json`` is computed
from ``predictions.csv`` beside it, and the plots from ``accuracy.json``. A stopped benchmark
continues where it was. Results of models that are not named now are kept, and those of the
baselines with ``--baselines 0``.

Metrics are given for the ``raw`` labels of the data and for ``corrected`` ones: ``labels.csv`` has
the labels of test images that were reviewed without any network's answer, a random sample among
them. An image whose label could not be told there keeps its raw one.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.accuracy.baselines import BASELINES
from benchmarks.accuracy.corruptions import CORRUPTIONS
from benchmarks.accuracy.dataset import LabeledImage, draw_images, read_images
from benchmarks.accuracy.plots import draw
from facegender import Classifier
from facegender.files import write_json
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.console import Console
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.samples import Sample, age_in_years
from facegender.training.evaluation.metrics import GROUPINGS, compute_metrics, proportion

REVIEWED_LABELS = Path(__file__).parent / "labels.csv"
BATCH_SIZE = 256
CORRUPTED_IMAGES = 1_500


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: which images, by which labels, and the accuracy aimed at."""

    name: str
    includes: Callable[[Sample], bool]
    accuracy: float
    labels: str


def is_adult(sample: Sample) -> bool:
    years = age_in_years(sample.age)
    return years is not None and 21 <= years <= 60


def is_from_13(sample: Sample) -> bool:
    years = age_in_years(sample.age)
    return years is None or years >= 13


TARGETS = (
    Target("UTKFace, ages 21 to 60", lambda s: s.source == "utkface" and is_adult(s), 0.98, "raw"),
    Target("UTKFace, ages from 13", lambda s: s.source == "utkface" and is_from_13(s), 0.97, "raw"),
    Target("CelebA crops", lambda s: s.source == "celeba", 0.993, "corrected"),
    Target("LFW, news photos", lambda s: s.source == "lfw", 0.99, "raw"),
    Target("web, ordinary portraits", lambda s: s.source == "web", 0.975, "raw"),
    Target("all sources, ages from 13 or unknown", is_from_13, 0.0, "corrected"),
    Target("all", lambda s: True, 0.0, "raw"),
)


class Predictions:
    """Answers on disk, a row for each system, corruption and image, appended as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], tuple[float, bool]] = {}
        if path.is_file():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    key = (row["system"], row["corruption"], row["sha256"])
                    self.rows[key] = (float(row["p_male"]), row["face_found"] == "1")
        else:
            path.write_text("system,corruption,sha256,p_male,face_found\n")

    def add(self, system: str, corruption: str, digest: str, p_male: float, found: bool) -> None:
        self.rows[system, corruption, digest] = (p_male, found)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([system, corruption, digest, f"{p_male:.5f}", int(found)])

    def missing(
        self, system: str, corruption: str, images: Sequence[LabeledImage]
    ) -> list[LabeledImage]:
        return [item for item in images if (system, corruption, item.digest) not in self.rows]

    def p_male(
        self, system: str, corruption: str, images: Sequence[LabeledImage]
    ) -> NDArray[np.float64]:
        return np.array([self.rows[system, corruption, item.digest][0] for item in images])

    def found(self, system: str, corruption: str, images: Sequence[LabeledImage]) -> float:
        """Fraction of the images in which a face was found."""
        return float(np.mean([self.rows[system, corruption, item.digest][1] for item in images]))


def run_model(
    name: str,
    classifier: Classifier,
    corruption: str,
    images: Sequence[LabeledImage],
    predictions: Predictions,
    console: Console,
) -> None:
    """Run a model on corrupted images, as ``predict`` does on their files."""
    missing = predictions.missing(name, corruption, images)
    if not missing:
        return
    with console.counting(f"{name}: {corruption}", len(missing)) as count:
        for start in range(0, len(missing), BATCH_SIZE):
            batch = missing[start : start + BATCH_SIZE]
            crops = [classifier.aligner(corrupt(item, corruption, classifier)) for item in batch]
            answers = classifier.probabilities(np.stack([crop.pixels for crop in crops]))
            for item, crop, row in zip(batch, crops, answers, strict=True):
                predictions.add(name, corruption, item.digest, float(row[1]), crop.face is not None)
            count(start + len(batch))


def corrupt(image: LabeledImage, corruption: str, classifier: Classifier) -> Pixels:
    """Corrupt an image; the random numbers are keyed by its digest."""
    pixels = decode(image.data)
    if corruption == "clean":
        return pixels
    face = classifier.aligner(pixels).face
    rng = np.random.default_rng(int(image.digest[:15], 16))
    return CORRUPTIONS[corruption](pixels, face.landmarks if face else None, rng)


def run_baselines(
    images: Sequence[LabeledImage], predictions: Predictions, console: Console
) -> None:
    """Run every baseline on the images as they are."""
    for baseline in BASELINES:
        missing = predictions.missing(baseline.name, "clean", images)
        if not missing:
            continue
        with console.counting(f"{baseline.name} {baseline.version}", len(missing)) as count:
            answers = baseline.run(decode(item.data) for item in missing)
            for done, (item, answer) in enumerate(zip(missing, answers, strict=True), 1):
                predictions.add(baseline.name, "clean", item.digest, answer.p_male, answer.found)
                count(done)


def shortcut_accuracy(
    test: Sequence[LabeledImage], other: Sequence[LabeledImage]
) -> dict[str, Any]:
    """Accuracy of a logistic regression on image size, file size and source alone."""
    columns = make_column_transformer(
        (StandardScaler(), [0, 1, 2]), (OneHotEncoder(handle_unknown="ignore"), [3])
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))

    def features(images: Sequence[LabeledImage]) -> NDArray[Any]:
        rows = [[item.width, item.height, len(item.data), item.sample.source] for item in images]
        return np.array(rows, dtype=object)

    model.fit(features(other), [item.sample.label for item in other])
    predicted = model.predict(features(test))
    return proportion(np.array([item.sample.label for item in test]) == predicted).to_dict()


def metrics(
    samples: Sequence[Sample], p_male: NDArray[np.float64], includes: Callable[[Sample], bool]
) -> dict[str, Any]:
    """Measure some images; those without an answer count as wrong."""
    rows = [row for row, sample in enumerate(samples) if includes(sample)]
    labels = np.array([LABELS.index(samples[row].label) for row in rows], np.int64)
    answers = p_male[rows]
    answers = np.where(np.isnan(answers), 1.0 - labels, answers)
    chosen = [samples[row] for row in rows]
    found = compute_metrics(chosen, np.column_stack([1 - answers, answers]), labels).to_dict()
    if len(rows) < len(samples):  # groups are given once, for all images
        for grouping in GROUPINGS:
            found.pop(grouping, None)
    return found


def mcnemar(
    samples: Sequence[Sample], first: NDArray[np.float64], second: NDArray[np.float64]
) -> dict[str, Any]:
    """Compare two systems on the same images: exact McNemar test on those where they differ."""
    labels = np.array([sample.label == "male" for sample in samples])
    is_first, is_second = (first > 0.5) == labels, (second > 0.5) == labels
    only_first, only_second = int((is_first & ~is_second).sum()), int((is_second & ~is_first).sum())
    differing = only_first + only_second
    p_value = binomtest(only_first, differing).pvalue if differing else 1.0
    return {"only_first": only_first, "only_second": only_second, "p_value": float(p_value)}


def utkface_groups(samples: Sequence[Sample], p_male: NDArray[np.float64]) -> dict[str, Any]:
    """Accuracy of UTKFace's ten groups by race and label, ages 18 to 60."""
    correct: dict[str, list[bool]] = {}
    for sample, value in zip(samples, p_male, strict=True):
        years = age_in_years(sample.age)
        if sample.source == "utkface" and sample.race and years and 18 <= years <= 60:
            group = f"{sample.race}, {'men' if sample.label == 'male' else 'women'}"
            correct.setdefault(group, []).append((value > 0.5) == (sample.label == "male"))
    return {name: proportion(np.array(correct[name])).to_dict() for name in sorted(correct)}


def model_results(
    name: str,
    test: Sequence[LabeledImage],
    labels: dict[str, Sequence[Sample]],
    corrupted: Sequence[LabeledImage],
    predictions: Predictions,
) -> dict[str, Any]:
    """Measure one model: targets, groups and corruptions."""
    p_male = predictions.p_male(name, "clean", test)
    label_of = {
        item.digest: sample.label for item, sample in zip(test, labels["corrected"], strict=True)
    }
    is_male = np.array([label_of[item.digest] == "male" for item in corrupted])
    return {
        "found": predictions.found(name, "clean", test),
        "targets": {
            target.name: {
                "target": target.accuracy,
                "labels": target.labels,
                **{kind: metrics(labels[kind], p_male, target.includes) for kind in labels},
            }
            for target in TARGETS
        },
        "groups": {kind: utkface_groups(labels[kind], p_male) for kind in labels},
        "corruptions": {
            corruption: {
                **proportion(
                    (predictions.p_male(name, corruption, corrupted) > 0.5) == is_male
                ).to_dict(),
                "found": predictions.found(name, corruption, corrupted),
            }
            for corruption in CORRUPTIONS
        },
    }


def compare_systems(
    names: Sequence[str],
    common: Sequence[LabeledImage],
    test: Sequence[LabeledImage],
    corrected: Sequence[Sample],
    predictions: Predictions,
) -> dict[str, Any]:
    """Measure all systems on the same images, with corrected labels."""
    sample_of = {item.digest: sample for item, sample in zip(test, corrected, strict=True)}
    samples = [sample_of[item.digest] for item in common]
    first = predictions.p_male(names[0], "clean", common)
    compared: dict[str, Any] = {}
    notes = {baseline.name: baseline.note for baseline in BASELINES}
    for system in (*names, *notes):
        p_male = predictions.p_male(system, "clean", common)
        compared[system] = {
            "note": notes.get(system, ""),
            "found": predictions.found(system, "clean", common),
            "targets": {
                target.name: metrics(samples, p_male, target.includes) for target in TARGETS
            },
            "first_against_this": mcnemar(samples, first, p_male),
        }
    return compared


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Format the results for a terminal."""
    for name, system in result["systems"].items():
        yield f"\n{name}"
        for target, values in system["targets"].items():
            for kind in ("raw", "corrected"):
                found = values[kind]["accuracy"]
                low, high = found["interval"]
                aim = f"  (target {values['target']:.1%})" if kind == values["labels"] else ""
                yield (
                    f"  {target:38} {kind:9} {found['value']:7.2%} of {found['count']:6,} "
                    f"[{low:.2%}, {high:.2%}]{aim}"
                )
        clean = system["corruptions"]["clean"]["value"]
        for corruption, values in system["corruptions"].items():
            yield f"  {corruption:20} {values['value']:7.2%} ({values['value'] - clean:+.2%})"
    for name, values in result.get("baselines", {}).items():
        for target, found in values["targets"].items():
            yield f"{name:16} {target:38} {found['accuracy']['value']:7.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--baselines", type=int, default=2_000, metavar="N", help="images for baselines; 0: none"
    )
    parser.add_argument(
        "--corruptions", type=int, default=CORRUPTED_IMAGES, metavar="N", help="images to corrupt"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    test, other = read_images(options.data, console)
    raw = [item.sample for item in test]
    reviewed = read_corrections(REVIEWED_LABELS).reviewed
    found = apply_corrections(raw, [item.digest for item in test], reviewed)
    corrected = [sample or item.sample for item, sample in zip(test, found, strict=True)]
    predictions = Predictions(options.output / "predictions.csv")
    result: dict[str, Any] = {
        "test": {
            "images": len(test),
            "reviewed": sum(item.digest[:16] in reviewed for item in test),
            "labels_changed": sum(a.label != b.label for a, b in zip(raw, corrected, strict=True)),
        },
        "size_bytes_and_source_alone": shortcut_accuracy(test, other),
        "systems": {},
    }
    common = draw_images(test, options.baselines)
    if options.baselines:
        run_baselines(common, predictions, console)
    models = {path.stem if path.is_file() else path.name: path for path in options.models}
    for name, path in models.items():
        classifier = Classifier.load(path)
        run_model(name, classifier, "clean", test, predictions, console)
        some = draw_images([item for item in test if is_from_13(item.sample)], options.corruptions)
        for corruption in CORRUPTIONS:
            run_model(name, classifier, corruption, some, predictions, console)
        labels: dict[str, Sequence[Sample]] = {"raw": raw, "corrected": corrected}
        result["systems"][name] = model_results(name, test, labels, some, predictions)
    if options.baselines:
        result["baselines"] = compare_systems(list(models), common, test, corrected, predictions)
    path = options.output / "accuracy.json"
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        others = earlier["systems"].keys() - models.keys()
        result["systems"] |= {name: earlier["systems"][name] for name in sorted(others)}
        result = earlier | result  # the baselines, if they are not run now
    write_json(path, result)
    draw(result, options.output)
    for line in lines(result):
        print(line)


if __name__ == "__main__":
    main()
