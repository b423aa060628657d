"""One training run from archives to model file; every step leaves a file in the run folder.

``config.toml`` and ``run.json`` say what was asked for, ``split.csv`` who went where,
``history.csv`` how it went, ``predictions.csv``, ``metrics.json`` and ``report.html`` how good it is;
``saved_model`` is the network's state dict, ``model.onnx`` the file that ``predict`` uses.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facegender.errors import MissingExtraError, StoppedError
from facegender.files import atomic_write, write_json
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import MODEL_NAME, ModelDescription, read_model_file
from facegender.training.console import Console
from facegender.training.data.duplicate_groups import read_duplicate_groups
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.evaluation.calibration import find_temperature
from facegender.training.evaluation.evaluate import Evaluation, predict_cached
from facegender.training.evaluation.evaluation_report import (
    REPORT_NAME,
    build_report,
    write_evaluation_report,
)
from facegender.training.evaluation.gallery import Gallery, select_examples
from facegender.training.evaluation.metrics import table_metrics
from facegender.training.evaluation.predictions_table import (
    PREDICTIONS_NAME,
    make_predictions,
    write_predictions,
)
from facegender.training.export.model_export import export_model, update_description
from facegender.training.loop.checkpoint import BEST_NAME, load_weights
from facegender.training.loop.devices import is_one_process, make_fabric
from facegender.training.loop.fit import compute_logits, fit_network, is_early_stop
from facegender.training.loop.history import (
    HISTORY_NAME,
    EpochMetrics,
    StepProgress,
    add_to_history,
    write_history,
)
from facegender.training.loop.overfit_check import check_disk_space, overfit_small_batch
from facegender.training.loop.precision import bf16_may_be_faster, measure_bf16_speedup
from facegender.training.loop.tensorboard import TENSORBOARD_NAME, TensorBoard
from facegender.training.models.networks import (
    PretrainedWeights,
    build_network,
    check_input_size,
    load_pretrained,
)
from facegender.training.prepare import (
    add_teacher_predictions,
    check_both_labels,
    check_subset_labels,
    correct_training_labels,
    load_images,
    run_audit,
    split_images,
    subset_indices,
)
from facegender.training.recipe import Recipe, recipe_values
from facegender.training.run_folder import (
    METRICS_NAME,
    SAVED_MODEL_NAME,
    TrainRequest,
    open_run,
    record_request,
)

_PARITY_IMAGES = 512


def train(
    request: TrainRequest | None,
    recipe: Recipe | None,
    folder: Path,
    *,
    resume: bool = False,
    sanity_check: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate on validation, calibrate and export.

    Args:
        request: archives and shares; may be None for a resume.
        recipe: how; may be None for a resume.
        folder: the run folder, made when missing.
        resume: go on where the folder's run was stopped.
        sanity_check: let a copy learn a few pictures by heart first; never for a resume.
        console: where progress is shown.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        FacegenderError: with what was wrong, where, and what to do.
    """
    console = console or Console()
    request, recipe = open_run(request, recipe, folder, resume)
    if request.tensorboard and find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard")
    if request.audit:
        read_duplicate_groups(Path(request.audit))  # refused now, not after the pictures are read
    torch.manual_seed(recipe.train.seed)  # the same random weights for the same seed
    network = build_network(recipe.network.name, dropout=recipe.network.dropout)
    start = _load_pretrained(network, recipe, request)
    check_input_size(network, recipe.network.name, recipe.input.height, recipe.input.width)
    if not resume and is_one_process(request.devices):
        recipe = _resolve_precision(network, recipe, console)
    fabric = make_fabric(recipe, request.devices)
    fabric.launch()
    if fabric.global_rank != 0:
        console = Console(quiet=True)  # the first process speaks for all
    console.note(f"network {recipe.network.name}, from {start.text}")
    if fabric.global_rank != 0:
        fabric.barrier()  # the first process prepares the pictures for all
    check_disk_space(folder, network, recipe.train)
    cache = load_images(request, recipe, folder, console)
    if not request.corrections:  # which may bring another label in
        check_both_labels(cache.labels, "picture")
    is_first = fabric.global_rank == 0
    if is_first and not resume:
        request = run_audit(request, recipe, folder, console)
    # The others take the split that the first one has written
    assignments = split_images(request, recipe, cache, folder, console, resume or not is_first)
    if fabric.global_rank == 0:
        fabric.barrier()
    cache, subsets = correct_training_labels(cache, assignments, request, console)
    cache = add_teacher_predictions(cache, recipe, request, console)
    train_rows, validation_rows = (
        subset_indices(subsets, "train"),
        subset_indices(subsets, "validation"),
    )
    check_subset_labels(cache, train_rows, validation_rows, console)
    check_disk_space(folder, network, recipe.train)
    if sanity_check and not resume:
        with console.counting("self check") as count:
            learned = overfit_small_batch(
                network, cache, train_rows, recipe, fabric, on_image=count
            )
        console.note(
            f"self check: {learned.images} pictures learned by heart in {learned.steps} steps, "
            f"loss {learned.before:.3f} to {learned.after:.3f}"
        )
    if not resume and fabric.global_rank == 0:
        record_request(request, recipe, folder)
    console.note(
        f"training on {fabric.world_size} x {fabric.device.type}, {fabric._precision.precision}"
    )
    with ExitStack() as stack:
        stopped = stack.enter_context(_stop_on_signals())
        stack.enter_context(_coded(stopped))
        board = None
        if request.tensorboard and fabric.global_rank == 0:
            board = stack.enter_context(TensorBoard(folder / TENSORBOARD_NAME))

        def on_step(at: StepProgress) -> None:
            console.step(at)
            if board:
                board.step(at)

        def on_epoch(metrics: EpochMetrics) -> None:
            console.epoch(metrics)
            if fabric.global_rank == 0:
                add_to_history(folder / HISTORY_NAME, metrics)
            if board:
                board.epoch(metrics)

        history = fit_network(
            network,
            cache,
            train_rows,
            validation_rows,
            recipe,
            folder,
            fabric=fabric,
            resume=resume,
            should_stop=lambda: bool(stopped),
            on_step=on_step,
            on_epoch=on_epoch,
        )
    if fabric.world_size > 1:
        # Nothing is shared any more; left open, its threads may crash the end
        torch.distributed.destroy_process_group()
    if fabric.global_rank != 0:
        return {}
    write_history(folder / HISTORY_NAME, history)
    if is_early_stop(history, recipe.train.patience):
        console.note(f"ended early: no better validation in {recipe.train.patience} epochs")
    load_weights(network, folder / BEST_NAME)
    _save_state(network, folder / SAVED_MODEL_NAME)
    return _finish(network, cache, subsets, request, recipe, start, folder, console)


