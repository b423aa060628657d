"""The whole accuracy table of one or more model files, with peers, intervals and plots.

    python benchmarks/accuracy/run.py --data ../shared/data MODEL... -o benchmarks/results/accuracy

scores the test part of the data (20 %, by person and content; the part is the same for ever, see
``split.py``) with every model file and, on as many of its pictures as ``--peers`` says, with the
peers of ``peers.py``. Everything in ``accuracy.json`` is computed from the table of scores that is
written beside it, and the plots from ``accuracy.json``. A stopped run goes on where it was. What
``accuracy.json`` says of models that are not named now, and of peers with ``--peers 0``, is kept.

Figures are given on the labels as they come (``raw``) and with ``labels.csv`` put in
(``repaired``): test pictures that were looked at without any network's answer, a random sample
among them. A picture whose sex could not be told there keeps its label.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from conditions import CONDITIONS
from numpy.typing import NDArray
from peers import PEERS
from plots import draw
from scipy.stats import binomtest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from facegender import Classifier
from facegender.files import write_json
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.console import Console
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.samples import Sample, age_in_years, stream_samples
from facegender.training.data.split import assign_subsets
from facegender.training.evaluation.metrics import compute_metrics, proportion

REPAIRED = Path(__file__).parent / "labels.csv"
TEST_SHARE = 0.2
BATCH = 256
CONDITION_IMAGES = 1_500
Chosen = Callable[[Sample], bool]


@dataclass(frozen=True, slots=True)
class Picture:
    """One readable picture of the data."""

    sample: Sample
    digest: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: which pictures, by which labels, and the least accuracy aimed at."""

    name: str
    chosen: Chosen
    least: float
    labels: str


def adult(sample: Sample) -> bool:
    years = age_in_years(sample.age)
    return years is not None and 21 <= years <= 60


def from_13(sample: Sample) -> bool:
    years = age_in_years(sample.age)
    return years is None or years >= 13


TARGETS = (
    Target("UTKFace, ages 21 to 60", lambda s: s.source == "utkface" and adult(s), 0.98, "raw"),
    Target("UTKFace, ages from 13", lambda s: s.source == "utkface" and from_13(s), 0.97, "raw"),
    Target("CelebA crops", lambda s: s.source == "celeba", 0.993, "repaired"),
    Target("all sources, ages from 13 or unknown", from_13, 0.0, "repaired"),
    Target("all", lambda s: True, 0.0, "raw"),
)


def read_images(data: Path, console: Console) -> tuple[list[Picture], list[Picture]]:
    """Read the data; give the test part with its bytes, and the other parts without."""
    archives = sorted(data.glob("faces-*.tar.gz"))
    found: list[Picture] = []
    with console.counting("reading pictures") as count:
        for done, (sample, content) in enumerate(stream_samples(archives, data / "faces.csv"), 1):
            height, width = decode(content).shape[:2]
            found.append(Picture(sample, sha256(content).hexdigest(), content, width, height))
            if done % 500 == 0:
                count(done)
    subsets = assign_subsets(
        [item.sample for item in found], [item.digest for item in found], seed=0, test=TEST_SHARE
    )
    test = [item for item, row in zip(found, subsets, strict=True) if row.subset == "test"]
    other = [item for item, row in zip(found, subsets, strict=True) if row.subset != "test"]
    return test, other


class Table:
    """Scores on disk, a row for each picture and condition, appended as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], tuple[float, bool]] = {}
        if path.is_file():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    key = (row["system"], row["condition"], row["sha256"])
                    self.rows[key] = (float(row["p_male"]), row["found"] == "1")
        else:
            path.write_text("system,condition,sha256,p_male,found\n")

    def add(self, system: str, condition: str, digest: str, p_male: float, found: bool) -> None:
        self.rows[system, condition, digest] = (p_male, found)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([system, condition, digest, f"{p_male:.5f}", int(found)])

    def missing(self, system: str, condition: str, images: Sequence[Picture]) -> list[Picture]:
        return [item for item in images if (system, condition, item.digest) not in self.rows]

    def p_male(self, system: str, condition: str, images: Sequence[Picture]) -> NDArray[np.float64]:
        return np.array([self.rows[system, condition, item.digest][0] for item in images])

    def found(self, system: str, condition: str, images: Sequence[Picture]) -> float:
        return float(np.mean([self.rows[system, condition, item.digest][1] for item in images]))


def score(
    name: str,
    classifier: Classifier,
    condition: str,
    images: Sequence[Picture],
    table: Table,
    console: Console,
) -> None:
    """Score pictures under one condition, as ``predict`` would answer for their files."""
    todo = table.missing(name, condition, images)
    if not todo:
        return
    with console.counting(f"{name}: {condition}", len(todo)) as count:
        for start in range(0, len(todo), BATCH):
            some = todo[start : start + BATCH]
            framed = [classifier.aligner(worse(item, condition, classifier)) for item in some]
            answers = classifier.probabilities(np.stack([item.pixels for item in framed]))
            for item, seen, row in zip(some, framed, answers, strict=True):
                table.add(name, condition, item.digest, float(row[1]), seen.face is not None)
            count(start + len(some))


def worse(image: Picture, condition: str, classifier: Classifier) -> Pixels:
    """Make the picture that a condition asks for; its random choices are the picture's own."""
    pixels = decode(image.data)
    if condition == "clean":
        return pixels
    face = classifier.aligner(pixels).face
    rng = np.random.default_rng(int(image.digest[:15], 16))
    return CONDITIONS[condition](pixels, face.landmarks if face else None, rng)


