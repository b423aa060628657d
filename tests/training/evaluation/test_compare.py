"""Two networks on the same pictures, counted by hand."""

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


def scores(answers: str, sources: str = "", subsets: str = "", first: int = 0) -> PredictionsTable:
    """A table of male pictures: "+" is answered right, "-" wrong."""
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
    one = scores("+" * 80 + "-" * 5 + "+" * 3 + "-" * 12)
    two = scores("+" * 80 + "-" * 5 + "-" * 3 + "+" * 12)
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
    one, two = scores("+++--+-+-+" * 10), scores("++-+-+-+++" * 10)
    there, back = compare(one, two).overall, compare(two, one).overall
    assert back.difference == -there.difference and back.p_value == there.p_value
    assert (back.only_first, back.only_second) == (there.only_second, there.only_first)


def test_a_network_is_no_better_than_itself() -> None:
    found = compare(scores("+-+"), scores("+-+")).overall
    assert (found.p_value, found.is_significant, found.interval) == (1.0, False, (0.0, 0.0))


def test_images_are_told_by_name_not_by_place() -> None:
    one = scores("+-+-", first=0)
    two = scores("-+-+", first=1)  # 1 2 3 4
    found = compare(one, two)
    assert (found.only_in_first, found.only_in_second) == (1, 1)
    assert found.overall.count == 3
    # 1: - and -, 2: + and +, 3: - and -
    assert (found.overall.only_first, found.overall.only_second) == (0, 0)


def test_what_one_of_them_learned_from_is_left_out() -> None:
    one, two = scores("++++", subsets="vtvn"), scores("----", subsets="tvvn")
    found = compare(one, two)
    assert (found.learned, found.overall.count) == (2, 2)
    assert compare(one, two, subset="validation").overall.count == 1
    with pytest.raises(InputError, match="in the part 'test'"):
        compare(one, two, subset="test")


def test_two_labels_for_one_image_are_left_out() -> None:
    one, two = scores("++"), scores("++")
    two.samples[0] = Sample("a", "0.png", "female")
    found = compare(one, two)
    assert (found.other_label, found.overall.count) == (1, 1)


def test_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="0 pictures in common"):
        compare(scores("++"), scores("++", first=2))


def test_sources_are_judged_all_together() -> None:
    """p of 0.031 alone is real; beside three others it is not; 0.00006 is."""
    lines = []
    for source, only_first, only_second in (("a", 0, 15), ("b", 0, 6), ("c", 1, 1), ("d", 2, 2)):
        lines.append((source, "+" * only_first + "-" * only_second, only_first + only_second))
    one = scores("".join(answers for _, answers, _ in lines), "".join(s * n for s, _, n in lines))
    turned = "".join(answers for _, answers, _ in lines).translate({43: 45, 45: 43})
    two = scores(turned, "".join(s * n for s, _, n in lines))
    found = {item.name: item for item in compare(one, two).sources}
    assert found["b"].p_value == pytest.approx(2 / 2**6)
    assert {name: item.is_significant for name, item in found.items()} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
    }
    alone = scores("-" * 6, "b" * 6), scores("+" * 6, "b" * 6)
    assert compare(*alone).sources[0].is_significant


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, answers in (("one", "+" * 80 + "-" * 20), ("two", "+" * 95 + "-" * 5)):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.csv", scores(answers, "w" * 100))
    one, two, output = tmp_path / "one", tmp_path / "two" / "predictions.csv", tmp_path / "d.json"
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(two), "-o", str(output)])
    said = capsys.readouterr().out
    assert done.value.code == 0
    assert "The second is better: by 15.00 points" in said
    written = json.loads(output.read_text())
    assert written["overall"]["only_second"] == 15
    assert [item["name"] for item in written["sources"]] == ["w"]
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(one / "predictions.csv")])
    assert done.value.code == 2 and "same file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main(["compare", str(one), str(tmp_path)])
    assert done.value.code == 2 and "cannot read the scores" in capsys.readouterr().err


def test_names_of_sources_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = scores("+-")
    one.samples[:] = [replace(sample, source="[/b]") for sample in one.samples]
    found = compare(one, one)
    console = Console()
    console.comparison(found, "[a]", "b")
    console.metrics({"new": table_metrics(one)})
    said = capsys.readouterr().out
    assert said.count("[/b]") == 2 and "first: [a]" in said
