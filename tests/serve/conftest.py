"""A real server in a process of its own, for the tests of the page and the API."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import requests

import facegender

for needed in ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(needed, reason="the extra 'serve' is not installed")

WAIT_SECONDS = 60.0


@dataclass
class Server:
    """``facegender serve``, listening on a port of its own."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def predict(self, *images: tuple[str, bytes], **more: Any) -> requests.Response:
        files = [("files", image) for image in images]
        return requests.post(f"{self.url}/predict", files=files, timeout=WAIT_SECONDS, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=WAIT_SECONDS, **more)

    def count(self, name: str, **labels: str) -> float:
        """What /metrics says of a name; 0 where it is not there."""
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def log(self) -> list[dict[str, Any]]:
        assert not [line for line in self.lines if not line.startswith("{")]
        return [json.loads(line) for line in self.lines]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that takes a moment."""
    ends = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < ends, f"never came true: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def start(
    model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Starts servers; they are ended with the tests."""
    servers: list[Server] = []

    def make(*options: object) -> Server:
        folder = tmp_path_factory.mktemp("server")
        temporary = folder / "tmp"
        temporary.mkdir()
        command = [sys.executable, "-m", "facegender", "serve", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--model", str(model_path), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ
            | {
                "TMPDIR": str(temporary),
                "PYTHONPATH": str(Path(facegender.__file__).parents[1]),
            },
        )
        server = Server(process, "")
        servers.append(server)
        assert process.stdout is not None and process.stderr is not None
        threading.Thread(target=_keep, args=(process.stderr, server.lines), daemon=True).start()
        said = process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, (said, server.lines)
        server.url = found[0]
        return server

    yield make
    for server in servers:
        server.process.kill()
        server.process.wait()
        for pipe in (server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()


def _keep(pipe: IO[str], lines: list[str]) -> None:
    try:
        for line in pipe:
            lines.append(line.rstrip("\n"))
    except ValueError:  # closed
        pass


@pytest.fixture(scope="session")
def server(start: Callable[..., Server]) -> Server:
    """One for all tests that only ask."""
    return start()
