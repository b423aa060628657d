"""Precision and recall of the audit on synthetic faults: near duplicates and flipped labels.

    python -m benchmarks.audit.run ARCHIVE... --metadata faces.csv --split runs/best/split.csv \\
        --runs runs --corrections recipes/corrections-seen.csv -o benchmarks/results/audit.json

Only images of the split's training and validation subsets are used; the audit's thresholds were
chosen on them. Labels that are already wrong in the data count as wrong if ``--corrections`` lists
them; images that it leaves out are not counted. Other wrong labels count as false findings here, so
the true precision is at least the one given.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.files import write_json
from facegender.model.model_file import LABELS
from facegender.training.audit.audit import AUDIT_ALIGNER
from facegender.training.audit.embeddings import read_embeddings
from facegender.training.audit.label_issues import (
    FLAG_THRESHOLD,
    out_of_fold_scores,
    score_labels,
)
from facegender.training.audit.near_duplicates import (
    ComparedImages,
    find_near_duplicates,
    link_equal,
    number_groups,
)
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.image_cache import (
    ImageCache,
    cache_folder,
    decode_samples,
    open_image_cache,
)
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import stream_samples
from facegender.training.data.split import read_split

FAULTS = ("near_duplicates", "label_issues", "slices")
THRESHOLDS = (0.2, 0.25, 0.3, 0.35)
CHANGES = ("resized", "recompressed", "cropped", "mirrored", "grayscale")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="has the image cache")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--duplicates", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corrections", type=Path, help="known wrong labels")
    parser.add_argument(
        "--only", nargs="+", choices=FAULTS, default=FAULTS, help="keep other results"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cache_root = cache_folder(options.runs / "benchmark")
    cache = open_image_cache(options.archives, options.metadata, AUDIT_ALIGNER, cache_root)
    subsets = {
        (row.sample.archive, row.sample.file): row.subset for row in read_split(options.split)
    }
    usable = [
        row
        for row, sample in enumerate(cache.samples)
        if subsets.get((sample.archive, sample.file)) in ("train", "validation")
    ]
    rows = np.sort(rng.permutation(usable)[: options.images])
    some = take(cache, rows)
    results: dict[str, Any] = {}
    if len(options.only) < len(FAULTS):
        results = json.loads(options.output.read_text())
    results |= {"images": len(rows), "seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        if "near_duplicates" in options.only:
            results["near_duplicates"] = measure_near_duplicates(some, options, rng, Path(folder))
    features = read_rows(read_embeddings(cache, cache_root), rows)
    if "label_issues" in options.only:
        known = read_corrections(options.corrections).reviewed if options.corrections else {}
        results["label_issues"] = measure_label_issues(some, features, known, options.seed)
    if "slices" in options.only:
        results["slices"] = measure_slices(some, features, np.random.default_rng(options.seed))
    write_json(options.output, results)
    print(options.output.read_text())


def take(cache: ImageCache, rows: NDArray[np.int64]) -> ImageCache:
    """Copy some images of an image cache into one in memory."""
    return ImageCache(
        [cache.samples[row] for row in rows],
        [cache.digests[row] for row in rows],
        [cache.errors[row] for row in rows],
        read_rows(cache.pixels, rows),
        read_rows(cache.context_pixels, rows),
        cache.crop_matrices[rows],
    )


def concatenate(first: ImageCache, second: ImageCache) -> ImageCache:
    """Join two image caches into one in memory."""
    every = [np.arange(len(cache.samples)) for cache in (first, second)]
    return ImageCache(
        first.samples + second.samples,
        first.digests + second.digests,
        first.errors + second.errors,
        np.concatenate(
            [read_rows(c.pixels, rows) for c, rows in zip((first, second), every, strict=True)]
        ),
        np.concatenate(
            [
                read_rows(c.context_pixels, rows)
                for c, rows in zip((first, second), every, strict=True)
            ]
        ),
        np.concatenate([first.crop_matrices, second.crop_matrices]),
    )


def change(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Change an image in one to three ways; return the file, and the names of the changes."""
    chosen = rng.choice(len(CHANGES), rng.choice([1, 1, 1, 2, 2, 3]), replace=False)
    kinds = [CHANGES[number] for number in sorted(chosen)]
    if "cropped" in kinds:
        width, height = image.size
        across, down = rng.uniform(0.05, 0.15, 2)
        left, top = rng.uniform(0, across), rng.uniform(0, down)
        box = (left, top, 1 - across + left, 1 - down + top)
        sides = (width, height, width, height)
        x0, y0, x1, y1 = (round(x * side) for x, side in zip(box, sides, strict=True))
        image = image.crop((x0, y0, x1, y1))
    if "mirrored" in kinds:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if "grayscale" in kinds:
        image = image.convert("L").convert("RGB")
    if "resized" in kinds:
        scale = rng.uniform(0.5, 0.9)
        width, height = (max(24, round(side * scale)) for side in image.size)
        image = image.resize((width, height))
    file = io.BytesIO()
    quality = int(rng.integers(30, 81)) if "recompressed" in kinds else 92
    image.save(file, "JPEG", quality=quality)
    return file.getvalue(), kinds


