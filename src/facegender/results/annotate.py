"""Annotated copies of images: boxes and labels drawn in, faces pixelated if asked for.

A copy is made from pixels only: it has no EXIF, no location and no embedded thumbnail.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegender.errors import OutputError, UnreadableImageError
from facegender.files import OWN_FILE_PREFIX
from facegender.images.decode import decode
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits, read_image_file
from facegender.images.pixels import Pixels, Resize, resize

COLORS = {"female": "#7b3fb5", "male": "#00766c"}
"""Colors of boxes and labels, as in the report. White text on either has a contrast above 5."""

_UNKNOWN_COLOR = "#5a5f66"
_PIXELATED_CELLS = 4  # per side of a pixelated face
_ELLIPSE_SCALE = 1.1 * 2**0.5  # the ellipse through the corners of the box, enlarged by 10 %
_JPEG_QUALITY = 90

_MAX_NAME_BYTES = 240  # file systems allow 255; the suffix needs some
_UNSAFE_CHARACTERS = re.compile(r'[\x00-\x1f<>:"\\|?*]|%(?=[0-9A-Fa-f]{2})')
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)")
_UNSAFE_FOLDER_END = re.compile(r"(?i)[. ]$|\.(?=jpg$)")


def annotate(
    pixels: Pixels, rows: Sequence[Mapping[str, Any]], *, anonymize: bool = False
) -> bytes:
    """Draw boxes and labels into a copy of an image.

    ``anonymize`` pixelates the ellipse around each box to 4x4 smoothed cells, which show that a
    head is there, but not whose. An image that was taken in full (``crop: none``) is pixelated
    completely, because the position of its face is unknown. A face that was not detected is not
    pixelated.

    Args:
        pixels: ``uint8 [H, W, 3]``, RGB, upright; may be smaller than the rows say: boxes are
            scaled.
        rows: all rows of the image, as in the details file. A row without a box is ignored.
        anonymize: pixelate the faces.

    Returns:
        The content of a JPEG file.
    """
    boxes = [(_scale_box(pixels, row), row) for row in rows if row.get("box") is not None]
    if anonymize:
        pixels = pixels.copy()
        for box, row in boxes:
            _pixelate(pixels, None if row.get("crop") == "none" else box)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for box, row in reversed(boxes):  # the main face is drawn last, on top
        _draw_box(draw, box, row)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)  # keeps the colors of lines
    return file.getvalue()


def annotate_file(
    source: Path | bytes,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    anonymize: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
) -> Path:
    """Read an image and write its annotated copy.

    Args:
        source: the image file, or its content.
        rows: all rows of the image.
        folder: folder of the copies.
        anonymize: pixelate the faces; see :func:`annotate`.
        limits: maximum size of the image.

    Returns:
        The path of the copy; see :func:`write_annotated_copy`.

    Raises:
        UnreadableImageError: the image cannot be read any more.
        OutputError: the copy cannot be written.
    """
    data = source if isinstance(source, bytes) else read_image_file(source, limits)
    if data is None:
        raise UnreadableImageError("not an image by name and content")
    copy = annotate(decode(data, limits), rows, anonymize=anonymize)
    return write_annotated_copy(folder, str(rows[0]["file"]), copy)


def write_annotated_copy(folder: Path, file: str, data: bytes) -> Path:
    """Write the copy of one image atomically, in the same subfolder as the image.

    ``.jpg`` is appended to the full name, so that ``a.png`` and ``a.jpg`` have different copies.
    Different names never have the same copy, and none leads out of the folder: ``..``, and
    characters that some systems do not allow in names, are percent-encoded (``%2E%2E``).

    Args:
        folder: folder of the copies; it and its subfolders are created.
        file: the image's name in its row, with ``/`` between folders.
        data: the content of a JPEG file.

    Returns:
        The path of the copy. An earlier copy of the same image is replaced.

    Raises:
        OutputError: it cannot be written, or a link in the folder leads out of it.
    """
    path = folder.joinpath(*_safe_parts(file))
    temporary = path.with_name(f"{OWN_FILE_PREFIX}{secrets.token_hex(6)}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        root = folder.resolve()
        _make_subfolders(root, path.relative_to(folder).parts[:-1])
        if path.is_symlink():
            raise OutputError(f"Cannot write {path}: it is a link. Remove it or use a new folder")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
    return path


def _make_subfolders(root: Path, parts: Iterable[str]) -> None:
    """Create nested folders one by one, refusing a link that leads out of ``root``."""
    inside = root
    for part in parts:
        inside = inside / part
        inside.mkdir(exist_ok=True)
        if not inside.resolve().is_relative_to(root):
            raise OutputError(
                f"Cannot write into {inside}: a link leads out of {root}. Remove the link or use a "
                "new folder"
            )


def _safe_parts(file: str) -> list[str]:
    """Return the folders and the name of a copy; different names give different results.

    Unsafe characters, and a ``%`` before two hex digits, are percent-encoded, so the name could be
    decoded again. A name too long for a file system is shortened and ends in its digest.
    """
    *folders, name = file.split("/")
    parts = [_UNSAFE_FOLDER_END.sub(_percent_encode, _safe_name(part)) for part in folders]
    return [*parts, _safe_name(name) + ".jpg"]


def _safe_name(part: str) -> str:
    if part in ("", ".", ".."):
        return {"": "%2F", ".": "%2E", "..": "%2E%2E"}[part]
    safe = _UNSAFE_CHARACTERS.sub(_percent_encode, part)
    if _WINDOWS_DEVICES.match(safe):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    if len(encoded := os.fsencode(safe)) > _MAX_NAME_BYTES:
        start = encoded[: _MAX_NAME_BYTES - 33].decode("utf-8", "ignore")
        safe = f"{start}~{hashlib.sha256(encoded).hexdigest()[:32]}"
    return safe


def _percent_encode(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


_Corners: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _scale_box(pixels: Pixels, row: Mapping[str, Any]) -> _Corners:
    """Return the corners of a row's box at the scale of the pixels."""
    height, width = pixels.shape[:2]
    scale_x, scale_y = width / (row.get("width") or width), height / (row.get("height") or height)
    box = row["box"]
    return (
        box["x"] * scale_x,
        box["y"] * scale_y,
        (box["x"] + box["width"]) * scale_x,
        (box["y"] + box["height"]) * scale_y,
    )


