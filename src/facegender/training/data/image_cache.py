"""The image cache: images of archives, decoded and aligned once, memory-mapped for training."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError, UnreadableImageError
from facegender.faces.alignment import Crop, estimate_similarity
from facegender.faces.face_aligner import FaceAligner
from facegender.images.decode import decode
from facegender.images.pixels import Pixels, Resize, resize
from facegender.model.model_file import LABELS
from facegender.training.data.cache_writer import (
    CONTEXT_NAME,
    ENDS_NAME,
    FILES_NAME,
    MATRICES_NAME,
    PIXELS_NAME,
    SAMPLES_NAME,
    CachedImage,
    DecodedSample,
    DiskFullError,
    write_cache,
)
from facegender.training.data.image_rows import EncodedImages, ImageRows
from facegender.training.data.label_folders import LABEL_FOLDERS
from facegender.training.data.samples import Sample, stream_samples

_VERSION = 3
_CONTEXT_SCALE = 1.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageCache:
    """All images of some archives, preprocessed by a ``FaceAligner``.

    All attributes have one row per sample. If the disk has no room for pixels, ``pixels`` and
    ``context_pixels`` are :class:`EncodedImages`; read both kinds with
    :func:`facegender.training.data.image_rows.read_rows`.

    Attributes:
        samples: the samples.
        digests: SHA-256 of their files.
        errors: why each is unreadable, or "".
        pixels: ``uint8 [N, H, W, 3]``, cropped and resized as the network is given them;
            unreadable images are zeros.
        context_pixels: if faces are cropped, the full images, ``uint8 [N, 1.25 H, 1.25 W, 3]``,
            which augmentation crops; otherwise ``pixels``.
        crop_matrices: where each crop lies in ``context_pixels``, ``float32 [N, 2, 3]``: from
            places in the crop to places in the image, both from -1 to 1. NaN if there is no face,
            or if faces are not cropped.
        teacher: another network's P(male), ``float32 [N]``, NaN if it has none; None without a
            teacher.
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

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """File and reason of every unreadable sample."""
        return [
            (sample.file, error)
            for sample, error in zip(self.samples, self.errors, strict=True)
            if error
        ]


def cache_folder(run: Path) -> Path:
    """Return the folder of the caches that all runs beside ``run`` share; it may be deleted."""
    return run.absolute().parent / ".store"


def cache_path(
    inputs: Sequence[Path],
    metadata: Path | None,
    aligner: FaceAligner,
    folder: Path,
    classes: Mapping[str, str] = LABEL_FOLDERS,
) -> Path:
    """Return where the cache of some inputs is, or would be, in the folder of the caches.

    Its name is a fingerprint of the inputs (names, sizes, times), the content of the metadata
    table, the aligner's settings, and the folder names of the labels.

    Raises:
        InputError: an input or the table is missing.
    """
    settings: list[Any] = [_VERSION, asdict(aligner.resize), asdict(aligner.crop)]
    for path in inputs:
        if not path.exists():
            raise InputError(f"Not found: {path}")
        paths = sorted(path.rglob("*")) if path.is_dir() else [path]
        for item in paths:
            stat = item.stat() if item == path else item.lstat()  # links inside are not followed
            name = str(item.relative_to(path.parent))
            settings.append([name, stat.st_size, stat.st_mtime_ns])
    if classes != LABEL_FOLDERS:
        settings.append(sorted(classes.items()))
    if metadata is not None:
        try:
            settings.append(hashlib.sha256(metadata.read_bytes()).hexdigest())
        except OSError as error:
            raise InputError(
                f"Cannot read the metadata table {metadata}: {error.strerror}"
            ) from error
    digest = hashlib.blake2b(json.dumps(settings).encode("utf-8", "surrogatepass"), digest_size=8)
    return folder / digest.hexdigest()


def open_image_cache(
    inputs: Sequence[Path],
    metadata: Path | None,
    aligner: FaceAligner,
    folder: Path,
    *,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
    classes: Mapping[str, str] = LABEL_FOLDERS,
) -> ImageCache:
    """Decode all images of some inputs to a cache, or open the one that exists.

    If the disk has no room for the pixels, the cache has the files themselves, which are decoded
    again whenever they are read.

    Args:
        inputs: archives or folders.
        metadata: metadata table, or None.
        aligner: how images are cropped and resized.
        folder: folder of the caches; created if it is missing.
        on_image: called with the number of images done so far.
        on_skip: called with the name and reason of each file that is not a sample.
        classes: labels by folder name.

    Raises:
        InputError: no samples, a damaged archive, a wrong table.
        OutputError: not enough space even for the files.
    """
    path = cache_path(inputs, metadata, aligner, folder, classes)
    reported: set[str] = set()

    def skip_once(name: str, reason: str) -> None:
        if on_skip and name not in reported:
            reported.add(name)
            on_skip(name, reason)

    if not path.is_dir():
        try:
            stream = stream_samples(inputs, metadata, on_skip=skip_once, classes=classes)
            _write(path, stream, aligner, on_image)
        except DiskFullError:
            stream = stream_samples(inputs, metadata, on_skip=skip_once, classes=classes)
            _write(path, stream, aligner, on_image, is_encoded=True)
    return _open(path, aligner)


def _write(
    path: Path,
    stream: Iterator[tuple[Sample, bytes]],
    aligner: FaceAligner,
    on_image: Callable[[int], None] | None,
    *,
    is_encoded: bool = False,
) -> None:
    """Write the cache of a stream of samples."""
    size, context = aligner.resize, _context_size(aligner)
    write_cache(
        path,
        _decode_for_cache(stream, aligner),
        shape=(size.height, size.width),
        context_shape=(context.height, context.width) if _is_cropped(aligner) else None,
        on_image=on_image,
        is_encoded=is_encoded,
    )


