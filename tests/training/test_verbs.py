"""The commands train, evaluate and export as a user runs them: processes and files."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegender.cli import main

RECIPE = """
name = "small"
[network]
name = "dlib_resnet"
[input]
height = 96
width = 96
[train]
epochs = {epochs}
batch_size = 16
precision = "32"
learning_rate = 1e-4
"""


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facegender", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        timeout=120,
    )


def test_a_missing_archive_is_said_first_and_alone(tmp_path: Path) -> None:
    """In a process that cannot import torch: the check needs no large package."""
    code = (
        "import sys; sys.modules['torch'] = None; from facegender.cli import main; "
        "main(['train', 'no.tar.gz', '-o', 'runs/new'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and not done.stdout
    message = "error: no.tar.gz does not exist. Check the path of the folder or archive.\n"
    assert done.stderr == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--metadata", "no.csv"],
        ["--corrections", "no.csv"],
        ["--split", "no.csv"],
        ["--teacher", "no.csv"],
        ["--audit", "no"],
        ["--pretrained", "no.safetensors"],
        ["--open-networks", "no", "--recipe", "best"],
        ["--classes", "female=Women"],
        ["--recipe", "no.toml"],
    ],
)
def test_what_is_missing_is_found_before_an_image_is_read(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faces.tar.gz").write_bytes(b"reading this would fail")
    here = [str(tmp_path / "no") if option == "no" else option for option in options]
    recipe = [] if "--recipe" in options else ["--recipe", "quick"]
    with pytest.raises(SystemExit) as done:
        main(
            [
                "train",
                str(tmp_path / "faces.tar.gz"),
                *recipe,
                *here,
                "-o",
                str(tmp_path / "runs/1"),
            ]
        )
    error = capsys.readouterr().err
    assert done.value.code == 2 and "faces.tar.gz" not in error
    assert "no" in error or "--classes" in error
    assert [path.name for path in tmp_path.iterdir()] == ["faces.tar.gz"]


def test_an_archive_without_labels_leaves_no_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Men", "Women"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "set" / name / "1.png")
    with pytest.raises(SystemExit) as done:
        main(["train", str(tmp_path / "set"), "-o", str(tmp_path / "runs/new")])
    assert done.value.code == 2
    assert "--classes female=Women,male=Men" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of 60 colored images and a recipe."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "faces.tar.gz", "w:gz") as archive:
        for number in range(60):
            label, color = (("male", 0), ("female", 2))[number % 2]
            pixels = rng.integers(0, 120, (40, 36, 3), np.uint8)
            pixels[..., color] += 120
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, "PNG")
            entry = tarfile.TarInfo(f"{label}/{number}.png")
            entry.size = len(data.getvalue())
            archive.addfile(entry, io.BytesIO(data.getvalue()))
    (folder / "small.toml").write_text(RECIPE.format(epochs=1))
    (folder / "long.toml").write_text(RECIPE.format(epochs=50))
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    done = run(
        *("train", "faces.tar.gz", "--recipe", "small.toml", "-o", "runs/one", "--test", "0.2"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert "validation subset" in done.stdout and "runs/one/model.onnx" in done.stdout
    assert "runs/one/report.html" in done.stdout and "overfit 16 images" in done.stderr
    return place / "runs" / "one"


def test_evaluate_writes_the_subset_asked_for(place: Path, trained: Path) -> None:
    for subset in ("validation", "test"):
        done = run(
            *("evaluate", trained, "faces.tar.gz", "--subset", subset, "-o", "metrics.json"),
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        assert list(json.loads((place / "metrics.json").read_text())) == [subset]
    done = run("evaluate", trained, "faces.tar.gz", "-o", "metrics.json", "-q", cwd=place)
    assert sorted(json.loads((place / "metrics.json").read_text())) == ["train", "validation"]
    # the model file in the run folder knows the split too
    run("evaluate", trained / "model.onnx", "faces.tar.gz", "-o", "again.json", "-q", cwd=place)
    assert (place / "again.json").read_text() == (place / "metrics.json").read_text()


def test_export_and_use(place: Path, trained: Path) -> None:
    done = run("export", trained, "-o", "mine.onnx", "--license", "mine", cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "unpacked").mkdir()
    with tarfile.open(place / "faces.tar.gz") as archive:  # Python 3.11.2 unpacks none by a filter
        for member in archive:
            if member.name.startswith("male/") and (file := archive.extractfile(member)):
                (place / "unpacked" / Path(member.name).name).write_bytes(file.read())
    answers = []
    for model in ("mine.onnx", trained):
        done = run("predict", "unpacked", "--model", model, "-o", "out.json", cwd=place)
        assert done.returncode == 0, done.stderr
        answers.append((place / "out.json").read_text())
    assert answers[0] == answers[1]
    assert len(json.loads(answers[0])) == 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "RUN", "faces.tar.gz", "-o", "faces.tar.gz"), "same file"),
        (("evaluate", "RUN", "faces.tar.gz", "-o", "RUN/model.onnx"), "same file"),
        (("evaluate", "RUN", "faces.tar.gz", "--predictions", "a.csv", "-o", "a.csv"), "same file"),
        (("evaluate", "RUN", "faces.tar.gz", "--subset", "tset"), "Unknown subset 'tset'"),
        (("evaluate", "RUN", "gone.tar.gz"), "does not exist"),
        (("export", "RUN", "-o", "faces.tar.gz"), "same file"),
        (("export", "RUN", "-o", "RUN/saved_model"), "same file"),
        (("export", "nowhere", "-o", "a.onnx"), "no run"),
        (
            ("train", "faces.tar.gz", "--recipe", "small.toml", "-o", "RUN"),
            "already contains a run",
        ),
        (("train", "faces.tar.gz", "--recipe", "small.toml", "-o", "."), "contains other files"),
        (("train", "faces.tar.gz", "--recipe", "smal", "-o", "new"), "No recipe 'smal'"),
        (("train", "--recipe", "small.toml", "-o", "new"), "Name at least one archive"),
        (
            ("train", "--resume", "-o", "RUN", "--recipe", "quick", "--test", "0.5"),
            "--recipe, --test",
        ),
        (("train", "--resume", "-o", "nowhere"), "no run to resume"),
    ],
)
def test_wrong_use_ends_with_2_and_changes_nothing(
    place: Path,
    trained: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def state() -> dict[Path, bytes]:
        paths = [path for path in place.rglob("*") if path.is_file() and ".store" not in str(path)]
        return {path: path.read_bytes() for path in paths}

    before = state()
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as done:
        main([subset.replace("RUN", str(trained)) for subset in arguments])
    err = capsys.readouterr().err
    assert done.value.code == 2, err
    assert said in " ".join(err.split()) and "Traceback" not in err
    assert state() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_writes_a_checkpoint_and_says_how_to_continue(
    place: Path, number: signal.Signals, code: int
) -> None:
    folder = place / "runs" / f"stopped{code}"
    command = [sys.executable, "-m", "facegender", "train", "faces.tar.gz"]
    process = subprocess.Popen(
        [*command, "--recipe", "long.toml", "-o", str(folder)],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 180
    while not (folder / "history.csv").exists():  # the first epoch is done
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "facegender train --resume --output" in err and "error" not in err
    assert (folder / "checkpoint.safetensors").is_file()
    assert not (folder / "model.onnx").exists()
