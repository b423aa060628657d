"""One training run from archives to model file; every step leaves a file in the run folder.

``config.toml`` and ``run.json`` say what was asked for, ``split.csv`` who went where,
``history.csv`` how it went, ``scores.csv`` and ``metrics.json`` how good it is; ``saved_model`` is
the network's state dict, ``model.onnx`` the file that ``predict`` uses.
"""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facegender.classifier import Classifier
from facegender.errors import InputError, StoppedError
from facegender.images import Pixels
from facegender.model_file import LABELS, MODEL_NAME, ModelDescription, read_model_file
from facegender.results import replacing
from facegender.training.audit_groups import read_groups
from facegender.training.calibrate import find_temperature
from facegender.training.checkpoint import BEST_NAME, EpochFigures, load_weights
from facegender.training.corrections import correct, read_corrections
from facegender.training.evaluate import measure, score, write_json, write_scores
from facegender.training.export import describe_again, export_model
from facegender.training.fit import compute_logits, fit_network, make_fabric
from facegender.training.network import Start, build_network, check_input, load_start
from facegender.training.progress import Console
from facegender.training.recipe import Recipe, recipe_values
from facegender.training.run_folder import (
    METRICS_NAME,
    SAVED_NAME,
    Request,
    begin_run,
    open_run,
)
from facegender.training.split import (
    SPLIT_NAME,
    Assignment,
    assign_parts,
    match_split,
    read_split,
    write_split,
)
from facegender.training.store import Store, open_store, store_folder

_PARITY_PICTURES = 512