def _open(path: Path, aligner: FaceAligner) -> ImageCache:
    """Open a cache."""
    with (path / SAMPLES_NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [item.name for item in fields(Sample)]

    def mapped(name: str, size: Resize) -> Pixels:
        shape = (len(rows), size.height, size.width, 3)
        return np.memmap(path / name, np.uint8, "r", shape=shape)

    pixels: ImageRows
    context_pixels: ImageRows
    if (path / FILES_NAME).exists():
        pixels, context_pixels = _open_encoded(path, aligner)
    else:
        pixels = context_pixels = mapped(PIXELS_NAME, aligner.resize)
        if _is_cropped(aligner):
            context_pixels = mapped(CONTEXT_NAME, _context_size(aligner))
    return ImageCache(
        [Sample(**{name: row[name] for name in names}) for row in rows],
        [row["sha256"] for row in rows],
        [row["error"] for row in rows],
        pixels,
        context_pixels,
        np.fromfile(path / MATRICES_NAME, np.float32).reshape(-1, 2, 3),
    )


def _open_encoded(path: Path, aligner: FaceAligner) -> tuple[EncodedImages, EncodedImages]:
    """Open a cache of files, as its ``pixels`` and its ``context_pixels``."""
    size = _context_size(aligner)
    is_empty = not (path / FILES_NAME).stat().st_size  # which cannot be mapped
    files = np.zeros(0, np.uint8) if is_empty else np.memmap(path / FILES_NAME, np.uint8, "r")
    ends = np.fromfile(path / ENDS_NAME, np.int64)
    pixels = EncodedImages(files, ends, aligner.resize, lambda image: aligner(image).pixels)
    if not _is_cropped(aligner):
        return pixels, pixels
    return pixels, EncodedImages(files, ends, size, lambda image: resize(image, size))


def cache_in_memory(samples: Sequence[tuple[Sample, bytes]], aligner: FaceAligner) -> ImageCache:
    """Decode some images to a cache in memory; unreadable ones are left out.

    Args:
        samples: with the bytes of their files.
        aligner: how images are cropped and resized.

    Raises:
        InputError: none of them is readable.
    """
    decoded = _decode_for_cache(iter(samples), aligner)
    readable = [(item, item.image) for item in decoded if item.image is not None]
    if not readable:
        raise InputError("None of the images could be read.")
    return ImageCache(
        [item.sample for item, _ in readable],
        [item.sha256 for item, _ in readable],
        [""] * len(readable),
        np.stack([image.pixels for _, image in readable]),
        np.stack([image.context_pixels for _, image in readable]),
        np.stack([image.crop_matrix for _, image in readable]),
    )


def _is_cropped(aligner: FaceAligner) -> bool:
    return aligner.crop.rule != "none"


def _context_size(aligner: FaceAligner) -> Resize:
    """Return the size of the full images from which augmentation crops."""
    size = aligner.resize
    return replace(
        size,
        height=round(size.height * _CONTEXT_SCALE),
        width=round(size.width * _CONTEXT_SCALE),
    )


def _decode_for_cache(
    stream: Iterator[tuple[Sample, bytes]], aligner: FaceAligner
) -> Iterator[DecodedSample]:
    """Decode and align samples in threads, in the order of the stream."""
    files: deque[bytes] = deque()  # of the samples that are being decoded

    def noted() -> Iterator[tuple[Sample, bytes]]:
        for sample, data in stream:
            files.append(data)
            yield sample, data

    for sample, digest, image, error in decode_samples(
        noted(), lambda it: to_cached_image(it, aligner)
    ):
        yield DecodedSample(sample, digest, files.popleft(), image, error)


def to_cached_image(image: Pixels, aligner: FaceAligner) -> CachedImage:
    """Crop and resize one image, ``uint8 [H, W, 3]``, to the form in which a cache has it."""
    crop = aligner(image)
    matrix = np.full((2, 3), np.nan, np.float32)
    if crop.face:
        matrix = to_crop_matrix(crop.face.landmarks, aligner.crop, image.shape)
    is_cropped = _is_cropped(aligner)
    context_pixels = resize(image, _context_size(aligner)) if is_cropped else crop.pixels
    return CachedImage(crop.pixels, context_pixels, matrix)


def to_crop_matrix(
    landmarks: NDArray[np.floating], crop: Crop, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return where a crop lies in an image, in the form of ``ImageCache.crop_matrices``.

    Args:
        landmarks: ``float [5, 2]``, in pixels of the image.
        crop: the crop rule.
        shape: of the image, height and width first.

    Returns:
        ``float32 [2, 3]``.
    """
    matrix = estimate_similarity(landmarks, crop)
    half = matrix[:, :2] / 2
    center = matrix[:, 2] + half.sum(1)
    size = np.array([[shape[1]], [shape[0]]])
    normalized = np.column_stack([half, center]) * 2 / size
    normalized[:, 2] -= 1.0
    return np.asarray(normalized, np.float32)


def decode_samples(
    stream: Iterator[tuple[Sample, bytes]], transform: Callable[[Pixels], T]
) -> Iterator[tuple[Sample, str, T | None, str]]:
    """Decode images and apply a function to them, in threads, a few images ahead.

    Args:
        stream: samples with the bytes of their files.
        transform: applied to the pixels, ``uint8 [H, W, 3]``, of each image.

    Yields:
        For each sample, in order: itself, the SHA-256 of its bytes, the result of ``transform`` or
        None, and why it is unreadable or "".
    """

    def prepare(data: bytes) -> tuple[str, T | None, str]:
        digest = hashlib.sha256(data).hexdigest()
        try:
            return digest, transform(decode(data)), ""
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
