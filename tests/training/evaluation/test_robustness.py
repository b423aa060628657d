"""Robustness: the same images every time, measured by the labels of the predictions table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import encode, image

from facegender.cli import main
from facegender.inference.classifier import Classifier
from facegender.training.data.samples import Sample
from facegender.training.evaluation.predictions_table import PredictionsTable
from facegender.training.evaluation.robustness import (
    CORRUPTIONS,
    choose_samples,
    measure_robustness,
)


def predictions(count: int, subsets: list[str], archive: str = "photos") -> PredictionsTable:
    labels = [("male", "female")[i % 2] for i in range(count)]
    samples = [Sample(archive, f"{label}/{i}.png", label) for i, label in enumerate(labels)]
    return PredictionsTable(samples, subsets, np.full(count, 0.5))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(12):
        label = ("male", "female")[i % 2]
        path = tmp_path / "photos" / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image(label, seed=i)))
    (tmp_path / "photos" / "male" / "broken.png").write_bytes(b"not an image")
    return tmp_path / "photos"


def test_images_that_were_not_trained_on_are_chosen() -> None:
    mixed = predictions(10, ["train"] * 6 + ["validation"] * 4)
    assert set(choose_samples(mixed, 3).subsets) == {"validation"}
    assert len(choose_samples(mixed, 100).subsets) == 4
    assert len(choose_samples(predictions(10, ["train"] * 10), 7).subsets) == 7
    assert choose_samples(mixed, 3).samples == choose_samples(mixed, 3).samples
    drawn = {choose_samples(mixed, 1, seed).samples[0].file for seed in range(30)}
    assert len(drawn) == 4


def test_every_corruption_is_measured_and_counted(classifier: Classifier, photos: Path) -> None:
    """No corruption changes the mean color much, so a model of it is always correct."""
    calls: list[int] = []
    chosen = predictions(12, ["new"] * 12).pick(list(range(2, 9)))
    result = measure_robustness(classifier, [photos], chosen, on_image=calls.append)
    assert [curve.name for curve in result.curves] == [kind.name for kind in CORRUPTIONS]
    assert list(result.to_dict()) == ["clean", *(kind.name for kind in CORRUPTIONS)]
    assert calls == list(range(1, 8))
    assert (result.clean.count, result.clean.correct) == (7, 7)
    for curve, kind in zip(result.curves, CORRUPTIONS, strict=True):
        assert [point.strength for point in curve.points] == list(kind.steps)
        assert {(p.accuracy.count, p.accuracy.correct) for p in curve.points} == {(7, 7)}
    assert measure_robustness(classifier, [photos], chosen) == result


def test_the_metadata_table_may_be_the_only_label(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    rows = ["file,gender"]
    for i, label in enumerate(("male", "female") * 2):
        (tmp_path / "flat" / f"{i}.png").write_bytes(encode(image(label, seed=i)))
        rows.append(f"{i}.png,{label}")
    table, out = tmp_path / "table.csv", tmp_path / "metrics.json"
    table.write_text("\n".join(rows))
    options = ["--metadata", str(table), "--robustness", "4", "-o", str(out), "-q"]
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(model_path), str(tmp_path / "flat"), *options])
    assert done.value.code == 0
    clean = json.loads(out.read_text())["robustness"]["clean"]
    assert (clean["count"], clean["correct"]) == (4, 4)


def test_labels_are_those_of_the_table(classifier: Classifier, photos: Path) -> None:
    chosen = predictions(4, ["new"] * 4)
    chosen.samples[0] = replace(chosen.samples[0], label="female")
    assert measure_robustness(classifier, [photos], chosen).clean.correct == 3
