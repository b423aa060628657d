"""The first step of a training: everything that the loop needs, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from facegender.errors import MissingExtraError
from facegender.training.console import Console
from facegender.training.data.corrections import read_corrections
from facegender.training.data.duplicate_groups import read_duplicate_groups
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.label_folders import parse_classes
from facegender.training.data.metadata import read_metadata
from facegender.training.data.sampler import Indices
from facegender.training.data.split import read_split
from facegender.training.dataset import (
    add_teacher_predictions,
    check_both_labels,
    check_subset_labels,
    check_teacher,
    correct_training_labels,
    load_images,
    makes_audit,
    run_audit,
    split_images,
    subset_indices,
)
from facegender.training.ensemble.ensemble import resolve_ensemble
from facegender.training.evaluation.predictions_table import read_predictions
from facegender.training.loop.devices import (
    Processes,
    check_devices,
    is_main_process,
    is_one_process,
    make_fabric,
)
from facegender.training.loop.overfit_check import check_disk_space, overfit_small_batch
from facegender.training.loop.precision import bf16_may_be_faster, measure_bf16_speedup
from facegender.training.models.networks import (
    PretrainedWeights,
    build_network,
    check_dlib_weights,
    check_input_size,
    load_pretrained,
)
from facegender.training.recipe import Recipe
from facegender.training.run_folder import TrainRequest, open_run, record_request, remove_if_empty


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """Everything that training needs.

    Attributes:
        folder: the run folder.
        request: what the run was asked to do.
        recipe: all settings, with the precision that was chosen.
        network: with its initial weights.
        pretrained: where these are from.
        cache: decoded images, with corrected labels and a teacher's predictions.
        subsets: subset of each image, ``[N]``; "" for one that is left out or unreadable.
        fabric: devices and precision, launched.
        resume: whether an earlier run is continued.
        console: where progress is shown; quiet in all processes but the main one.
    """

    folder: Path
    request: TrainRequest
    recipe: Recipe
    network: nn.Module
    pretrained: PretrainedWeights
    cache: ImageCache
    subsets: NDArray[np.str_]
    fabric: Fabric
    resume: bool
    console: Console

    def rows(self, subset: str) -> Indices:
        """Return the rows of the cache that are in a subset."""
        return subset_indices(self.subsets, subset)


def prepare(
    request: TrainRequest | None,
    recipe: Recipe | None,
    folder: Path,
    *,
    resume: bool,
    sanity_check: bool,
    console: Console,
) -> PreparedRun:
    """Prepare a run; mistakes in the request, recipe or data are found here, before training.

    Args:
        request: inputs and options; not used for a resume.
        recipe: all settings; not used for a resume.
        folder: the run folder.
        resume: continue the run in the folder.
        sanity_check: overfit a copy of the network to a few images; never for a resume.
        console: where progress is shown.

    Raises:
        FacegenderError: what is wrong, where, and what to do.
    """
    if not is_main_process():
        console = Console(quiet=True)
    with remove_if_empty(folder):
        return _prepare(request, recipe, folder, resume, sanity_check, console)


def _prepare(
    request: TrainRequest | None,
    recipe: Recipe | None,
    folder: Path,
    resume: bool,
    sanity_check: bool,
    console: Console,
) -> PreparedRun:
    """Do the work of :func:`prepare`."""
    request, recipe = open_run(request, recipe, folder, resume, is_main=is_main_process())
    _check_request(request, recipe)
    recipe = resolve_ensemble(recipe, request.open_networks, console)
    torch.manual_seed(recipe.train.seed)  # the same random weights for the same seed
    network = build_network(recipe.network.name, dropout=recipe.network.dropout)
    pretrained = _load_pretrained(network, recipe, request)
    check_input_size(network, recipe.network.name, recipe.input.height, recipe.input.width)
    if not resume and is_one_process(request.devices):
        recipe = resolve_precision(network, recipe, console)
    fabric = make_fabric(recipe, request.devices)
    fabric.launch()
    processes = Processes(fabric)
    console.note(f"Network: {recipe.network.name}, initialized from {pretrained.description}")
    with processes.main_first():
        check_disk_space(folder, network, recipe.train)
        cache = load_images(request, recipe, folder, console)
        if not request.corrections:  # which may add the other label
            check_both_labels(cache.labels, "image")
        is_new = processes.is_main and not resume
        if is_new:
            request = run_audit(request, recipe, folder, console)
        assignments = split_images(request, recipe, cache, folder, console, resume=not is_new)
    cache, subsets = correct_training_labels(cache, assignments, request, console)
    cache = add_teacher_predictions(cache, request, console)
    train_rows = subset_indices(subsets, "train")
    check_subset_labels(cache, train_rows, subset_indices(subsets, "validation"), console)
    check_disk_space(folder, network, recipe.train)
    if sanity_check and not resume:
        _check_sanity(network, cache, train_rows, recipe, fabric, console)
    if not resume:
        processes.on_main(record_request)(request, recipe, folder)
    return PreparedRun(
        folder, request, recipe, network, pretrained, cache, subsets, fabric, resume, console
    )


def _check_request(request: TrainRequest, recipe: Recipe) -> None:
    """Check what can be checked before images are read.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        InputError: an input is missing or wrong, or the weights that an audit uses are missing.
    """
    check_devices(request.devices)
    parse_classes(request.classes)
    check_teacher(recipe, request)
    if request.metadata:
        read_metadata(Path(request.metadata), ())
    if request.split:
        read_split(Path(request.split))
    if request.corrections:
        read_corrections(Path(request.corrections))
    if request.teacher:
        read_predictions(Path(request.teacher))
    if makes_audit(request):
        check_dlib_weights()
    if request.tensorboard and find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard")
    if request.audit:
        read_duplicate_groups(Path(request.audit))


def _load_pretrained(
    network: nn.Module, recipe: Recipe, request: TrainRequest
) -> PretrainedWeights:
    """Load the initial weights of the request, or else of the recipe."""
    source = recipe.network.pretrained if request.pretrained is None else request.pretrained
    return load_pretrained(network, recipe.network.name, None if source in ("", "none") else source)


def resolve_precision(network: nn.Module, recipe: Recipe, console: Console) -> Recipe:
    """Replace precision ``auto`` by the faster one, so that a resume uses the same."""
    if recipe.train.precision != "auto":
        return recipe
    speedup = 0.0
    if bf16_may_be_faster(recipe):
        speedup = measure_bf16_speedup(network, recipe)
        console.note(f"Precision: a step in bfloat16 is {speedup:.2f} times as fast as in float32")
    return replace(recipe, train=replace(recipe.train, precision="bf16" if speedup > 1 else "32"))


def _check_sanity(
    network: nn.Module,
    cache: ImageCache,
    train: Indices,
    recipe: Recipe,
    fabric: Fabric,
    console: Console,
) -> None:
    """Overfit a copy of the network to a few images, with progress."""
    with console.counting("Sanity check") as count:
        result = overfit_small_batch(network, cache, train, recipe, fabric, on_image=count)
    console.note(
        f"Sanity check: overfit {result.images} images in {result.steps} steps, "
        f"loss {result.before:.3f} to {result.after:.3f}"
    )
