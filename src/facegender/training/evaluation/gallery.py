"""The pictures that are worth a look after judging: the most wrong, the least sure, the surest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample
from facegender.training.evaluation.predictions_table import PredictionsTable

EXAMPLE_KINDS = ("wrong", "unsure", "right")
"""Surely wrong first; nearest to one half first; surely right first, half of each label."""

EXAMPLES_PER_KIND = 24
"""Pictures of each kind."""

_GAP, _LINE = 6, 13


@dataclass(frozen=True, slots=True)
class Example:
    """One picture as the network saw it, ``uint8 [H, W, 3]``, and what it answered."""

    sample: Sample
    p_male: float
    pixels: Pixels

    @property
    def answer(self) -> str:
        """The label that was answered."""
        return LABELS[int(self.p_male > 0.5)]

    @property
    def confidence(self) -> float:
        """Probability of the answer, 0.5 to 1."""
        return max(self.p_male, 1.0 - self.p_male)


@dataclass(slots=True)
class Gallery:
    """Keeps the most telling pictures of a stream; its memory does not grow with the stream."""

    count: int = EXAMPLES_PER_KIND
    kinds: dict[str, list[Example]] = field(
        default_factory=lambda: {kind: [] for kind in EXAMPLE_KINDS}
    )

    def add(self, scores: PredictionsTable, pixels: Pixels) -> None:
        """Look at some more pictures.

        Args:
            scores: ``N`` rows.
            pixels: ``uint8 [N, H, W, 3]``, as the network saw them.
        """
        for kind, rows in select_examples(scores, self.count).items():
            more = [
                Example(scores.samples[row], float(scores.p_male[row]), pixels[row].copy())
                for row in rows
            ]
            both = self.kinds[kind] + more
            table = PredictionsTable(
                [one.sample for one in both],
                [""] * len(both),
                np.array([one.p_male for one in both]),
            )
            self.kinds[kind] = [both[row] for row in select_examples(table, self.count)[kind]]


def select_examples(scores: PredictionsTable, count: int) -> dict[str, list[int]]:
    """Choose rows of a score table to look at, up to ``count`` of each of :data:`EXAMPLE_KINDS`."""
    confidence = np.abs(scores.p_male - 0.5)
    surest, right, labels = np.argsort(-confidence, kind="stable"), scores.right, scores.labels
    halves = [
        [int(row) for row in surest if right[row] and labels[row] == label][: (count + 1) // 2]
        for label in range(len(LABELS))
    ]
    return {
        "wrong": [int(row) for row in surest if not right[row]][:count],
        "unsure": [int(row) for row in surest[::-1]][:count],
        "right": [row for half in halves for row in half][:count],
    }


def contact_sheet(
    images: Sequence[Pixels], captions: Sequence[str], columns: int = 8
) -> Image.Image:
    """Draw pictures of one size in rows, each with its caption under it.

    Args:
        images: each ``uint8 [H, W, 3]``.
        captions: a text for each; what is wider than the picture is cut off.
        columns: pictures in a row.
    """
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = width + _GAP, height + _LINE + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_LINE - 2)
    for place, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = _GAP + place % columns * step_x, _GAP + place // columns * step_y
        while caption and draw.textlength(caption, font) > width:
            caption = caption[:-1]
        sheet.paste(Image.fromarray(pixels), (left, top))
        draw.text((left, top + height), caption, "black", font)
    return sheet
