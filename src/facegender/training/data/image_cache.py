"""Samples -> pixels at the network's size, decoded once and kept memory-mapped where they fit."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError, OutputError, UnreadableImageError
from facegender.faces.alignment import Crop, estimate_similarity
from facegender.faces.face_aligner import FaceAligner, FaceCrop
from facegender.images.decode import decode
from facegender.images.pixels import Pixels, Resize, resize
from facegender.model.model_file import LABELS
from facegender.training.data.image_rows import EncodedImages, ImageRows
from facegender.training.data.samples import Sample, stream_samples

_STORE_VERSION = 2
_WIDE = 1.25
_PIXELS, _WIDE_PIXELS, _FRAMES = "pixels.u8", "wide.u8", "frames.f32"
_FILES, _ENDS = "files.bin", "ends.i64"
_SPARE_BYTES = 1 << 30
_STALE_SECONDS = 86_400

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Every picture of some archives at the network's size, as a ``Framer`` brings it there.

    ``samples``, ``digests`` (SHA-256 of the files) and ``errors`` ("" where readable) run parallel
    to ``pixels``, ``uint8 [N, H, W, 3]``, memory-mapped; an unreadable picture's pixels are zeros.

    Where faces are cut out, ``wide`` holds the whole pictures to cut from anew in training,
    ``uint8 [N, 1.25 H, 1.25 W, 3]``, and ``frames`` where each crop lies in them: ``float32 [N, 2,
    3]``, taking places in the crop to places in the picture, both from -1 to 1; NaN where no face
    was found. By the rule ``whole``, ``wide`` is ``pixels`` and all frames are NaN.

    Where the disk has no room for pixels, ``pixels`` and ``wide`` are :class:`Encoded`: read them
    by :func:`facegender.training.data.image_rows.read_rows`, which gives the same.

    ``teacher`` is what another network answered, its probability for ``male``, ``float32 [N]``; NaN
    where it was not asked. None: there is no teacher.
    """

    samples: list[Sample]
    digests: list[str]
    errors: list[str]
    pixels: ImageRows
    context_pixels: ImageRows
    crop_matrices: NDArray[np.float32]
    teacher: NDArray[np.float32] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index into ``LABELS`` of every sample, ``int64 [N]``."""
        return np.array([LABELS.index(sample.label) for sample in self.samples], np.int64)


def cache_folder(run: Path) -> Path:
    """Folder of the stores that all runs beside ``run`` share; it may be deleted at any time."""
    return run.absolute().parent / ".store"


def cache_path(
    inputs: Sequence[Path], table: Path | None, aligner: FaceAligner, folder: Path
) -> Path:
    """Say where the store of some archives is, or would be, in the folder of the stores."""
    return folder / _fingerprint(inputs, table, aligner)


def open_image_cache(
    inputs: Sequence[Path],
    table: Path | None,
    aligner: FaceAligner,
    folder: Path,
    *,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> ImageCache:
    """Decode all pictures of some archives into a store, or open the one made before.

    Where the disk has no room for the pixels, the files themselves are kept, and decoded anew
    whenever they are read.

    The store's name is a fingerprint of the inputs (names, sizes, times), the table's content and
    the framer's rules, so another input makes another store.

    Args:
        inputs: archives or folders.
        table: CSV joined on the path inside the archive, or None.
        framer: how pictures are brought before the network.
        folder: where stores are kept; made when missing.
        on_image: called with the number of pictures done so far.
        on_skip: called with the name and reason of a member that was passed over.

    Raises:
        InputError: no samples, a damaged archive, a wrong table.
        OutputError: not enough space even for the files.
    """
    found = cache_path(inputs, table, aligner, folder)
    told: set[str] = set()

    def skip_once(name: str, reason: str) -> None:
        if on_skip and name not in told:
            told.add(name)
            on_skip(name, reason)

    if not found.is_dir():
        try:
            stream = stream_samples(inputs, table, on_skip=skip_once)
            _build_cache(found, stream, aligner, on_image)
        except _FullError:
            stream = stream_samples(inputs, table, on_skip=skip_once)
            _build_cache(found, stream, aligner, on_image, is_encoded=True)
    with (found / "samples.csv").open(
        encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    names = [item.name for item in fields(Sample)]

    def mapped(name: str, size: Resize) -> Pixels:
        shape = (len(rows), size.height, size.width, 3)
        return np.memmap(found / name, np.uint8, "r", shape=shape)

    pixels: ImageRows
    context_pixels: ImageRows
    if (found / _FILES).exists():
        pixels, context_pixels = _encoded(found, aligner)
    else:
        pixels = mapped(_PIXELS, aligner.resize)
        context_pixels = mapped(_WIDE_PIXELS, _widened(aligner)) if _is_cut(aligner) else pixels
    return ImageCache(
        [Sample(**{name: row[name] for name in names}) for row in rows],
        [row["sha256"] for row in rows],
        [row["error"] for row in rows],
        pixels,
        context_pixels,
        np.fromfile(found / _FRAMES, np.float32).reshape(-1, 2, 3),
    )


def _encoded(found: Path, aligner: FaceAligner) -> tuple[EncodedImages, EncodedImages]:
    """Open a store of files, for its ``pixels`` and its ``wide``."""
    path, size = found / _FILES, _widened(aligner)
    is_empty = not path.stat().st_size  # which cannot be mapped
    files = np.zeros(0, np.uint8) if is_empty else np.memmap(path, np.uint8, "r")
    ends = np.fromfile(found / _ENDS, np.int64)
    pixels = EncodedImages(files, ends, aligner.resize, lambda image: aligner(image).pixels)
    if not _is_cut(aligner):
        return pixels, pixels
    return pixels, EncodedImages(files, ends, size, lambda image: resize(image, size))


def cache_in_memory(samples: Sequence[tuple[Sample, bytes]], aligner: FaceAligner) -> ImageCache:
    """Decode some pictures into a store without a folder; unreadable ones are left out."""
    kept = [
        (sample, digest, entry)
        for sample, digest, entry, _ in decode_samples(iter(samples), lambda it: _keep(it, aligner))
        if entry is not None
    ]
    if not kept:
        raise InputError("none of the pictures could be read")
    return ImageCache(
        [sample for sample, _, _ in kept],
        [digest for _, digest, _ in kept],
        [""] * len(kept),
        np.stack([entry.pixels for _, _, entry in kept]),
        np.stack([entry.context_pixels for _, _, entry in kept]),
        np.stack([entry.align for _, _, entry in kept]),
    )


def _is_cut(aligner: FaceAligner) -> bool:
    return aligner.crop.rule != "whole"


def _widened(aligner: FaceAligner) -> Resize:
    """How the whole pictures are kept that crops are taken from in training."""
    size = aligner.resize
    return replace(size, height=round(size.height * _WIDE), width=round(size.width * _WIDE))


def _fingerprint(inputs: Sequence[Path], table: Path | None, aligner: FaceAligner) -> str:
    """Name a store by what went into it."""
    digest = hashlib.blake2b(digest_size=8)
    facts: list[Any] = [_STORE_VERSION, asdict(aligner.resize), asdict(aligner.crop)]
    for path in inputs:
        if not path.exists():
            raise InputError(f"there is no {path}")
        paths = sorted(path.rglob("*")) if path.is_dir() else [path]
        for item in paths:
            stat = item.stat() if item == path else item.lstat()  # links inside are not followed
            facts.append([str(item.relative_to(path.parent)), stat.st_size, stat.st_mtime_ns])
    if table is not None:
        try:
            facts.append(hashlib.sha256(table.read_bytes()).hexdigest())
        except OSError as error:
            raise InputError(f"cannot read the table {table}: {error.strerror}") from error
    digest.update(json.dumps(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One picture of a store; see :class:`ImageCache`."""

    pixels: Pixels
    context_pixels: Pixels
    align: NDArray[np.float32]


