"""What the rules around our own detector give: thresholds, retries, turns, crop or photo.

Everything is computed from :class:`Seen`, one for each scene, with all faces from score 0.3 on.
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
from scenes import Scene, judge

from facegender.faces.alignment import ALIGNED_CROP, estimate_similarity
from facegender.faces.detection import select_main_face
from facegender.faces.yunet import Face, FaceDetector
from facegender.images.decode import decode
from facegender.images.pixels import Pixels

LEAST = 0.3
SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MARGINS = (0.3, 0.6, 1.0)
QUANTILES = (0.0, 0.002, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
TURNED_TOO = ("photo", "crop ", "turned by ", "no face")
TRY_TURNS_BELOW = (0.5, 0.7, 0.8, 0.85, 0.9, 1.1)
UNFOUND = "crop unfound"


@dataclass(frozen=True, slots=True)
class Seen:
    """What our detector found in a scene.

    Attributes:
        condition: the scene's.
        turn: likewise, in degrees.
        found: scores of all faces, the surest first, and whether each is right.
        missed: faces that were not found.
        upright: the best score after each of the four quarter turns, against the clock; empty
            where they were not tried.
        padded: for each of ``MARGINS`` the best score with so much grey around, and whether that
            face is right; empty where the best score as it is reaches 0.5.
        box_share: the largest face's box over the picture's area; NaN without a face.
        cut_share: the same of the square that the crop rule cuts.
    """

    condition: str
    turn: int
    found: NDArray[np.float64]
    right: NDArray[np.bool_]
    missed: int
    upright: tuple[float, ...]
    padded: tuple[tuple[float, bool], ...]
    box_share: float
    cut_share: float

    @property
    def best(self) -> float:
        """Score of the surest face, 0 without one."""
        return float(self.found[0]) if len(self.found) else 0.0


def see(scene: Scene, detector: FaceDetector) -> Seen:
    """Look at a scene in all ways."""
    faces = detector.detect(scene.pixels, min_score=LEAST)
    height, width = scene.pixels.shape[:2]
    right, missed, _ = judge(boxes(faces), scene)
    sure = [face for face in faces if face.score > 0.5]
    shown = select_main_face(sure, width, height)
    upright: list[float] = []
    if scene.condition.startswith(TURNED_TOO):
        upright = [_best(faces)]
        for quarter in (1, 2, 3):
            turned = np.ascontiguousarray(np.rot90(scene.pixels, quarter))
            upright.append(_best(detector.detect(turned, min_score=LEAST)))
    return Seen(
        scene.condition,
        scene.turn,
        np.array([face.score for face in faces]),
        right,
        missed,
        tuple(upright),
        () if sure else tuple(_padded(scene, detector)),
        shown.width * shown.height / (width * height) if shown else np.nan,
        _cut_share(shown, scene.pixels) if shown else np.nan,
    )


def boxes(faces: Sequence[Face]) -> NDArray[np.float64]:
    """``float64 [faces, 5]``: x, y, width, height, score."""
    rows = [(face.x, face.y, face.width, face.height, face.score) for face in faces]
    return np.array(rows, np.float64).reshape(-1, 5)


def unfound_crops(data: Path, store: Path) -> Iterator[Scene]:
    """The crops of the data in which training found no face, from its store."""
    names: dict[str, set[str]] = defaultdict(set)
    nowhere = np.isnan(_frames(store)).any((1, 2))
    for row, is_unfound in zip(_rows(store), nowhere, strict=True):
        if is_unfound:
            names[row["archive"]].add(row["file"])
    for archive, files in sorted(names.items()):
        with tarfile.open(data / archive) as members:
            for member in members:
                if member.name in files and (file := members.extractfile(member)):
                    yield Scene(UNFOUND, member.name, decode(file.read()), np.zeros((0, 4)))


def report(seen: Sequence[Seen], store: Path | None) -> dict[str, Any]:
    """All tables."""
    by = defaultdict(list)
    for item in seen:
        by[item.condition].append(item)
        if item.condition.startswith("crop ") and item.condition != UNFOUND:
            by["crops, all"].append(item)
        if item.condition.startswith("no face"):
            by["no face, all"].append(item)
    sources = {name for name in by if name.startswith("crop ")} - {UNFOUND}
    result: dict[str, Any] = {
        "thresholds": {name: _thresholds(items) for name, items in by.items()},
        "retry_with_margin": {name: _retries(items) for name, items in by.items()},
        "turns": {
            name: _turns(items)
            for name, items in by.items()
            if items[0].upright and items[0].turn % 90 == 0 and name not in sources
        },
        "best_score": {
            name: _quantiles(np.array([item.best for item in items])) for name, items in by.items()
        },
        "box_share": {name: _shares([i.box_share for i in items]) for name, items in by.items()},
        "cut_share": {name: _shares([i.cut_share for i in items]) for name, items in by.items()},
    }
    if store:
        result["all_crops"] = _of_store(store)
    return result


def _thresholds(items: Sequence[Seen]) -> dict[str, Any]:
    """Faces found and boxes wrong from each score on."""
    faces = sum(item.missed + int(item.right.sum()) for item in items)
    table = {}
    for least in SCORES:
        right = sum(int(item.right[item.found > least].sum()) for item in items)
        wrong = [int((~item.right[item.found > least]).sum()) for item in items]
        table[f"{least}"] = {
            "found": right,
            "recall": round(right / faces, 4) if faces else None,
            "wrong": sum(wrong),
            "pictures_with_wrong": sum(count > 0 for count in wrong),
        }
    return {"pictures": len(items), "faces": faces, "from_score": table}


def _retries(items: Sequence[Seen]) -> dict[str, Any]:
    """Of the pictures without a face from 0.5 on: what is found with grey around."""
    tried = [item for item in items if item.padded]
    table = {}
    for at, margin in enumerate(MARGINS):
        for least in SCORES[:4]:
            hits = [item.padded[at] for item in tried if item.padded[at][0] > least]
            right = sum(is_right for _, is_right in hits)
            table[f"margin {margin}, score {least}"] = {"right": right, "wrong": len(hits) - right}
    as_is = {
        f"as it is, score {least}": {
            "right": sum(bool(i.right[:1].sum()) for i in tried if i.best > least),
            "wrong": sum(not i.right[0] for i in tried if i.best > least),
        }
        for least in SCORES[:2]
    }
    return {"pictures": len(items), "nothing_found": len(tried), "then": as_is | table}


def _turns(items: Sequence[Seen]) -> dict[str, Any]:
    """How often quarter turns bring a face upright, by when they are tried and what counts."""
    table = np.array([item.upright for item in items])
    wanted = np.array([-item.turn // 90 % 4 for item in items])
    has_face = not items[0].condition.startswith("no face")
    as_is, turn = table[:, 0], table[:, 1:].argmax(1) + 1
    turned = table[np.arange(len(table)), turn]
    rules = {}
    for below, least, gain in product(TRY_TURNS_BELOW, (0.5, 0.7), (0.0, 0.05)):
        tried = as_is < below
        is_taken = tried & (turned >= least) & (turned >= np.where(as_is > 0.5, as_is + gain, 0))
        chosen = np.where(is_taken, turn, 0)
        counts = is_taken | (as_is > 0.5)
        row = {"tried": int(tried.sum()), "a_face": int(counts.sum())}
        if has_face:
            row["upright"] = int((counts & (chosen == wanted)).sum())
            row["wrong_turn"] = int((counts & (chosen != wanted)).sum())
        when = "always" if below > 1 else f"when the best is below {below}"
        rules[f"{when}; a turn counts from {least} and {gain} above"] = row
    quarters = {
        f"{quarter * 90}": _quantiles(table[:, quarter]) for quarter in range(table.shape[1])
    }
    return {"pictures": len(items), "rules": rules, "best_score_by_turn": quarters}


def _shares(values: Sequence[float]) -> dict[str, Any]:
    """Quantiles of a share of the picture, and how many pictures reach some values."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not len(known):
        return {"pictures": 0}
    reach = {f"{least}": round(float((known >= least).mean()), 4) for least in SHARES}
    return _quantiles(known) | {"share_of_pictures_from": reach}


