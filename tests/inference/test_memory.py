"""Memory is flat but for the names: the small form of ``growth`` in ``benchmarks/speed``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made import encode, image

PEAK = (
    "import resource, sys; from facegender.cli import main\n"
    "try: main(sys.argv[1:])\n"
    "except SystemExit as end: assert not end.code, end.code\n"
    "for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):\n"
    "    print(resource.getrusage(who).ru_maxrss)"
)
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_many_images_take_little_more_than_few(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encode(image(size=(8, 8), seed=1)))

    def peaks(count: int) -> tuple[int, ...]:
        """In bytes: of the command, and of the largest of its reading processes."""
        photos = tmp_path / str(count)
        photos.mkdir()
        for n in range(count):
            (photos / f"holiday_{n}.png").symlink_to("../one.png")
        options = ("--faces", "whole", "-q", "-o", str(tmp_path / "o.json"))
        command = [sys.executable, "-c", PEAK, "predict", str(photos), *options]
        command += ["--model", str(model_path), "--details", str(tmp_path / "d.jsonl")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return tuple(int(line) * UNIT for line in done.stdout.splitlines())

    few, many = 300, 6000
    (own_few, reading_few), (own_many, reading_many) = peaks(few), peaks(many)
    assert own_many - own_few < (many - few) * 1000 + 8e6
    assert reading_many - reading_few < 8e6
