"""The dataset of a run: images are decoded, audited, split, corrected and checked."""

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
from facegender.training.data.cache_writer import build_atomically
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.duplicate_groups import read_duplicate_groups
from facegender.training.data.image_cache import (
    ImageCache,
    cache_folder,
    cache_path,
    open_image_cache,
)
from facegender.training.data.image_rows import EncodedImages
from facegender.training.data.label_folders import parse_classes
from facegender.training.data.sampler import Indices
from facegender.training.data.split import (
    SPLIT_NAME,
    SUBSETS,
    Assignment,
    match_split,
    read_split,
    write_split,
)
from facegender.training.data.subsets import assign_subsets
from facegender.training.evaluation.predictions_table import read_predictions
from facegender.training.recipe import Recipe
from facegender.training.run_folder import AUDIT_FOLDER, TrainRequest

_EXAMPLES_SHOWN = 5


def load_images(
    request: TrainRequest, recipe: Recipe, folder: Path, console: Console
) -> ImageCache:
    """Decode the images of a run, or open their cache, which runs in one folder share."""
    with console.counting("Reading images") as count:
        cache = open_image_cache(
            [Path(item) for item in request.inputs],
            Path(request.metadata) if request.metadata else None,
            recipe.input.aligner,
            cache_folder(folder),
            on_image=count,
            on_skip=console.skipped,
            classes=parse_classes(request.classes),
        )
    unreadable = cache.unreadable
    console.note(f"{len(cache.samples):,} images, {len(unreadable):,} unreadable")
    size = cache.pixels.nbytes
    content = "decoded images"
    if isinstance(cache.pixels, EncodedImages):
        content = "encoded images (the disk has no room for pixels)"
    elif cache.context_pixels is not cache.pixels:
        size += cache.context_pixels.nbytes
    console.note(
        f"Cache of {content}: {cache_folder(folder)}, {size / 1e9:.1f} GB "
        "(shared by runs in this folder; safe to delete when none is running)"
    )
    for file, error in unreadable[:_EXAMPLES_SHOWN]:
        console.note(f"  unreadable: {file}: {error}")
    return cache


def makes_audit(request: TrainRequest) -> bool:
    """Return whether a new run makes an audit before the split."""
    return request.audit is None and request.split is None


def run_audit(
    request: TrainRequest, recipe: Recipe, folder: Path, console: Console
) -> TrainRequest:
    """Audit the images before they are split; later runs on the same inputs reuse the audit.

    A recipe with the preprocessing of the audit (``best``) shares its image cache. For all others
    the audit decodes the images once more.

    Returns:
        The request, with the audit's folder in the run folder if an audit was made.
    """
    if not makes_audit(request):
        return request
    from facegender.training.audit.audit import AUDIT_ALIGNER, VERSION, audit
    from facegender.training.audit.audit_files import AUDIT_NAME, PAGE_NAME
    from facegender.training.audit.label_issues import describe_issues

    inputs = [Path(item) for item in request.inputs]
    metadata = Path(request.metadata) if request.metadata else None
    cache_root = cache_folder(folder)
    classes = parse_classes(request.classes)
    cached = cache_path(inputs, metadata, AUDIT_ALIGNER, cache_root, classes)
    cached = cached.with_name(f"{cached.name}.audit{VERSION}")
    if not cached.is_dir():
        console.note("Auditing the dataset (once per archive; skip with --no-audit)")
        with build_atomically(cached) as unfinished:
            audit(
                inputs,
                unfinished,
                metadata=metadata,
                classes=classes,
                cache_root=cache_root,
                console=console,
            )
    target = folder / AUDIT_FOLDER
    shutil.copytree(cached, target, dirs_exist_ok=True)
    counts = json.loads((target / AUDIT_NAME).read_text(encoding="utf-8"))["counts"]
    console.note(
        f"Audit: {counts['duplicate_groups']:,} duplicate groups (never split across training and "
        f"validation), {describe_issues(counts['label_issues'], counts['label_issues_wrong'])}"
    )
    if counts["label_issues"]:
        console.note(
            f"  To correct labels: open {target / PAGE_NAME}, decide, save the table, and give it "
            "to another run with --corrections."
        )
    return replace(request, audit=str(target.absolute()))