def _quantiles(values: NDArray[np.floating]) -> dict[str, Any]:
    at = np.quantile(values, QUANTILES).round(4).tolist()
    named = {f"{share}": value for share, value in zip(QUANTILES, at, strict=True)}
    return {"pictures": len(values), "quantiles": named}


def _of_store(store: Path) -> dict[str, Any]:
    """Of every crop of the data: no face found, and the share that the crop rule cuts."""
    crop_matrices = _frames(store).astype(np.float64)
    sources = np.array([row["source"] for row in _rows(store)])
    area = np.abs(
        crop_matrices[:, 0, 0] * crop_matrices[:, 1, 1]
        - crop_matrices[:, 0, 1] * crop_matrices[:, 1, 0]
    )
    return {
        source: {
            "crops": int((sources == source).sum()),
            "no_face_from_0.5": int(np.isnan(area[sources == source]).sum()),
            "cut_share": _shares(area[sources == source].tolist()),
        }
        for source in sorted(set(sources.tolist()))
    }


def _rows(store: Path) -> list[dict[str, str]]:
    with (store / "samples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _frames(store: Path) -> NDArray[np.float32]:
    return np.fromfile(store / "frames.f32", np.float32).reshape(-1, 2, 3)


def _best(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _padded(scene: Scene, detector: FaceDetector) -> Iterator[tuple[float, bool]]:
    for margin in MARGINS:
        border = round(margin * max(scene.pixels.shape[:2]))
        wide: Pixels = np.pad(
            scene.pixels, ((border, border), (border, border), (0, 0)), constant_values=128
        )
        found = boxes(detector.detect(wide, min_score=LEAST))
        found[:, :2] -= border
        right, _, _ = judge(found[:1], scene)
        yield (float(found[0, 4]), bool(right[0])) if len(found) else (0.0, False)


def _cut_share(face: Face, pixels: Pixels) -> float:
    area = abs(float(np.linalg.det(estimate_similarity(face.landmarks, ALIGNED_CROP)[:, :2])))
    return area / (pixels.shape[0] * pixels.shape[1])