def make_duplicates(
    cache: ImageCache, options: argparse.Namespace, rng: np.random.Generator, folder: Path
) -> tuple[list[int], list[list[str]]]:
    """Write changed copies of some images of the cache; return each one's row and changes."""
    row_of = {(s.archive, s.file): row for row, s in enumerate(cache.samples)}
    wanted = set(rng.permutation(len(cache.samples))[: options.duplicates].tolist())
    sources: list[int] = []
    changes: list[list[str]] = []
    stream = stream_samples(options.archives, options.metadata)
    for sample, _, pixels, _ in decode_samples(stream, lambda pixels: pixels):
        row = row_of.get((sample.archive, sample.file))
        if row is not None and row in wanted and pixels is not None:
            data, kinds = change(Image.fromarray(pixels), rng)
            path = folder / sample.label / f"{len(sources):06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sources.append(row)
            changes.append(kinds)
    return sources, changes


def measure_near_duplicates(
    cache: ImageCache, options: argparse.Namespace, rng: np.random.Generator, folder: Path
) -> dict[str, Any]:
    """Add changed copies; measure how many are found, and how many reported pairs are correct."""
    sources, changes = make_duplicates(cache, options, rng, folder / "made")
    made = open_image_cache([folder / "made"], None, AUDIT_ALIGNER, folder)
    order = [int(Path(sample.file).stem) for sample in made.samples]
    count = len(cache.samples)
    both = concatenate(cache, made)
    features = np.concatenate([read_embeddings(each, folder) for each in (cache, made)])
    began = time.monotonic()
    usable = np.ones(len(both.samples), bool)
    pairs = find_near_duplicates(ComparedImages(both, [""] * len(both.samples), features, usable))
    seconds = time.monotonic() - began
    before = number_groups(count, ((p.row, p.other) for p in pairs if p.other < count))
    after = number_groups(len(both.samples), ((p.row, p.other) for p in pairs))
    source = {count + n: sources[order[n]] for n in range(len(order))}
    # a pair with a copy is correct if it leads to its source, or to a near duplicate of the source
    ends = [
        (before[source.get(p.row, p.row)], before[source[p.other]])
        for p in pairs
        if p.other in source
    ]
    correct = sum(bool(a == b) for a, b in ends)
    is_found = {n: bool(after[n] == after[source[n]]) for n in source}
    by_change: dict[str, list[bool]] = defaultdict(list)
    for n, hit in is_found.items():
        kinds = changes[order[n - count]]
        for kind in kinds:
            by_change[kind].append(hit)
        by_change["one change" if len(kinds) == 1 else "several changes"].append(hit)
    return {
        "made": len(is_found),
        "found": sum(is_found.values()),
        "recall": round(sum(is_found.values()) / len(is_found), 4),
        "pairs_with_made": len(ends),
        "correct": correct,
        "precision": round(correct / len(ends), 4),
        "pairs_without_made_not_judged": sum(p.other < count for p in pairs),
        "recall_by_change": {
            kind: {"made": len(hits), "recall": round(sum(hits) / len(hits), 4)}
            for kind, hits in sorted(by_change.items())
        },
        "seconds": round(seconds, 1),
    }


def measure_label_issues(
    cache: ImageCache, features: NDArray[np.floating], known: dict[str, str], seed: int
) -> list[dict[str, Any]]:
    """Flip labels and count which are flagged, with metadata and without, at several thresholds.

    Wrong are flipped labels, and labels that ``known`` corrects unless they were flipped.
    """
    labels, use = cache.labels, np.ones(len(cache.samples), bool)
    corrected = apply_corrections(cache.samples, cache.digests, known)
    counted = np.array([sample is not None for sample in corrected])
    true = np.array(
        [
            LABELS.index((sample or raw).label)
            for sample, raw in zip(corrected, cache.samples, strict=True)
        ]
    )
    rng = np.random.default_rng([seed, 1])
    results: list[dict[str, Any]] = []
    for fraction in (0.0, 0.03, 0.05):
        flipped = rng.random(len(labels)) < fraction
        given = labels ^ flipped
        for has_metadata in (True, False):
            without = {} if has_metadata else {"person": "", "source": "", "age": ""}
            samples = [
                replace(sample, label=LABELS[label], file=Path(sample.file).name, **without)
                for sample, label in zip(cache.samples, given, strict=True)
            ]
            groups = number_groups(len(samples), link_equal(sample.person for sample in samples))
            issues = score_labels(samples, out_of_fold_scores(features, given, groups, use), use)
            judged = ~np.isnan(issues.p_wrong) & counted
            wrong = (given != true) & judged
            flagged = {
                threshold: judged & (np.nan_to_num(issues.p_wrong) >= threshold)
                for threshold in sorted({*THRESHOLDS, FLAG_THRESHOLD})
            }
            results.append(
                {
                    "flipped_fraction": fraction,
                    "metadata": has_metadata,
                    "judged": int(judged.sum()),
                    "flipped": int((flipped & wrong).sum()),
                    "wrong_before": int((wrong & ~flipped).sum()),
                    "by_threshold": {
                        str(threshold): _flagged_metrics(found, wrong, flipped)
                        for threshold, found in flagged.items()
                    },
                }
            )
            print(results[-1], flush=True)
    return results