def _pixelate(pixels: Pixels, box: _Corners | None) -> None:
    """Pixelate the ellipse around a box, in place; the full image for None."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    radius_x, radius_y = (right - left) / 2 * _ELLIPSE_SCALE, (bottom - top) / 2 * _ELLIPSE_SCALE
    center_x, center_y = (left + right) / 2, (top + bottom) / 2
    first_x, last_x = max(0, int(center_x - radius_x)), min(width, int(center_x + radius_x) + 1)
    first_y, last_y = max(0, int(center_y - radius_y)), min(height, int(center_y + radius_y) + 1)
    if first_x >= last_x or first_y >= last_y:
        return
    region = pixels[first_y:last_y, first_x:last_x]
    rows, columns = region.shape[:2]
    cells = Resize(min(_PIXELATED_CELLS, rows), min(_PIXELATED_CELLS, columns), "box")
    smoothed = resize(resize(np.ascontiguousarray(region), cells), Resize(rows, columns, "bicubic"))
    y, x = np.ogrid[first_y:last_y, first_x:last_x]
    distance = ((x + 0.5 - center_x) / radius_x) ** 2 + ((y + 0.5 - center_y) / radius_y) ** 2
    is_inside = np.ones_like(distance, bool) if box is None else distance <= 1.0
    region[is_inside] = smoothed[is_inside]


def _draw_box(draw: ImageDraw.ImageDraw, box: _Corners, row: Mapping[str, Any]) -> None:
    """Draw one box with its label above it, or inside if there is no room above."""
    width, height = draw.im.size
    line = max(2, round(max(width, height) / 350))
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(width - 1.0, box[2]), min(height - 1.0, box[3])
    if left >= right or top >= bottom:
        return
    label = str(row.get("label")) if row.get("status") == "ok" else ""
    color = COLORS.get(label, _UNKNOWN_COLOR)
    # A white edge keeps the box visible on an image of the same color.
    draw.rectangle((left, top, right, bottom), outline="white", width=line + line // 2)
    draw.rectangle((left, top, right, bottom), outline=color, width=line)

    text = _label_text(row)
    size = min(max(width, height) / 40, max(max(width, height) / 80, (right - left) / 6))
    size = max(10.0, size)
    pad = max(2, line)
    while True:
        font = ImageFont.load_default(size)
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        if x1 - x0 + 2 * pad <= width or size <= 6:
            break
        size *= 0.9
    text_width, text_height = x1 - x0 + 2 * pad, y1 - y0 + 2 * pad
    x = max(0.0, min(left, width - text_width))
    y = top - text_height if top >= text_height else top
    draw.rectangle((x, y, x + text_width, y + text_height), fill=color)
    draw.text((x + pad - x0, y + pad - y0), text, fill="white", font=font)


def _label_text(row: Mapping[str, Any]) -> str:
    """Return label and probability of a row; ``?`` marks a label below the threshold."""
    label, probability = row.get("label"), row.get("probability")
    text = str(label or row.get("status"))
    if label and row.get("status") != "ok":
        text += "?"
    return text if probability is None else f"{text} {100 * probability:.1f} %"
