"""Figures of a model file: accuracy with counts and intervals, by part, source, label and group."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from facegender.classifier import Classifier
from facegender.errors import InputError
from facegender.images import Pixels
from facegender.model_file import LABELS
from facegender.results import replacing
from facegender.training.calibrate import calibration_error
from facegender.training.corrections import correct, read_corrections
from facegender.training.samples import Sample, stream_samples
from facegender.training.split import PARTS, SPLIT_NAME, read_split
from facegender.training.store import Store, decoded

CONFIDENCE = 0.95
"""Of every interval."""

_AGES = ((0, 3), (4, 12), (13, 20), (21, 60), (61, 150))
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of labelled pictures, side by side: sample, part, probabilities ``float32 [2]``."""

    samples: list[Sample]
    parts: list[str]
    probabilities: list[NDArray[np.float32]]
    unreadable: list[tuple[str, str]]

    def figures(self) -> dict[str, Any]:
        """Measure every part on its own; see :func:`measure`."""
        table = np.stack(self.probabilities)
        labels = np.array([LABELS.index(sample.label) for sample in self.samples], np.int64)
        result = {}
        for name in sorted(set(self.parts)):
            rows = np.flatnonzero(np.array(self.parts) == name)
            samples = [self.samples[row] for row in rows]
            result[name] = measure(samples, table[rows], labels[rows])
        return result


