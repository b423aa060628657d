"""Export the network of a finished run again, to another place or with other terms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from facegender.model.model_file import MODEL_NAME, ModelDescription, read_model_file
from facegender.training.console import Console
from facegender.training.dataset import load_images, split_images, subset_indices
from facegender.training.export.model_export import copy_model_file
from facegender.training.models.networks import build_network
from facegender.training.run_folder import SAVED_MODEL_NAME, open_run
from facegender.training.train import TrainedNetwork, parity_images


def export_run(
    folder: Path,
    output: Path,
    *,
    license: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> ModelDescription:
    """Write the model file of a finished run, and compare it with torch on its images.

    For an ensemble the run's file is copied: its trained member was compared with torch when the
    run exported it.

    Args:
        folder: the run folder.
        output: the model file to write.
        license: license of the weights, for the file; None keeps the run's.
        terms: terms of the data, for the file; None keeps the run's.
        console: where progress is shown.

    Returns:
        The description of the file.

    Raises:
        InputError: the run is not finished, or its inputs are missing.
        ParityError: the file differs from torch; nothing is written.
    """
    console = console or Console()
    request, recipe = open_run(None, None, folder, resume=True)
    description = read_model_file(folder).description
    if license is not None:
        description = replace(description, license=license)
    if terms is not None:
        description = replace(description, terms=terms)
    if recipe.ensemble:
        copy_model_file(folder / MODEL_NAME, output, description)
        return description
    network = build_network(recipe.network.name)
    state = torch.load(folder / SAVED_MODEL_NAME, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    cache = load_images(request, recipe, folder, console)
    assignments = split_images(request, recipe, cache, folder, console, resume=True)
    rows = subset_indices(np.array([row.subset for row in assignments]), "validation")
    trained = TrainedNetwork(network, recipe.input)
    difference = trained.export(description, parity_images(cache, rows), output)
    console.note(f"Exported; maximum difference to torch {difference:.1e}")
    return description
