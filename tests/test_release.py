"""The wheel and the sdist, as they are built here."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SDIST_NAMES = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"no network in this test: {event} {arguments[1:]}")

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built from a tree that also has an archive of faces and a run."""
    pytest.importorskip("hatchling", reason="builds with hatchling: pip install '.[dev]'")
    tree = tmp_path_factory.mktemp("tree")
    for name in SDIST_NAMES:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, tree)
    shutil.copy(ROOT / ".gitignore", tree)
    (tree / "internship_data.tar.gz").write_bytes(b"faces of people")
    (tree / "runs" / "mine").mkdir(parents=True)
    (tree / "runs" / "mine" / "model.onnx").write_bytes(b"weights")
    (tree / "src" / "facegender" / "__pycache__").mkdir()
    (tree / "src" / "facegender" / "__pycache__" / "old.pyc").write_bytes(b"old")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", out]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_metadata_says_what_the_weights_are_for(metadata: Message) -> None:
    assert "research and non-commercial use only" in metadata["Summary"]
    top = str(metadata.get_payload(decode=True), "utf-8")[:1500]  # type: ignore[arg-type]
    assert "research and non-commercial use only" in top
    expression = "Apache-2.0 AND BSD-3-Clause AND LicenseRef-facegender-model"
    assert metadata["License-Expression"] == expression
    assert metadata.get_all("License-File") == ["LICENSE", "LICENSE-MODEL", "LICENSE-OPEN"]


def test_the_wheel_contains_the_package_the_recipes_and_the_model_card(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        terms = next(name for name in names if name.endswith("licenses/LICENSE-MODEL"))
        assert archive.read(terms) == (ROOT / "LICENSE-MODEL").read_bytes()
        model = "facegender/model/weights/best.onnx"
        assert archive.read(model) == (ROOT / "src" / model).read_bytes()
    source = ROOT / "src"
    mine = {
        path.relative_to(source).as_posix()
        for path in (source / "facegender").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recipes = {f"facegender/training/recipes/{path.name}" for path in ROOT.glob("recipes/*")}
    card = {"facegender/model/weights/MODEL_CARD.md"}
    assert {name for name in names if ".dist-info/" not in name} == mine | recipes | card


def test_the_sdist_contains_what_it_names(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.partition("/")[0] for name in names} == {*SDIST_NAMES, ".gitignore", "PKG-INFO"}
    assert not [name for name in names if name.endswith((".pyc", ".tar.gz"))]


def test_the_sdist_names_all_tracked_files() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("tracked files are known in a clone only")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert top - {".ci", ".gitignore"} == set(SDIST_NAMES)


def test_the_wheel_answers_without_a_network(wheel: Path, tmp_path: Path) -> None:
    """Unpacked as pip does, with the libraries installed here; no process can use the network."""
    folder = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "sitecustomize.py").write_text(NO_NETWORK, "utf-8")
    shutil.copytree(ROOT / "faces", tmp_path / "faces")
    environment = os.environ | {"PYTHONPATH": str(folder)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    where = run("-c", "import facegender; print(facegender.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(folder)
    asked = run("-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "no network in this test" in asked.stderr
    done = run("-m", "facegender", "predict", "faces")
    assert done.returncode == 0, done.stderr
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = re.search(r"^\$ cat process_results\.json\n(\{.*?^\})", readme, re.M | re.S)
    assert shown
    answers = json.loads((tmp_path / "process_results.json").read_text("utf-8"))
    assert answers == json.loads(shown[1])


def test_one_version_everywhere() -> None:
    yaml = pytest.importorskip("yaml", reason="reads CITATION.cff: pip install '.[dev]'")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[(.+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest and newest[1] == citation["version"] == PROJECT["project"]["version"]
    assert newest[2] == citation["date-released"]
    kinds = set(re.findall(r"^### (.+)$", changelog, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_licenses_of_every_extra_are_listed() -> None:
    text = (ROOT / "docs" / "reference" / "licenses.md").read_text("utf-8")
    listed = {
        re.sub(r"[-_.]+", "-", cell.lower())
        for cell in re.findall(r"(?<=\| )([\w.-]+)(?= \|)", text)
    }
    extras = PROJECT["project"]["optional-dependencies"]
    for extra in extras.keys() - {"dev"}:
        assert f"`{extra}`" in text
        for requirement in extras[extra]:
            name = re.split(r"[\[><=]", requirement)[0]
            assert name == "facegender" or re.sub(r"[-_.]+", "-", name.lower()) in listed, name