def score_peers(images: Sequence[Picture], table: Table, console: Console) -> None:
    """Ask every peer about the pictures as they are."""
    for peer in PEERS:
        todo = table.missing(peer.name, "clean", images)
        if not todo:
            continue
        with console.counting(f"{peer.name} {peer.version}", len(todo)) as count:
            answers = peer.run(decode(item.data) for item in todo)
            for done, (item, answer) in enumerate(zip(todo, answers, strict=True), 1):
                table.add(peer.name, "clean", item.digest, answer.p_male, answer.found)
                count(done)


def sources_alone(test: Sequence[Picture], other: Sequence[Picture]) -> dict[str, Any]:
    """How far size, bytes and source tell the label, without a look at the picture."""
    facts = make_column_transformer(
        (StandardScaler(), [0, 1, 2]), (OneHotEncoder(handle_unknown="ignore"), [3])
    )
    model = make_pipeline(facts, LogisticRegression(max_iter=1000))

    def columns(images: Sequence[Picture]) -> NDArray[Any]:
        rows = [[p.width, p.height, len(p.data), p.sample.source] for p in images]
        return np.array(rows, dtype=object)

    model.fit(columns(other), [p.sample.label for p in other])
    told = model.predict(columns(test))
    return proportion(np.array([p.sample.label for p in test]) == told)


def metrics(
    samples: Sequence[Sample], p_male: NDArray[np.float64], chosen: Chosen
) -> dict[str, Any]:
    """Measure the chosen pictures; those without an answer count as wrong."""
    rows = [row for row, sample in enumerate(samples) if chosen(sample)]
    truth = np.array([LABELS.index(samples[row].label) for row in rows], np.int64)
    given = p_male[rows]
    given = np.where(np.isnan(given), 1.0 - truth, given)
    table = compute_metrics(
        [samples[row] for row in rows], np.column_stack([1 - given, given]), truth
    )
    if len(rows) < len(samples):  # the groups are given once, for all pictures
        for grouping in ("sources", "ages", "races"):
            table.pop(grouping, None)
    return table


