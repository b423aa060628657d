"""Animations and files of several pages: the first frame that shows something."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

MAX_FRAMES = 16
"""Maximum number of frames that are looked at."""


def first_shown(first: Image.Image, frame: Callable[[int], Image.Image | None]) -> Image.Image:
    """Return the first frame that is neither transparent nor of one color.

    Args:
        first: the first frame, decoded.
        frame: decodes the frame of an index from 1; None after the last one.

    Returns:
        ``first`` if it shows something, or if none of the first :data:`MAX_FRAMES` frames does.
    """
    current: Image.Image | None = first
    number = 0
    while current is not None and is_blank(current):
        number += 1
        try:
            current = frame(number) if number < MAX_FRAMES else None
        except Exception:  # a damaged frame ends the search: the first one is complete
            current = None
    return first if current is None else current


def is_blank(image: Image.Image) -> bool:
    """Tell whether an image is fully transparent, or of one color where it is not."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema()[1] == 0:
            return True
        shown = Image.new("RGB", image.size, (255, 255, 255))
        shown.paste(rgba, mask=alpha)
        return _is_flat(shown)
    return _is_flat(image.convert("RGB") if image.mode == "P" else image)


def _is_flat(image: Image.Image) -> bool:
    return all(low == high for low, high in (band.getextrema() for band in image.split()))
