"""Two Ray nodes, each in processes of its own on this machine, as a person starts them."""

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

import pytest

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self").exists(),
    reason="the extra 'cluster' is not installed, or there is no /proc to find processes in",
)
SECONDS = 300


def command(*arguments: str | Path) -> list[str]:
    """`facegender predict` with arguments."""
    return [sys.executable, "-m", "facegender", "predict", *map(str, arguments)]


def facegender(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=SECONDS, **options
    )


def processes() -> Iterator[tuple[int, int, str]]:
    """All on this machine: number, parent, command line."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            line = (entry / "cmdline").read_text("utf-8", "replace")
            yield int(entry.name), int(fields[1]), line


class Nodes:
    """Two nodes of two cores each; ended by their own ids. They see the environment of now."""

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
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *sized]
        log = Path(self.folder) / f"start-{len(self.started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*start, *arguments], env=environment, stdout=out, stderr=out
            )
        self.started.append(process)
        until = time.monotonic() + SECONDS
        while "Ray runtime started" not in (said := log.read_text("utf-8", "replace")):
            assert process.poll() is None and time.monotonic() < until, said
            time.sleep(0.2)

    def raylets(self) -> dict[int, str]:
        """The process that keeps each node, with its command line."""
        return {
            pid: line
            for pid, _, line in processes()
            if line.split("\0")[0].endswith("/raylet") and self.folder in line
        }

    @property
    def other_raylet(self) -> int:
        (number,) = (pid for pid, line in self.raylets().items() if "node-name=other" in line)
        return number

    def actors(self) -> dict[int, int]:
        """The processes that answer now, each with the node's process that started it."""
        found, nodes = {}, self.raylets()
        for pid, parent, line in processes():
            if parent in nodes and line.startswith("ray::") and "_Actor" in line:
                found[pid] = parent
        return found

    def actors_of_other(self) -> list[int]:
        """Those on the second node."""
        return [pid for pid, parent in self.actors().items() if parent == self.other_raylet]

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


def rows_of(answers: Path | str) -> Any:
    """The rows of all shards in the order of the manifest."""
    import pyarrow
    from pyarrow import parquet

    from facegender.cluster.storage import OutputLocation

    location = OutputLocation(str(answers))
    manifest = json.loads(location.read("manifest.json") or b"")
    files = [shard["file"] for shard in manifest["shards"]]
    assert sorted([*files, "manifest.json", "run.json"]) == sorted(location.names())
    tables = [parquet.read_table(pyarrow.BufferReader(location.read(file))) for file in files]
    assert [table.num_rows for table in tables] == [shard["rows"] for shard in manifest["shards"]]
    return pyarrow.concat_tables(tables)


def rows_of_one_machine(location: Path, *arguments: str | Path) -> Any:
    """The same without Ray."""
    from pyarrow import parquet

    ended = facegender(*arguments, "-o", location / "r.json", "--details", location / "r.parquet")
    assert ended.returncode in (0, 1), ended.stderr
    return parquet.read_table(location / "r.parquet")
