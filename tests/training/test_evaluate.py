"""Figures by hand, and which pictures of an archive they are about."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facegender.classifier import Classifier
from facegender.errors import InputError
from facegender.training.evaluate import evaluate, measure, score, write_json, write_scores
from facegender.training.run_folder import Request
from facegender.training.samples import Sample
from facegender.training.split import read_split
from facegender.training.store import open_store


def wilson(right: int, count: int) -> list[float]:
    """Wilson (1927), as every textbook has it; z for 95 %."""
    z = 1.959963984540054
    share = right / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return [round(max(0.0, low), 5), round(min(1.0, high), 5)]


def table(rows: list[tuple[str, float]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    male = np.array([p for _, p in rows])
    labels = np.array([("f", "m").index(label) for label, _ in rows], np.int64)
    return np.stack([1 - male, male], 1), labels


HAND = [  # label, P(male), source, age, race
    ("m", 0.9, "web", "25", "a"),
    ("m", 0.8, "web", "30.0", ""),
    ("m", 0.4, "film", "(4, 6)", "b"),
    ("f", 0.1, "web", "0-2", "a"),
    ("f", 0.3, "", "", ""),
    ("f", 0.6, "film", "70+", "b"),
    ("f", 0.2, "film", "13", ""),
]


def hand() -> tuple[list[Sample], NDArray[np.float64], NDArray[np.int64]]:
    samples = [
        Sample("a", f"{i}.png", {"m": "male", "f": "female"}[label], "", source, age, race)
        for i, (label, _, source, age, race) in enumerate(HAND)
    ]
    return samples, *table([(label, p) for label, p, *_ in HAND])


def test_hand_counted_table() -> None:
    result = measure(*hand())
    assert result["accuracy"] == {
        "count": 7,
        "correct": 5,
        "share": round(5 / 7, 5),
        "interval": wilson(5, 7),
    }
    assert result["recall"]["male"]["correct"] == 2
    assert result["recall"]["male"]["count"] == 3
    assert result["recall"]["female"]["share"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2, abs=1e-5)
    # of 12 pairs of a male and a female, one has them the wrong way round: 0.4 under 0.6
    assert result["roc_auc"] == pytest.approx(11 / 12, abs=1e-5)
    right = [0.9, 0.8, 0.4, 0.9, 0.7, 0.4, 0.8]
    assert result["log_loss"] == pytest.approx(-sum(map(math.log, right)) / 7, abs=1e-5)


def test_groups_of_the_hand_counted_table() -> None:
    result = measure(*hand())
    counts = {
        name: {key: (g["accuracy"]["correct"], g["accuracy"]["count"]) for key, g in groups.items()}
        for name, groups in result.items()
        if name in ("sources", "ages", "races")
    }
    assert counts == {
        "sources": {"film": (1, 3), "web": (3, 3)},
        "ages": {"00-3": (1, 1), "04-12": (0, 1), "13-20": (1, 1), "21-60": (2, 2), "61+": (0, 1)},
        "races": {"a": (2, 2), "b": (0, 2)},
    }
    assert result["sources"]["film"]["recall"]["female"]["count"] == 2
    assert "female" not in result["ages"]["21-60"]["recall"]


def test_groups_without_values_are_absent() -> None:
    _, probabilities, labels = hand()
    bare = [Sample("a", f"{i}.png", "male") for i in range(len(labels))]
    assert not {"sources", "ages", "races"} & measure(bare, probabilities, labels).keys()


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [(95, 100, [0.8882, 0.9785]), (0, 10, [0.0, 0.2775]), (10, 10, [0.7225, 1.0])],
)
def test_wilson_interval(right: int, count: int, interval: list[float]) -> None:
    rows = [("m", 0.9)] * right + [("m", 0.1)] * (count - right)
    samples = [Sample("a", f"{i}.png", "male") for i in range(count)]
    result = measure(samples, *table(rows))["accuracy"]
    assert result["interval"] == pytest.approx(interval, abs=5e-5)
    assert result["interval"] == pytest.approx(wilson(right, count), abs=1e-5)


def test_one_label_alone_has_no_curve_and_no_recall_of_the_other() -> None:
    samples = [Sample("a", f"{i}.png", "male") for i in range(3)]
    result = measure(samples, *table([("m", 0.9), ("m", 0.8), ("m", 0.2)]))
    assert "roc_auc" not in result
    assert list(result["recall"]) == ["male"]
    assert result["balanced_accuracy"] == pytest.approx(2 / 3, abs=1e-5)


def test_coverage() -> None:
    # 100 answers from 0.505 to 1.0; the ten least sure are wrong.
    certainty = 0.505 + 0.005 * np.arange(100)
    rows = [("m" if i >= 10 else "f", float(c)) for i, c in enumerate(certainty)]
    samples = [Sample("a", f"{i}.png", "male") for i in range(100)]
    coverage = measure(samples, *table(rows))["coverage"]
    assert [
        (row["answered"], row["accuracy"]["correct"], row["accuracy"]["count"], row["threshold"])
        for row in coverage
    ] == [
        (1.0, 90, 100, 0.505),
        (0.99, 90, 99, 0.51),
        (0.98, 90, 98, 0.515),
        (0.95, 90, 95, 0.53),
        (0.9, 90, 90, 0.555),
        (0.8, 80, 80, 0.605),
    ]


def test_result_is_json() -> None:
    assert json.loads(json.dumps(measure(*hand()), allow_nan=False))["accuracy"]["count"] == 7


def test_write_scores_and_json(tmp_path: Path) -> None:
    samples, probabilities, _ = hand()
    odd = Sample("a", "male/\udcff.png", "male")
    write_scores(tmp_path / "s.csv", [*samples[:2], odd], ["new"] * 3, probabilities[:3])
    with (tmp_path / "s.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["p_male"] for row in rows] == ["0.9000", "0.8000", "0.4000"]
    assert rows[2]["file"] == odd.file
    write_json(tmp_path / "m.json", {"é": 1})
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == {"é": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "s.csv"]


# A model on an archive


def test_parts_are_told_by_content_and_test_only_on_request(
    run_folder: Path, request_of_run: Request
) -> None:
    inputs = [Path(item) for item in request_of_run.inputs]
    split = read_split(run_folder / "split.csv")
    sizes = {
        part: sum(row.part == part for row in split) for part in ("train", "validation", "test")
    }
    result = evaluate(run_folder, inputs)
    assert {part: result.parts.count(part) for part in ("train", "validation", "test")} == sizes | {
        "test": 0
    }
    assert {file for file, _ in result.unreadable} == {"deep/male/empty.png"}
    figures = result.figures()
    assert {name: part["accuracy"]["count"] for name, part in figures.items()} == {
        "train": sizes["train"],
        "validation": sizes["validation"],
    }
    test = evaluate(run_folder, inputs, Path(request_of_run.table or ""), part="test")
    assert set(test.parts) == {"test"}
    assert len(test.samples) == sizes["test"]
    assert "sources" in test.figures()["test"]


def test_validation_figures_are_those_of_the_run(run_folder: Path, request_of_run: Request) -> None:
    result = evaluate(
        run_folder,
        [Path(item) for item in request_of_run.inputs],
        Path(request_of_run.table or ""),
        part="validation",
    )
    stored = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert result.figures()["validation"] == stored["validation"]


def test_a_model_file_alone_knows_no_parts(
    run_folder: Path, request_of_run: Request, tmp_path: Path
) -> None:
    folder = Path(request_of_run.inputs[2])
    model = tmp_path / "model.onnx"
    model.write_bytes((run_folder / "model.onnx").read_bytes())
    assert evaluate(model, [folder]).parts == ["new"] * 41
    with pytest.raises(InputError, match="no picture to evaluate on: none is in the part 'train'"):
        evaluate(model, [folder], part="train")
    # beside its split it knows them, and leaves the test part alone
    parts = evaluate(run_folder / "model.onnx", [folder]).parts
    assert set(parts) <= {"train", "validation"} and parts == evaluate(run_folder, [folder]).parts


def test_score_is_what_predict_says(
    run_folder: Path, request_of_run: Request, tmp_path: Path
) -> None:
    folder = Path(request_of_run.inputs[2])
    classifier = Classifier.load(run_folder)
    store = open_store([folder], None, classifier.framer, tmp_path)
    rows = np.arange(0, len(store.samples), 7)
    told: list[int] = []
    scores = score(classifier, store, rows, on_picture=told.append)
    assert told == [len(rows)]
    for row, pair in zip(rows, scores, strict=True):
        answer = classifier.predict(folder / store.samples[row].file)
        assert answer.label == ("female", "male")[pair.argmax()]
        assert answer.probability == round(float(pair.max()), 4)
