"""Accuracy of the modes of ``--faces`` on every source, on photos, and on crops pasted into photos.

    python -m benchmarks.predict.face_modes --data ../shared/data --split runs/best/split.csv \
        --per-source 300 -o benchmarks/results/face_modes.json

Validation images only, the same for every mode. An image without an answer counts as wrong.
``pasted``: crops in a larger image of one color with noise, at a random place and size (0.5 to 1),
as JPEG; this measures what detecting a face in a photo costs compared with a crop of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from facegender import Classifier
from facegender.faces.face_aligner import FACE_MODES
from facegender.files import write_json
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.training.evaluation.metrics import proportion

PHOTO_SIZE = (960, 720)


def validation(data: Path, split: Path, per_source: int) -> Iterator[tuple[str, str, Pixels]]:
    """Give source, label and pixels of ``per_source`` validation images of each source."""
    with split.open(encoding="utf-8", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if row["subset"] == "validation"}
    taken: Counter[str] = Counter()
    for archive in sorted(data.glob("faces-*.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                row = rows.get(member.name)
                if row is None or taken[row["source"]] == per_source:
                    continue
                taken[row["source"]] += 1
                stream = tar.extractfile(member)
                assert stream is not None
                yield row["source"], row["label"], decode(stream.read())


def photos(data: Path) -> Iterator[tuple[str, str, Pixels]]:
    """Give source, label and pixels of the labeled photos."""
    with (data / "photos.csv").open(encoding="utf-8", newline="") as file:
        rows = iter(list(csv.DictReader(file)))  # in the archive's order; names are not unique
    with tarfile.open(data / "photos.tar") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                row = next(rows)
                assert row["file"] == member.name
                yield "photos", row["gender"], decode(stream.read())


def paste(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Paste a crop into a larger image of one color with noise, saved as JPEG."""
    color = rng.integers(60, 200, 3)
    noise = rng.normal(0, 6, (PHOTO_SIZE[1], PHOTO_SIZE[0], 3))
    photo = Image.fromarray(np.clip(color + noise, 0, 255).astype(np.uint8))
    scale = rng.uniform(0.5, 1.0) * 300 / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    corner = (
        int(rng.integers(PHOTO_SIZE[0] - size[0])),
        int(rng.integers(PHOTO_SIZE[1] - size[1])),
    )
    photo.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), corner)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=92)
    return decode(file.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--per-source", type=int, default=400)
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    classifier, rng = Classifier.load(), np.random.default_rng(0)
    correct: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    unanswered: dict[str, Counter[str]] = defaultdict(Counter)
    images = [*validation(options.data, options.split, options.per_source), *photos(options.data)]
    for source, label, pixels in track(images, "predicting"):
        variants = {faces: (pixels, faces) for faces in FACE_MODES}
        if source != "photos":
            variants["pasted, detect"] = (paste(pixels, rng), "detect")
        for name, (variant, faces) in variants.items():
            row = classifier.predict(variant, faces=faces)
            correct[source][name].append(row.label == label)
            unanswered[source][name] += row.label is None
    result: dict[str, Any] = {
        source: {
            name: proportion(np.array(hits)).to_dict() | {"unanswered": unanswered[source][name]}
            for name, hits in modes.items()
        }
        for source, modes in correct.items()
    }
    crops = [modes for source, modes in correct.items() if source != "photos"]
    result["all crops"] = {
        name: proportion(np.concatenate([modes[name] for modes in crops])).to_dict()
        for name in crops[0]
    }
    write_json(options.output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
