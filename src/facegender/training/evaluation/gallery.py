"""Example images: most confident errors, least confident, and most confident correct answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample
from facegender.training.evaluation.predictions_table import PredictionsTable

EXAMPLE_KINDS = ("errors", "uncertain", "correct")
"""Errors, most confident first; answers nearest to 0.5; correct ones, most confident first, half of
each label."""

EXAMPLES_PER_KIND = 24

_GAP, _LINE_HEIGHT = 6, 13


@dataclass(frozen=True, slots=True)
class Example:
    """One image as the network received it, ``uint8 [H, W, 3]``, and its answer."""

    sample: Sample
    p_male: float
    pixels: Pixels

    @property
    def answer(self) -> str:
        """The predicted label."""
        return LABELS[int(self.p_male > 0.5)]

    @property
    def confidence(self) -> float:
        """Probability of the answer, 0.5 to 1."""
        return max(self.p_male, 1.0 - self.p_male)


@dataclass(slots=True)
class Gallery:
    """Collects the example images of a stream, in memory that does not grow with the stream."""

    count: int = EXAMPLES_PER_KIND
    kinds: dict[str, list[Example]] = field(
        default_factory=lambda: {kind: [] for kind in EXAMPLE_KINDS}
    )

    def add(self, predictions: PredictionsTable, pixels: Pixels) -> None:
        """Consider more images.

        Args:
            predictions: ``N`` rows.
            pixels: ``uint8 [N, H, W, 3]``, as the network received them.
        """
        for kind, rows in select_examples(predictions, self.count).items():
            new = [
                Example(
                    predictions.samples[row], float(predictions.p_male[row]), pixels[row].copy()
                )
                for row in rows
            ]
            candidates = self.kinds[kind] + new
            table = PredictionsTable(
                [one.sample for one in candidates],
                [""] * len(candidates),
                np.array([one.p_male for one in candidates]),
            )
            selected = select_examples(table, self.count)[kind]
            self.kinds[kind] = [candidates[row] for row in selected]


def select_examples(predictions: PredictionsTable, count: int) -> dict[str, list[int]]:
    """Select rows of a table, up to ``count`` of each of :data:`EXAMPLE_KINDS`."""
    correct, labels = predictions.correct, predictions.labels
    most_confident = np.argsort(-np.abs(predictions.p_male - 0.5), kind="stable").tolist()
    of_each_label = [
        [row for row in most_confident if correct[row] and labels[row] == label]
        for label in range(len(LABELS))
    ]
    half = (count + 1) // 2
    return {
        "errors": [row for row in most_confident if not correct[row]][:count],
        "uncertain": most_confident[::-1][:count],
        "correct": [row for rows in of_each_label for row in rows[:half]][:count],
    }


def contact_sheet(
    images: Sequence[Pixels], captions: Sequence[str], columns: int = 8
) -> Image.Image:
    """Draw images of one size in a grid, each with its caption below.

    Args:
        images: at least one, each ``uint8 [H, W, 3]``.
        captions: one for each image; cut off at the width of the image.
        columns: images per row.
    """
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = width + _GAP, height + _LINE_HEIGHT + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_LINE_HEIGHT - 2)
    for number, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        while caption and draw.textlength(caption, font) > width:
            caption = caption[:-1]
        sheet.paste(Image.fromarray(pixels), (left, top))
        draw.text((left, top + height), caption, "black", font)
    return sheet
