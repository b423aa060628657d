"""Which example images are selected, and that a stream gives the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from facegender.training.data.samples import Sample
from facegender.training.evaluation.gallery import Gallery, contact_sheet, select_examples
from facegender.training.evaluation.predictions_table import PredictionsTable


def table_of(rows: list[tuple[str, float]]) -> PredictionsTable:
    samples = [Sample("a", f"{i}.png", label) for i, (label, _) in enumerate(rows)]
    return PredictionsTable(samples, ["new"] * len(rows), np.array([p for _, p in rows]))


ROWS = [
    ("male", 0.9),
    ("male", 0.1),
    ("female", 0.8),
    ("female", 0.45),
    ("male", 0.52),
    ("female", 0.05),
    ("male", 0.3),
    ("male", 0.99),
]


def test_chosen_by_hand() -> None:
    assert select_examples(table_of(ROWS), 2) == {
        "errors": [1, 2],
        "uncertain": [4, 3],
        "correct": [5, 7],
    }
    everything = select_examples(table_of(ROWS), 100)
    assert everything["errors"] == [1, 2, 6]
    assert sorted(everything["uncertain"]) == list(range(8))
    assert everything["correct"] == [5, 3, 7, 0, 4]


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_stream_gives_the_same_images(step: int) -> None:
    rng = np.random.default_rng(0)
    table = table_of([(("male", "female")[i % 2], float(rng.random())) for i in range(60)])
    pixels = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    gallery = Gallery(count=6)
    for start in range(0, 60, step):
        rows = list(range(start, min(60, start + step)))
        gallery.add(table.pick(rows), pixels[rows])
    for kind, chosen in select_examples(table, 6).items():
        shown = gallery.kinds[kind]
        assert [one.sample.file for one in shown] == [f"{row}.png" for row in chosen], kind
        assert [int(one.pixels[0, 0, 0]) for one in shown] == chosen


def test_answer_and_confidence() -> None:
    gallery = Gallery()
    gallery.add(table_of([("male", 0.2), ("male", 0.7)]), np.zeros((2, 2, 2, 3), np.uint8))
    (error,) = gallery.kinds["errors"]
    assert (error.answer, error.confidence) == ("female", 0.8)


def test_sheet_holds_every_image_in_order_with_ink_under_it() -> None:
    images = [np.full((20, 30, 3), shade, np.uint8) for shade in range(10, 60, 10)]
    sheet = np.asarray(contact_sheet(images, ["male"] * 4 + [""], columns=3))
    assert sheet.shape[1] == 3 * 36 + 6
    step = (sheet.shape[0] - 6) // 2
    for place, pixels in enumerate(images):
        left, top = 6 + place % 3 * 36, 6 + place // 3 * step
        assert (sheet[top : top + 20, left : left + 30] == pixels).all()
        under = sheet[top + 20 : top + step, left : left + 36]
        assert (under.min() < 100) == (place < 4)


def test_a_caption_stays_under_its_image() -> None:
    images = [np.zeros((20, 30, 3), np.uint8)] * 2
    sheet = np.asarray(contact_sheet(images, ["a very long name indeed", ""]))
    assert (sheet[26:, 36:] == 255).all()