def train(
    request: Request | None,
    recipe: Recipe | None,
    folder: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate on validation, calibrate and export.

    Args:
        request: archives and shares; may be None for a resume.
        recipe: how; may be None for a resume.
        folder: the run folder, made when missing.
        resume: go on where the folder's run was stopped.
        console: where progress is shown.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        FacegenderError: with what was wrong, where, and what to do.
    """
    console = console or Console()
    request, recipe = open_run(request, recipe, folder, resume)
    if request.audit:
        read_groups(Path(request.audit))  # refused now, not after the pictures are read
    fabric = make_fabric(recipe, request.devices)
    fabric.launch()
    if fabric.global_rank != 0:
        console = Console(quiet=True)  # the first process speaks for all
    torch.manual_seed(recipe.fit.seed)  # the same random weights for the same seed
    network = build_network(recipe.network.name, dropout=recipe.network.dropout)
    start = _start(network, recipe, request)
    check_input(network, recipe.network.name, recipe.input.height, recipe.input.width)
    console.note(f"network {recipe.network.name}, from {start.text}")
    if fabric.global_rank != 0:
        fabric.barrier()  # the first process prepares the pictures for all
    store = _open_store(request, recipe, folder, console)
    assignments = _split(request, recipe, store, folder, console, resume)
    if fabric.global_rank == 0:
        fabric.barrier()
    store, parts = _correct(store, assignments, request, console)
    train_rows, validation_rows = _rows(parts, "train"), _rows(parts, "validation")
    _check_labels(store, train_rows, validation_rows, console)
    if not resume and fabric.global_rank == 0:
        begin_run(request, recipe, folder)
    console.note(
        f"training on {fabric.world_size} x {fabric.device.type}, {fabric._precision.precision}"
    )
    with _stop_on_signals() as stopped, _coded(stopped):
        history = fit_network(
            network,
            store,
            train_rows,
            validation_rows,
            recipe,
            folder,
            fabric=fabric,
            resume=resume,
            should_stop=lambda: bool(stopped),
            on_step=console.step,
            on_epoch=console.epoch,
        )
    if fabric.global_rank != 0:
        return {}
    _write_history(folder / "history.csv", history)
    load_weights(network, folder / BEST_NAME)
    _save_state(network, folder / SAVED_NAME)
    return _finish(network, store, parts, request, recipe, start, folder, console)


def _start(network: nn.Module, recipe: Recipe, request: Request) -> Start:
    """Put the starting weights in."""
    start = recipe.network.start if request.start is None else request.start
    return load_start(network, recipe.network.name, None if start in ("", "none") else start)


def _open_store(request: Request, recipe: Recipe, folder: Path, console: Console) -> Store:
    """Decode the pictures once; runs side by side in one folder share what was decoded."""
    with console.counting("reading pictures") as count:
        store = open_store(
            [Path(item) for item in request.inputs],
            Path(request.table) if request.table else None,
            recipe.input.framer,
            store_folder(folder),
            on_picture=count,
            on_skip=console.skipped,
        )
    unreadable = [
        (sample.file, error)
        for sample, error in zip(store.samples, store.errors, strict=True)
        if error
    ]
    console.note(f"{len(store.samples):,} pictures, {len(unreadable):,} unreadable")
    kept = store.pixels.nbytes + (store.wide is not store.pixels) * store.wide.nbytes
    console.note(
        f"kept decoded in {store_folder(folder)} ({kept / 1e9:.1f} GB) for this "
        "and other runs; it may be deleted when none is running"
    )
    for file, error in unreadable[:5]:
        console.note(f"  unreadable: {file}: {error}")
    return store


def _split(
    request: Request, recipe: Recipe, store: Store, folder: Path, console: Console, resume: bool
) -> list[Assignment]:
    """Make the split, or use the one that was given, or the run's own when it goes on."""
    path = folder / SPLIT_NAME
    given = path if resume else Path(request.split) if request.split else None
    if given is None:
        rows = assign_parts(
            store.samples,
            store.digests,
            seed=recipe.fit.seed,
            validation=request.validation,
            test=request.test,
            errors=store.errors,
            together=read_groups(Path(request.audit)).of(store.samples) if request.audit else (),
        )
    else:
        known = read_split(given)
        rows = match_split(known, store.samples, store.digests, store.errors, given)
        if resume and len(rows) != len(known):
            raise InputError(
                f"{folder} was begun with {len(known):,} pictures and there are {len(rows):,} now: "
                "bring them back, or begin a new run"
            )
    if given != path:
        write_split(path, rows)
    counts = {part: sum(row.part == part for row in rows) for part in ("train", "validation")}
    counts["test"] = sum(row.part == "test" for row in rows)
    console.note("split: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    return rows


def _correct(
    store: Store, assignments: Sequence[Assignment], request: Request, console: Console
) -> tuple[Store, NDArray[np.str_]]:
    """Put corrected labels in; what is left out belongs to no part. The test part stays as it is.

    Returns:
        The store, and each picture's part.
    """
    parts = np.array([row.part for row in assignments])
    if request.audit:
        stays = np.array(read_groups(Path(request.audit)).keeps(store.samples))
        gone = ~stays & np.isin(parts, ("train", "validation"))
        parts[gone] = ""
        console.note(f"audit: {int(gone.sum()):,} pictures left out")
    if not request.corrections:
        return store, parts
    samples = list(store.samples)
    changed = 0
    given = correct(samples, store.digests, read_corrections(Path(request.corrections)))
    left_out = []
    for row, sample in enumerate(given):
        if parts[row] in ("train", "validation") and sample != samples[row]:
            if sample is None:
                left_out.append(row)
            else:
                samples[row] = sample
                changed += 1
    parts[left_out] = ""
    console.note(f"corrections: {changed:,} labels changed, {len(left_out):,} pictures left out")
    return replace(store, samples=samples), parts


def _rows(parts: NDArray[np.str_], part: str) -> NDArray[np.int64]:
    return np.flatnonzero(parts == part).astype(np.int64)


def _check_labels(
    store: Store, train: NDArray[np.int64], validation: NDArray[np.int64], console: Console
) -> None:
    """Refuse to learn where there is nothing to tell apart or nothing to judge by."""
    labels = store.labels
    counts = {name: int((labels[train] == index).sum()) for index, name in enumerate(LABELS)}
    console.note("training part: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    if empty := [name for name, count in counts.items() if not count]:
        raise InputError(
            f"no training picture is labelled {' or '.join(empty)}: both folders, male/ and "
            "female/, need pictures"
        )
    if not len(validation):
        raise InputError("the validation part is empty: give more pictures or a larger share")


def _finish(
    network: nn.Module,
    store: Store,
    parts: NDArray[np.str_],
    request: Request,
    recipe: Recipe,
    start: Start,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Calibrate on validation, export, and measure the file itself on validation."""
    path = folder / MODEL_NAME
    rows = _rows(parts, "validation")
    labels = store.labels[rows]
    console.note("calibrating on validation")
    temperature = find_temperature(
        compute_logits(network.cpu(), store, rows, recipe.input).numpy(), labels
    )
    learned = _rows(parts, "train")
    description = ModelDescription(
        name=recipe.name,
        resize=recipe.input.framer.resize,
        crop=recipe.input.framer.crop,
        grey=recipe.input.grey,
        unknown_below=recipe.unknown_below,
        temperature=round(temperature, 4),
        data={
            "train": len(learned),
            "validation": len(rows),
            "test": int((parts == "test").sum()),
            "fingerprint": _fingerprint(store, learned),
        },
        recipe=recipe_values(_without_folders(recipe)),
        start=start.text,
        licence=request.licence,
        terms=request.terms,
        created=datetime.now(UTC).date().isoformat(),
    )
    difference = export_model(
        network, recipe.input, description, _parity_pictures(store, rows), path
    )
    console.note(f"exported; torch and the file differ by at most {difference:.1e}")
    with console.counting("evaluating", len(rows)) as count:
        probabilities = score(Classifier.load(path), store, rows, on_picture=count)
    samples = [store.samples[row] for row in rows]
    write_scores(folder / "scores.csv", samples, ["validation"] * len(rows), probabilities)
    metrics: dict[str, Any] = {
        "start": start.text,
        "validation": measure(samples, probabilities, labels),
        "parity": {"largest_difference": float(f"{difference:.2e}")},
    }
    describe_again(path, replace(description, figures=_summary(metrics["validation"])))
    write_json(folder / METRICS_NAME, metrics)
    return metrics


def export_run(
    folder: Path,
    output: Path,
    *,
    licence: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> ModelDescription:
    """Write the model file of a finished run to another place, checked again on real pictures.

    Args:
        folder: the run folder.
        output: where the model file goes.
        licence: what the file says of its licence; None keeps what the run said.
        terms: what the file says of its data's terms; None keeps what the run said.
        console: where progress is shown.

    Raises:
        InputError: the run is not finished, or its archives are no longer where they were.
        ParityError: torch and the graph do not agree; nothing is written.
    """
    console = console or Console()
    request, recipe = open_run(None, None, folder, resume=True)
    description = read_model_file(folder).description
    if licence is not None:
        description = replace(description, licence=licence)
    if terms is not None:
        description = replace(description, terms=terms)
    network = build_network(recipe.network.name)
    state = torch.load(folder / SAVED_NAME, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    store = _open_store(request, recipe, folder, console)
    assignments = _split(request, recipe, store, folder, console, resume=True)
    rows = _rows(np.array([row.part for row in assignments]), "validation")
    difference = export_model(
        network, recipe.input, description, _parity_pictures(store, rows), output
    )
    console.note(f"exported; torch and the file differ by at most {difference:.1e}")
    return description


def _parity_pictures(store: Store, rows: NDArray[np.int64]) -> Pixels:
    """Pick the real pictures on which an export is compared."""
    shown = rows[:: max(1, len(rows) // _PARITY_PICTURES)]
    return np.ascontiguousarray(store.pixels[shown])


def _summary(measured: dict[str, Any]) -> dict[str, Any]:
    """Pick the figures that go into the model file."""
    kept = {name: measured[name] for name in ("accuracy", "recall", "calibration_error")}
    sources = {name: group["accuracy"] for name, group in measured.get("sources", {}).items()}
    return {"validation": kept | ({"sources": sources} if sources else {})}


def _without_folders(recipe: Recipe) -> Recipe:
    """Name a file of starting weights without its folder: the model file travels."""
    name = Path(recipe.network.start).name
    return replace(recipe, network=replace(recipe.network, start=name))


def _fingerprint(store: Store, rows: NDArray[np.int64]) -> str:
    """SHA-256 over the sorted digests of the training pictures, 16 hex digits of it."""
    digests = "".join(sorted(store.digests[row] for row in rows))
    return sha256(digests.encode()).hexdigest()[:16]


def _save_state(network: nn.Module, path: Path) -> None:
    """Save the state dict, as ``torch.save`` does, whole or not at all."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    with replacing(path) as file:
        torch.save(state, file.buffer)


def _write_history(path: Path, history: Sequence[EpochFigures]) -> None:
    with replacing(path) as file:
        rows = csv.DictWriter(file, [item.name for item in fields(EpochFigures)])
        rows.writeheader()
        rows.writerows(asdict(figures) for figures in history)


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

    def note(number: int, frame: FrameType | None) -> None:
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
