"""Two Ray nodes, each in processes of its own on this machine, against one machine without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, image
from PIL import Image
from ray_nodes import (
    SECONDS,
    Nodes,
    command,
    facegender,
    needs_ray,
    processes,
    rows_of,
    rows_of_one_machine,
)

GOOD = encode(image("male", seed=1))
JPEG = encode(image("female", size=(160, 120), seed=2), "JPEG")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.end()


@needs_ray
def test_two_machines_give_the_rows_of_one(
    nodes: Nodes, tmp_path: Path, model_path: Path, astronaut: Any
) -> None:
    photos = tmp_path / "photos"
    (photos / "inner").mkdir(parents=True)
    for number in range(20):
        kind = ("PNG", "JPEG", "WEBP")[number % 3]
        photo = image("male" if number % 2 else "female", (60 + number, 80), seed=number)
        (photos / f"{number}.{kind.lower()}").write_bytes(encode(photo, kind))
    (photos / "inner" / "é中.jpg").write_bytes(encode(Image.fromarray(astronaut), "JPEG"))
    (photos / "cut.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (photos / "notes.txt").write_text("hello")
    (photos / "link.png").symlink_to("gone.png")
    common = (photos, "--recursive", "--faces", "detect")
    answers = tmp_path / "answers"
    ended = facegender(*common, "--cluster", nodes.address, "--shard-size", "4", "-o", answers)
    assert ended.returncode == 1, ended.stderr  # two could not be read
    assert "23 images" in ended.stdout and "unreadable        2" in ended.stdout
    expected = rows_of_one_machine(tmp_path, *common)
    assert rows_of(answers).equals(expected)

    before = {path.name: path.stat().st_mtime_ns for path in answers.glob("*.parquet")}
    lost = sorted(before)[2]
    (answers / lost).unlink()
    ended = facegender(*common, "--cluster", nodes.address, "--shard-size", "4", "-o", answers)
    assert ended.returncode == 1 and "are from an earlier run" in ended.stdout, ended.stderr
    after = {path.name: path.stat().st_mtime_ns for path in answers.glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {lost}
    assert rows_of(answers).equals(expected)

    other = facegender(photos, "--cluster", nodes.address, "-o", answers, "--model", model_path)
    assert other.returncode == 2 and "another model" in other.stderr


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 240 images that take a while to decode: long enough to stop a run."""
    folder = tmp_path_factory.mktemp("slow")
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "WEBP", lossless=True, quality=0)
    (folder / "0.webp").write_bytes(data)
    for number in range(1, 240):  # one file by many names: 4 MB on the disk, not a thousand
        (folder / f"{number}.webp").hardlink_to(folder / "0.webp")
    return folder


def wait_until_running(run: subprocess.Popen[bytes], nodes: Nodes, answers: Path) -> None:
    """Wait until shards are written and the second node is working."""
    until = time.monotonic() + SECONDS
    while len(list(answers.glob("*.parquet"))) < 4 or not nodes.actors_of_other():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until, "no shard is written"
        time.sleep(0.05)
    assert len(list(answers.glob("*.parquet"))) < 40, "too late to stop anything"


@needs_ray
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_complete_shards_and_resumes(
    number: signal.Signals, code: int, nodes: Nodes, slow: Path, tmp_path: Path, model_path: Path
) -> None:
    answers, common = tmp_path / "answers", (slow, "--faces", "whole", "--model", model_path)
    options = ("--cluster", nodes.address, "--shard-size", "4", "-o", answers)
    line = command(*common, *options)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        wait_until_running(run, nodes, answers)
        actors = nodes.actors()
        readers = [pid for pid, parent, _ in processes() if parent in actors]
        assert readers
        run.send_signal(number)
        _, errors = run.communicate(timeout=SECONDS)
    said = errors.decode()
    assert run.returncode == code, said
    assert "of 60 shards" in said and "To resume, run the same command" in said and len(said) < 300

    until = time.monotonic() + SECONDS  # Ray ends actors a moment after their driver
    while left := {pid for pid, _, _ in processes()} & {*actors, *readers, *nodes.actors()}:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    names = [path.name for path in answers.iterdir()]
    shards = sorted(name for name in names if name.endswith(".parquet"))
    assert sorted(names) == sorted([*shards, "run.json"]) and 4 <= len(shards) < 60
    before = {name: (answers / name).stat().st_mtime_ns for name in shards}

    ended = facegender(*common, *options)
    assert ended.returncode == 0, ended.stderr
    cached = 4 * len(shards)
    assert f"{cached} of them are from an earlier run" in ended.stdout
    assert {name: (answers / name).stat().st_mtime_ns for name in shards} == before
    assert rows_of(answers).equals(rows_of_one_machine(tmp_path, *common))


@needs_ray
@pytest.mark.parametrize("killed", ["worker", "machine"])
def test_what_a_killed_one_leaves_is_done_by_another(
    killed: str, nodes: Nodes, slow: Path, tmp_path: Path, model_path: Path
) -> None:
    answers, common = tmp_path / "answers", (slow, "--faces", "whole", "--model", model_path)
    line = command(*common, "--cluster", nodes.address, "--shard-size", "4", "-o", answers)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        wait_until_running(run, nodes, answers)
        victim = nodes.actors_of_other()[0] if killed == "worker" else nodes.other_raylet
        os.kill(victim, signal.SIGKILL)
        _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors.decode()
    assert len(nodes.raylets()) == (2 if killed == "worker" else 1)
    assert len(list(answers.glob("*.parquet"))) == 60
    assert rows_of(answers).equals(rows_of_one_machine(tmp_path, *common))


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "somewhere"])
def test_no_cluster_answers(address: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    ended = facegender(tmp_path / "a.png", "--cluster", address, "-o", tmp_path / "out")
    assert ended.returncode == 2 and "ray start --head" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--cluster", "auto"], "--output DIR"),
        (["--cluster", "auto", "-o", "out", "--report", "r.html"], "--report does not go"),
        (["--cluster", "auto", "-o", "out", "--unknown"], "--unknown does not go"),
        (["--cluster", "ray://host:10001", "-o", "out"], "takes no ray://"),
        (["--cluster", "auto", "-o", "out", "--faces", "some"], "is not one of"),
        (["--shard-size", "3"], "needs --cluster"),
    ],
)
def test_wrong_use(options: list[str], reason: str, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra 'cluster' is not installed")
    (tmp_path / "a.png").write_bytes(GOOD)
    ended = facegender("a.png", *options, cwd=tmp_path)
    assert ended.returncode == 2 and reason in " ".join(ended.stderr.split()), ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_without_ray(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra 'cluster' is not installed")
    (tmp_path / "a.png").write_bytes(GOOD)
    code = (
        "import sys; sys.modules['ray'] = None\nfrom facegender.cli import main; main(sys.argv[1:])"
    )
    arguments = ("predict", "a.png", "--cluster", "auto", "-o", "out")
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "pip install '.[cluster]'" in ended.stderr


def test_ray_is_never_imported_without_a_cluster(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    code = (
        "import sys\n"
        "from facegender.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'ray', 'fsspec', 'pyarrow', 'facegender.cluster'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", code, "predict", "a.png", "--model", str(model_path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
