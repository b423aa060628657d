"""Where the time of ``predict`` goes: py-spy's samples of all its processes, by stage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

STAGES = (
    ("the network", "classifier.py:_run runtime.py"),
    ("finding faces", "detector.py:_look"),
    ("Pillow's resizing", "Image.py:resize"),
    ("cutting faces out", "faces.py:cut"),
    ("decoding", "ImageFile.py:load ImageFile.py:_load"),
    ("opening files", "images.py:read_file Image.py:open JpegImagePlugin.py jpeg.py"),
    ("journal", "journal.py"),
    ("start and end", "_bootstrap inputs.py:gather results.py:write model_file.py"),
    ("between the processes", "isolated.py thread.py _base.py threading.py"),
    ("other reading", "reading.py images.py colours.py faces.py"),
    ("rows", "predict.py classifier.py results.py"),
)
"""Stages, and what their frames are called: the innermost frame that has a stage decides."""


def shares(folder: Path, model: Path, faces: str) -> dict[str, float]:
    """Percent of the samples of a run by ONNX Runtime that lie in each stage.

    OpenVINO answers in threads of its own, which py-spy does not see.

    Raises:
        FileNotFoundError: py-spy is not installed.
    """
    spy = Path(sysconfig.get_path("scripts"), "py-spy")
    program = str(spy) if spy.exists() else shutil.which("py-spy")
    if program is None:
        raise FileNotFoundError("py-spy is not installed")
    with tempfile.TemporaryDirectory() as place:
        raw = Path(place, "raw.txt")
        command = [program, "record", "--subprocesses", "--nonblocking", "--nolineno"]
        command += ["--rate", "100", "--format", "raw", "--output", str(raw), "--"]
        command += [sys.executable, "-m", "facegender", "predict", str(folder), "-q"]
        command += ["--faces", faces, "--model", str(model), "--runtime", "onnxruntime"]
        command += ["-o", f"{place}/o.json"]
        subprocess.run(command, check=True, capture_output=True)
        counts: Counter[str] = Counter()
        for line in raw.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            counts[_stage(stack.split(";"))] += int(count)
    return {stage: round(100 * n / counts.total(), 1) for stage, n in counts.most_common()}


def _stage(stack: list[str]) -> str:
    """Tell the stage of a stack of frames ``function (file.py)``, the innermost last."""
    for frame in reversed(stack):
        function, _, file = frame.partition(" (")
        name = f"{file.rstrip(')').rpartition('/')[2]}:{function.rpartition('.')[2]}"
        for stage, patterns in STAGES:
            if any(pattern in name for pattern in patterns.split()):
                return stage
    return "all else"
