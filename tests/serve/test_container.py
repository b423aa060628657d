"""The container's steps, without a container: each of them in a bare virtual environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from serve.conftest import Server

ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, such as ``("RUN", "pip install ...")``."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def last(kind: str) -> str:
    return [value for name, value in steps() if name == kind][-1]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name, value in steps():
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists() and f"!{source}" in allowed


def test_all_that_the_wheel_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["force-include"], *project["project"]["license-files"]}
    needed |= {project["project"]["readme"], *(name.split("/")[0] for name in wheel["packages"])}
    copied = {source for name, value in steps() if name == "COPY" for source in value.split()[:-1]}
    assert needed <= copied


def test_it_is_not_root_and_writes_nothing() -> None:
    assert last("USER") == "10001"
    compose = (ROOT / "compose.yaml").read_text("utf-8")
    assert "read_only: true" in compose and "cap_drop: [ALL]" in compose
    assert '"127.0.0.1:8000:8000"' in compose


def test_the_health_check_tells_ready_from_gone(server: Server) -> None:
    command = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    here = server.url.removeprefix("http://")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    for address, code in ((here, 0), (nobody, 1)):
        check = [part.replace("127.0.0.1:8000", address) for part in command]
        check[0] = sys.executable
        found = subprocess.run(check, capture_output=True, timeout=60)
        assert found.returncode == code, found.stderr


@pytest.mark.skipif(
    "FACEGENDER_CONTAINER" not in os.environ,
    reason="needs a package index and a minute: set FACEGENDER_CONTAINER=1",
)
def test_every_step_in_a_bare_environment(tmp_path: Path) -> None:
    """COPY, RUN, ENTRYPOINT and CMD as they stand; only places and the port are others."""
    build, bare = tmp_path / "build", tmp_path / "bare"
    build.mkdir()
    subprocess.run([sys.executable, "-m", "venv", bare], check=True)
    path = f"{bare / 'bin'}{os.pathsep}{os.environ['PATH']}"
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = here | {"PATH": path, "HOME": str(tmp_path)}
    site = next((bare / "lib").iterdir()) / "site-packages"
    for name, value in steps():
        if name == "COPY":
            *sources, target = value.split()
            for source in sources:
                place = build / target / ("" if target != "./" else source)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, place)
        elif name == "ENV":
            environment |= dict(pair.split("=") for pair in value.split())
        elif name == "RUN" and "useradd" not in value:
            command = re.sub(r"/usr/local/lib/python3\.\d+/site-packages", str(site), value)
            subprocess.run(command, shell=True, check=True, cwd=build, env=environment)
    port = "18731"
    command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    command = [port if part == "8000" else part for part in command]
    command[0] = str(bare / "bin" / command[0])
    served = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        check = [
            part.replace(":8000", f":{port}")
            for part in json.loads(last("HEALTHCHECK").partition("CMD ")[2])
        ]
        check[0] = str(bare / "bin" / "python")
        for _ in range(120):
            if subprocess.run(check, capture_output=True).returncode == 0:
                break
            time.sleep(1)
        else:
            pytest.fail("never ready")
        face = ROOT / "faces" / "eileen_collins.jpg"
        curl = (
            "import sys, urllib.request as u; r = u.Request(sys.argv[1], open(sys.argv[2], 'rb')"
            ".read(), {'Content-Type': 'image/jpeg'}); print(u.urlopen(r).read().decode())"
        )
        url = f"http://127.0.0.1:{port}/predict"
        said = subprocess.check_output([check[0], "-c", curl, url, str(face)], text=True)
        assert json.loads(said)["images"][0]["rows"][0]["label"] == "female"
        page = f"http://127.0.0.1:{port}/"
        show = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        said = subprocess.check_output([check[0], "-c", show, page], text=True)
        assert "not a fact about a person" in said
        served.terminate()
        assert served.wait(60) == 0
    finally:
        served.kill()
