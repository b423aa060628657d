from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from made import SIDE, build_foreign_model, build_model

from facegender.errors import ModelFileError
from facegender.images.pixels import Resize
from facegender.model.model_file import (
    LABELS,
    RENAMED_KEYS,
    ModelDescription,
    compute_digest,
    read_model_file,
    recorded_digest,
    seal,
)

DESCRIPTION = ModelDescription("mean", Resize(SIDE, SIDE))


def test_reads_a_file_and_a_run_folder(model_path: Path) -> None:
    for path in (model_path, model_path.parent):
        model = read_model_file(path, threads=1)
        assert model.description == DESCRIPTION
        assert model.description.labels == LABELS == ("female", "male")


def flip_a_weight() -> bytes:
    data = bytearray(build_model())
    data[data.index(b"weights") - 10] ^= 1
    return bytes(data)


BAD_FILES = {
    "empty": (lambda: b"", "not a facegender model file"),
    "text": (lambda: b"hello", "not a facegender model file"),
    "another ONNX file": (build_foreign_model, "not a facegender model file"),
    "one bit": (flip_a_weight, "damaged"),
    "not sealed": (lambda: build_model(is_sealed=False), "damaged"),
    "first half": (lambda: build_model()[: len(build_model()) // 3], "not a facegender"),
    "last byte lost": (lambda: build_model()[:-1], "damaged|not a facegender"),
    "more bytes": (lambda: build_model() + b"\0", "damaged"),
    "other labels": (lambda: build_model({"labels": ["male", "female"]}), "labels"),
    "newer format": (lambda: build_model({"format": 99}), "format 99, .*that wrote"),
    "older format": (lambda: build_model({"format": 1}), "format 1, .*that wrote"),
    "other size": (lambda: build_model({"resize": asdict(Resize(8, 8))}), "uint8 pixels"),
    "other interpolation": (
        lambda: build_model({"resize": asdict(Resize(SIDE, SIDE)) | {"interpolation": "odd"}}),
        "interpolation",
    ),
    "other crop": (lambda: build_model({"crop": {"rule": "aligned", "template": []}}), "crop rule"),
    "unknown key": (lambda: build_model({"color": 1}), "unknown keys color"),
    "threshold": (lambda: build_model({"min_confidence": 0.2}), "min_confidence"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_refuses(case: str, tmp_path: Path) -> None:
    make, message = BAD_FILES[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(make())
    with pytest.raises(ModelFileError, match=message):
        read_model_file(path)


def test_missing_file_and_run_without_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="Cannot read"):
        read_model_file(tmp_path / "no.onnx")
    with pytest.raises(ModelFileError, match=r"has no model\.onnx.*--resume"):
        read_model_file(tmp_path)


def test_seal() -> None:
    blank = build_model(is_sealed=False)
    assert recorded_digest(blank) == "0" * 64
    sealed = seal(blank)
    assert recorded_digest(sealed) == compute_digest(sealed) == compute_digest(blank)
    assert seal(sealed) == sealed
    with pytest.raises(ValueError, match="no facegender"):
        seal(b"nothing")


def test_description_round_trip() -> None:
    full = replace(
        DESCRIPTION, metrics={"accuracy": 0.97}, min_confidence=0.6, name="é", terms="research"
    )
    assert ModelDescription.from_json(full.to_json()) == full


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": 1}'])
def test_description_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|format|lacks"):
        ModelDescription.from_json(text)


def test_format_2_is_refused_by_the_present_names_of_its_keys(tmp_path: Path) -> None:
    """The description as it was before its keys were renamed."""
    old = {
        "format": 2,
        "figures": {},
        "grey": False,
        "licence": "",
        "start": "",
        "unknown_below": 0.5,
        "crop": {"rule": "whole", "points": []},
        "resize": {"height": SIDE, "width": SIDE, "filter": "bilinear", "aspect": "stretch"},
    }
    path = tmp_path / "model.onnx"
    path.write_bytes(build_model(old))
    with pytest.raises(ModelFileError) as refused:
        read_model_file(path)
    message = str(refused.value)
    assert message.startswith(f"Cannot use the model file {path}: its description has format 2")
    for pair in (
        *("figures is now metrics", "grey is now grayscale", "licence is now license"),
        *("start is now pretrained", "unknown_below is now min_confidence"),
        *("crop.points is now crop.template", "resize.filter is now resize.interpolation"),
        *("resize.aspect is now resize.resize_mode", "crop rule whole is now none"),
        "pad and crop are now letterbox and center_crop",
    ):
        assert pair in message
    assert "that wrote the file" in message and "train the network again" in message


def test_the_renamed_keys_are_those_of_a_description() -> None:
    values = asdict(DESCRIPTION)
    for old, new in RENAMED_KEYS.items():
        outer, _, inner = new.rpartition(".")
        assert inner in (values[outer] if outer else values)
        assert old.rpartition(".")[2] not in (values[outer] if outer else values)


@pytest.mark.parametrize("value", ["high", None, [1]])
def test_wrong_types_are_a_model_file_error(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(build_model({"min_confidence": value}))
    with pytest.raises(ModelFileError, match="Cannot use"):
        read_model_file(path)
