from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.results.details import COLUMNS, DetailsWriter, resolve_format
from facegender.results.predictions import Box, Prediction, Status

FACE = Prediction("é.jpg", Status.OK, 0, "male", 0.9, Box(1, 2, 3, 4), 0.87, "aligned", 40, 50)
ROWS = (
    FACE,
    replace(FACE, status=Status.UNKNOWN, face_index=1, label="female", probability=0.51),
    Prediction("notes", Status.SKIPPED),
    Prediction("c.jpg", Status.NO_FACE, width=4, height=5),
    Prediction('b"\r\n,.jpg', Status.UNREADABLE, error="truncated"),
    replace(
        FACE,
        file=os.fsdecode(b"caf\xe9.jpg"),
        box=Box(0, 0, 40, 50),
        detection_score=None,
        crop="none",
    ),
)
WRITTEN = [row for row in ROWS if row.status != Status.SKIPPED]


def write(path: Path, kind: str | None = None) -> Path:
    with DetailsWriter(path, kind) as details:
        for row in ROWS:
            details.append(row)
        assert not path.exists()
    return path


def test_jsonl_is_exact(tmp_path: Path) -> None:
    lines = write(tmp_path / "d.jsonl").read_text("utf-8").splitlines()
    assert lines[0] == (
        '{"file": "é.jpg", "face_index": 0, "status": "ok", "label": "male", "probability": 0.9, '
        '"box": {"x": 1, "y": 2, "width": 3, "height": 4}, "detection_score": 0.87, '
        '"crop": "aligned", "width": 40, "height": 50, "error": null}'
    )
    assert [Prediction.from_dict(json.loads(line)) for line in lines] == WRITTEN


def test_json_is_one_list(tmp_path: Path) -> None:
    rows = json.loads(write(tmp_path / "d.json").read_text("utf-8"))
    assert [Prediction.from_dict(row) for row in rows] == WRITTEN
    with DetailsWriter(tmp_path / "none.json"):
        pass
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_csv_has_a_column_for_each_value(tmp_path: Path) -> None:
    with write(tmp_path / "d.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["box_width"] == "3" and rows[0]["probability"] == "0.9"
    assert [row["file"] for row in rows][2:4] == ["c.jpg", 'b"\r\n,.jpg']
    assert rows[2]["label"] == rows[2]["box_x"] == "" and rows[3]["error"] == "truncated"


def test_parquet_has_the_types_that_the_table_says(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "d", "parquet"))
    types = {
        name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    }
    assert types == {name: kind.replace("float64", "double") for name, kind in COLUMNS.items()}
    rows = table.to_pylist()
    assert (
        len(rows) == len(WRITTEN) and rows[0]["box_height"] == 4 and rows[2]["face_index"] is None
    )
    assert rows[4]["file"] == "caf\\udce9.jpg"


def test_the_format_goes_by_the_name(tmp_path: Path) -> None:
    names = ("a.CSV", "a.json", "a.jsonl", "a", "-", "/dev/stdout", "/dev/fd/63")
    formats = [resolve_format(Path(name)) for name in names]
    assert formats == ["csv", "json", *["jsonl"] * 5]
    assert resolve_format(Path("a.csv"), "json") == "json"
    assert resolve_format(Path("a.txt"), "csv") == "csv"
    for name in ("a.xlsx", "a.txt", "answers.2024", "a.csv.gz"):
        with pytest.raises(InputError, match=r"suffixes \.json, \.jsonl, \.csv, \.parquet, or"):
            resolve_format(Path(name))
    with pytest.raises(InputError, match="xml"):
        DetailsWriter(tmp_path / "d", "xml")


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_nothing_half_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), DetailsWriter(path, kind) as details:
        details.append(FACE)
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="with"):
        details.append(FACE)
