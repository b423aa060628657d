"""Builds the ensemble of a run: trains its two small networks, joins all members, calibrates."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.inference.classifier import Classifier
from facegender.model.model_file import ModelDescription, read_model_file
from facegender.training.console import Console
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.sampler import Indices
from facegender.training.ensemble.alignment_network import (
    export_alignment_network,
    train_alignment_network,
)
from facegender.training.ensemble.gating_network import (
    export_gating_network,
    train_gating_network,
)
from facegender.training.ensemble.joined_graph import Members, join_members
from facegender.training.ensemble.open_networks import (
    CREDITS,
    check_open_networks,
    install_command,
    load_gender_classifier,
)
from facegender.training.ensemble.options import EnsembleOptions
from facegender.training.evaluation.calibration import find_temperature
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.export.model_export import add_description, weights_to_float16
from facegender.training.recipe import Recipe

TRAINED_NAME = "trained_network.onnx"
"""The trained network's model file, in a run's folder ``ensemble``."""

GATING_NAME = "gating_network.onnx"
ALIGNMENT_NAME = "alignment_network.onnx"


def resolve_ensemble(recipe: Recipe, open_networks: str | None, console: Console) -> Recipe:
    """Decide, before any image is read, whether a run ends with an ensemble.

    Args:
        recipe: of the run.
        open_networks: folder of the published network, or None.
        console: where it says what is missing.

    Returns:
        The recipe; without its ensemble if no published network was given.

    Raises:
        InputError: the published network is missing, or the recipe has no ensemble to use them in.
    """
    if recipe.ensemble is None:
        if open_networks:
            raise InputError(
                f"Recipe {recipe.name} has no section [ensemble]. Leave out --open-networks, or "
                "use recipe best."
            )
        return recipe
    if open_networks:
        check_open_networks(recipe.ensemble, Path(open_networks))
        return recipe
    console.note(
        f"Without --open-networks the run ends with the single network of recipe {recipe.name}. "
        "For the ensemble, install the published network and add --open-networks FOLDER:\n"
        f"{install_command('FOLDER')}"
    )
    return replace(recipe, ensemble=None)


def build_ensemble(
    options: EnsembleOptions,
    open_networks: Path,
    trained: Path,
    path: Path,
    cache: ImageCache,
    train_rows: Indices,
    validation_rows: Indices,
    console: Console,
    *,
    seed: int,
) -> ModelDescription:
    """Train the small networks, join all members, calibrate on validation, write the model file.

    Args:
        options: of the recipe.
        open_networks: folder of the published network.
        trained: model file of the trained network; the small networks are written beside it.
        path: the ensemble's model file.
        cache: images at the trained network's size, with labels.
        train_rows: rows that the small networks learn from.
        validation_rows: rows on which the temperature is found.
        console: where progress is shown.
        seed: of the small networks' training.

    Returns:
        The description in the file, without metrics.
    """
    alignment = export_alignment_network(
        train_alignment_network(
            cache, train_rows, console, epochs=options.alignment_epochs, seed=seed
        )
    )
    _write(trained.with_name(ALIGNMENT_NAME), alignment.SerializeToString())
    gating = export_gating_network(
        train_gating_network(cache, train_rows, console, epochs=options.gating_epochs, seed=seed)
    )
    _write(trained.with_name(GATING_NAME), gating.SerializeToString())
    single = read_model_file(trained).description
    members = Members(
        single.resize.height,
        onnx.load(trained),
        load_gender_classifier(options, open_networks),
        gating,
        alignment,
    )
    description = replace(
        single,
        name=f"{single.name}-ensemble",
        pretrained=f"{single.pretrained}; beside it, as published, {CREDITS}",
    )

    with console.counting("Calibrating the ensemble", len(validation_rows)) as count:
        return write_calibrated(
            members, options, description, path, cache, validation_rows, on_image=count
        )


def write_calibrated(
    members: Members,
    options: EnsembleOptions,
    description: ModelDescription,
    path: Path,
    cache: ImageCache,
    rows: Indices,
    *,
    on_image: Callable[[int], None] | None = None,
) -> ModelDescription:
    """Join all members, find the temperature and write the model file.

    Args:
        members: of the ensemble.
        options: their weights and thresholds.
        description: of the file, but for its temperature.
        path: of the model file.
        cache: images at the members' crop size, with labels.
        rows: on which the temperature is found.
        on_image: called with the number of images done.

    Returns:
        The description in the file.
    """

    def write(temperature: float, file: Path) -> ModelDescription:
        written = replace(description, temperature=round(temperature, 4))
        model = weights_to_float16(join_members(members, options, temperature))
        _write(file, add_description(model, written))
        return written

    with tempfile.TemporaryDirectory() as scratch:
        uncalibrated = Path(scratch) / path.name
        write(1.0, uncalibrated)
        classifier = Classifier.load(uncalibrated, runtime="onnxruntime")  # in full precision
        probabilities = predict_cached(classifier, cache, rows, on_image=on_image)
    log_probabilities = np.log(np.clip(probabilities.astype(np.float64), 1e-12, 1))
    return write(find_temperature(log_probabilities, cache.labels[rows]), path)


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.buffer.write(data)
