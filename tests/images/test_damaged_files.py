"""Real image files, damaged in many ways: each gets its own row, and never another file's result.

A few hundred by default. ``FACEGENDER_DAMAGED=10000 pytest -s tests/images/test_damaged_files.py``
tries that many and prints the outcomes.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import SIDE, encode
from PIL import Image
from skimage.data import astronaut

from facegender.errors import UnreadableImageError
from facegender.faces.alignment import Crop
from facegender.images.formats import ImageLimits
from facegender.images.pixels import Resize
from facegender.inference.preprocess import PreprocessedImage, PreprocessOptions, preprocess_file
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool

EXAMPLES = int(os.environ.get("FACEGENDER_DAMAGED", "300"))
SECONDS = 5.0
OPTIONS = PreprocessOptions(Crop(), Resize(SIDE, SIDE), "whole", ImageLimits(pixels=50_000_000))
KINDS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "heic": ("HEIF", {}),
}

edits = st.lists(
    st.tuples(
        st.sampled_from(("set", "flip", "cut", "drop", "repeat", "zero", "insert")),
        st.floats(0, 1, exclude_max=True),  # where, as a fraction of the file
        st.integers(1, 64),  # how many bytes
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)
in_head = st.booleans()


def damaged(data: bytes, changes: list[tuple[str, float, int, int]], head: bool) -> bytes:
    """The file with some bytes changed; with ``head``, in its first 256."""
    for how, where, count, value in changes:
        at = int(where * (min(256, len(data)) if head else len(data)))
        before, part, after = data[:at], data[at : at + count], data[at + count :]
        part = {
            "set": bytes([value]) * len(part),
            "flip": bytes(byte ^ (1 << value % 8) for byte in part),
            "cut": b"",
            "drop": b"",
            "repeat": part * 2,
            "zero": bytes(len(part)),
            "insert": bytes([value]) * count + part,
        }[how]
        data = before + part + (b"" if how == "cut" else after)
    return data


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.fromarray(astronaut()).resize((200, 200))
    return {name: encode(image, kind, **options) for name, (kind, options) in KINDS.items()}


@pytest.fixture(scope="module")
def seen() -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()
    yield seen
    if "FACEGENDER_DAMAGED" in os.environ:
        megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"\n{dict(seen)}, longest {seen['microseconds'] / 1e6:.2f} s, {megabytes:.0f} MB")


@pytest.fixture(scope="module")
def pool(seen: Counter[str]) -> Iterator[WorkerPool]:
    with WorkerPool(1, timeout=SECONDS) as pool:
        yield pool


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(kind=st.sampled_from(sorted(KINDS)), changes=edits, head=in_head)
def test_a_damaged_file_gets_a_row_of_its_own(
    kind: str,
    changes: list[tuple[str, float, int, int]],
    head: bool,
    files: dict[str, bytes],
    pool: WorkerPool,
    seen: Counter[str],
) -> None:
    data = damaged(files[kind], changes, head)
    began = time.monotonic()
    before, work, after = (
        pool.submit(preprocess_file, each, OPTIONS) for each in (files["png"], data, files["png"])
    )
    try:
        found = work.result()
        assert isinstance(found, PreprocessedImage) and found.crops[0].pixels.shape == (
            SIDE,
            SIDE,
            3,
        )
        seen["answered"] += 1
    except UnreadableImageError as error:
        assert str(error)
        seen["unreadable"] += 1
    except WorkerDiedError as error:  # still a row, but it should not happen
        seen["died"] += 1
        pytest.fail(f"{kind} {changes} {head}: {error}")
    seen["microseconds"] = max(seen["microseconds"], int((time.monotonic() - began) * 1e6))
    for neighbor in (before, after):
        preprocessed = neighbor.result()
        assert preprocessed is not None and (preprocessed.crops[0].pixels == good(files)).all()


_good: list[PreprocessedImage] = []


def good(files: dict[str, bytes]) -> object:
    """The pixels of the undamaged file, preprocessed alone."""
    if not _good:
        preprocessed = preprocess_file(files["png"], OPTIONS)
        assert preprocessed is not None
        _good.append(preprocessed)
    return _good[0].crops[0].pixels