def _flagged_metrics(
    flagged: NDArray[np.bool_], wrong: NDArray[np.bool_], flipped: NDArray[np.bool_]
) -> dict[str, Any]:
    found = flagged & wrong
    return {
        "flagged": int(flagged.sum()),
        "found": int(found.sum()),
        "recall": round(float(found.sum() / wrong.sum()), 4),
        "recall_of_flipped": round(
            float((found & flipped).sum() / max(1, (wrong & flipped).sum())), 4
        ),
        "precision": round(float(found.sum() / max(1, flagged.sum())), 4),
    }


@dataclass(frozen=True, slots=True)
class SliceTrial:
    """What was found of one mislabeled slice; ``kind`` is ``none``, ``order`` or ``prefix``.

    Attributes:
        kind: what the images of the slice share.
        images: of the slice.
        judged: of them, those that the audit judged.
        found: of them, those in a slice that the audit names.
        named: images in all slices that the audit names.
        named_flipped: of them, those with a flipped label.
        named_kinds: the kinds of the slices that the audit names.
    """

    kind: str
    images: int
    judged: int
    found: int
    named: int
    named_flipped: int
    named_kinds: tuple[str, ...]


def measure_slices(
    cache: ImageCache, features: NDArray[np.floating], rng: np.random.Generator
) -> dict[str, Any]:
    """Flip the labels of whole slices, and 3 % of all others, and count which are named."""
    trials: list[SliceTrial] = []
    for kind, size in [("none", 0), *itertools.product(("order", "prefix"), (10, 25, 100))]:
        trials.append(_slice_trial(cache, features, kind, size, rng))
        print(trials[-1], flush=True)
    made = [trial for trial in trials if trial.images]
    found, named = sum(trial.found for trial in made), sum(trial.named for trial in trials)
    named_flipped = sum(trial.named_flipped for trial in trials)
    return {
        "recall": round(found / sum(trial.judged for trial in made), 4),
        "precision": round(named_flipped / max(1, named), 4),
        "trials": [asdict(trial) for trial in trials],
    }


def _slice_trial(
    cache: ImageCache,
    features: NDArray[np.floating],
    kind: str,
    size: int,
    rng: np.random.Generator,
) -> SliceTrial:
    """Flip the labels of one slice and find it.

    A slice has images of one label: consecutive in the archives (``order``), or drawn at random and
    given one file name prefix. A flipped image moves to the folder of its new label, to the same
    relative position; a slice stays together there.
    """
    labels, use = cache.labels, np.ones(len(cache.samples), bool)
    groups = number_groups(len(labels), link_equal(sample.person for sample in cache.samples))
    flipped = rng.random(len(labels)) < 0.03
    of_one = np.flatnonzero(labels == rng.integers(2))
    if kind == "order":
        start = rng.integers(len(of_one) - size)
        chosen = of_one[start : start + size]
    else:
        chosen = np.sort(rng.permutation(of_one)[:size])
    flipped[chosen] = True
    given = labels ^ flipped
    samples = [
        replace(sample, label=LABELS[label], file=Path(sample.file).name)
        for sample, label in zip(cache.samples, given, strict=True)
    ]
    if kind == "prefix":
        for row in chosen:
            samples[row] = replace(samples[row], file=f"scan_{row}.webp")
    position = np.zeros(len(labels))
    for label in (0, 1):
        position[labels == label] = np.linspace(0, 1, int((labels == label).sum()))
    if kind == "order":
        position[chosen] = position[chosen[0]]
    order = np.lexsort((position, given))
    scores = out_of_fold_scores(features, given, groups, use)[order]
    issues = score_labels([samples[row] for row in order], scores, use)
    flipped, chosen = flipped[order], np.flatnonzero(np.isin(order, chosen))
    named = {row for one in issues.slices for row in one.rows}
    judged = [row for row in chosen.tolist() if not np.isnan(issues.p_wrong[row])]
    return SliceTrial(
        kind=kind,
        images=size,
        judged=len(judged),
        found=len(named.intersection(judged)),
        named=len(named),
        named_flipped=int(flipped[sorted(named)].sum()) if named else 0,
        named_kinds=tuple(one.kind for one in issues.slices),
    )


if __name__ == "__main__":
    main()
