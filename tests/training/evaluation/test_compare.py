"""Two networks compared on the same images, counted by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facegender.cli import main
from facegender.errors import InputError
from facegender.training.console import Console
from facegender.training.data.samples import Sample
from facegender.training.evaluation.compare import compare
from facegender.training.evaluation.metrics import table_metrics
from facegender.training.evaluation.predictions_table import PredictionsTable, write_predictions


def table_of(
    answers: str, sources: str = "", subsets: str = "", first: int = 0
) -> PredictionsTable:
    """A table of male images: "+" is a correct answer, "-" an error."""
    samples = [
        Sample("a", f"{i + first}.png", "male", source=sources[i : i + 1])
        for i in range(len(answers))
    ]
    names = {"": "validation", "v": "validation", "t": "train", "n": "new"}
    return PredictionsTable(
        samples,
        [names[subsets[i : i + 1]] for i in range(len(answers))],
        np.array([0.9 if answer == "+" else 0.1 for answer in answers]),
    )


def test_counted_by_hand() -> None:
    #            both right, both wrong, only the first, only the second
    one = table_of("+" * 80 + "-" * 5 + "+" * 3 + "-" * 12)
    two = table_of("+" * 80 + "-" * 5 + "-" * 3 + "+" * 12)
    found = compare(one, two).overall
    assert (found.count, found.only_first, found.only_second) == (100, 3, 12)
    assert (found.first, found.second, found.difference) == (0.83, 0.92, 0.09)
    # McNemar, exact: at most 3 of 15 one way, both ways
    p = 2 * sum(math.comb(15, k) for k in range(4)) / 2**15
    assert found.p_value == pytest.approx(p) and found.is_significant
    # the mean of 100 values of -1, 0 and 1
    spread = math.sqrt((15 / 100 - 0.09**2) / 100)
    assert found.interval == pytest.approx((0.09 - 1.96 * spread, 0.09 + 1.96 * spread), abs=0.012)


def test_the_order_of_the_two_only_turns_the_sign() -> None:
    one, two = table_of("+++--+-+-+" * 10), table_of("++-+-+-+++" * 10)
    there, back = compare(one, two).overall, compare(two, one).overall
    assert back.difference == -there.difference and back.p_value == there.p_value
    assert (back.only_first, back.only_second) == (there.only_second, there.only_first)


def test_a_network_is_no_better_than_itself() -> None:
    found = compare(table_of("+-+"), table_of("+-+")).overall
    assert (found.p_value, found.is_significant, found.interval) == (1.0, False, (0.0, 0.0))
    assert found.verdict() == "No significant difference on 3 images (p = 1.00)."


def test_images_are_identified_by_name_not_by_row() -> None:
    one = table_of("+-+-", first=0)
    two = table_of("-+-+", first=1)  # 1 2 3 4
    found = compare(one, two)
    assert (found.only_in_first, found.only_in_second) == (1, 1)
    assert found.overall.count == 3
    # 1: - and -, 2: + and +, 3: - and -
    assert (found.overall.only_first, found.overall.only_second) == (0, 0)


def test_what_one_of_them_was_trained_on_is_left_out() -> None:
    one, two = table_of("++++", subsets="vtvn"), table_of("----", subsets="tvvn")
    found = compare(one, two)
    assert (found.trained_on, found.overall.count) == (2, 2)
    assert compare(one, two, subset="validation").overall.count == 1
    with pytest.raises(InputError, match="in the subset 'test'"):
        compare(one, two, subset="test")


def test_two_labels_for_one_image_are_left_out() -> None:
    one, two = table_of("++"), table_of("++")
    two.samples[0] = Sample("a", "0.png", "female")
    found = compare(one, two)
    assert (found.other_label, found.overall.count) == (1, 1)


def test_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="0 images in common"):
        compare(table_of("++"), table_of("++", first=2))


def test_sources_are_corrected_together() -> None:
    """p = 0.031 is significant alone, but not among four tests; p = 0.00006 is."""
    lines = []
    for source, only_first, only_second in (("a", 0, 15), ("b", 0, 6), ("c", 1, 1), ("d", 2, 2)):
        lines.append((source, "+" * only_first + "-" * only_second, only_first + only_second))
    one = table_of("".join(answers for _, answers, _ in lines), "".join(s * n for s, _, n in lines))
    turned = "".join(answers for _, answers, _ in lines).translate({43: 45, 45: 43})
    two = table_of(turned, "".join(s * n for s, _, n in lines))
    found = {item.name: item for item in compare(one, two).sources}
    assert found["b"].p_value == pytest.approx(2 / 2**6)
    assert {name: item.is_significant for name, item in found.items()} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
    }
    alone = table_of("-" * 6, "b" * 6), table_of("+" * 6, "b" * 6)
    assert compare(*alone).sources[0].is_significant


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, answers in (("one", "+" * 80 + "-" * 20), ("two", "+" * 95 + "-" * 5)):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.csv", table_of(answers, "w" * 100))
    one, two, output = tmp_path / "one", tmp_path / "two" / "predictions.csv", tmp_path / "d.json"
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(two), "-o", str(output)])
    said = capsys.readouterr().out
    assert done.value.code == 0
    assert "The second is significantly better on 100 images, by 15.00 points" in said
    written = json.loads(output.read_text())
    assert written["overall"]["only_second"] == 15
    assert [item["name"] for item in written["sources"]] == ["w"]
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(one / "predictions.csv")])
    assert done.value.code == 2 and "same file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(tmp_path)])
    assert done.value.code == 2 and "Cannot read the predictions" in capsys.readouterr().err


def test_names_of_sources_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = table_of("+-")
    one.samples[:] = [replace(sample, source="[/b]") for sample in one.samples]
    found = compare(one, one)
    console = Console()
    console.comparison(found, "[a]", "b")
    console.metrics({"new": table_metrics(one)})
    said = capsys.readouterr().out
    assert said.count("[/b]") == 2 and "first: [a]" in said