def split_images(
    request: TrainRequest,
    recipe: Recipe,
    cache: ImageCache,
    folder: Path,
    console: Console,
    resume: bool,
) -> list[Assignment]:
    """Assign every image to a subset.

    Args:
        request: its fractions, audit, or split of another run.
        recipe: its seed.
        cache: the images.
        folder: the run folder, which gets ``split.csv``.
        console: where counts are shown.
        resume: use the ``split.csv`` that is in the folder.

    Raises:
        InputError: the split or the audit is not of these images.
    """
    path = folder / SPLIT_NAME
    given = path if resume else Path(request.split) if request.split else None
    if given is None:
        rows = assign_subsets(
            cache.samples,
            cache.digests,
            seed=recipe.train.seed,
            validation=request.validation,
            test=request.test,
            errors=cache.errors,
            duplicate_groups=_duplicate_groups(request, cache),
        )
    else:
        known = read_split(given)
        rows = match_split(known, cache.samples, cache.digests, cache.errors, given)
        if resume and len(rows) != len(known):
            raise InputError(
                f"{folder} was started with {len(known):,} images, and there are {len(rows):,} "
                "now. Restore the inputs, or start a new run."
            )
    if given != path:
        write_split(path, rows)
    counts = {subset: sum(row.subset == subset for row in rows) for subset in SUBSETS}
    console.note("Split: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    return rows


def _duplicate_groups(request: TrainRequest, cache: ImageCache) -> list[str]:
    """Return the duplicate group of each image, if the request has an audit.

    Raises:
        InputError: the audit is of other images.
    """
    if not request.audit:
        return []
    groups = read_duplicate_groups(Path(request.audit))
    if not groups.is_of(cache.samples, cache.digests):
        raise InputError(f"The audit in {request.audit} is of other images: it has none of these.")
    return groups.of(cache.samples, cache.digests)


def correct_training_labels(
    cache: ImageCache, assignments: Sequence[Assignment], request: TrainRequest, console: Console
) -> tuple[ImageCache, NDArray[np.str_]]:
    """Apply corrections and what the audit leaves out to training and validation, not to test.

    A correction that nobody reviewed applies to training only.

    Returns:
        The cache with corrected labels, and each image's subset; "" if it is left out.
    """
    subsets = np.array([row.subset for row in assignments])
    if request.audit:
        groups = read_duplicate_groups(Path(request.audit))
        stays = np.array(groups.keeps(cache.samples, cache.digests))
        left_out = ~stays & np.isin(subsets, ("train", "validation"))
        subsets[left_out] = ""
        console.note(f"Audit: {int(left_out.sum()):,} images left out")
    if not request.corrections:
        return cache, subsets
    samples = list(cache.samples)
    changed = 0
    corrections = read_corrections(Path(request.corrections))
    everywhere = apply_corrections(samples, cache.digests, corrections.reviewed)
    in_training = apply_corrections(
        samples, cache.digests, corrections.proposed | corrections.reviewed
    )
    removed = []
    for row, subset in enumerate(subsets):
        if subset not in ("train", "validation"):
            continue
        sample = in_training[row] if subset == "train" else everywhere[row]
        if sample is None:
            removed.append(row)
        elif sample != samples[row]:
            samples[row] = sample
            changed += 1
    subsets[removed] = ""
    console.note(f"Corrections: {changed:,} labels changed, {len(removed):,} images left out")
    if corrections.unreviewed:
        console.note(
            f"  {corrections.unreviewed:,} lines are not reviewed: their "
            f"{len(corrections.proposed):,} proposed labels apply to training only. Review them "
            "in audit.html, or write yes in the column reviewed."
        )
    return replace(cache, samples=samples), subsets


def check_teacher(recipe: Recipe, request: TrainRequest) -> None:
    """Check that there are a teacher's predictions exactly if the recipe uses them.

    Raises:
        InputError: otherwise.
    """
    if recipe.train.distillation_weight and not request.teacher:
        raise InputError(
            f"Recipe {recipe.name} needs the predictions of a teacher: give them with --teacher."
        )
    if request.teacher and not recipe.train.distillation_weight:
        raise InputError(
            f"Recipe {recipe.name} does not use --teacher. Set train.distillation_weight in it, "
            "such as 0.7."
        )


def add_teacher_predictions(
    cache: ImageCache, request: TrainRequest, console: Console
) -> ImageCache:
    """Add a teacher's predictions to the cache, if the request has any.

    Raises:
        InputError: predictions of other images.
    """
    if not request.teacher:
        return cache
    predictions = read_predictions(Path(request.teacher))
    p_male = {
        (sample.archive, sample.file): value
        for sample, value in zip(predictions.samples, predictions.p_male, strict=True)
    }
    teacher = np.array(
        [p_male.get((sample.archive, sample.file), np.nan) for sample in cache.samples], np.float32
    )
    known = int(np.isfinite(teacher).sum())
    if not known:
        raise InputError(
            f"{request.teacher} has predictions for none of the images. Check its columns archive "
            "and file."
        )
    console.note(f"Teacher: predictions for {known:,} of {len(teacher):,} images")
    return replace(cache, teacher=teacher)


def subset_indices(subsets: NDArray[np.str_], subset: str) -> Indices:
    """Return the indices of the images in a subset, ``int64``."""
    return np.flatnonzero(subsets == subset).astype(np.int64)


def check_both_labels(labels: NDArray[np.int64], what: str) -> None:
    """Check that images have both labels.

    Args:
        labels: index into ``LABELS``, ``int64 [N]``.
        what: what the images are, for the message.

    Raises:
        InputError: a label has no image.
    """
    if empty := [name for index, name in enumerate(LABELS) if not (labels == index).any()]:
        raise InputError(
            f"No {what} is labeled {' or '.join(empty)}. Both folders, male/ and female/, need "
            "images."
        )


def check_subset_labels(
    cache: ImageCache, train: Indices, validation: Indices, console: Console
) -> None:
    """Check that training has both labels and validation is not empty.

    Raises:
        InputError: otherwise.
    """
    labels = cache.labels
    counts = {name: int((labels[train] == index).sum()) for index, name in enumerate(LABELS)}
    console.note("Training labels: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    check_both_labels(labels[train], "training image")
    if not len(validation):
        raise InputError("The validation subset is empty. Give more images, or a larger fraction.")
    found = {LABELS[index] for index in labels[validation]}
    if len(found) < len(LABELS):
        console.note(
            f"Warning: all validation images are labeled {found.pop()}, so accuracy says nothing "
            "of the other label. Give more images, or a larger --validation."
        )
