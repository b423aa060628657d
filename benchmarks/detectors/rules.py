"""Effect of the rules around our own detector: thresholds, margins, rotations, face sizes.

Everything is computed from an :class:`Observation` of each scene, with all faces from score 0.3 on.
"""

from __future__ import annotations

import csv
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detectors.scenes import Scene, judge
from facegender.faces.alignment import ALIGNED_CROP, estimate_similarity
from facegender.faces.detection import select_main_face
from facegender.faces.yunet import Face, FaceDetector
from facegender.images.decode import decode
from facegender.images.pixels import Pixels
from facegender.training.data.cache_writer import MATRICES_NAME, SAMPLES_NAME

MIN_SCORE = 0.3
SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MARGINS = (0.3, 0.6, 1.0)
QUANTILES = (0.0, 0.002, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
ROTATED_TOO = ("photo", "crop ", "rotated by ", "no face")
ROTATE_BELOW = (0.5, 0.7, 0.8, 0.85, 0.9, 1.1)
UNFOUND = "crop unfound"


@dataclass(frozen=True, slots=True)
class Observation:
    """What our detector finds in a scene.

    Attributes:
        condition: of the scene.
        rotation: of the scene, in degrees.
        scores: of all faces, most confident first.
        correct: whether each of them is correct.
        missed: number of faces that were not found.
        by_rotation: the best score after each of the four quarter turns, counterclockwise; empty
            if they were not tried.
        by_margin: for each of ``MARGINS`` the best score with such a gray margin, and whether that
            face is correct; empty if the best score without one is above 0.5.
        box_fraction: area of the main face's box over the image's; NaN without a face.
        crop_fraction: the same for the aligned crop.
    """

    condition: str
    rotation: int
    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    missed: int
    by_rotation: tuple[float, ...]
    by_margin: tuple[tuple[float, bool], ...]
    box_fraction: float
    crop_fraction: float

    @property
    def best(self) -> float:
        """Score of the most confident face, 0 without one."""
        return float(self.scores[0]) if len(self.scores) else 0.0


def observe(scene: Scene, detector: FaceDetector) -> Observation:
    """Run the detector on a scene as it is, rotated, and with margins."""
    faces = detector.detect(scene.pixels, min_score=MIN_SCORE)
    height, width = scene.pixels.shape[:2]
    correct, missed, _ = judge(boxes(faces), scene)
    confident = [face for face in faces if face.score > 0.5]
    main = select_main_face(confident, width, height)
    by_rotation: list[float] = []
    if scene.condition.startswith(ROTATED_TOO):
        by_rotation = [_best(faces)]
        for quarter in (1, 2, 3):
            rotated = np.ascontiguousarray(np.rot90(scene.pixels, quarter))
            by_rotation.append(_best(detector.detect(rotated, min_score=MIN_SCORE)))
    return Observation(
        scene.condition,
        scene.rotation,
        np.array([face.score for face in faces]),
        correct,
        missed,
        tuple(by_rotation),
        () if confident else tuple(_with_margins(scene, detector)),
        main.width * main.height / (width * height) if main else np.nan,
        _crop_fraction(main, scene.pixels) if main else np.nan,
    )


def boxes(faces: Sequence[Face]) -> NDArray[np.float64]:
    """Return ``float64 [faces, 5]``: x, y, width, height, score."""
    rows = [(face.x, face.y, face.width, face.height, face.score) for face in faces]
    return np.array(rows, np.float64).reshape(-1, 5)


def unfound_crops(data: Path, cache: Path) -> Iterator[Scene]:
    """Read the crops of the data in which training found no face, by its image cache."""
    names: dict[str, set[str]] = defaultdict(set)
    has_no_face = np.asarray(np.isnan(_crop_matrices(cache)).any((1, 2)))
    for row, is_unfound in zip(_rows(cache), has_no_face.tolist(), strict=True):
        if is_unfound:
            names[row["archive"]].add(row["file"])
    for archive, files in sorted(names.items()):
        with tarfile.open(data / archive) as members:
            for member in members:
                if member.name in files and (file := members.extractfile(member)):
                    yield Scene(UNFOUND, member.name, decode(file.read()), np.zeros((0, 4)))


def report(observations: Sequence[Observation], cache: Path | None) -> dict[str, Any]:
    """Compute all tables."""
    by = defaultdict(list)
    for item in observations:
        by[item.condition].append(item)
        if item.condition.startswith("crop ") and item.condition != UNFOUND:
            by["crops, all"].append(item)
        if item.condition.startswith("no face"):
            by["no face, all"].append(item)
    sources = {name for name in by if name.startswith("crop ")} - {UNFOUND}
    result: dict[str, Any] = {
        "thresholds": {name: _thresholds(items) for name, items in by.items()},
        "retry_with_margin": {name: _margins(items) for name, items in by.items()},
        "rotations": {
            name: _rotations(items)
            for name, items in by.items()
            if items[0].by_rotation and items[0].rotation % 90 == 0 and name not in sources
        },
        "best_score": {
            name: _quantiles(np.array([item.best for item in items])) for name, items in by.items()
        },
        "box_fraction": {
            name: _fractions([item.box_fraction for item in items]) for name, items in by.items()
        },
        "crop_fraction": {
            name: _fractions([item.crop_fraction for item in items]) for name, items in by.items()
        },
    }
    if cache:
        result["all_crops"] = _of_cache(cache)
    return result


def _thresholds(items: Sequence[Observation]) -> dict[str, Any]:
    """Count found faces and wrong boxes from each score on."""
    faces = sum(item.missed + int(item.correct.sum()) for item in items)
    table = {}
    for least in SCORES:
        found = sum(int(item.correct[item.scores > least].sum()) for item in items)
        wrong = [int((~item.correct[item.scores > least]).sum()) for item in items]
        table[f"{least}"] = {
            "found": found,
            "recall": round(found / faces, 4) if faces else None,
            "wrong": sum(wrong),
            "images_with_wrong": sum(count > 0 for count in wrong),
        }
    return {"images": len(items), "faces": faces, "from_score": table}


def _margins(items: Sequence[Observation]) -> dict[str, Any]:
    """Count what a gray margin finds in the images without a face from 0.5 on."""
    tried = [item for item in items if item.by_margin]
    table = {}
    for at, margin in enumerate(MARGINS):
        for least in SCORES[:4]:
            hits = [item.by_margin[at] for item in tried if item.by_margin[at][0] > least]
            correct = sum(is_correct for _, is_correct in hits)
            key = f"margin {margin}, score {least}"
            table[key] = {"correct": correct, "wrong": len(hits) - correct}
    no_margin = {
        f"no margin, score {least}": {
            "correct": sum(bool(i.correct[:1].sum()) for i in tried if i.best > least),
            "wrong": sum(not i.correct[0] for i in tried if i.best > least),
        }
        for least in SCORES[:2]
    }
    return {"images": len(items), "nothing_found": len(tried), "then": no_margin | table}


def _rotations(items: Sequence[Observation]) -> dict[str, Any]:
    """Count how often quarter turns bring a face upright, by when they are tried and accepted."""
    table = np.array([item.by_rotation for item in items])
    expected = np.array([-item.rotation // 90 % 4 for item in items])
    has_face = not items[0].condition.startswith("no face")
    as_is, quarters = table[:, 0], table[:, 1:].argmax(1) + 1
    rotated = table[np.arange(len(table)), quarters]
    rules = {}
    for below, least, gain in product(ROTATE_BELOW, (0.5, 0.7), (0.0, 0.05)):
        tried = as_is < below
        beats = rotated >= np.where(as_is > 0.5, as_is + gain, 0)
        is_accepted = tried & (rotated >= least) & beats
        chosen = np.where(is_accepted, quarters, 0)
        has_found = is_accepted | (as_is > 0.5)
        row = {"tried": int(tried.sum()), "face": int(has_found.sum())}
        if has_face:
            row["upright"] = int((has_found & (chosen == expected)).sum())
            row["wrong_rotation"] = int((has_found & (chosen != expected)).sum())
        when = "always" if below > 1 else f"if the best score is below {below}"
        rules[f"{when}; accepted from {least} and {gain} above"] = row
    by_rotation = {
        f"{quarter * 90}": _quantiles(table[:, quarter]) for quarter in range(table.shape[1])
    }
    return {"images": len(items), "rules": rules, "best_score_by_rotation": by_rotation}


def _fractions(values: Sequence[float]) -> dict[str, Any]:
    """Compute quantiles of fractions of the image area, and how many images reach some values."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not len(known):
        return {"images": 0}
    reach = {f"{least}": round(float((known >= least).mean()), 4) for least in FRACTIONS}
    return _quantiles(known) | {"fraction_of_images_from": reach}


def _quantiles(values: NDArray[np.floating]) -> dict[str, Any]:
    found = np.quantile(values, QUANTILES).round(4).tolist()
    named = {f"{quantile}": value for quantile, value in zip(QUANTILES, found, strict=True)}
    return {"images": len(values), "quantiles": named}


def _of_cache(cache: Path) -> dict[str, Any]:
    """Measure all images of an image cache: how many have no face, and the crop's area."""
    crop_matrices = _crop_matrices(cache).astype(np.float64)
    sources = np.array([row["source"] for row in _rows(cache)])
    area = np.abs(
        crop_matrices[:, 0, 0] * crop_matrices[:, 1, 1]
        - crop_matrices[:, 0, 1] * crop_matrices[:, 1, 0]
    )
    return {
        source: {
            "crops": int((sources == source).sum()),
            "no_face_from_0.5": int(np.isnan(area[sources == source]).sum()),
            "crop_fraction": _fractions(area[sources == source].tolist()),
        }
        for source in sorted(set(sources.tolist()))
    }


def _rows(cache: Path) -> list[dict[str, str]]:
    with (cache / SAMPLES_NAME).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _crop_matrices(cache: Path) -> NDArray[np.float32]:
    return np.fromfile(cache / MATRICES_NAME, np.float32).reshape(-1, 2, 3)


def _best(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _with_margins(scene: Scene, detector: FaceDetector) -> Iterator[tuple[float, bool]]:
    for margin in MARGINS:
        border = round(margin * max(scene.pixels.shape[:2]))
        padded: Pixels = np.pad(
            scene.pixels, ((border, border), (border, border), (0, 0)), constant_values=128
        )
        found = boxes(detector.detect(padded, min_score=MIN_SCORE))
        found[:, :2] -= border
        correct, _, _ = judge(found[:1], scene)
        yield (float(found[0, 4]), bool(correct[0])) if len(found) else (0.0, False)


def _crop_fraction(face: Face, pixels: Pixels) -> float:
    area = abs(float(np.linalg.det(estimate_similarity(face.landmarks, ALIGNED_CROP)[:, :2])))
    return float(area / (pixels.shape[0] * pixels.shape[1]))
