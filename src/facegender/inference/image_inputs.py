"""ImageInput: everything that callers may pass as an image, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import UnreadableImageError
from facegender.images.decode import from_pil_image
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, describe_excess
from facegender.images.pixels import Pixels
from facegender.inference.preprocess import (
    NOT_AN_IMAGE,
    PreprocessedImage,
    PreprocessOptions,
    preprocess_file,
)
from facegender.results.predictions import Prediction, unreadable_row


@runtime_checkable
class BinaryFile(Protocol):
    """An open binary file: ``open(path, "rb")``, ``io.BytesIO``, a member of an archive."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; all if it is negative."""


ImageInput: TypeAlias = (
    str | PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[Any]
)
"""A path, the content of an image file, an open binary file, a Pillow image, or ``uint8`` pixels:
RGB ``[H, W, 3]`` or gray ``[H, W]``."""

_EXPECTED = "a path, bytes, an open binary file, a PIL image or a uint8 array"


def is_single_image(images: object) -> TypeGuard[ImageInput]:
    """Tell whether a value is one image; otherwise it may be an iterable of images.

    An array with four axes is several images.
    """
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    single = (str, PathLike, bytes, bytearray, memoryview, Image.Image, BinaryFile)
    return isinstance(images, single)


def iterate_images(images: object) -> Iterable[ImageInput]:
    """Return the images of an iterable.

    Raises:
        TypeError: it is neither an image nor an iterable.
    """
    if not isinstance(images, Iterable):
        raise TypeError(f"Expected {_EXPECTED}, or several of them, got {type(images).__name__}")
    return cast("Iterable[ImageInput]", images)


def image_name(image: ImageInput) -> str | None:
    """Return the name of an image in its rows: its path, or that of an open file; else None."""
    if isinstance(image, (str, PathLike)):
        return str(Path(image))
    is_in_memory = isinstance(image, (bytes, bytearray, memoryview, Image.Image, np.ndarray))
    name = None if is_in_memory else getattr(image, "name", None)
    return name if isinstance(name, str) else None


def to_source(image: ImageInput) -> Path | bytes | Pixels:
    """Return what :func:`facegender.inference.preprocess.preprocess_file` takes.

    An open file is read from its start, if it can seek, else from where it is; it stays open.

    Raises:
        TypeError: something that is not an image, a file in text mode, or pixels that are not
            ``uint8``.
        ValueError: pixels of another shape.
        UnreadableImageError: an open file or a Pillow image that cannot be read.
    """
    if isinstance(image, (str, PathLike)):
        return Path(image)
    if isinstance(image, bytes):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, Image.Image):
        return from_pil_image(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, BinaryFile):
        return _read_file(image)
    raise TypeError(f"Expected {_EXPECTED}, got {type(image).__name__}")


def _read_file(file: BinaryFile) -> bytes:
    limits = DEFAULT_IMAGE_LIMITS
    try:
        if getattr(file, "seekable", lambda: False)():
            size = _size(file)
            if size > limits.bytes:
                raise UnreadableImageError(describe_excess(size, limits))
            file.seek(0)  # type: ignore[attr-defined]  # as Pillow does
        data: object = file.read(limits.bytes + 1)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        kind = type(data).__name__
        raise TypeError(f"read() of the file returned {kind}, not bytes. Open it in mode 'rb'")
    if len(data) > limits.bytes:
        raise UnreadableImageError(describe_excess(len(data), limits))
    return bytes(data)


def _size(file: BinaryFile) -> int:
    """Return the size of an open file in bytes; 0 if it is known only after reading."""
    try:
        return int(file.seek(0, os.SEEK_END))  # type: ignore[attr-defined]
    except (OSError, TypeError, ValueError):  # a compressed file
        return 0


def _from_array(values: NDArray[Any]) -> Pixels:
    """Check pixels from the caller; gray becomes three equal channels."""
    if values.dtype != np.uint8:
        raise TypeError(f"Expected uint8 pixels (0 to 255), got {values.dtype}")
    is_gray = values.ndim == 2
    if not is_gray and (values.ndim != 3 or values.shape[2] != 3):
        raise ValueError(
            f"Expected pixels of shape (H, W, 3) or (H, W), got {values.shape}. "
            "Pass several images as a list or as an array of shape (N, H, W, 3)"
        )
    if values.size == 0:
        raise ValueError(f"The image has no pixels: its shape is {values.shape}")
    rgb = np.repeat(values[:, :, None], 3, axis=2) if is_gray else values
    return np.ascontiguousarray(rgb)


def preprocess_image(image: ImageInput, options: PreprocessOptions) -> PreprocessedImage:
    """Preprocess any kind of input.

    Raises:
        UnreadableImageError: it cannot be read, or is no image.
    """
    preprocessed = preprocess_file(to_source(image), options)
    if preprocessed is None:
        raise UnreadableImageError(NOT_AN_IMAGE)
    return preprocessed


def preprocess_or_row(
    image: ImageInput, options: PreprocessOptions
) -> PreprocessedImage | Prediction:
    """Preprocess any kind of input; one that cannot be read becomes a row with the reason."""
    try:
        return preprocess_image(image, options)
    except UnreadableImageError as error:
        return unreadable_row(image_name(image), error)
