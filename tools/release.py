"""Build the wheel and the sdist of what is committed, and prove that both work.

    python -m pip install -r tools/release.txt
    python tools/release.py                     writes dist/; a few minutes, most of them pip's

Both are built from the last commit, so nothing that lies about in the working tree gets in. Each
is installed in a fresh environment and answers for faces/ without a network; the answers have to
be those of the README. Beside them dist/ gets a bill of materials (CycloneDX), the licences of what
the light install brings, and the digests.
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
"""Linux: a process with no network but its own, without rights of its own."""


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a command, say so, and end with what it said where it failed."""
    print("+", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed: {command[0]} (exit code {done.returncode})")
    return str(done.stdout)


def build(work: Path) -> tuple[Path, Path]:
    """Build both from the last commit; give the wheel and the sdist."""
    source, out = work / "source", work / "dist"
    source.mkdir()
    run(["git", "-C", ROOT, "archive", "--output", work / "source.tar", "HEAD"])
    with tarfile.open(work / "source.tar") as archive:
        archive.extractall(source, filter="data")
    run([sys.executable, "-m", "build", "--outdir", out, source])
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path, tracked: set[str]) -> None:
    """Both hold what is tracked, all that belongs into them, and nothing else."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    compare(sdist, held - NOT_TRACKED, tracked - NOT_IN_SDIST)
    wanted = {
        packed + name.removeprefix(folder)
        for name in tracked
        for folder, packed in IN_WHEEL.items()
        if name.startswith(folder)
    } | {"facegender/model/weights/MODEL_CARD.md"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    compare(wheel, names, wanted)


def compare(artefact: Path, held: set[str], wanted: set[str]) -> None:
    """End where an artefact does not hold exactly what it should."""
    if held != wanted:
        sys.exit(f"{artefact.name} holds {held - wanted or {}}, lacks {wanted - held or {}}")
    print(f"{artefact.name}: {len(held)} files, as they are tracked")


def expected_answers() -> dict[str, str]:
    """Give the answers that README.md shows for faces/."""
    text = (ROOT / "README.md").read_text("utf-8")
    shown = re.search(r"^\$ cat process_results\.json\n(\{.*?^\})", text, re.MULTILINE | re.DOTALL)
    assert shown, "README.md shows no answers"
    answers: dict[str, str] = json.loads(shown[1])
    return answers


def install(artefact: Path, version: str, place: Path) -> Path:
    """Install in a fresh environment; give its python. From the sdist pip builds by itself."""
    run([sys.executable, "-m", "venv", "--without-pip", place])
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    if artefact.suffix == ".whl":
        # by name, so that no path of this machine is noted down for the bill of materials
        found = ["--no-index", "--no-deps", "--find-links", artefact.parent]
        run([*pip, *found, f"facegender=={version}"])
        run([*pip, f"facegender=={version}"])
    else:
        run([*pip, artefact])
    return python


def check_answers(python: Path, work: Path) -> None:
    """The installed package answers for faces/ without a network, as the README says."""
    work.mkdir()
    shutil.copytree(ROOT / "faces", work / "faces")
    is_cut = shutil.which(OFFLINE[0]) and not subprocess.run([*OFFLINE, "true"]).returncode
    if not is_cut:
        print("the network is not cut off: this needs Linux and its 'unshare'")
    before = OFFLINE if is_cut else ()
    said = run([*before, python, "-I", "-m", "facegender", "predict", "faces"], cwd=work)
    print(said, end="")
    answers = json.loads((work / "process_results.json").read_text("utf-8"))
    if answers != expected_answers():
        sys.exit(f"the answers are not those of README.md: {answers}")


def list_parts(python: Path, dist: Path) -> None:
    """Write what the light install brings: a bill of materials, and the licences."""
    bill = dist / "sbom.cdx.json"
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    run([*tool, "--pyproject", ROOT / "pyproject.toml", "--output-file", bill, python])
    output = ["--format", "csv", "--output-file", dist / "licences.csv"]
    run([sys.executable, "-m", "piplicenses", "--python", python, *output])


def main() -> None:
    """Build, check, install, answer, list; write dist/ only when all of it went well."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    if run(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"]):
        sys.exit("commit first: a release is made of what is committed")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    tracked = set(run(["git", "-C", ROOT, "ls-files"]).splitlines())
    with tempfile.TemporaryDirectory(prefix="facegender-release-") as folder:
        work = Path(folder)
        wheel, sdist = build(work)
        run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
        run([sys.executable, "-m", "check_wheel_contents", wheel])
        check_contents(wheel, sdist, tracked)
        for artefact in (sdist, wheel):
            python = install(artefact, version, work / f"env-{artefact.suffix[1:]}")
            check_answers(python, work / f"answers-{artefact.suffix[1:]}")
        list_parts(python, wheel.parent)
        written = sorted(wheel.parent.iterdir())
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in written]
        (wheel.parent / "SHA256SUMS").write_text("\n".join(sums) + "\n", "utf-8")
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        shutil.copytree(wheel.parent, ROOT / "dist")
    print(f"dist/ holds {', '.join(sorted(path.name for path in (ROOT / 'dist').iterdir()))}")


if __name__ == "__main__":
    main()
