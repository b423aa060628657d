"""The server conforms to its OpenAPI document for any request that schemathesis makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from serve.conftest import Server, until


def test_the_server_conforms_to_the_document(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    program = Path(sys.executable).parent / "schemathesis"
    command = [program, "run", f"{server.url}/openapi.json", "--seed", "1", "--max-examples", "25"]
    found = subprocess.run(
        [*command, "--phases", "examples,coverage,fuzzing", "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "5 selected / 5 total" in found.stdout or "Tested: 5" in found.stdout, found.stdout
    until(lambda: server.count("facegender_inflight_images") == 0, "nothing waits")
    assert not any(line.get("status", 0) == 500 for line in server.log())
