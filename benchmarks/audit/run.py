"""Measure the audit on faults that are made: copies put in, labels turned over.

    python benchmarks/audit/run.py ARCHIVE... --metadata faces.csv --split runs/best/split.csv \\
        --runs runs --corrections recipes/corrections-seen.csv -o benchmarks/results/audit.json

Only pictures of the split's training and validation parts are used: the audit's thresholds were
chosen there. Labels that the data already has wrong count as wrong, too, as far as
``--corrections`` knows them, and what it leaves out is not counted; the others are false findings
here, so precision is at least what stands here.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from facegender.files import write_json
from facegender.model.model_file import LABELS
from facegender.training.audit.audit import AUDIT_ALIGNER
from facegender.training.audit.embeddings import read_embeddings
from facegender.training.audit.label_issues import FLAGGED, out_of_fold, weigh
from facegender.training.audit.near_duplicates import (
    ComparedImages,
    chain,
    find_near_duplicates,
    join,
)
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.image_cache import ImageCache, decode_samples, open_image_cache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import stream_samples
from facegender.training.data.split import read_split

FAULTS = ("copies", "labels", "batches")
LIMITS = (0.2, 0.25, 0.3, 0.35)
KINDS = ("resized", "recompressed", "cropped", "mirrored", "grey")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where .store is")
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--copies", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corrections", type=Path, help="labels that are known to be wrong")
    parser.add_argument(
        "--only", nargs="+", choices=FAULTS, default=FAULTS, help="keep the output's other results"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    cache = open_image_cache(given.archives, given.table, AUDIT_ALIGNER, given.runs / ".store")
    subset = {(row.sample.archive, row.sample.file): row.subset for row in read_split(given.split)}
    usable = [
        row
        for row, sample in enumerate(cache.samples)
        if subset.get((sample.archive, sample.file)) in ("train", "validation")
    ]
    rows = np.sort(rng.permutation(usable)[: given.images])
    some = take(cache, rows)
    results = json.loads(given.output.read_text()) if len(given.only) < len(FAULTS) else {}
    results |= {"pictures": len(rows), "seed": given.seed}
    with tempfile.TemporaryDirectory() as folder:
        if "copies" in given.only:
            results["copies"] = measure_copies(some, given, rng, Path(folder))
    features = read_rows(read_embeddings(cache, given.runs / ".store"), rows)
    if "labels" in given.only:
        known = read_corrections(given.corrections) if given.corrections else {}
        results["labels"] = measure_labels(some, features, known, given.seed)
    if "batches" in given.only:
        results["batches"] = measure_batches(some, features, np.random.default_rng(given.seed))
    write_json(given.output, results)
    print(given.output.read_text())


def take(cache: ImageCache, rows: np.ndarray) -> ImageCache:
    """Give some pictures of a store as a store in memory."""
    lists = (
        [values[row] for row in rows] for values in (cache.samples, cache.digests, cache.errors)
    )
    pixels, context_pixels = read_rows(cache.pixels, rows), read_rows(cache.context_pixels, rows)
    return ImageCache(*lists, pixels, context_pixels, cache.crop_matrices[rows])


def made_over(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Make a copy of a picture, changed in one to three ways."""
    chosen = rng.choice(len(KINDS), rng.choice([1, 1, 1, 2, 2, 3]), replace=False)
    kinds = [KINDS[number] for number in sorted(chosen)]
    if "cropped" in kinds:
        width, height = image.size
        across, down = rng.uniform(0.05, 0.15, 2)
        left, top = rng.uniform(0, across), rng.uniform(0, down)
        box = (left, top, 1 - across + left, 1 - down + top)
        image = image.crop(
            [round(x * side) for x, side in zip(box, (width, height) * 2, strict=True)]
        )
    if "mirrored" in kinds:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if "grey" in kinds:
        image = image.convert("L").convert("RGB")
    if "resized" in kinds:
        scale = rng.uniform(0.5, 0.9)
        image = image.resize([max(24, round(side * scale)) for side in image.size])
    file = io.BytesIO()
    quality = int(rng.integers(30, 81)) if "recompressed" in kinds else 92
    image.save(file, "JPEG", quality=quality)
    return file.getvalue(), kinds