_Put: TypeAlias = Callable[[_Entry | None, bytes], None]


class _FullError(OutputError):
    """The disk is full."""


@contextmanager
def build_atomically(place: Path) -> Iterator[Path]:
    """Give a new folder that becomes ``place`` at a clean end, where no other run was quicker.

    It vanishes at any other end.
    """
    unfinished = place.with_name(f"{place.name}.{secrets.token_hex(6)}.tmp")
    try:
        unfinished.mkdir()
        yield unfinished
        try:
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _build_cache(
    place: Path,
    stream: Iterator[tuple[Sample, bytes]],
    aligner: FaceAligner,
    on_image: Callable[[int], None] | None,
    *,
    is_encoded: bool = False,
) -> None:
    """Write a store under a temporary name and rename it when it is whole.

    Raises:
        _FullError: there is not enough space.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for stale in place.parent.glob("*.tmp"):  # of processes that were killed
        with suppress(OSError):  # gone meanwhile
            newest = max(each.stat().st_mtime for each in (stale, *stale.iterdir()))
            if time.time() - newest > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
    nowhere = np.full((2, 3), np.nan, np.float32)
    held: deque[bytes] = deque()
    with (
        build_atomically(place) as unfinished,
        ExitStack() as stack,
        (unfinished / _FRAMES).open("wb") as crop_matrices,
        (unfinished / "samples.csv").open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as table,
    ):
        put = (_put_files if is_encoded else _put_pixels)(unfinished, aligner, stack)
        rows = csv.writer(table)
        rows.writerow([*(item.name for item in fields(Sample)), "sha256", "error"])
        kept = decode_samples(_holding(stream, held), lambda image: _keep(image, aligner))
        for done, (sample, digest, entry, error) in enumerate(kept, 1):
            values = [getattr(sample, item.name) for item in fields(Sample)]
            rows.writerow([*values, digest, error])
            crop_matrices.write((entry.align if entry else nowhere).tobytes())
            put(entry, held.popleft())
            if done % 256 == 0:
                if on_image:
                    on_image(done)
                if shutil.disk_usage(unfinished).free < _SPARE_BYTES:
                    raise _FullError(
                        f"less than 1 GiB is free at {place.parent}, where the pictures are "
                        "kept: free some space or use another output folder"
                    )


def _put_pixels(folder: Path, aligner: FaceAligner, stack: ExitStack) -> _Put:
    """Open the files of a store of pixels; give what writes a picture into them."""
    size, wide_size, is_cut = aligner.resize, _widened(aligner), _is_cut(aligner)
    blank = np.zeros((size.height, size.width, 3), np.uint8)
    wide_blank = np.zeros((wide_size.height, wide_size.width, 3), np.uint8)
    pixels = stack.enter_context((folder / _PIXELS).open("wb"))
    context_pixels = stack.enter_context((folder / _WIDE_PIXELS).open("wb"))

    def put(entry: _Entry | None, _: bytes) -> None:
        pixels.write((entry.pixels if entry else blank).tobytes())
        if is_cut:
            context_pixels.write((entry.context_pixels if entry else wide_blank).tobytes())

    return put


def _put_files(folder: Path, _: FaceAligner, stack: ExitStack) -> _Put:
    """Open the files of a store of files; give what writes a picture's own into them."""
    files = stack.enter_context((folder / _FILES).open("wb"))
    ends = stack.enter_context((folder / _ENDS).open("wb"))

    def put(entry: _Entry | None, data: bytes) -> None:
        files.write(data if entry else b"")
        ends.write(np.int64(files.tell()).tobytes())

    return put


