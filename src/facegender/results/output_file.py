"""Output files: written atomically, and directly where the path is standard output or a pipe."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO, cast

from facegender.errors import OutputError
from facegender.files import atomic_write

_STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def is_standard_output(path: Path) -> bool:
    """Tell whether a path means standard output: ``-``, ``/dev/stdout`` or ``/dev/fd/1``."""
    return str(path) in _STANDARD_OUTPUT


def is_stream(path: Path) -> bool:
    """Tell whether a path is standard output, an open descriptor, a pipe or a character device.

    It is written directly: it cannot be replaced by renaming, and nothing can be kept beside it.
    """
    if is_standard_output(path) or _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def open_output(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for the results of a run; its ``buffer`` takes bytes.

    A regular file appears, or replaces an earlier one, when the block ends without an error. A
    stream (see :func:`is_stream`) gets the text as it is written; a pipe is opened when something
    reads it.

    Raises:
        OutputError: it cannot be written.
    """
    if not is_stream(path):
        with atomic_write(path) as file:
            yield file
        return
    try:
        if is_standard_output(path):
            with _standard_output() as file:
                yield file
        else:
            descriptor = _descriptor(path)
            target = path if descriptor is None else os.dup(descriptor)
            binary = open(target, "wb")  # noqa: PTH123, SIM115  (closed with the text file)
            with _to_text(binary) as file:
                yield file
    except BrokenPipeError as error:
        raise OutputError(f"Cannot write {path}: its reader has closed it") from error
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error


def _descriptor(path: Path) -> int | None:
    """Return N for ``/dev/fd/N``, and 2 for ``/dev/stderr``."""
    if str(path) == "/dev/stderr":
        return 2
    match = _DESCRIPTOR.fullmatch(str(path))
    return None if match is None else int(match[1])


def _to_text(binary: IO[bytes]) -> io.TextIOWrapper:
    # backslashreplace writes a lone surrogate as \udcxx, which JSON reads back unchanged
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def _standard_output() -> Iterator[TextIO]:
    """Yield standard output as UTF-8, whatever its own encoding is; it stays open."""
    stream = sys.stdout
    if stream is None:
        raise OutputError("Cannot write to standard output: it is closed")
    binary = getattr(stream, "buffer", None)
    if binary is None:  # replaced by the caller, in a notebook say
        yield stream
        stream.flush()
        return
    stream.flush()
    text = _to_text(cast("IO[bytes]", binary))
    try:
        yield text
        text.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # else Python reports the rest at exit once more
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        raise
    finally:
        with suppress(OSError):  # what cannot be flushed has raised above
            text.detach()
