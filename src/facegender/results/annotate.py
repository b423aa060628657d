"""Copies of pictures with the answers drawn into them, and faces hidden where that is wanted.

A copy is made from pixels alone: it carries no EXIF, no place, no embedded small picture.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegender.errors import OutputError, UnreadableImageError
from facegender.images.decode import decode
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits, read_image_file
from facegender.images.pixels import Pixels, Resize, resize

COLORS = {"female": "#7b3fb5", "male": "#00766c"}
"""Of boxes and labels; the report uses the same. White text on either has a contrast over 5."""

_NO_LABEL = "#5a5f66"
_HIDDEN_CELLS = 4  # averages left of a hidden face, across and down
_HIDDEN_AROUND = 1.1 * 2**0.5  # an ellipse through the box's corners, and a tenth more
_QUALITY = 90

_NAME_BYTES = 240  # file systems take 255; room for what is added
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f<>:"\\|?*]|%(?=[0-9A-Fa-f]{2})')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)")
_AT_FOLDER_END = re.compile(r"(?i)[. ]$|\.(?=jpg$)")


def annotate(
    pixels: Pixels, rows: Sequence[Mapping[str, Any]], *, anonymize: bool = False
) -> bytes:
    """Draw the boxes and answers of a picture's rows into a copy of it.

    With ``blur`` all that is left of the ellipse around each box are 16 averages, smoothed, which
    show that a head is there and not whose; the box is still drawn. A picture that was taken whole
    (``crop: whole``) is hidden whole, for nothing says where its face is. A face that was not
    found stays as it is.

    Args:
        pixels: ``uint8 [H, W, 3]``, RGB, upright; may be smaller than the rows say (boxes follow).
        rows: all rows of the picture, in the form of the details file. Those without a box draw
            nothing.
        anonymize: hide the faces.

    Returns:
        The bytes of a JPEG file.
    """
    boxes = [(_box_in(pixels, row), row) for row in rows if row.get("box") is not None]
    if anonymize:
        pixels = pixels.copy()
        for box, row in boxes:
            _pixelate(pixels, None if row.get("crop") == "whole" else box)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for box, row in reversed(boxes):  # the first face lies on top
        _draw_box(draw, box, row)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0)  # lines keep their colour
    return file.getvalue()


def annotate_file(
    source: Path | bytes,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    anonymize: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
) -> Path:
    """Read a picture again and write its copy; see :func:`annotate` and :func:`write_annotated_copy`.

    Args:
        source: its file, or the file's content.
        rows: all rows of the picture.
        folder: where to.
        anonymize: hide the faces.
        limits: what the picture may cost.

    Raises:
        UnreadableImageError: it cannot be read any more.
        OutputError: the copy cannot be written.
    """
    data = source if isinstance(source, bytes) else read_image_file(source, limits)
    if data is None:
        raise UnreadableImageError("is no picture by its name and content")
    copy = annotate(decode(data, limits), rows, anonymize=anonymize)
    return write_annotated_copy(folder, str(rows[0]["file"]), copy)


def write_annotated_copy(folder: Path, file: str, data: bytes) -> Path:
    """Write the copy of one picture, whole or not at all, and keep its sub-folders.

    ``.jpg`` is added to the whole name, so that ``a.png`` and ``a.jpg`` have copies of their own.
    No two names share a copy, and none leads out of the folder: steps such as ``..``, and
    characters that some systems refuse in names, are written ``%2E%2E``.

    Args:
        folder: where to; it and the folders inside are made where they are missing.
        file: the picture's name as in its row, with ``/`` between folders.
        data: the bytes of a JPEG file.

    Returns:
        Where the copy is. An older copy of the same picture is replaced.

    Raises:
        OutputError: it cannot be written there, or a link inside the folder leads out of it.
    """
    path = folder.joinpath(*_safe_parts(file))
    temporary = path.with_name(f".facegender-{secrets.token_hex(6)}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        root = folder.resolve()
        _make_folders(root, path.relative_to(folder).parts[:-1])
        if path.is_symlink():
            raise OutputError(f"cannot write {path}: it is a link. Remove it or name a new folder")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _make_folders(root: Path, parts: Iterable[str]) -> None:
    """Make the folders inside ``root`` one by one, and follow no link that leads out of it."""
    inside = root
    for part in parts:
        inside = inside / part
        inside.mkdir(exist_ok=True)
        if not inside.resolve().is_relative_to(root):
            raise OutputError(
                f"cannot write into {inside}: a link there leads out of {root}. Remove the link "
                "or name a new folder"
            )


def _safe_parts(file: str) -> list[str]:
    """Give the folders and the name of a copy; different names never give the same.

    Only what is written with ``%`` and two digits differs from the name, and a name's own ``%``
    before two digits is written ``%25``, so the name could be read back (but for one that is too
    long for a file system, which ends in a digest of itself).
    """
    *folders, name = file.split("/")
    parts = [_AT_FOLDER_END.sub(_escaped, _safe_name(part)) for part in folders]
    return [*parts, _safe_name(name) + ".jpg"]


def _safe_name(part: str) -> str:
    if part in ("", ".", ".."):
        return {"": "%2F", ".": "%2E", "..": "%2E%2E"}[part]
    safe = _NOT_IN_NAMES.sub(_escaped, part)
    if _DEVICES.match(safe):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    if len(encoded := os.fsencode(safe)) > _NAME_BYTES:
        kept = encoded[: _NAME_BYTES - 33].decode("utf-8", "ignore")
        safe = f"{kept}~{hashlib.sha256(encoded).hexdigest()[:32]}"
    return safe


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def _box_in(pixels: Pixels, row: Mapping[str, Any]) -> _Box:
    """Bring a row's box to the scale of the pixels."""
    height, width = pixels.shape[:2]
    across, down = width / (row.get("width") or width), height / (row.get("height") or height)
    box = row["box"]
    return (
        box["x"] * across,
        box["y"] * down,
        (box["x"] + box["width"]) * across,
        (box["y"] + box["height"]) * down,
    )


