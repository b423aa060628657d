"""The tables of docs/reference say what the code does."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from facegender.faces.alignment import Crop
from facegender.images.pixels import Resize
from facegender.model.model_file import FORMAT, ModelDescription
from facegender.results.details import COLUMNS
from facegender.results.predictions import Status

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The first table under a heading: the names in its first column, and their other cells."""
    text = (REFERENCE / page).read_text("utf-8")
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    block = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert block, f"{page}: no table under {heading}"
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in block[0].splitlines()[2:]
    ]
    found = {row[0].strip("`"): row[1:] for row in rows}
    assert len(found) == len(rows)
    return found


def header(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def test_details() -> None:
    words = {"string": "text", "int32": "integer", "float64": "number"}
    documented = {name: cells[0] for name, cells in table("columns.md", "Details").items()}
    assert list(documented.items()) == [(name, words[kind]) for name, kind in COLUMNS.items()]


def test_statuses() -> None:
    assert list(table("columns.md", "Statuses")) == [status.value for status in Status]


def test_exit_codes() -> None:
    """From 128 up it is 128 and the number of the signal; the others are what commands return."""
    codes = [code for cell in table("columns.md", "Exit codes") for code in cell.split(", ")]
    assert sorted(map(int, codes)) == [0, 1, 2, 130, 141, 143]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [(f"Description, format {FORMAT}", ModelDescription), ("resize", Resize), ("crop", Crop)],
)
def test_model_file(heading: str, kind: type[Any]) -> None:
    assert list(table("model_file.md", heading)) == [item.name for item in fields(kind)]


@pytest.mark.parametrize("section", ["", "network", "input", "augment", "train", "ensemble"])
def test_recipe(section: str) -> None:
    """Every key of every section, in order, with its default."""
    pytest.importorskip("torch", reason="recipes belong to the extra train")
    from facegender.training.recipe import Recipe

    kind = get_type_hints(Recipe)[section] if section else Recipe
    kind = next(filter(is_dataclass, get_args(kind)), kind)  # of a section that may be missing
    values = {item.name: item for item in fields(kind)}
    if not section:
        values = {name: values[name] for name in ("name", "min_confidence")}
    documented = table("recipe.md", f"`[{section}]`" if section else "Recipe")
    assert list(documented) == list(values)
    for name, item in values.items():
        if item.default is MISSING:
            continue
        shown = documented[name][0].strip("`")
        assert json.loads(shown) == json.loads(json.dumps(item.default)), f"{section}.{name}"


def test_every_section_of_a_recipe_is_listed() -> None:
    pytest.importorskip("torch", reason="recipes belong to the extra train")
    from facegender.training.recipe import Recipe

    headings = re.findall(r"^## `\[(\w+)\]`$", (REFERENCE / "recipe.md").read_text("utf-8"), re.M)
    plain = ("name", "min_confidence")
    assert headings == [item.name for item in fields(Recipe) if item.name not in plain]


def test_tables_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="runs belong to the extra train")
    from facegender.training.data.samples import Sample
    from facegender.training.data.split import Assignment, write_split
    from facegender.training.evaluation.predictions_table import (
        make_predictions,
        write_predictions,
    )
    from facegender.training.loop.history import EpochMetrics, write_history

    samples = [Sample("a", "male/1.jpg", "male")]
    path = tmp_path / "table.csv"
    write_split(path, [Assignment(samples[0], "0" * 64, "group", "train")])
    assert list(table("columns.md", "split.csv")) == header(path)
    write_predictions(path, make_predictions(samples, ["new"], np.array([[0.1, 0.9]])))
    assert list(table("columns.md", "predictions.csv")) == header(path)
    write_history(path, [EpochMetrics(0, 0.7, 0.5, 0.7, 0.5, 1, 1e-3, 1.0)])
    assert list(table("columns.md", "history.csv")) == header(path)


def test_problems_of_the_server() -> None:
    """The guide lists every problem type with its status."""
    pytest.importorskip("starlette", reason="the server belongs to the extra serve")
    from facegender.serve.problems import PROBLEM_KINDS

    guide = (REFERENCE.parent / "guide" / "serve.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (`/problems/.*?) \|", guide, re.MULTILINE)
    listed = {
        (name, int(status)) for status, cell in rows for name in re.findall(r"/([\w-]+)`", cell)
    }
    assert listed == {(name, kind.status) for name, kind in PROBLEM_KINDS.items()}


def test_metrics() -> None:
    """The keys of metrics.json, with every kind of groups."""
    pytest.importorskip("torch", reason="metrics belong to the extra train")
    from facegender.training.data.samples import Sample
    from facegender.training.evaluation.metrics import compute_metrics

    samples = [
        Sample("a", f"{label}/{number}.jpg", label, source=source, age="30", race=source)
        for label in ("female", "male")
        for source in ("one", "two")
        for number in range(40)
    ]
    labels = np.array([int(sample.label == "male") for sample in samples], np.int64)
    p_male = np.random.default_rng(0).uniform(size=len(samples))
    metrics = compute_metrics(samples, np.stack([1 - p_male, p_male], 1), labels).to_dict()
    assert sorted(table("columns.md", "metrics.json")) == sorted(metrics)
    proportion = re.findall(r"`\{(count.*?)\}`", (REFERENCE / "columns.md").read_text("utf-8"))
    assert proportion == [", ".join(metrics["accuracy"])]
