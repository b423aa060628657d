"""Former names in the files of a run: a reader that meets one says the present name.

All tables are former name -> present name. Nothing reads a file by its former names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from facegender.errors import InputError

RECIPE_KEYS = {
    "unknown_below": "min_confidence",
    "fit": "train",
    "network.start": "network.pretrained",
    "input.filter": "input.interpolation",
    "input.aspect": "input.resize_mode",
    "input.grey": "input.grayscale",
    "augment.whole": "augment.full_image_prob",
    "augment.flip": "augment.hflip_prob",
    "augment.turn_degrees": "augment.rotation_degrees",
    "augment.turn_share": "augment.rotation_prob",
    "augment.tilt_degrees": "augment.rotation_jitter_std",
    "augment.zoom": "augment.scale",
    "augment.far": "augment.zoom_out_prob",
    "augment.farthest": "augment.zoom_out_max",
    "augment.stretch": "augment.aspect_ratio_jitter",
    "augment.shift": "augment.translate",
    "augment.edge": "augment.pad_edge_prob",
    "augment.surround": "augment.pad_background_prob",
    "augment.low_resolution": "augment.downscale_prob",
    "augment.light": "augment.color_jitter",
    "augment.cast": "augment.color_cast",
    "augment.grey": "augment.grayscale_prob",
    "augment.noise": "augment.gaussian_noise_std",
    "augment.cover": "augment.random_erasing_prob",
    "train.batch": "train.batch_size",
    "train.least_steps": "train.min_steps",
    "train.warmup": "train.warmup_fraction",
    "train.schedule": "train.lr_schedule",
    "train.ema": "train.ema_decay",
    "train.gradient_clip": "train.max_grad_norm",
    "train.balance": "train.sampling_balance",
    "train.distill": "train.distillation_weight",
}
"""Sections and keys of a recipe."""

RECIPE_VALUES = {
    ("input.crop", "whole"): "none",
    ("input.resize_mode", "pad"): "letterbox",
    ("input.resize_mode", "crop"): "center_crop",
}
"""Values of a recipe's keys."""

REQUEST_KEYS = {"table": "metadata", "start": "pretrained", "licence": "license"}
"""Keys of ``run.json``."""

SPLIT_COLUMNS = {"part": "subset"}
"""Columns of ``split.csv``."""

HISTORY_COLUMNS = {"pictures_per_second": "images_per_second"}
"""Columns of ``history.csv``."""

PREDICTIONS_COLUMNS = {"part": "subset"}
"""Columns of ``predictions.csv``."""

RUN_FILES = {"scores.csv": "predictions.csv"}
"""Files of a run folder."""


def find_renamed_keys(raw: Mapping[str, Any]) -> list[str]:
    """List the former keys and values in a recipe, each with its present name.

    Args:
        raw: a recipe's sections and keys.

    Returns:
        Texts such as ``fit.batch -> train.batch_size``.
    """
    found = []
    for name, value in raw.items():
        section = RECIPE_KEYS.get(name, name)
        if section != name:
            found.append(f"{name} -> {section}")
        for key, text in value.items() if isinstance(value, Mapping) else ():
            full = f"{section}.{key}"
            now = RECIPE_KEYS.get(full, full)
            if now != full:
                found.append(f"{name}.{key} -> {now}")
            if isinstance(text, str) and (now, text) in RECIPE_VALUES:
                found.append(f"{now} = {text!r} -> {RECIPE_VALUES[now, text]!r}")
    return found


def refuse_renamed(path: Path, names: Collection[str], renamed: Mapping[str, str]) -> None:
    """Refuse a file that has former names.

    Args:
        path: the file.
        names: its keys or columns.
        renamed: the table of its kind.

    Raises:
        InputError: with each former name found, its present name, and what to do.
    """
    found = [f"{old} -> {new}" for old, new in renamed.items() if old in names]
    if found:
        raise InputError(
            f"{path} was written by an earlier version: these were renamed: {', '.join(found)}. "
            "Rename them in the file, or make it again."
        )


def refuse_renamed_file(path: Path) -> None:
    """Refuse a run folder that has a file only under its former name.

    Args:
        path: the file, under its present name.

    Raises:
        InputError: the file is missing, and its former name is in the folder.
    """
    for old, new in RUN_FILES.items():
        if new == path.name and not path.exists() and path.with_name(old).exists():
            raise InputError(
                f"{path.parent} was written by an earlier version: {old} was renamed to {new}. "
                "Evaluate the model file again, or rename the file."
            )
