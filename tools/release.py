"""Build the wheel and the sdist of the last commit, and check that both work.

    python -m pip install -r tools/release.txt
    python tools/release.py                     writes dist/; takes a few minutes, mostly pip's

Both are built from the last commit, without other files of the working tree. Each is installed in a
new virtual environment and runs predict on faces/ without a network; the answers must be those of
the README. dist/ also gets a bill of materials (CycloneDX), the licenses of the packages of the
light install, and the digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_IN_SDIST = {".ci/run"}
NOT_TRACKED = {"PKG-INFO"}
IN_WHEEL = {"recipes/": "facegender/training/recipes/", "src/facegender/": "facegender/"}
OFFLINE = ("unshare", "--map-root-user", "--net")
"""Linux: runs a command in a network namespace of its own, without root."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None) -> str:
    """Print and run a command; return its output, or exit with it if it failed."""
    print("+", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed: {command[0]} (exit code {done.returncode})")
    return done.stdout


def build(work: Path) -> tuple[Path, Path]:
    """Build wheel and sdist from the last commit; return their paths."""
    source, out = work / "source", work / "dist"
    source.mkdir()
    run(["git", "-C", ROOT, "archive", "--output", work / "source.tar", "HEAD"])
    with tarfile.open(work / "source.tar") as archive:
        archive.extractall(source, filter="data")
    run([sys.executable, "-m", "build", "--outdir", out, source])
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path, tracked: set[str]) -> None:
    """Check that both contain exactly the tracked files that belong in them."""
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    compare(sdist, found - NOT_TRACKED, tracked - NOT_IN_SDIST)
    expected = {
        packed + name.removeprefix(folder)
        for name in tracked
        for folder, packed in IN_WHEEL.items()
        if name.startswith(folder)
    } | {"facegender/model/weights/MODEL_CARD.md"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    compare(wheel, names, expected)


def compare(artifact: Path, found: set[str], expected: set[str]) -> None:
    """Exit if an artifact does not contain exactly the expected files."""
    if found != expected:
        extra, missing = sorted(found - expected), sorted(expected - found)
        sys.exit(f"{artifact.name}: unexpected files {extra}, missing files {missing}")
    print(f"{artifact.name}: {len(found)} files, as tracked")


def expected_answers() -> dict[str, str]:
    """Read the answers that README.md shows for faces/."""
    text = (ROOT / "README.md").read_text("utf-8")
    shown = re.search(r"^\$ cat process_results\.json\n(\{.*?^\})", text, re.MULTILINE | re.DOTALL)
    assert shown, "README.md shows no answers"
    answers: dict[str, str] = json.loads(shown[1])
    return answers


def install(artifact: Path, version: str, folder: Path) -> Path:
    """Install in a new virtual environment; return its python. pip builds the sdist itself."""
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    if artifact.suffix == ".whl":
        # by name, so that no local path gets into the bill of materials
        found: list[str | Path] = ["--no-index", "--no-deps", "--find-links", artifact.parent]
        run([*pip, *found, f"facegender=={version}"])
        run([*pip, f"facegender=={version}"])
    else:
        run([*pip, artifact])
    return python


def check_answers(python: Path, work: Path) -> None:
    """Check that the installed package gives the README's answers for faces/, without a network."""
    work.mkdir()
    shutil.copytree(ROOT / "faces", work / "faces")
    is_offline = shutil.which(OFFLINE[0]) and not subprocess.run([*OFFLINE, "true"]).returncode
    if not is_offline:
        print("warning: the network is not disabled; this needs Linux and 'unshare'")
    prefix = OFFLINE if is_offline else ()
    output = run([*prefix, python, "-I", "-m", "facegender", "predict", "faces"], cwd=work)
    print(output, end="")
    answers = json.loads((work / "process_results.json").read_text("utf-8"))
    if answers != expected_answers():
        sys.exit(f"the answers differ from README.md: {answers}")


def list_packages(python: Path, dist: Path) -> None:
    """Write the bill of materials and the licenses of the light install."""
    bill = dist / "sbom.cdx.json"
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    run([*tool, "--pyproject", ROOT / "pyproject.toml", "--output-file", bill, python])
    output: list[str | Path] = ["--format", "csv", "--output-file", dist / "licenses.csv"]
    run([sys.executable, "-m", "piplicenses", "--python", python, *output])


def main() -> None:
    """Build, check, install, predict, list; write dist/ only if everything succeeded."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    if run(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"]):
        sys.exit("Uncommitted changes: commit first, a release is built from the last commit")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    tracked = set(run(["git", "-C", ROOT, "ls-files"]).splitlines())
    with tempfile.TemporaryDirectory(prefix="facegender-release-") as folder:
        work = Path(folder)
        wheel, sdist = build(work)
        run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
        run([sys.executable, "-m", "check_wheel_contents", wheel])
        check_contents(wheel, sdist, tracked)
        for artifact in (sdist, wheel):
            python = install(artifact, version, work / f"env-{artifact.suffix[1:]}")
            check_answers(python, work / f"answers-{artifact.suffix[1:]}")
        list_packages(python, wheel.parent)
        written = sorted(wheel.parent.iterdir())
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in written]
        (wheel.parent / "SHA256SUMS").write_text("\n".join(sums) + "\n", "utf-8")
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        shutil.copytree(wheel.parent, ROOT / "dist")
    print(f"dist/ contains {', '.join(sorted(path.name for path in (ROOT / 'dist').iterdir()))}")


if __name__ == "__main__":
    main()
