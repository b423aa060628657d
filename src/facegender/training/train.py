"""Train a network in four steps: prepare, fit, calibrate and export, evaluate.

Every step writes files to the run folder: ``prepare`` writes ``config.toml``, ``run.json`` and
``split.csv``; ``fit`` writes ``history.csv``, ``best.safetensors`` and ``saved_model`` (the state
dict); ``calibrate_and_export`` writes ``model.onnx``, the file that ``predict`` uses; ``evaluate``
writes ``predictions.csv``, ``metrics.json`` and ``report.html``.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facegender.files import atomic_write, write_json
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import MODEL_NAME, ModelDescription
from facegender.training.console import Console
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.ensemble.ensemble import TRAINED_NAME, build_ensemble
from facegender.training.evaluation.calibration import find_temperature
from facegender.training.evaluation.evaluate import Evaluation, predict_cached
from facegender.training.evaluation.evaluation_report import (
    REPORT_NAME,
    build_report,
    write_evaluation_report,
)
from facegender.training.evaluation.gallery import Gallery, select_examples
from facegender.training.evaluation.metrics import Metrics, table_metrics
from facegender.training.evaluation.predictions_table import (
    PREDICTIONS_NAME,
    PredictionsTable,
    make_predictions,
    write_predictions,
)
from facegender.training.export.model_export import export_model, update_description
from facegender.training.loop.checkpoint import BEST_NAME, load_weights
from facegender.training.loop.devices import Processes
from facegender.training.loop.fit import fit_network, is_early_stop
from facegender.training.loop.history import (
    HISTORY_NAME,
    EpochMetrics,
    StepProgress,
    add_to_history,
    write_history,
)
from facegender.training.loop.logits import compute_logits
from facegender.training.loop.stop_signals import stop_on_signals
from facegender.training.loop.tensorboard import TENSORBOARD_NAME, TensorBoard
from facegender.training.prepare import PreparedRun, prepare
from facegender.training.recipe import InputOptions, Recipe, recipe_values
from facegender.training.run_folder import (
    ENSEMBLE_FOLDER,
    METRICS_NAME,
    SAVED_MODEL_NAME,
    TrainRequest,
)

_PARITY_IMAGES = 512


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """What is calibrated and exported: a network with the weights of its best epoch."""

    network: nn.Module
    options: InputOptions

    def logits(self, cache: ImageCache, rows: Indices) -> NDArray[np.float32]:
        """Compute the logits of some images, ``float32 [N, 2]``."""
        return compute_logits(self.network, cache, rows, self.options).numpy()

    def export(self, description: ModelDescription, images: Pixels, path: Path) -> float:
        """Write a model file, and compare it with this network on some images.

        Returns:
            The largest difference of a probability.

        Raises:
            ParityError: it is too large; nothing is written.
        """
        return export_model(self.network, self.options, description, images, path)


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model file, its description, and the largest difference of a probability to torch."""

    path: Path
    description: ModelDescription
    parity: float


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """The content of ``metrics.json``.

    Attributes:
        pretrained: where the initial weights are from.
        validation: metrics of the model file on the validation subset.
        parity: largest difference of a probability between torch and its model file.
    """

    pretrained: str
    validation: Metrics
    parity: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "pretrained": self.pretrained,
            "validation": self.validation.to_dict(),
            "parity": {"largest_difference": self.parity},
        }


def train(
    request: TrainRequest | None,
    recipe: Recipe | None,
    folder: Path,
    *,
    resume: bool = False,
    sanity_check: bool = True,
    console: Console | None = None,
) -> RunMetrics | None:
    """Train a network, export it as a model file, and evaluate that file on validation.

    Args:
        request: inputs and options; may be None for a resume.
        recipe: all settings; may be None for a resume.
        folder: the run folder, created if it is missing.
        resume: continue the run in the folder.
        sanity_check: overfit a copy of the network to a few images first; never for a resume.
        console: where progress is shown.

    Returns:
        The content of ``metrics.json``; None in all processes but the main one.

    Raises:
        FacegenderError: what is wrong, where, and what to do.
    """
    started = time.monotonic()
    run = prepare(
        request,
        recipe,
        folder,
        resume=resume,
        sanity_check=sanity_check,
        console=console or Console(),
    )
    trained = fit(run)
    if trained is None:
        return None
    exported = calibrate_and_export(run, trained)
    return evaluate(run, exported, started)


