"""Files written whole or not at all, JSON, checks of output paths, natural sort."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from os.path import realpath
from pathlib import Path
from typing import Any, TextIO

from natsort import natsorted

from facegender.errors import OutputError, UnreadableImageError
from facegender.images.formats import read_image_file


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sort names as people do, ``2.jpg`` before ``10.jpg``; the same on every machine."""
    return list(natsorted(sorted(names)))


def check_output_path(path: Path) -> None:
    """Say now what would go wrong when ``path`` is written later; leave nothing behind.

    Raises:
        OutputError: its folder is missing or cannot be written to, or it is no regular file.
    """
    folder = path.parent
    try:
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {path}: the folder {folder} is not there. Create it first"
            )
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file")
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is not a regular file")
        if path.is_file() and _is_image(path):
            raise OutputError(f"cannot write {path}: it is a picture and would be lost")
        temporary, file = _create_beside(path)
        file.close()
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def remove_temporary_files(path: Path) -> None:
    """Remove what a killed run left beside ``path``; only while no other run may write it."""
    place = Path(realpath(path))
    for left in place.parent.glob(f".facegender-{escape(place.name)}-*.tmp"):
        left.unlink(missing_ok=True)


def check_distinct_paths(paths: Mapping[str, Path | None]) -> None:
    """Refuse two options that name one file, for one would be written over the other.

    Raises:
        OutputError: two of them are the same file.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (other := seen.setdefault(realpath(path), option)) != option:
            raise OutputError(f"{other} and {option} are the same file, {path}. Name two files")


def _is_image(path: Path) -> bool:
    try:
        return read_image_file(path) is not None
    except UnreadableImageError:
        return False


@contextmanager
def atomic_write(path: Path, errors: str = "backslashreplace") -> Iterator[TextIO]:
    """Give a text file that becomes ``path`` at a clean end; its ``buffer`` takes bytes.

    ``errors`` is what happens to lone surrogates in names. The file stands under a temporary name
    beside its place until then, and vanishes at any other end.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        temporary, file = _create_beside(path, errors)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with file:
            yield file
        temporary.replace(realpath(path))  # through a link: its target is replaced, not the link
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create_beside(path: Path, errors: str = "backslashreplace") -> tuple[Path, TextIO]:
    """Create a hidden temporary file in the folder of ``path`` (of its target, for a link)."""
    place = Path(realpath(path))
    temporary = place.with_name(f".facegender-{place.name}-{secrets.token_hex(6)}.tmp")
    # backslashreplace turns lone surrogates into \udcxx, which JSON reads back as they were.
    file = temporary.open("x", encoding="utf-8", errors=errors, newline="\n")
    return temporary, file


_NUMBERS = re.compile(r"\[\n\s*(-?[\d.][^\[\]{}\"]*?)\n\s*\]")


def write_json(path: Path, values: Any) -> None:
    """Write JSON for people, lists of numbers on one line, whole or not at all."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        # a line break is only ever between values: in a text it is written as \n
        file.write(_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


OWN_FILE_PREFIX = ".facegender-"
"""How the names of our own files begin; they are no input."""