def _pixelate(pixels: Pixels, box: _Box | None) -> None:
    """Leave only a few averages of the ellipse around a box, in place; of all where it is None."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    across, down = ((right - left) / 2 * _HIDDEN_AROUND, (bottom - top) / 2 * _HIDDEN_AROUND)
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    first_x, last_x = max(0, int(middle_x - across)), min(width, int(middle_x + across) + 1)
    first_y, last_y = max(0, int(middle_y - down)), min(height, int(middle_y + down) + 1)
    if first_x >= last_x or first_y >= last_y:
        return
    part = pixels[first_y:last_y, first_x:last_x]
    full = Resize(part.shape[0], part.shape[1], "bicubic")
    cells = Resize(min(_HIDDEN_CELLS, part.shape[0]), min(_HIDDEN_CELLS, part.shape[1]), "box")
    hidden = resize(resize(np.ascontiguousarray(part), cells), full)
    y, x = np.ogrid[first_y:last_y, first_x:last_x]
    aside = ((x + 0.5 - middle_x) / across) ** 2 + ((y + 0.5 - middle_y) / down) ** 2
    is_hidden = np.ones_like(aside, bool) if box is None else aside <= 1.0
    part[is_hidden] = hidden[is_hidden]


def _draw_box(draw: ImageDraw.ImageDraw, box: _Box, row: Mapping[str, Any]) -> None:
    """Draw one box with its answer above it, or inside where there is no room above."""
    width, height = draw.im.size
    line = max(2, round(max(width, height) / 350))
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(width - 1.0, box[2]), min(height - 1.0, box[3])
    if left >= right or top >= bottom:
        return
    is_known = row.get("status") == "ok"
    color = COLORS.get(str(row.get("label")), _NO_LABEL) if is_known else _NO_LABEL
    # A white edge keeps the box visible on a picture of its own colour.
    draw.rectangle((left, top, right, bottom), outline="white", width=line + line // 2)
    draw.rectangle((left, top, right, bottom), outline=color, width=line)

    text = _answer(row)
    size = min(max(width, height) / 40, max(max(width, height) / 80, (right - left) / 6))
    size = max(10.0, size)
    pad = max(2, line)
    while True:
        font = ImageFont.load_default(size)
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        if x1 - x0 + 2 * pad <= width or size <= 6:
            break
        size *= 0.9
    wide, high = x1 - x0 + 2 * pad, y1 - y0 + 2 * pad
    x = max(0.0, min(left, width - wide))
    y = top - high if top >= high else top
    draw.rectangle((x, y, x + wide, y + high), fill=color)
    draw.text((x + pad - x0, y + pad - y0), text, fill="white", font=font)


def _answer(row: Mapping[str, Any]) -> str:
    """Say a row's answer in a few characters; a guess below the threshold ends in a mark."""
    label, probability = row.get("label"), row.get("probability")
    said = str(label or row.get("status"))
    if label and row.get("status") != "ok":
        said += "?"
    return said if probability is None else f"{said} {100 * probability:.1f} %"
