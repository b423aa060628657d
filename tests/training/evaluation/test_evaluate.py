"""Evaluation: which images are in which subset, and the same metrics as the run's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facegender.errors import InputError
from facegender.files import write_json
from facegender.inference.classifier import Classifier
from facegender.training.data.image_cache import open_image_cache
from facegender.training.data.split import read_split
from facegender.training.evaluation.evaluate import evaluate, predict_cached
from facegender.training.run_folder import TrainRequest


def test_write_json(tmp_path: Path) -> None:
    values = {
        "é": 1,
        "a": [1, -0.5, 2e-05],
        "text": "[\n 1\n]",
        "deep": [{"b": [0.1, 0.2]}],
        "no": [],
    }
    write_json(tmp_path / "m.json", values)
    text = (tmp_path / "m.json").read_text(encoding="utf-8")
    assert json.loads(text) == values
    assert '"a": [1, -0.5, 2e-05]' in text and '"b": [0.1, 0.2]' in text
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_subsets_are_identified_by_content_and_test_only_on_request(
    run_folder: Path, request_of_run: TrainRequest
) -> None:
    inputs = [Path(item) for item in request_of_run.inputs]
    split = read_split(run_folder / "split.csv")
    sizes = {
        subset: sum(row.subset == subset for row in split)
        for subset in ("train", "validation", "test")
    }
    result = evaluate(run_folder, inputs)
    assert {
        subset: result.predictions.subsets.count(subset)
        for subset in ("train", "validation", "test")
    } == sizes | {"test": 0}
    assert {file for file, _ in result.unreadable} == {"deep/male/empty.png"}
    metrics = result.metrics()
    assert {name: subset.accuracy.count for name, subset in metrics.items()} == {
        "train": sizes["train"],
        "validation": sizes["validation"],
    }
    test = evaluate(run_folder, inputs, Path(request_of_run.metadata or ""), subset="test")
    assert set(test.predictions.subsets) == {"test"}
    assert len(test.predictions.samples) == sizes["test"]
    assert "sources" in test.metrics()["test"].groups


def test_validation_metrics_are_those_of_the_run(
    run_folder: Path, request_of_run: TrainRequest
) -> None:
    result = evaluate(
        run_folder,
        [Path(item) for item in request_of_run.inputs],
        Path(request_of_run.metadata or ""),
        subset="validation",
    )
    stored = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert result.metrics()["validation"].to_dict() == stored["validation"]


def test_a_model_file_alone_has_no_subsets(
    run_folder: Path, request_of_run: TrainRequest, tmp_path: Path
) -> None:
    folder = Path(request_of_run.inputs[2])
    model = tmp_path / "model.onnx"
    model.write_bytes((run_folder / "model.onnx").read_bytes())
    assert evaluate(model, [folder]).predictions.subsets == ["new"] * 41
    with pytest.raises(InputError, match="No image to evaluate: none is in the subset 'train'"):
        evaluate(model, [folder], subset="train")
    # with the split of its run beside it, it has them, and leaves out the test subset
    subsets = evaluate(run_folder / "model.onnx", [folder]).predictions.subsets
    assert (
        set(subsets) <= {"train", "validation"}
        and subsets == evaluate(run_folder, [folder]).predictions.subsets
    )


def test_cached_probabilities_are_those_of_predict(
    run_folder: Path, request_of_run: TrainRequest, tmp_path: Path
) -> None:
    folder = Path(request_of_run.inputs[2])
    classifier = Classifier.load(run_folder)
    cache = open_image_cache([folder], None, classifier.aligner, tmp_path)
    rows = np.arange(0, len(cache.samples), 7)
    calls: list[int] = []
    probabilities = predict_cached(classifier, cache, rows, on_image=calls.append)
    assert calls == [len(rows)]
    for row, pair in zip(rows, probabilities, strict=True):
        answer = classifier.predict(folder / cache.samples[row].file)
        assert answer.label == ("female", "male")[pair.argmax()]
        assert answer.probability == round(float(pair.max()), 4)
