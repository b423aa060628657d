"""Runs of the whole command, measurements in turns, and their ratios."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed.images import log

Row = dict[str, Any]


def predict(
    folder: Path,
    model: Path,
    runtime: str,
    *,
    faces: str = "whole",
    only: tuple[int, ...] = (),
) -> tuple[float, float]:
    """Run ``facegender predict``; return seconds and peak MB, worker processes included."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "facegender", "predict", str(folder), "-q"]
        command += ["-o", f"{out}/o.json", "--faces", faces, "--model", str(model)]
        command += ["--runtime", runtime]
        if only:
            command = ["taskset", "-c", ",".join(map(str, only)), *command]
        began = time.perf_counter()
        process = subprocess.Popen(command)
        peak = 0.0
        sampled = began
        while process.poll() is None:
            if time.perf_counter() - sampled > 0.5:  # sampling itself takes time
                peak, sampled = max(peak, _megabytes(process.pid)), time.perf_counter()
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, peak


def _megabytes(process: int) -> float:
    """Measure the memory of a process and its children; shared memory counts once (Linux, PSS)."""

    def of(number: str) -> int:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        children = []
    return sum(map(of, (str(process), *children))) * 1024 / 1e6


def in_turns(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Measure several things one after the other, ``rounds`` times."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(round(measure(), 3))
        last = ", ".join(f"{name} {values[-1]:g}" for name, values in found.items())
        log(f"    {number + 1}/{rounds}: {last}")
    return found


def ratios(over: list[float], under: list[float]) -> Row:
    each = [a / b for a, b in zip(over, under, strict=True)]
    return {
        "ratio": round(statistics.median(each), 3),
        "smallest": round(min(each), 3),
        "largest": round(max(each), 3),
    }


def combined_rate(*rates: list[float]) -> list[float]:
    """Return the rate of doing all of these on the same cores and nothing else, by round."""
    return [1.0 / sum(1.0 / rate for rate in each) for each in zip(*rates, strict=True)]
