"""Atomic file writing, JSON, checks of output paths, natural sort."""

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

OWN_FILE_PREFIX = ".facegender-"
"""Prefix of the names of temporary files and journals; such files are never inputs."""

_NUMBER_LIST = re.compile(r"\[\n\s*(-?[\d.][^\[\]{}\"]*?)\n\s*\]")


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sort names as people do, ``2.jpg`` before ``10.jpg``; the same on every machine."""
    return list(natsorted(sorted(names)))


def check_output_path(path: Path) -> None:
    """Check that ``path`` can be written later; leaves nothing behind.

    Raises:
        OutputError: the folder is missing or not writable, or ``path`` is a folder, an image or
            not a regular file.
    """
    folder = path.parent
    try:
        if not folder.is_dir():
            raise OutputError(f"Cannot write {path}: folder not found: {folder}. Create it first")
        if path.is_dir():
            raise OutputError(f"Cannot write {path}: it is a folder. Give a file name")
        if path.exists() and not path.is_file():
            raise OutputError(f"Cannot write {path}: it is not a regular file")
        if path.is_file() and _is_image(path):
            raise OutputError(
                f"Cannot write {path}: it is an image and would be overwritten. Give another name"
            )
        temporary, file = _create_temporary(path)
        file.close()
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error


def _is_image(path: Path) -> bool:
    try:
        return read_image_file(path) is not None
    except UnreadableImageError:
        return False


def check_distinct_paths(paths: Mapping[str, Path | None]) -> None:
    """Check that no two options name the same file, where one would overwrite the other.

    Args:
        paths: each option or input with its path; None is ignored.

    Raises:
        OutputError: two of them are the same file.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (other := seen.setdefault(realpath(path), option)) != option:
            raise OutputError(f"{other} and {option} are the same file, {path}. Use two files")


def remove_temporary_files(path: Path) -> None:
    """Remove temporary files that a killed run left beside ``path``.

    Call it only while no other run can be writing ``path``.
    """
    target = Path(realpath(path))
    for file in target.parent.glob(f"{OWN_FILE_PREFIX}{escape(target.name)}-*.tmp"):
        file.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, errors: str = "backslashreplace") -> Iterator[TextIO]:
    """Open a UTF-8 text file that replaces ``path`` when the block ends without an error.

    The file has a temporary name in the same folder until then, and is removed after an error.
    Its ``buffer`` takes bytes.

    Args:
        path: the file to write; of a link, its target is replaced.
        errors: how lone surrogates in file names are encoded, as in :func:`open`.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        temporary, file = _create_temporary(path, errors)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
    try:
        with file:
            yield file
        temporary.replace(realpath(path))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create_temporary(path: Path, errors: str = "backslashreplace") -> tuple[Path, TextIO]:
    """Create a hidden temporary file in the folder of ``path`` (of its target, for a link)."""
    target = Path(realpath(path))
    name = f"{OWN_FILE_PREFIX}{target.name}-{secrets.token_hex(6)}.tmp"
    temporary = target.with_name(name)
    # backslashreplace writes a lone surrogate as \udcxx, which JSON reads back unchanged
    file = temporary.open("x", encoding="utf-8", errors=errors, newline="\n")
    return temporary, file


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON atomically, with each list of numbers on one line.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        # JSON writes a line break inside a string as \n, so only breaks between values match
        file.write(_NUMBER_LIST.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n")
