from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

SCRIPT = Path(__file__).parent.parent / "Usage_script.py"
MALE = encode(image("male", seed=1))


@pytest.mark.parametrize(
    ("arguments", "typed", "folder"),
    [
        ([], "\n", "faces"),
        ([], "", "faces"),
        ([], "my photos\n", "my photos"),
        (["my photos"], "", "my photos"),
        (["--", "-odd"], "", "-odd"),
    ],
)
def test_usage_script(
    arguments: list[str],
    typed: str,
    folder: str,
    photos: Callable[..., Path],
    tmp_path: Path,
    model_path: Path,
) -> None:
    photos({"é.png": MALE}, name=folder)
    command = [sys.executable, str(SCRIPT), "--model", str(model_path), *arguments]
    done = subprocess.run(command, input=typed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "process_results.json").read_text("utf-8")) == {"é.png": "male"}
    assert ("Folder of photos [faces]: " in done.stdout) == (not arguments)


def test_wrong_folder(tmp_path: Path, model_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "nowhere", "--model", str(model_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: Folder not found: nowhere")
    assert not list(tmp_path.iterdir())


def test_not_installed(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-S", "-I", str(SCRIPT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "pip install ." in done.stderr


def test_faces_beside_the_script(tmp_path: Path) -> None:
    """Whatever the current folder: it has no folder ``faces`` here."""
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, input="\n", cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "process_results.json").read_text("utf-8"))
    assert "eileen_collins.jpg" in found
    assert [path.name for path in tmp_path.iterdir()] == ["process_results.json"]
