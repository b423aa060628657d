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
from facegender.training.data.corrections import correct, read_corrections
from facegender.training.data.duplicate_groups import read_groups
from facegender.training.data.image_cache import (
    Store,
    building,
    open_store,
    store_folder,
    store_path,
)
from facegender.training.data.image_rows import Encoded
from facegender.training.data.split import (
    SPLIT_NAME,
    Assignment,
    assign_parts,
    match_split,
    read_split,
    write_split,
)
from facegender.training.evaluation.predictions_table import read_scores
from facegender.training.recipe import Recipe
from facegender.training.run_folder import AUDIT_FOLDER, Request


def open_pictures(request: Request, recipe: Recipe, folder: Path, console: Console) -> Store:
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
    how = "decoded"
    if isinstance(store.pixels, Encoded):
        how, kept = "as files, for the disk has no room for pixels,", store.pixels.nbytes
    console.note(
        f"kept {how} in {store_folder(folder)} ({kept / 1e9:.1f} GB) for this "
        "and other runs; it may be deleted when none is running"
    )
    for file, error in unreadable[:5]:
        console.note(f"  unreadable: {file}: {error}")
    return store


def audit_first(request: Request, recipe: Recipe, folder: Path, console: Console) -> Request:
    """Audit the pictures before they are split; what was found is kept beside the store.

    A recipe that prepares pictures as an audit does (``best``) has them decoded and their faces
    found already. For any other an audit decodes them once more, for all later runs.

    Returns:
        The request, with the audit's folder in the run folder where one was made.
    """
    if request.audit is not None or request.split is not None:
        return request
    from facegender.training.audit.audit import (
        AUDIT_NAME,
        DOUBTFUL_NAME,
        FRAMER,
        PAGE_NAME,
        VERSION,
        audit,
    )

    inputs = [Path(item) for item in request.inputs]
    table = Path(request.table) if request.table else None
    stores = store_folder(folder)
    kept = store_path(inputs, table, FRAMER, stores)
    kept = kept.with_name(f"{kept.name}.audit{VERSION}")
    if not kept.is_dir():
        if recipe.input.framer != FRAMER:
            console.note(
                "auditing first, once for all runs on these archives; the faces are looked for in "
                "pictures of its own size (--no-audit leaves it out)"
            )
        with building(kept) as unfinished:
            audit(inputs, unfinished, table=table, stores=stores, console=console)
    place = folder / AUDIT_FOLDER
    shutil.copytree(kept, place, dirs_exist_ok=True)
    counts = json.loads((place / AUDIT_NAME).read_text(encoding="utf-8"))["counts"]
    console.note(
        f"audit: {counts['groups of copies']:,} photos are there more than once, and stay on one "
        f"side of the split; {counts['doubtful']:,} labels look wrong: {place / PAGE_NAME} shows "
        f"them, --corrections {place / DOUBTFUL_NAME} would correct them in another run"
    )
    return replace(request, audit=str(place.absolute()))


def split_pictures(
    request: Request, recipe: Recipe, store: Store, folder: Path, console: Console, resume: bool
) -> list[Assignment]:
    """Make the split, or use the one that was given, or the run's own when it goes on."""
    path = folder / SPLIT_NAME
    given = path if resume else Path(request.split) if request.split else None
    if given is None:
        together: list[str] = []
        if request.audit:
            grouping = read_groups(Path(request.audit))
            if not grouping.is_of(store.samples, store.digests):
                raise InputError(
                    f"the audit in {request.audit} is of other pictures: it names none of these"
                )
            together = grouping.of(store.samples, store.digests)
        rows = assign_parts(
            store.samples,
            store.digests,
            seed=recipe.fit.seed,
            validation=request.validation,
            test=request.test,
            errors=store.errors,
            together=together,
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


def correct_labels(
    store: Store, assignments: Sequence[Assignment], request: Request, console: Console
) -> tuple[Store, NDArray[np.str_]]:
    """Put corrected labels in; what is left out belongs to no part. The test part stays as it is.

    Returns:
        The store, and each picture's part.
    """
    parts = np.array([row.part for row in assignments])
    if request.audit:
        stays = np.array(read_groups(Path(request.audit)).keeps(store.samples, store.digests))
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


def add_teacher(store: Store, recipe: Recipe, request: Request, console: Console) -> Store:
    """Put a teacher's answers beside the labels, where the run was given any.

    Raises:
        InputError: scores without a recipe that uses them, the other way round, or scores of none
            of the pictures.
    """
    if bool(request.teacher) != bool(recipe.fit.distill):
        raise InputError(
            f"recipe {recipe.name} learns from a teacher: give its scores by --teacher"
            if recipe.fit.distill
            else f"recipe {recipe.name} would not use --teacher: set fit.distill in it, such as 0.7"
        )
    if not request.teacher:
        return store
    scores = read_scores(Path(request.teacher))
    told = {
        (sample.archive, sample.file): p_male
        for sample, p_male in zip(scores.samples, scores.p_male, strict=True)
    }
    given = [told.get((sample.archive, sample.file), np.nan) for sample in store.samples]
    teacher = np.array(given, np.float32)
    known = int(np.isfinite(teacher).sum())
    if not known:
        raise InputError(f"{request.teacher} scores none of the pictures: see archive and file")
    console.note(f"teacher: answers for {known:,} of {len(teacher):,} pictures")
    return replace(store, teacher=teacher)


def rows_of(parts: NDArray[np.str_], part: str) -> NDArray[np.int64]:
    """Indices of the pictures in a part of the split, ``int64``."""
    return np.flatnonzero(parts == part).astype(np.int64)


def check_both(labels: NDArray[np.int64], what: str) -> None:
    """Refuse pictures that have one label alone.

    Raises:
        InputError: there is nothing to tell apart.
    """
    if empty := [name for index, name in enumerate(LABELS) if not (labels == index).any()]:
        raise InputError(
            f"no {what} is labelled {' or '.join(empty)}: both folders, male/ and female/, need "
            "pictures"
        )


def check_labels(
    store: Store, train: NDArray[np.int64], validation: NDArray[np.int64], console: Console
) -> None:
    """Refuse to learn where there is nothing to tell apart or nothing to judge by."""
    labels = store.labels
    counts = {name: int((labels[train] == index).sum()) for index, name in enumerate(LABELS)}
    console.note("training part: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    check_both(labels[train], "training picture")
    if not len(validation):
        raise InputError("the validation part is empty: give more pictures or a larger share")
    names = {LABELS[index] for index in store.labels[validation]}
    if len(names) < len(LABELS):
        console.note(
            f"every validation picture is labelled {names.pop()}: accuracy will say nothing of the "
            "other label; give more pictures, or a larger --validation"
        )