def measure_copies(
    cache: ImageCache, given: argparse.Namespace, rng: np.random.Generator, folder: Path
):
    """Put made copies in and see which are found, and what else is taken for a copy of them."""
    place = {(s.archive, s.file): row for row, s in enumerate(cache.samples)}
    wanted = set(rng.permutation(len(cache.samples))[: given.copies].tolist())
    sources, kinds = [], []
    for sample, _, pixels, _ in decode_samples(
        stream_samples(given.archives, given.table), lambda p: p
    ):
        row = place.get((sample.archive, sample.file))
        if row in wanted and pixels is not None:
            data, how = made_over(Image.fromarray(pixels), rng)
            path = folder / "made" / sample.label / f"{len(sources):06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sources.append(row)
            kinds.append(how)
    made = open_image_cache([folder / "made"], None, AUDIT_ALIGNER, folder)
    order = [int(Path(sample.file).stem) for sample in made.samples]
    count = len(cache.samples)
    both = ImageCache(
        cache.samples + made.samples,
        cache.digests + made.digests,
        cache.errors + made.errors,
        *(
            np.concatenate([getattr(cache, name), getattr(made, name)])
            for name in ("pixels", "wide", "frames")
        ),
    )
    features = np.concatenate([read_embeddings(each, folder) for each in (cache, made)])
    began = time.monotonic()
    pairs = find_near_duplicates(
        ComparedImages(both, [""] * len(both.samples), features, np.ones(len(both.samples), bool))
    )
    seconds = time.monotonic() - began
    own = join(count, ((p.row, p.other) for p in pairs if p.other < count))
    found = join(len(both.samples), ((p.row, p.other) for p in pairs))
    source = {count + n: sources[order[n]] for n in range(len(order))}
    # a pair with a made copy is right if it leads to its source, or to what the source copies
    ends = [
        (own[source.get(p.row, p.row)], own[source[p.other]]) for p in pairs if p.other in source
    ]
    hits = {n: bool(found[n] == found[source[n]]) for n in source}
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for n, hit in hits.items():
        how = kinds[order[n - count]]
        for kind in how:
            by_kind[kind].append(hit)
        by_kind["one way" if len(how) == 1 else "several ways"].append(hit)
    return {
        "made": len(hits),
        "found": sum(hits.values()),
        "recall": round(sum(hits.values()) / len(hits), 4),
        "pairs with a made copy": len(ends),
        "right": int(sum(a == b for a, b in ends)),
        "precision": round(float(sum(a == b for a, b in ends)) / len(ends), 4),
        "pairs without a made copy, not judged": sum(p.other < count for p in pairs),
        "recall by kind": {
            kind: {"made": len(v), "recall": round(sum(v) / len(v), 4)}
            for kind, v in sorted(by_kind.items())
        },
        "seconds": round(seconds, 1),
    }


