"""Does the network have to choose between upright and turned faces? Both, on the same pictures.

The first version of this project reached 90 % without turns and 80 % when it learned with them.

    .venv/bin/python benchmarks/turned.py RUN ARCHIVE... --table FILE.csv --output FILE.json

takes the validation part of a run (told by content, from its split.csv) and scores every picture
as it is, and turned by a random angle up to 45 degrees, the corners black as the user's training
had them, and with the edge's colour.
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import binomtest

from facegender import Classifier
from facegender.images import decode, fit
from facegender.model_file import LABELS
from facegender.training.evaluate import write_json
from facegender.training.samples import stream_samples
from facegender.training.split import SPLIT_NAME, read_split

DEGREES = 45.0
BATCH = 512


def turn(pixels: np.ndarray, degrees: float, fill: str) -> np.ndarray:
    """Turn a picture within its frame; ``fill`` is ``black`` or ``mean`` (of its border)."""
    colour = (0, 0, 0)
    if fill == "mean":
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        colour = tuple(int(value) for value in border.mean(0))
    image = Image.fromarray(pixels)
    return np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=colour))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.run)
    chosen = {
        row.sha256 for row in read_split(arguments.run / SPLIT_NAME) if row.part == "validation"
    }
    rng = np.random.default_rng(arguments.seed)
    ways = ("upright", "turned_black", "turned_mean")
    correct: dict[str, list[bool]] = {way: [] for way in ways}
    pending: list[tuple[int, list[np.ndarray]]] = []

    def flush() -> None:
        truth = np.array([label for label, _ in pending])
        for index, way in enumerate(ways):
            batch = np.stack([views[index] for _, views in pending])
            answers = classifier.probabilities(batch).argmax(1)
            correct[way].extend((answers == truth).tolist())
        pending.clear()
        print(f"{len(correct['upright']):,} of {len(chosen):,}", end="\r", flush=True)

    resize = classifier.description.resize
    for sample, data in stream_samples(arguments.archives, arguments.table):
        if sha256(data).hexdigest() not in chosen:
            continue
        pixels = decode(data)
        degrees = float(rng.uniform(-DEGREES, DEGREES))
        views = [pixels, turn(pixels, degrees, "black"), turn(pixels, degrees, "mean")]
        pending.append((LABELS.index(sample.label), [fit(view, resize) for view in views]))
        if len(pending) == BATCH:
            flush()
    if pending:
        flush()
    result: dict[str, object] = {"part": "validation", "largest_degrees": DEGREES}
    for way in ways:
        count, right = len(correct[way]), sum(correct[way])
        interval = binomtest(right, count).proportion_ci(method="wilson")
        result[way] = {
            "count": count,
            "correct": right,
            "share": round(right / count, 5),
            "interval": [round(float(interval.low), 5), round(float(interval.high), 5)],
        }
    upright = np.array(correct["upright"])
    for way in ways[1:]:
        lost = int((upright & ~np.array(correct[way])).sum())
        won = int((~upright & np.array(correct[way])).sum())
        result[f"{way}_against_upright"] = {
            "lost": lost,
            "won": won,
            "points": round(100 * (won - lost) / len(upright), 3),
            "mcnemar_p": round(float(binomtest(won, won + lost).pvalue), 5) if won + lost else 1.0,
        }
    print(json.dumps(result, indent=2))
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
