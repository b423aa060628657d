"""A file that is too large is refused by its size, before it is read into memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

GOOD = encode(image(seed=1), "JPEG")
HUGE = 50 * 2**30

READ = """
import json, resource, sys
from pathlib import Path
from facegender.errors import InputError, UnreadableImageError
from facegender.images.formats import read_image_file
from facegender.inference.image_inputs import to_source
from facegender.inputs.paths import collect_inputs

def reason(call):
    try:
        call()
    except (InputError, UnreadableImageError) as error:
        return str(error)
    return "read"

def opened(path):
    with path.open("rb") as file:
        to_source(file)

big, zeros, text = map(Path, ("big.jpg", "zeros.jpg", "names.txt"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {
    "file": reason(lambda: read_image_file(big)),
    "zeros": reason(lambda: read_image_file(zeros)),
    "open file": reason(lambda: opened(big)),
    "folder": [(file.key, file.size) for file in collect_inputs(["."], exclude=["*.t*"])],
    "list": reason(lambda: collect_inputs([text])),
    "tar": [(file.key, file.problem) for file in collect_inputs(["a.tar"])],
}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found["growth"] = (peak - before) * (1 if sys.platform == "darwin" else 1024)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no sparse files by truncate")
def test_a_sparse_file_is_refused_by_its_size(photos: Callable[..., Path]) -> None:
    import json

    from made_archives import old_gnu_sparse

    folder = photos({"big.jpg": GOOD, "zeros.jpg": b"", "names.txt": b"big.jpg\n"})
    (folder / "a.tar").write_bytes(old_gnu_sparse("big.jpg", GOOD, HUGE) + bytes(1024))
    for name in ("big.jpg", "zeros.jpg", "names.txt"):
        with (folder / name).open("r+b") as file:
            file.truncate(HUGE)
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=folder, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    excess = f"{HUGE:,} bytes are over the limit of 1,073,741,824"
    assert found["file"] == found["zeros"] == found["open file"] == excess
    assert found["folder"] == [["big.jpg", HUGE], ["zeros.jpg", HUGE]]
    assert found["list"].startswith("names.txt has more than 1,073,741,824 bytes, too many")
    assert found["tar"] == [["big.jpg", excess]]
    assert found["growth"] < 20e6
