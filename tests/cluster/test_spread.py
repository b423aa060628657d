"""Two Ray nodes, each in processes of its own on this machine, against one machine without Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, picture
from PIL import Image

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self").exists(),
    reason="the extra 'cluster' is not installed, or there is no /proc to find processes in",
)
SECONDS = 300
GOOD = encode(picture("male", seed=1))
JPEG = encode(picture("female", size=(160, 120), seed=2), "JPEG")


def facegender(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facegender", "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, **options)


class Nodes:
    """Two nodes of two cores each, started as a person starts them; ended by their own ids."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="fg-ray-")  # short: sockets have short names
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.started: list[subprocess.Popen[bytes]] = []
        port = self.address.partition(":")[2]
        try:
            self._start(
                "--head",
                f"--port={port}",
                "--include-dashboard=false",
                f"--temp-dir={self.folder}",
            )
            self._start(f"--address={self.address}", "--node-name=other")
        except BaseException:
            self.end()
            raise

    def _start(self, *arguments: str) -> None:
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_health_check_period_ms": "1000",  # a dead node is found sooner
        }
        sized = ("--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *sized]
        log = Path(self.folder) / f"start-{len(self.started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, *arguments], env=environment, stdout=out, stderr=out
            )
        self.started.append(process)
        until = time.monotonic() + SECONDS
        while "Ray runtime started" not in (said := log.read_text("utf-8", "replace")):
            assert process.poll() is None and time.monotonic() < until, said
            time.sleep(0.2)

    def raylets(self) -> dict[int, str]:
        """The process that keeps each node, with its command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                line = (entry / "cmdline").read_text("utf-8", "replace")
                if line.split("\0")[0].endswith("/raylet") and self.folder in line:
                    found[int(entry.name)] = line
        return found

    @property
    def other_raylet(self) -> int:
        (number,) = (pid for pid, line in self.raylets().items() if "node-name=other" in line)
        return number

    def actors_of_other(self) -> list[int]:
        """The processes on the second node that answer now."""
        parent, found = self.other_raylet, []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                name = (entry / "cmdline").read_text("utf-8", "replace")
                if int(fields[1]) == parent and name.startswith("ray::") and "_Actor" in name:
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        for process in reversed(self.started):
            process.terminate()  # ends what it has started, too
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()
        for raylet in self.raylets():
            os.kill(raylet, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.end()


def rows_of(answers: Path) -> Any:
    """The rows of all parts in the order of the manifest."""
    import pyarrow
    from pyarrow import parquet

    manifest = json.loads((answers / "manifest.json").read_text())
    files = [answers / part["file"] for part in manifest["parts"]]
    assert sorted(files) == sorted(answers.glob("*.parquet"))
    tables = [parquet.read_table(file) for file in files]
    assert [table.num_rows for table in tables] == [part["rows"] for part in manifest["parts"]]
    return pyarrow.concat_tables(tables)


def rows_of_one_machine(place: Path, *arguments: str | Path) -> Any:
    from pyarrow import parquet

    ended = facegender(*arguments, "-o", place / "r.json", "--details", place / "r.parquet")
    assert ended.returncode in (0, 1), ended.stderr
    return parquet.read_table(place / "r.parquet")


@needs_ray
def test_two_machines_give_the_rows_of_one(
    nodes: Nodes, tmp_path: Path, model_path: Path, astronaut: Any
) -> None:
    photos = tmp_path / "photos"
    (photos / "inner").mkdir(parents=True)
    for number in range(20):
        kind = ("PNG", "JPEG", "WEBP")[number % 3]
        image = picture("male" if number % 2 else "female", (60 + number, 80), seed=number)
        (photos / f"{number}.{kind.lower()}").write_bytes(encode(image, kind))
    (photos / "inner" / "é中.jpg").write_bytes(encode(Image.fromarray(astronaut), "JPEG"))
    (photos / "cut.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (photos / "notes.txt").write_text("hello")
    (photos / "link.png").symlink_to("gone.png")
    common = (photos, "--recursive", "--faces", "detect")
    answers = tmp_path / "answers"
    ended = facegender(*common, "--cluster", nodes.address, "--part", "4", "-o", answers)
    assert ended.returncode == 1, ended.stderr  # two could not be read
    assert "23 pictures" in ended.stdout and "unreadable        2" in ended.stdout
    expected = rows_of_one_machine(tmp_path, *common)
    assert rows_of(answers).equals(expected)

    before = {path.name: path.stat().st_mtime_ns for path in answers.glob("*.parquet")}
    lost = sorted(before)[2]
    (answers / lost).unlink()
    ended = facegender(*common, "--cluster", nodes.address, "--part", "4", "-o", answers)
    assert ended.returncode == 1 and "answered by the run before" in ended.stdout, ended.stderr
    after = {path.name: path.stat().st_mtime_ns for path in answers.glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {lost}
    assert rows_of(answers).equals(expected)

    other = facegender(photos, "--cluster", nodes.address, "-o", answers, "--model", model_path)
    assert other.returncode == 2 and "another model" in other.stderr


@needs_ray
@pytest.mark.parametrize("killed", ["worker", "machine"])
def test_what_a_killed_one_leaves_is_done_by_another(
    killed: str, nodes: Nodes, tmp_path: Path, model_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    slow = encode(Image.fromarray(noise), "WEBP", lossless=True, quality=0)
    for number in range(96):
        (photos / f"{number}.webp").write_bytes(slow)
    answers, common = tmp_path / "answers", (photos, "--faces", "whole", "--model", model_path)
    options = ("--cluster", nodes.address, "--part", "4", "-o", answers)
    command = [sys.executable, "-m", "facegender", "predict", *map(str, (*common, *options))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        until = time.monotonic() + SECONDS
        while len(list(answers.glob("*.parquet"))) < 4 or not nodes.actors_of_other():
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until, "no part comes"
            time.sleep(0.05)
        assert len(list(answers.glob("*.parquet"))) < 24, "too late to kill anything"
        victim = nodes.actors_of_other()[0] if killed == "worker" else nodes.other_raylet
        os.kill(victim, signal.SIGKILL)
        _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors.decode()
    assert len(nodes.raylets()) == (2 if killed == "worker" else 1)
    assert len(list(answers.glob("*.parquet"))) == 24
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
        (["--part", "3"], "give that too"),
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
    assert ended.returncode == 2 and "pip install 'facegender[cluster]'" in ended.stderr


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
