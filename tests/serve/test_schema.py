"""What the OpenAPI document promises is held, whatever is asked: schemathesis tries it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from serve.conftest import Server, until


def test_the_document_is_kept_to(server: Server, tmp_path: Path) -> None:
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
    until(lambda: server.count("facegender_pictures_waiting") == 0, "nothing waits")
    assert not any(line.get("status", 0) == 500 for line in server.log())