def score(
    classifier: Classifier,
    store: Store,
    indices: NDArray[np.int64],
    *,
    on_picture: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Run the model file over pictures of a store made by its own resize rule.

    Returns:
        Probabilities ``float32 [len(indices), 2]`` in the order of ``LABELS``: the same that
        ``predict`` gives for the same files.
    """
    scores = np.zeros((len(indices), len(LABELS)), np.float32)
    for start in range(0, len(indices), _BATCH):
        some = indices[start : start + _BATCH]
        scores[start : start + len(some)] = classifier.probabilities(
            np.ascontiguousarray(store.pixels[some])
        )
        if on_picture:
            on_picture(start + len(some))
    return scores


def evaluate(
    model: Path,
    inputs: Sequence[Path],
    table: Path | None = None,
    *,
    part: str | None = None,
    corrections: Path | None = None,
    on_picture: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Evaluation:
    """Score a model file on labelled pictures, decoded as ``predict`` decodes them.

    A run folder (or the model file in it) knows what it learned from: pictures are told by their
    content (SHA-256), and each falls into the part of the split that it was in, or into ``new``.

    Args:
        model: a model file or a run folder.
        inputs: archives or folders.
        table: CSV joined on the path inside the archive.
        part: only this one; None takes every part but ``test``, which is looked at on purpose only.
        corrections: a list of corrected labels to measure by.
        on_picture: called with the number of pictures done.
        on_skip: called with the name and reason of a member that was passed over.

    Raises:
        FacegenderError: no such model, no such archive, or no picture in the part asked for.
    """
    if part not in (None, "new", *PARTS):
        raise InputError(f"there is no part {part!r}: use {', '.join(PARTS)} or new")
    classifier = Classifier.load(model)
    split = (model if model.is_dir() else model.parent) / SPLIT_NAME
    parts = (
        {row.sha256: row.part for row in read_split(split) if row.part} if split.is_file() else {}
    )
    known = read_corrections(corrections) if corrections else {}
    result = Evaluation([], [], [], [])
    pixels: list[Pixels] = []

    def flush() -> None:
        if pixels:
            result.probabilities.extend(classifier.probabilities(np.stack(pixels)))
            pixels.clear()
            if on_picture:
                on_picture(len(result.probabilities))

    stream = stream_samples(inputs, table, on_skip=on_skip)
    for sample, digest, picture, error in decoded(stream, lambda it: classifier.framer(it).pixels):
        found = parts.get(digest, "new")
        if found != part and (part is not None or found == "test"):
            continue
        if picture is None:
            result.unreadable.append((sample.file, error))
            continue
        (corrected,) = correct([sample], [digest], known)
        if corrected is None:
            continue
        result.samples.append(corrected)
        result.parts.append(found)
        pixels.append(picture)
        if len(pixels) == _BATCH:
            flush()
    flush()
    if not result.samples and result.unreadable:
        file, error = result.unreadable[0]
        raise InputError(
            f"none of {len(result.unreadable):,} pictures could be read; {file}: {error}"
        )
    if not result.samples:
        raise InputError(
            f"no picture to evaluate on: none is in the part {part!r}"
            if part
            else "no picture to evaluate on: all are in the test part; ask for it by --part test"
        )
    return result


def measure(
    samples: Sequence[Sample], probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Sum up how well probabilities fit labels, over all pictures and over groups of them.

    Args:
        samples: ``N`` samples; their source, age and race make the groups.
        probabilities: ``float [N, 2]`` in the order of ``LABELS``.
        labels: ``int64 [N]``.

    Returns:
        ``accuracy`` and ``recall`` of each label as ``{count, correct, share, interval}``
        (Wilson, 95 %), ``balanced_accuracy``, ``roc_auc``, ``calibration_error``, ``log_loss``,
        ``coverage`` (accuracy of the surest shares, with the threshold that gives them), and the
        same shares under ``sources``, ``ages`` and ``races`` where the samples say them.
    """
    correct = probabilities.argmax(1) == labels
    result: dict[str, Any] = {"accuracy": share(correct), "recall": _recalls(correct, labels)}
    recalls = [value["share"] for value in result["recall"].values()]
    result["balanced_accuracy"] = _rounded(float(np.mean(recalls)))
    if len(recalls) == len(LABELS):
        result["roc_auc"] = _rounded(float(roc_auc_score(labels, probabilities[:, 1])))
    result["calibration_error"] = _rounded(calibration_error(probabilities, labels))
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    result["log_loss"] = _rounded(float(-np.log(np.clip(chosen, 1e-7, 1)).mean()))
    result["coverage"] = _coverage(probabilities.max(1), correct)
    groupings: dict[str, list[str]] = {
        "sources": [sample.source for sample in samples],
        "ages": [_age_group(sample.age) for sample in samples],
        "races": [sample.race for sample in samples],
    }
    for name, values in groupings.items():
        keys = np.array(values)
        groups = {
            str(key): {
                "accuracy": share(correct[keys == key]),
                "recall": _recalls(correct[keys == key], labels[keys == key]),
            }
            for key in sorted(set(values) - {""})
        }
        if groups:
            result[name] = groups
    return result


def write_scores(
    path: Path,
    samples: Sequence[Sample],
    parts: Sequence[str],
    probabilities: NDArray[np.floating],
) -> None:
    """Save the table that all figures are computed from, a row for each picture."""
    with replacing(path, "surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["archive", "file", "label", "part", "source", "age", "race", "p_male"])
        for sample, part, row in zip(samples, parts, probabilities, strict=True):
            rows.writerow(
                [
                    *(sample.archive, sample.file, sample.label, part),
                    *(sample.source, sample.age, sample.race, f"{row[1]:.4f}"),
                ]
            )


def write_json(path: Path, values: Any) -> None:
    """Write JSON for people, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _recalls(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Share of each label's pictures that were told right; labels without pictures are left out."""
    return {
        name: share(correct[labels == index])
        for index, name in enumerate(LABELS)
        if (labels == index).any()
    }


def share(correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Sum up right and wrong answers: ``{count, correct, share, interval}`` (Wilson, 95 %)."""
    count, right = len(correct), int(correct.sum())
    if not count:
        return {"count": 0, "correct": 0, "share": None, "interval": None}
    interval = binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "count": count,
        "correct": right,
        "share": _rounded(right / count),
        "interval": [_rounded(float(interval.low)), _rounded(float(interval.high))],
    }


def _coverage(certainty: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Accuracy of the surest part of the answers, and the certainty from which on they count."""
    order = np.argsort(-certainty, kind="stable")
    rows = []
    for answered in (1.0, 0.99, 0.98, 0.95, 0.9, 0.8):
        count = max(1, round(answered * len(order)))
        kept = order[:count]
        rows.append(
            {
                "answered": answered,
                "threshold": _rounded(float(certainty[kept[-1]])),
                "accuracy": share(correct[kept]),
            }
        )
    return rows


def age_in_years(age: str) -> float | None:
    """Read an age in years, or the middle of a band such as ``(25, 32)``; None if there is none."""
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", age)[:2]]
    return sum(numbers) / len(numbers) if numbers else None


def _age_group(age: str) -> str:
    """Name the group of an age as a table says it."""
    years = age_in_years(age)
    if years is None:
        return ""
    for low, high in _AGES:
        if years <= high:
            return f"{low:02d}-{high}" if high < 150 else f"{low}+"
    return ""


def _rounded(value: float) -> float:
    return round(value, 5)