def measure_labels(cache: ImageCache, features: np.ndarray, known: dict[str, str], seed: int):
    """Turn labels over and see which are flagged, with the table and without, from several limits.

    Wrong are labels that were turned, and those that ``known`` corrects, unless they were turned.
    """
    labels, use = cache.labels, np.ones(len(cache.samples), bool)
    corrected = apply_corrections(cache.samples, cache.digests, known)
    counted = np.array([sample is not None for sample in corrected])
    true = np.array(
        [
            LABELS.index((sample or old).label)
            for sample, old in zip(corrected, cache.samples, strict=True)
        ]
    )
    rng = np.random.default_rng([seed, 1])
    results = []
    for share in (0.0, 0.03, 0.05):
        turned = rng.random(len(labels)) < share
        given = labels ^ turned
        for has_table in (True, False):
            samples = [
                replace(
                    sample,
                    label=LABELS[label],
                    file=Path(sample.file).name,
                    **({} if has_table else {"person": "", "source": "", "age": ""}),
                )
                for sample, label in zip(cache.samples, given, strict=True)
            ]
            groups = join(len(samples), chain(sample.person for sample in samples))
            doubts = weigh(samples, out_of_fold(features, given, groups, use), use)
            judged = ~np.isnan(doubts.wrong) & counted
            wrong = (given != true) & judged
            limits = {}
            for limit in sorted({*LIMITS, FLAGGED}):
                flagged = judged & (np.nan_to_num(doubts.wrong) >= limit)
                found = flagged & wrong
                limits[str(limit)] = {
                    "flagged": int(flagged.sum()),
                    "found": int(found.sum()),
                    "recall": round(float(found.sum() / wrong.sum()), 4),
                    "recall of those turned": round(
                        float((found & turned).sum() / max(1, (wrong & turned).sum())), 4
                    ),
                    "precision": round(float(found.sum() / max(1, flagged.sum())), 4),
                }
            results.append(
                {
                    "share turned": share,
                    "table": has_table,
                    "judged": int(judged.sum()),
                    "turned": int((turned & wrong).sum()),
                    "wrong before": int((wrong & ~turned).sum()),
                    "flagged from": limits,
                }
            )
            print(results[-1], flush=True)
    return results


def measure_batches(cache: ImageCache, features: np.ndarray, rng: np.random.Generator):
    """Turn the labels of whole batches over, beside 3 % of all others, and see what is named.

    A batch is of pictures of one label: so many that follow each other in the archives, or drawn
    from everywhere and given one prefix. Found are pictures in a batch that is named. A turned
    picture lies in the folder of its new label, as far down as it lay in the old one; a batch stays
    together there.
    """
    labels, use = cache.labels, np.ones(len(cache.samples), bool)
    groups = join(len(labels), chain(sample.person for sample in cache.samples))
    results = []
    for kind, size in [("none", 0), *itertools.product(("order", "prefix"), (10, 25, 100))]:
        turned = rng.random(len(labels)) < 0.03
        of_one = np.flatnonzero(labels == rng.integers(2))
        if kind == "order":
            start = rng.integers(len(of_one) - size)
            batch = of_one[start : start + size]
        else:
            batch = np.sort(rng.permutation(of_one)[:size])
        turned[batch] = True
        given = labels ^ turned
        samples = [
            replace(sample, label=LABELS[label], file=Path(sample.file).name)
            for sample, label in zip(cache.samples, given, strict=True)
        ]
        if kind == "prefix":
            for row in batch:
                samples[row] = replace(samples[row], file=f"scan_{row}.webp")
        down = np.zeros(len(labels))
        for label in (0, 1):
            down[labels == label] = np.linspace(0, 1, int((labels == label).sum()))
        if kind == "order":
            down[batch] = down[batch[0]]
        order = np.lexsort((down, given))
        scores = out_of_fold(features, given, groups, use)
        samples, turned, batch, scores = (
            [samples[row] for row in order],
            turned[order],
            np.flatnonzero(np.isin(order, batch)),
            scores[order],
        )
        doubts = weigh(samples, scores, use)
        named = {row for one in doubts.batches for row in one.rows}
        judged = [row for row in batch.tolist() if not np.isnan(doubts.wrong[row])]
        results.append(
            {
                "made": kind,
                "pictures": size,
                "judged": len(judged),
                "found": len(named.intersection(judged)),
                "named": len(named),
                "named, label turned": int(turned[sorted(named)].sum()) if named else 0,
                "batches named, by what": [one.kind for one in doubts.batches],
            }
        )
        print(results[-1], flush=True)
    made = [one for one in results if one["pictures"]]
    found, named = sum(one["found"] for one in made), sum(one["named"] for one in results)
    return {
        "recall": round(found / sum(one["judged"] for one in made), 4),
        "precision": round(sum(one["named, label turned"] for one in results) / max(1, named), 4),
        "trials": results,
    }


if __name__ == "__main__":
    main()
