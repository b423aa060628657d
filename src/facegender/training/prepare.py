"""What a run learns from: its archives decoded, split, corrected, and looked at before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.model.model_file import LABELS
from facegender.training.console import Console
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.duplicate_groups import read_duplicate_groups
from facegender.training.data.image_cache import (
    ImageCache,
    build_atomically,
    cache_folder,
    cache_path,
    open_image_cache,
)
from facegender.training.data.image_rows import EncodedImages
from facegender.training.data.split import (
    SPLIT_NAME,
    Assignment,
    assign_subsets,
    match_split,
    read_split,
    write_split,
)
from facegender.training.evaluation.predictions_table import read_predictions
from facegender.training.recipe import Recipe
from facegender.training.run_folder import AUDIT_FOLDER, TrainRequest


def load_images(
    request: TrainRequest, recipe: Recipe, folder: Path, console: Console
) -> ImageCache:
    """Decode the pictures once; runs side by side in one folder share what was decoded."""
    with console.counting("reading pictures") as count:
        cache = open_image_cache(
            [Path(item) for item in request.inputs],
            Path(request.table) if request.table else None,
            recipe.input.aligner,
            cache_folder(folder),
            on_image=count,
            on_skip=console.skipped,
        )
    unreadable = [
        (sample.file, error)
        for sample, error in zip(cache.samples, cache.errors, strict=True)
        if error
    ]
    console.note(f"{len(cache.samples):,} pictures, {len(unreadable):,} unreadable")
    kept = (
        cache.pixels.nbytes
        + (cache.context_pixels is not cache.pixels) * cache.context_pixels.nbytes
    )
    how = "decoded"
    if isinstance(cache.pixels, EncodedImages):
        how, kept = "as files, for the disk has no room for pixels,", cache.pixels.nbytes
    console.note(
        f"kept {how} in {cache_folder(folder)} ({kept / 1e9:.1f} GB) for this "
        "and other runs; it may be deleted when none is running"
    )
    for file, error in unreadable[:5]:
        console.note(f"  unreadable: {file}: {error}")
    return cache


def run_audit(
    request: TrainRequest, recipe: Recipe, folder: Path, console: Console
) -> TrainRequest:
    """Audit the pictures before they are split; what was found is kept beside the store.

    A recipe that prepares pictures as an audit does (``best``) has them decoded and their faces
    found already. For any other an audit decodes them once more, for all later runs.

    Returns:
        The request, with the audit's folder in the run folder where one was made.
    """
    if request.audit is not None or request.split is not None:
        return request
    from facegender.training.audit.audit import (
        AUDIT_ALIGNER,
        AUDIT_NAME,
        LABEL_ISSUES_NAME,
        PAGE_NAME,
        VERSION,
        audit,
    )

    inputs = [Path(item) for item in request.inputs]
    table = Path(request.table) if request.table else None
    cache_root = cache_folder(folder)
    kept = cache_path(inputs, table, AUDIT_ALIGNER, cache_root)
    kept = kept.with_name(f"{kept.name}.audit{VERSION}")
    if not kept.is_dir():
        if recipe.input.aligner != AUDIT_ALIGNER:
            console.note(
                "auditing first, once for all runs on these archives; the faces are looked for in "
                "pictures of its own size (--no-audit leaves it out)"
            )
        with build_atomically(kept) as unfinished:
            audit(inputs, unfinished, table=table, cache_root=cache_root, console=console)
    place = folder / AUDIT_FOLDER
    shutil.copytree(kept, place, dirs_exist_ok=True)
    counts = json.loads((place / AUDIT_NAME).read_text(encoding="utf-8"))["counts"]
    console.note(
        f"audit: {counts['groups of copies']:,} photos are there more than once, and stay on one "
        f"side of the split; {counts['doubtful']:,} labels look wrong: {place / PAGE_NAME} shows "
        f"them, --corrections {place / LABEL_ISSUES_NAME} would correct them in another run"
    )
    return replace(request, audit=str(place.absolute()))


def split_images(
    request: TrainRequest,
    recipe: Recipe,
    cache: ImageCache,
    folder: Path,
    console: Console,
    resume: bool,
) -> list[Assignment]:
    """Make the split, or use the one that was given, or the run's own when it goes on."""
    path = folder / SPLIT_NAME
    given = path if resume else Path(request.split) if request.split else None
    if given is None:
        together: list[str] = []
        if request.audit:
            grouping = read_duplicate_groups(Path(request.audit))
            if not grouping.is_of(cache.samples, cache.digests):
                raise InputError(
                    f"the audit in {request.audit} is of other pictures: it names none of these"
                )
            together = grouping.of(cache.samples, cache.digests)
        rows = assign_subsets(
            cache.samples,
            cache.digests,
            seed=recipe.train.seed,
            validation=request.validation,
            test=request.test,
            errors=cache.errors,
            together=together,
        )
    else:
        known = read_split(given)
        rows = match_split(known, cache.samples, cache.digests, cache.errors, given)
        if resume and len(rows) != len(known):
            raise InputError(
                f"{folder} was begun with {len(known):,} pictures and there are {len(rows):,} now: "
                "bring them back, or begin a new run"
            )
    if given != path:
        write_split(path, rows)
    counts = {
        subset: sum(row.subset == subset for row in rows) for subset in ("train", "validation")
    }
    counts["test"] = sum(row.subset == "test" for row in rows)
    console.note("split: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    return rows


def correct_training_labels(
    cache: ImageCache, assignments: Sequence[Assignment], request: TrainRequest, console: Console
) -> tuple[ImageCache, NDArray[np.str_]]:
    """Put corrected labels in; what is left out belongs to no part. The test part stays as it is.

    Returns:
        The store, and each picture's part.
    """
    subsets = np.array([row.subset for row in assignments])
    if request.audit:
        stays = np.array(
            read_duplicate_groups(Path(request.audit)).keeps(cache.samples, cache.digests)
        )
        gone = ~stays & np.isin(subsets, ("train", "validation"))
        subsets[gone] = ""
        console.note(f"audit: {int(gone.sum()):,} pictures left out")
    if not request.corrections:
        return cache, subsets
    samples = list(cache.samples)
    changed = 0
    given = apply_corrections(samples, cache.digests, read_corrections(Path(request.corrections)))
    left_out = []
    for row, sample in enumerate(given):
        if subsets[row] in ("train", "validation") and sample != samples[row]:
            if sample is None:
                left_out.append(row)
            else:
                samples[row] = sample
                changed += 1
    subsets[left_out] = ""
    console.note(f"corrections: {changed:,} labels changed, {len(left_out):,} pictures left out")
    return replace(cache, samples=samples), subsets


def add_teacher_predictions(
    cache: ImageCache, recipe: Recipe, request: TrainRequest, console: Console
) -> ImageCache:
    """Put a teacher's answers beside the labels, where the run was given any.

    Raises:
        InputError: scores without a recipe that uses them, the other way round, or scores of none
            of the pictures.
    """
    if bool(request.teacher) != bool(recipe.train.distillation_weight):
        raise InputError(
            f"recipe {recipe.name} learns from a teacher: give its scores by --teacher"
            if recipe.train.distillation_weight
            else f"recipe {recipe.name} would not use --teacher: set train.distillation_weight in it, such as 0.7"
        )
    if not request.teacher:
        return cache
    scores = read_predictions(Path(request.teacher))
    told = {
        (sample.archive, sample.file): p_male
        for sample, p_male in zip(scores.samples, scores.p_male, strict=True)
    }
    given = [told.get((sample.archive, sample.file), np.nan) for sample in cache.samples]
    teacher = np.array(given, np.float32)
    known = int(np.isfinite(teacher).sum())
    if not known:
        raise InputError(f"{request.teacher} scores none of the pictures: see archive and file")
    console.note(f"teacher: answers for {known:,} of {len(teacher):,} pictures")
    return replace(cache, teacher=teacher)


def subset_indices(subsets: NDArray[np.str_], subset: str) -> NDArray[np.int64]:
    """Indices of the pictures in a part of the split, ``int64``."""
    return np.flatnonzero(subsets == subset).astype(np.int64)


def check_both_labels(labels: NDArray[np.int64], what: str) -> None:
    """Refuse pictures that have one label alone.

    Raises:
        InputError: there is nothing to tell apart.
    """
    if empty := [name for index, name in enumerate(LABELS) if not (labels == index).any()]:
        raise InputError(
            f"no {what} is labelled {' or '.join(empty)}: both folders, male/ and female/, need "
            "pictures"
        )


def check_subset_labels(
    cache: ImageCache, train: NDArray[np.int64], validation: NDArray[np.int64], console: Console
) -> None:
    """Refuse to learn where there is nothing to tell apart or nothing to judge by."""
    labels = cache.labels
    counts = {name: int((labels[train] == index).sum()) for index, name in enumerate(LABELS)}
    console.note("training part: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    check_both_labels(labels[train], "training picture")
    if not len(validation):
        raise InputError("the validation part is empty: give more pictures or a larger share")
    names = {LABELS[index] for index in cache.labels[validation]}
    if len(names) < len(LABELS):
        console.note(
            f"every validation picture is labelled {names.pop()}: accuracy will say nothing of the "
            "other label; give more pictures, or a larger --validation"
        )