def against(
    samples: Sequence[Sample], ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> dict[str, Any]:
    """Compare two systems on the same pictures: exact McNemar test on those they differ on."""
    truth = np.array([sample.label == "male" for sample in samples])
    right, other = (ours > 0.5) == truth, (theirs > 0.5) == truth
    only, missed = int((right & ~other).sum()), int((other & ~right).sum())
    test = binomtest(only, only + missed) if only + missed else None
    return {"only_ours": only, "only_theirs": missed, "p": test.pvalue if test else 1.0}


def groups(samples: Sequence[Sample], p_male: NDArray[np.float64]) -> dict[str, Any]:
    """Accuracy of UTKFace's ten groups of race and sex, ages 18 to 60."""
    table: dict[str, list[bool]] = {}
    for sample, value in zip(samples, p_male, strict=True):
        years = age_in_years(sample.age)
        if sample.source == "utkface" and sample.race and years and 18 <= years <= 60:
            group = f"{sample.race}, {'men' if sample.label == 'male' else 'women'}"
            table.setdefault(group, []).append((value > 0.5) == (sample.label == "male"))
    return {name: proportion(np.array(table[name])) for name in sorted(table)}


def drawn(images: Sequence[Picture], count: int) -> list[Picture]:
    """Draw pictures by their digests, the same for ever; copies only once."""
    single = {item.digest: item for item in images}
    order = sorted(single, key=lambda digest: sha256(digest.encode()).digest())
    return [single[digest] for digest in order[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--peers", type=int, default=2_000, metavar="N", help="Pictures for the peers; 0: none."
    )
    parser.add_argument("--conditions", type=int, default=CONDITION_IMAGES, metavar="N")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    test, other = read_images(given.data, console)
    raw = [item.sample for item in test]
    repairs = read_corrections(REPAIRED)
    repaired = [
        sample or item.sample
        for item, sample in zip(
            test, apply_corrections(raw, [item.digest for item in test], repairs), strict=True
        )
    ]
    looked = sum(item.digest[:16] in repairs for item in test)
    changed = sum(a.label != b.label for a, b in zip(raw, repaired, strict=True))
    table = Table(given.output / "predictions.csv")
    result: dict[str, Any] = {
        "test": {"pictures": len(test), "looked_at": looked, "labels_changed": changed},
        "size_bytes_and_source_alone": sources_alone(test, other),
        "systems": {},
    }
    common = drawn(test, given.peers)
    if given.peers:
        score_peers(common, table, console)
    names = dict(
        zip(
            (model.stem if model.is_file() else model.name for model in given.models),
            given.models,
            strict=True,
        )
    )
    for name, path in names.items():
        classifier = Classifier.load(path)
        score(name, classifier, "clean", test, table, console)
        some = drawn([item for item in test if from_13(item.sample)], given.conditions)
        for condition in CONDITIONS:
            score(name, classifier, condition, some, table, console)
        result["systems"][name] = report(name, test, raw, repaired, some, table)
    if given.peers:
        result["peers"] = beside(list(names), common, test, repaired, table)
    earlier = given.output / "accuracy.json"
    if earlier.is_file():
        known = json.loads(earlier.read_text(encoding="utf-8"))
        kept = known["systems"]
        result["systems"] |= {name: kept[name] for name in kept.keys() - names.keys()}
        result = known | result  # the peers, where they are not asked now
    write_json(earlier, result)
    draw(result, given.output)
    for line in lines(result):
        print(line)


def report(
    name: str,
    test: Sequence[Picture],
    raw: Sequence[Sample],
    repaired: Sequence[Sample],
    some: Sequence[Picture],
    table: Table,
) -> dict[str, Any]:
    """All figures of one of our networks."""
    p_male = table.p_male(name, "clean", test)
    labels = {"raw": raw, "repaired": repaired}
    truth = {item.digest: sample.label for item, sample in zip(test, repaired, strict=True)}
    return {
        "found": table.found(name, "clean", test),
        "targets": {
            target.name: {
                "least": target.least,
                "labels": target.labels,
                **{kind: metrics(labels[kind], p_male, target.chosen) for kind in labels},
            }
            for target in TARGETS
        },
        "groups": {kind: groups(labels[kind], p_male) for kind in labels},
        "conditions": {
            condition: {
                **proportion(
                    (table.p_male(name, condition, some) > 0.5)
                    == np.array([truth[item.digest] == "male" for item in some])
                ),
                "found": table.found(name, condition, some),
            }
            for condition in CONDITIONS
        },
    }


def beside(
    names: Sequence[str],
    common: Sequence[Picture],
    test: Sequence[Picture],
    repaired: Sequence[Sample],
    table: Table,
) -> dict[str, Any]:
    """Every system on the same pictures, repaired labels."""
    truth = {item.digest: sample for item, sample in zip(test, repaired, strict=True)}
    samples = [truth[item.digest] for item in common]
    ours = table.p_male(names[0], "clean", common)
    compared: dict[str, Any] = {}
    notes = {peer.name: peer.note for peer in PEERS}
    for system in (*names, *notes):
        given = table.p_male(system, "clean", common)
        compared[system] = {
            "note": notes.get(system, ""),
            "found": table.found(system, "clean", common),
            "targets": {target.name: metrics(samples, given, target.chosen) for target in TARGETS},
            "against_first": against(samples, ours, given),
        }
    return compared


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The table, for a terminal."""
    for name, system in result["systems"].items():
        yield f"\n{name}"
        for target, values in system["targets"].items():
            for kind in ("raw", "repaired"):
                found = values[kind]["accuracy"]
                low, high = found["interval"]
                aim = f"  (aim {values['least']:.1%})" if kind == values["labels"] else ""
                yield (
                    f"  {target:38} {kind:9} {found['share']:7.2%} of {found['count']:6,} "
                    f"[{low:.2%}, {high:.2%}]{aim}"
                )
        clean = system["conditions"]["clean"]["value"]
        for condition, values in system["conditions"].items():
            yield f"  {condition:20} {values['share']:7.2%} ({values['share'] - clean:+.2%})"
    for name, values in result.get("peers", {}).items():
        for target, found in values["targets"].items():
            yield f"{name:16} {target:38} {found['accuracy']['share']:7.2%}"


if __name__ == "__main__":
    sys.exit(main())