def _holding(
    stream: Iterator[tuple[Sample, bytes]], held: deque[bytes]
) -> Iterator[tuple[Sample, bytes]]:
    """Pass a stream on, and hold its bytes until they are taken from the left."""
    for sample, data in stream:
        held.append(data)
        yield sample, data


def _keep(image: Pixels, aligner: FaceAligner) -> _Entry:
    """Bring one picture into the shape that a store keeps."""
    framed: FaceCrop = aligner(image)
    frame = np.full((2, 3), np.nan, np.float32)
    if framed.face:
        frame = to_crop_matrix(framed.face.landmarks, aligner.crop, image.shape)
    context_pixels = resize(image, _widened(aligner)) if _is_cut(aligner) else framed.pixels
    return _Entry(framed.pixels, context_pixels, frame)


def to_crop_matrix(
    landmarks: NDArray[np.floating], crop: Crop, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Find where a crop lies in a picture of that shape, as :class:`ImageCache` has it: ``[2, 3]``."""
    matrix = estimate_similarity(landmarks, crop)
    half = matrix[:, :2] / 2
    middle = matrix[:, 2] + half.sum(1)
    size = np.array([[shape[1]], [shape[0]]])
    normal = np.column_stack([half, middle]) * 2 / size
    normal[:, 2] -= 1.0
    return np.asarray(normal, np.float32)


def decode_samples(
    stream: Iterator[tuple[Sample, bytes]], work: Callable[[Pixels], T]
) -> Iterator[tuple[Sample, str, T | None, str]]:
    """Decode and work on pictures in threads, a few ahead, in the stream's order.

    Returns:
        For each sample: itself, the SHA-256 of its bytes, what ``work`` made of its pixels or None,
        and why it cannot be read or "".
    """

    def prepare(data: bytes) -> tuple[str, T | None, str]:
        digest = hashlib.sha256(data).hexdigest()
        try:
            return digest, work(decode(data)), ""
        except UnreadableImageError as error:
            return digest, None, str(error)

    threads = os.cpu_count() or 1
    pending: deque[tuple[Sample, Future[tuple[str, T | None, str]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for sample, data in stream:
            pending.append((sample, pool.submit(prepare, data)))
            if len(pending) > 8 * threads:
                done, future = pending.popleft()
                yield done, *future.result()
        while pending:
            done, future = pending.popleft()
            yield done, *future.result()
