"""The notebook runs from top to bottom on generated faces; the stored outputs are of real ones."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import facegender

NOTEBOOK = Path(__file__).parents[1] / "model_learning.ipynb"
KERNEL = "running-interpreter"
RECIPE = """
name = "tiny"
[network]
name = "dlib_resnet"
pretrained = ""
[input]
height = 96
width = 96
[augment]
rotation_degrees = 45
[train]
epochs = 3
batch_size = 8
precision = "32"
"""


def test_stored_outputs_are_of_one_whole_run_and_show_no_training_image() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    shows = "".join("".join(cell["source"]) for cell in code)
    assert "cache.pixels" not in shows and "cache.context" not in shows, "images of the archive"
    here = f"/{NOTEBOOK.parts[1]}/"  # wherever this clone lies
    for trace in ("/home/", "/root/", "/tmp/", here):
        assert trace not in text
    assert not [cell for cell in cells if "attachments" in cell]
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1


def test_its_outputs_are_of_the_recipe_that_its_text_names() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert "one run of the recipe `quick` on a fifth of" in text
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    printed = "".join("".join(output.get("text", ())) for output in outputs)
    assert printed.startswith("quick: dlib_resnet at 112 px\nepochs: 2\n")
    assert "18,108 images, 0 of them unreadable" in printed and "DEMONSTRATION" not in printed
    for said in (
        "out_features=2",
        "sgd, options.learning_rate=0.001, options.momentum=0.9, options.epochs=5",
        "classic: a batch of shape (6, 3, 224, 224), torch.float32",
        "wrong answers of",
        "rotated by 45 degrees",
    ):
        assert said in printed, said
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6


def test_its_paired_script_says_the_same() -> None:
    """``jupytext --sync model_learning.ipynb`` brings one after the other."""
    jupytext = pytest.importorskip("jupytext", reason="needs jupytext: pip install '.[dev]'")
    notebook, script = (
        [
            (cell["cell_type"], cell["source"], cell["metadata"].get("tags"))
            for cell in jupytext.read(path)["cells"]
        ]
        for path in (NOTEBOOK, NOTEBOOK.with_suffix(".py"))
    )
    assert script == notebook


def test_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "made.tar.gz"
    write_archive(archive, 24)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    add_kernel(tmp_path / "jupyter", monkeypatch)
    run = tmp_path / "runs" / "tiny"
    faces = NOTEBOOK.parent / "faces"
    settings = {"ARCHIVES": archive, "RECIPE": recipe, "OUTPUT": run, "EPOCHS": 1, "FACES": faces}
    for name, value in settings.items():
        monkeypatch.setenv(f"FACEGENDER_{name}", str(value))

    text = execute(tmp_path)
    assert "24 images, 0 of them unreadable" in text
    assert "tiny: dlib_resnet at 96 px\nepochs: 1\n" in text
    assert "DEMONSTRATION" not in text
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["validation"]["accuracy"]["count"] == 4
    assert (run / "model.onnx").is_file()


def test_its_defaults_run_without_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On altered copies of the portraits, and it says that the numbers mean nothing."""
    for name in list(os.environ):
        if name.startswith("FACEGENDER_"):
            monkeypatch.delenv(name)
    add_kernel(tmp_path / "jupyter", monkeypatch)
    (tmp_path / "faces").symlink_to(NOTEBOOK.parent / "faces")
    (tmp_path / "runs" / "notebook-1").mkdir(parents=True)  # of an earlier time
    text = execute(tmp_path)
    assert "quick: dlib_resnet at 112 px\n" in text
    assert "DEMONSTRATION on runs/demonstration.tar.gz: the numbers below mean nothing" in text
    assert "160 images, 0 of them unreadable" in text
    assert (tmp_path / "runs" / "notebook-2" / "model.onnx").is_file()
    assert not list((tmp_path / "runs" / "notebook-1").iterdir())


def execute(folder: Path) -> str:
    """Execute the notebook in a folder, and give the text of its outputs."""
    for name in ("ipykernel", "matplotlib", "torch", "timm", "onnxscript"):
        pytest.importorskip(name, reason=f"the notebook needs {name}: pip install '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install '.[dev]'")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install '.[dev]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name=KERNEL, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    # a batch, curves, confusion matrix, calibration, errors, answers
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    text = "".join(output.get("text", "") for output in outputs)
    assert "Warning" not in text
    return text


def write_archive(path: Path, count: int) -> None:
    """An archive of ellipses, half of them red and labeled female, half blue and male."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for number in range(count):
            label = ("female", "male")[number % 2]
            color = (200, 60, 60) if label == "female" else (60, 60, 200)
            image = Image.new("RGB", (70, 80), tuple(rng.integers(90, 160, 3).tolist()))
            left, top = rng.integers(5, 20, 2).tolist()
            ImageDraw.Draw(image).ellipse((left, top, left + 45, top + 55), fill=color)
            file = io.BytesIO()
            image.save(file, "PNG")
            entry = tarfile.TarInfo(f"{label}/{number}.png")
            entry.size = file.tell()
            file.seek(0)
            archive.addfile(entry, file)


def add_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is the running interpreter, whatever kernels this machine has; and no
    settings of the user's own."""
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec: dict[str, Any] = {"argv": launch, "display_name": "tests", "language": "python"}
    place = folder / "kernels" / KERNEL
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(Path(facegender.__file__).parents[1]), os.pathsep)
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(folder / "config"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
