"""A model file on labelled pictures: one score table, and what is worth a look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import LABELS
from facegender.training.data.corrections import apply_corrections, read_corrections
from facegender.training.data.image_cache import ImageCache, decode_samples
from facegender.training.data.image_rows import read_rows
from facegender.training.data.samples import Sample, stream_samples
from facegender.training.data.split import SPLIT_NAME, SUBSETS, read_split
from facegender.training.evaluation.gallery import Gallery
from facegender.training.evaluation.metrics import table_metrics
from facegender.training.evaluation.predictions_table import PredictionsTable, make_predictions

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of judging: the score table, files not read (name, reason), pictures by part."""

    scores: PredictionsTable
    unreadable: list[tuple[str, str]]
    galleries: dict[str, Gallery]

    def metrics(self) -> dict[str, Any]:
        """Measure every part on its own, as ``measure`` does."""
        return {
            name: table_metrics(self.scores.of_subset(name))
            for name in sorted(set(self.scores.subsets))
        }


def predict_cached(
    classifier: Classifier,
    cache: ImageCache,
    indices: NDArray[np.int64],
    *,
    on_image: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Run the model file over pictures of a store made by its own resize rule.

    Returns:
        Probabilities ``float32 [len(indices), 2]`` in the order of ``LABELS``: the same that
        ``predict`` gives for the same files.
    """
    scores = np.zeros((len(indices), len(LABELS)), np.float32)
    for start in range(0, len(indices), _BATCH):
        some = indices[start : start + _BATCH]
        scores[start : start + len(some)] = classifier.probabilities(read_rows(cache.pixels, some))
        if on_image:
            on_image(start + len(some))
    return scores


def evaluate(
    model: Path,
    inputs: Sequence[Path],
    table: Path | None = None,
    *,
    subset: str | None = None,
    corrections: Path | None = None,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> Evaluation:
    """Score a model file on labelled pictures, decoded as ``predict`` decodes them.

    A run folder (or the model file in it) knows what it learned from: pictures are told by their
    content (SHA-256), and each falls into the part of the split that it was in, or into ``new``.

    Args:
        model: a model file or a run folder.
        inputs: archives or folders.
        table: CSV joined on the path inside the archive.
        subset: only this one; None takes every part but ``test``, which is looked at on purpose only.
        corrections: a list of corrected labels to measure by.
        on_image: called with the number of pictures done.
        on_skip: called with the name and reason of a member that was passed over.

    Raises:
        FacegenderError: no such model, no such archive, or no picture in the part asked for.
    """
    if subset not in (None, "new", *SUBSETS):
        raise InputError(f"there is no part {subset!r}: use {', '.join(SUBSETS)} or new")
    classifier = Classifier.load(model)
    split = (model if model.is_dir() else model.parent) / SPLIT_NAME
    subsets = (
        {row.sha256: row.subset for row in read_split(split) if row.subset}
        if split.is_file()
        else {}
    )
    known = read_corrections(corrections) if corrections else {}
    samples: list[Sample] = []
    found: list[str] = []
    probabilities: list[NDArray[np.float32]] = []
    unreadable: list[tuple[str, str]] = []
    galleries: dict[str, Gallery] = {}
    waiting: list[Pixels] = []

    def flush() -> None:
        if not waiting:
            return
        pixels = np.stack(waiting)
        given = classifier.probabilities(pixels)
        done = len(probabilities)
        some = make_predictions(samples[done:], found[done:], given)
        probabilities.extend(given)
        for name in set(some.subsets):
            rows = [row for row, its in enumerate(some.subsets) if its == name]
            galleries.setdefault(name, Gallery()).add(some.pick(rows), pixels[rows])
        waiting.clear()
        if on_image:
            on_image(len(probabilities))

    def is_wanted(data: bytes) -> bool:
        its_part = subsets.get(sha256(data).hexdigest(), "new")
        return its_part != "test" if subset is None else its_part == subset

    stream = (
        (sample, data)  # what is not asked for is not even decoded
        for sample, data in stream_samples(inputs, table, on_skip=on_skip)
        if is_wanted(data)
    )
    for sample, digest, image, error in decode_samples(
        stream, lambda it: classifier.aligner(it).pixels
    ):
        if image is None:
            unreadable.append((sample.file, error))
            continue
        (corrected,) = apply_corrections([sample], [digest], known)
        if corrected is None:
            continue
        samples.append(corrected)
        found.append(subsets.get(digest, "new"))
        waiting.append(image)
        if len(waiting) == _BATCH:
            flush()
    flush()
    if not samples and unreadable:
        file, error = unreadable[0]
        raise InputError(f"none of {len(unreadable):,} pictures could be read; {file}: {error}")
    if not samples:
        raise InputError(
            f"no picture to evaluate on: none is in the part {subset!r}"
            if subset
            else "no picture to evaluate on: all are in the test part; ask for it by --part test"
        )
    return Evaluation(
        make_predictions(samples, found, np.stack(probabilities)), unreadable, galleries
    )