def fit(run: PreparedRun) -> TrainedNetwork | None:
    """Train the network of a run, and load the weights of its best epoch.

    Returns:
        The trained network; None in all processes but the main one.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; a checkpoint is written.
        FacegenderError: training is not possible, or the loss is NaN or infinite.
    """
    recipe, folder, fabric, console = run.recipe, run.folder, run.fabric, run.console
    processes = Processes(fabric)
    console.note(
        f"Training on {fabric.world_size} x {fabric.device.type}, {fabric._precision.precision}"
    )
    with ExitStack() as stack:
        should_stop = stack.enter_context(stop_on_signals())
        board = None
        if run.request.tensorboard and processes.is_main:
            board = stack.enter_context(TensorBoard(folder / TENSORBOARD_NAME))

        def on_step(progress: StepProgress) -> None:
            console.step(progress)
            if board:
                board.step(progress)

        def on_epoch(metrics: EpochMetrics) -> None:
            console.epoch(metrics)
            processes.on_main(add_to_history)(folder / HISTORY_NAME, metrics)
            if board:
                board.epoch(metrics)

        history = fit_network(
            run.network,
            run.cache,
            run.rows("train"),
            run.rows("validation"),
            recipe,
            folder,
            fabric=fabric,
            resume=run.resume,
            should_stop=should_stop,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    processes.end()
    if not processes.is_main:
        return None
    write_history(folder / HISTORY_NAME, history)
    if is_early_stop(history, recipe.train.patience):
        console.note(f"Early stop: no better validation in {recipe.train.patience} epochs")
    load_weights(run.network, folder / BEST_NAME)
    _save_state(run.network, folder / SAVED_MODEL_NAME)
    return TrainedNetwork(run.network.cpu(), recipe.input)


def calibrate_and_export(run: PreparedRun, trained: TrainedNetwork) -> ExportedModel:
    """Find the temperature on validation, and write the model file.

    If the recipe has an ensemble, the network becomes a member of it.

    Raises:
        ParityError: the model file differs from the trained network.
    """
    rows, train_rows = run.rows("validation"), run.rows("train")
    run.console.note("Calibrating on validation")
    temperature = find_temperature(trained.logits(run.cache, rows), run.cache.labels[rows])
    options = run.recipe.input
    description = ModelDescription(
        name=run.recipe.name,
        resize=options.aligner.resize,
        crop=options.aligner.crop,
        grayscale=options.grayscale,
        min_confidence=run.recipe.min_confidence,
        temperature=round(temperature, 4),
        data={
            "train": len(train_rows),
            "validation": len(rows),
            "test": len(run.rows("test")),
            "fingerprint": _fingerprint(run.cache, train_rows),
        },
        recipe=recipe_values(_without_folders(run.recipe)),
        pretrained=run.pretrained.description,
        license=run.request.license,
        terms=run.request.terms,
        created=datetime.now(UTC).date().isoformat(),
    )
    path = run.folder / MODEL_NAME
    ensemble = run.recipe.ensemble
    single = run.folder / ENSEMBLE_FOLDER / TRAINED_NAME if ensemble else path
    difference = trained.export(description, parity_images(run.cache, rows), single)
    run.console.note(f"Exported; maximum difference to torch {difference:.1e}")
    if ensemble:
        assert run.request.open_networks is not None  # checked by resolve_ensemble
        description = build_ensemble(
            ensemble,
            Path(run.request.open_networks),
            single,
            path,
            run.cache,
            train_rows,
            rows,
            run.console,
            seed=run.recipe.train.seed,
        )
    return ExportedModel(path, description, difference)


def evaluate(run: PreparedRun, exported: ExportedModel, started: float | None = None) -> RunMetrics:
    """Evaluate the model file on validation, and write predictions, metrics and report.

    Args:
        run: the run.
        exported: its model file.
        started: ``time.monotonic()`` at its start, for the report.
    """
    rows = run.rows("validation")
    with run.console.counting("Evaluating", len(rows)) as count:
        classifier = Classifier.load(exported.path, runtime="onnxruntime")  # in full precision
        probabilities = predict_cached(classifier, run.cache, rows, on_image=count)
    samples = [run.cache.samples[row] for row in rows]
    predictions = make_predictions(samples, ["validation"] * len(rows), probabilities)
    write_predictions(run.folder / PREDICTIONS_NAME, predictions)
    run.console.note("Computing metrics")
    metrics = RunMetrics(
        pretrained=run.pretrained.description,
        validation=table_metrics(predictions),
        parity=float(f"{exported.parity:.2e}"),
    )
    stated = summarize_metrics(metrics.validation)
    update_description(exported.path, replace(exported.description, metrics=stated))
    write_json(run.folder / METRICS_NAME, metrics.to_dict())
    gallery = _select_gallery(run.cache, rows, predictions)
    evaluation = Evaluation(predictions, run.cache.unreadable, {"validation": gallery})
    report = build_report(run.folder, evaluation, {"validation": metrics.validation})
    if started is not None:
        name = "time since the resume" if run.resume else "total time"
        duration = str(timedelta(seconds=round(time.monotonic() - started)))
        report = replace(report, facts={**report.facts, name: duration})
    write_evaluation_report(run.folder / REPORT_NAME, report)
    return metrics


def parity_images(cache: ImageCache, rows: Indices) -> Pixels:
    """Select up to 1,023 images, evenly, on which a model file is compared with torch."""
    return read_rows(cache.pixels, rows[:: max(1, len(rows) // _PARITY_IMAGES)])


def summarize_metrics(metrics: Metrics) -> dict[str, Any]:
    """Select the validation metrics that the model file states."""
    stated: dict[str, Any] = {
        "accuracy": metrics.accuracy.to_dict(),
        "recall": {name: one.to_dict() for name, one in metrics.recall.items()},
        "calibration_error": metrics.calibration_error,
    }
    if sources := metrics.groups.get("sources"):
        stated["sources"] = {name: one.accuracy.to_dict() for name, one in sources.items()}
    return {"validation": stated}


def _select_gallery(cache: ImageCache, rows: Indices, predictions: PredictionsTable) -> Gallery:
    """Select the images that the report shows."""
    gallery = Gallery()
    examples = select_examples(predictions, gallery.count)
    shown = sorted({row for kind in examples.values() for row in kind})
    gallery.add(predictions.pick(shown), read_rows(cache.pixels, rows[shown]))
    return gallery


def _without_folders(recipe: Recipe) -> Recipe:
    """Remove the folder of a weight file: the model file is given to others."""
    name = Path(recipe.network.pretrained).name
    return replace(recipe, network=replace(recipe.network, pretrained=name))


def _fingerprint(cache: ImageCache, rows: Indices) -> str:
    """Return the SHA-256 of the sorted digests of the training images, 16 hex digits of it."""
    digests = "".join(sorted(cache.digests[row] for row in rows))
    return sha256(digests.encode()).hexdigest()[:16]


def _save_state(network: nn.Module, path: Path) -> None:
    """Save the state dict with ``torch.save`` atomically."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_write(path) as file:
        torch.save(state, file.buffer)
