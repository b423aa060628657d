"""Where the time of ``predict`` is spent: py-spy's samples of all its processes, by stage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

STAGES = (
    ("network", "classifier.py:_run runtime.py"),
    ("face detection", "yunet.py:_detect_at_scale"),
    ("Pillow's resize", "Image.py:resize"),
    ("face alignment", "alignment.py:align_crop"),
    ("decoding", "ImageFile.py:load ImageFile.py:_load"),
    ("opening files", "formats.py:read_image_file Image.py:open JpegImagePlugin.py jpeg.py"),
    ("journal", "journal.py"),
    (
        "start and end",
        "_bootstrap paths.py:collect_inputs process_results.py files.py model_file.py",
    ),
    ("worker pool", "worker_pool.py thread.py _base.py threading.py"),
    (
        "other preprocessing",
        "preprocess.py decode.py pixels.py formats.py color.py face_aligner.py",
    ),
    ("other face detection and alignment", "yunet.py detection.py alignment.py"),
    ("rows", "pipeline.py predict.py classifier.py predictions.py"),
)
"""Stages and the frames that belong to them; the innermost frame with a stage decides."""


def profile(folder: Path, model: Path, faces: str) -> dict[str, float]:
    """Measure the percentage of samples in each stage, of a run with ONNX Runtime.

    OpenVINO runs in threads of its own, which py-spy does not see.

    Raises:
        FileNotFoundError: py-spy is not installed.
    """
    spy = Path(sysconfig.get_path("scripts"), "py-spy")
    program = str(spy) if spy.exists() else shutil.which("py-spy")
    if program is None:
        raise FileNotFoundError("py-spy is not installed: pip install py-spy")
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
    """Return the stage of a stack of frames ``function (file.py)``, the innermost last."""
    for frame in reversed(stack):
        function, _, file = frame.partition(" (")
        name = f"{file.rstrip(')').rpartition('/')[2]}:{function.rpartition('.')[2]}"
        for stage, patterns in STAGES:
            if any(pattern in name for pattern in patterns.split()):
                return stage
    return "everything else"