def _load_pretrained(
    network: nn.Module, recipe: Recipe, request: TrainRequest
) -> PretrainedWeights:
    """Put the starting weights in."""
    start = recipe.network.pretrained if request.pretrained is None else request.pretrained
    return load_pretrained(network, recipe.network.name, None if start in ("", "none") else start)


def _resolve_precision(network: nn.Module, recipe: Recipe, console: Console) -> Recipe:
    """Replace ``auto`` by what is faster here, so that a resume and the run's files know it."""
    if recipe.train.precision != "auto":
        return recipe
    times = 0.0
    if bf16_may_be_faster(recipe):
        times = measure_bf16_speedup(network, recipe)
        console.note(f"a step in bfloat16 is {times:.2f} times as fast as in float32")
    return replace(recipe, train=replace(recipe.train, precision="bf16" if times > 1 else "32"))


def _finish(
    network: nn.Module,
    cache: ImageCache,
    subsets: NDArray[np.str_],
    request: TrainRequest,
    recipe: Recipe,
    start: PretrainedWeights,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Calibrate on validation, export, and measure the file itself on validation."""
    path = folder / MODEL_NAME
    rows = subset_indices(subsets, "validation")
    labels = cache.labels[rows]
    console.note("calibrating on validation")
    temperature = find_temperature(
        compute_logits(network.cpu(), cache, rows, recipe.input).numpy(), labels
    )
    learned = subset_indices(subsets, "train")
    description = ModelDescription(
        name=recipe.name,
        resize=recipe.input.aligner.resize,
        crop=recipe.input.aligner.crop,
        grayscale=recipe.input.grayscale,
        min_confidence=recipe.min_confidence,
        temperature=round(temperature, 4),
        data={
            "train": len(learned),
            "validation": len(rows),
            "test": int((subsets == "test").sum()),
            "fingerprint": _fingerprint(cache, learned),
        },
        recipe=recipe_values(_without_folders(recipe)),
        pretrained=start.text,
        license=request.license,
        terms=request.terms,
        created=datetime.now(UTC).date().isoformat(),
    )
    difference = export_model(network, recipe.input, description, _parity_images(cache, rows), path)
    console.note(f"exported; torch and the file differ by at most {difference:.1e}")
    with console.counting("evaluating", len(rows)) as count:
        classifier = Classifier.load(path, runtime="onnxruntime")  # in full precision
        probabilities = predict_cached(classifier, cache, rows, on_image=count)
    samples = [cache.samples[row] for row in rows]
    scores = make_predictions(samples, ["validation"] * len(rows), probabilities)
    write_predictions(folder / PREDICTIONS_NAME, scores)
    console.note("measuring")
    metrics: dict[str, Any] = {
        "start": start.text,
        "validation": table_metrics(scores),
        "parity": {"largest_difference": float(f"{difference:.2e}")},
    }
    update_description(path, replace(description, metrics=summarize_metrics(metrics["validation"])))
    write_json(folder / METRICS_NAME, metrics)
    gallery = Gallery()
    shown = sorted(
        {row for some in select_examples(scores, gallery.count).values() for row in some}
    )
    gallery.add(scores.pick(shown), read_rows(cache.pixels, rows[shown]))
    unreadable = [
        (sample.file, error)
        for sample, error in zip(cache.samples, cache.errors, strict=True)
        if error
    ]
    metrics = {"validation": metrics["validation"]}
    evaluation = Evaluation(scores, unreadable, {"validation": gallery})
    write_evaluation_report(folder / REPORT_NAME, build_report(folder, evaluation, metrics))
    return metrics


def export_run(
    folder: Path,
    output: Path,
    *,
    license: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> ModelDescription:
    """Write the model file of a finished run to another place, checked again on real pictures.

    Args:
        folder: the run folder.
        output: where the model file goes.
        license: what the file says of its licence; None keeps what the run said.
        terms: what the file says of its data's terms; None keeps what the run said.
        console: where progress is shown.

    Raises:
        InputError: the run is not finished, or its archives are no longer where they were.
        ParityError: torch and the graph do not agree; nothing is written.
    """
    console = console or Console()
    request, recipe = open_run(None, None, folder, resume=True)
    description = read_model_file(folder).description
    if license is not None:
        description = replace(description, license=license)
    if terms is not None:
        description = replace(description, terms=terms)
    network = build_network(recipe.network.name)
    state = torch.load(folder / SAVED_MODEL_NAME, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    cache = load_images(request, recipe, folder, console)
    assignments = split_images(request, recipe, cache, folder, console, resume=True)
    rows = subset_indices(np.array([row.subset for row in assignments]), "validation")
    difference = export_model(
        network, recipe.input, description, _parity_images(cache, rows), output
    )
    console.note(f"exported; torch and the file differ by at most {difference:.1e}")
    return description


def _parity_images(cache: ImageCache, rows: NDArray[np.int64]) -> Pixels:
    """Pick the real pictures on which an export is compared."""
    shown = rows[:: max(1, len(rows) // _PARITY_IMAGES)]
    return read_rows(cache.pixels, shown)


def summarize_metrics(measured: dict[str, Any]) -> dict[str, Any]:
    """Pick the figures that go into the model file."""
    kept = {name: measured[name] for name in ("accuracy", "recall", "calibration_error")}
    sources = {name: group["accuracy"] for name, group in measured.get("sources", {}).items()}
    return {"validation": kept | ({"sources": sources} if sources else {})}


def _without_folders(recipe: Recipe) -> Recipe:
    """Name a file of starting weights without its folder: the model file travels."""
    name = Path(recipe.network.pretrained).name
    return replace(recipe, network=replace(recipe.network, pretrained=name))


def _fingerprint(cache: ImageCache, rows: NDArray[np.int64]) -> str:
    """SHA-256 over the sorted digests of the training pictures, 16 hex digits of it."""
    digests = "".join(sorted(cache.digests[row] for row in rows))
    return sha256(digests.encode()).hexdigest()[:16]


def _save_state(network: nn.Module, path: Path) -> None:
    """Save the state dict, as ``torch.save`` does, whole or not at all."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_write(path) as file:
        torch.save(state, file.buffer)


@contextmanager
def _coded(stopped: list[int]) -> Iterator[None]:
    """Give a stop the exit code of the signal that asked for it."""
    try:
        yield
    except StoppedError as error:
        if stopped:
            error.code = 128 + stopped[0]
        raise


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying; a second Ctrl-C dies at once."""
    received: list[int] = []

    def note(number: int, align: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread (a notebook's executor): signals stay as is
            break
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
