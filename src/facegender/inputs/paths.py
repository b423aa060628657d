"""What a person names -> the pictures in it: folders, files, archives, lists, globs, ``-``.

Nothing is opened here but to see what it is; archives are read front to back and never unpacked.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from facegender.errors import InputError
from facegender.files import OWN_FILE_PREFIX, natural_sort
from facegender.images.formats import (
    DEFAULT_IMAGE_LIMITS,
    ImageLimits,
    is_apple_double,
    looks_like_image,
)
from facegender.inputs.archives import FOLDER, Member, list_members, looks_like_archive, read_member

_LISTS = (".txt", ".lst", ".list")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that may be a picture.

    Attributes:
        key: its name in the results.
        identity: what tells it from every other file, whatever its key: its absolute path, or its
            archive's with that archive's size and time and the place in it.
        path: where it lies on the disk; None within an archive.
        data: its content, within an archive; empty where there is a problem.
        size: in bytes; with ``modified`` it tells whether the file is still the same.
        modified: its time in nanoseconds; in an archive what the archive says of it.
        problem: why it cannot be read, or empty.
        is_picture: False where it is no picture by name and content and was not read.
    """

    key: str
    identity: str = ""
    path: Path | None = None
    data: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    problem: str = ""
    is_image: bool = True


@dataclass(frozen=True, slots=True)
class Folder:
    """Names of files in a folder, relative to it; their keys begin with ``prefix``.

    ``is_list`` where they were named one by one.
    """

    root: Path
    names: Sequence[str]
    prefix: str = ""
    is_list: bool = False

    def __iter__(self) -> Iterator[InputFile]:
        """Give the files in order, each with the state that it has now."""
        root = os.path.abspath(self.root)  # noqa: PTH100  (links stay as they are named)
        for name in self.names:
            key = self.prefix + name
            if name.endswith("/"):
                yield InputFile(key, problem="the folder cannot be listed")
                continue
            path = self.root / name
            identity = os.path.join(root, name)  # noqa: PTH118  (a name may be absolute)
            try:
                found = path.stat()
                yield InputFile(key, identity, path, b"", found.st_size, found.st_mtime_ns)
            except (OSError, ValueError):  # the reader says what is wrong with it
                yield InputFile(key, identity, path)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar or zip; the keys of its members begin with ``prefix``."""

    path: Path
    prefix: str = ""
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS

    def __iter__(self) -> Iterator[InputFile]:
        """Give the members in the archive's order; where it is damaged, an item that says so."""
        found = self.path.stat()
        place = os.path.abspath(self.path)  # noqa: PTH100
        state = f"{place} {found.st_size} {found.st_mtime_ns}"
        members = list_members(str(self.path), self.path)
        return archive_items(str(self.path), members, state, self.prefix, self.limits)


def archive_items(
    archive: str,
    members: Iterable[Member],
    state: str,
    prefix: str = "",
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
) -> Iterator[InputFile]:
    """Give the members of an archive, wherever it lies; where it is damaged, an item that says so.

    Args:
        archive: what it is called.
        members: what is in it.
        state: tells it from every other archive and from its own earlier states.
        prefix: the members' keys begin with it.
        limits: what a member may cost.
    """
    try:
        for number, member in enumerate(members):
            key = prefix + member.name.removeprefix("./")
            if member.problem == FOLDER:
                continue
            if member.problem:
                yield InputFile(key, problem=f"is {member.problem} in an archive")
            elif member.size > limits.bytes:
                yield InputFile(key, problem=over_limit(member.size, limits))
            else:
                data = read_member(archive, member)
                is_image = is_image_file(member.name, data)
                kept = data if is_image else b""
                known = (f"{number} in {state}", None, kept, member.size, member.mtime_ns)
                yield InputFile(key, *known, is_image=is_image)
    except InputError as error:
        yield InputFile(prefix or f"{Path(archive).name}/", problem=str(error))


def is_image_file(name: str, data: bytes) -> bool:
    """Tell whether a file claims to be a picture, by its name and its first 16 bytes or more."""
    return looks_like_image(name, data[:16]) and not is_apple_double(
        PurePosixPath(name).name, data[:16]
    )


def over_limit(size: int, limits: ImageLimits) -> str:
    """Say why a file of this many bytes is not read."""
    return f"{size:,} bytes are over the limit of {limits.bytes:,}"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that was named, in order. May be iterated again.

    ``lists`` are the files that named some of them.
    """

    sources: tuple[Folder | Archive, ...]
    lists: tuple[Path, ...] = ()

    @property
    def total(self) -> int | None:
        """How many files there are; None where an archive will tell only at its end."""
        if any(isinstance(part, Archive) for part in self.sources):
            return None
        return sum(len(part.names) for part in self.sources if isinstance(part, Folder))

    def __iter__(self) -> Iterator[InputFile]:
        """Give the files, one after the other."""
        return chain.from_iterable(self.sources)

    def files(self) -> Iterator[Path]:
        """Name the archives and lists that are read."""
        yield from self.lists
        yield from (part.path for part in self.sources if isinstance(part, Archive))

    def folders(self) -> set[Path]:
        """Name the folders that pictures are read from."""
        folders = [part for part in self.sources if isinstance(part, Folder)]
        named = {os.path.dirname(name) for part in folders if part.is_list for name in part.names}  # noqa: PTH120
        return {part.root for part in folders if not part.is_list} | set(map(Path, named))


def collect_inputs(
    names: Sequence[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
    listed: BinaryIO | None = None,
) -> Inputs:
    """Find the pictures behind what a person named.

    Args:
        names: folders, picture files, archives (tar, also packed, and zip), text lists (``.txt``,
            ``.lst``, ``.list``: a name a line), patterns with ``*``, or ``-`` for a list on
            standard input. The keys of a single folder or archive are the paths inside it; of
            several they begin with its name as given, so that none stands for two. A file's key
            is its path as given.
        recursive: also what is in the folders' folders (links to folders are not followed).
        limits: what a file in an archive may cost.
        listed: where ``-`` reads from; standard input by default.

    Raises:
        InputError: one of them is not there, cannot be listed, or a pattern fits nothing.
    """
    expanded = chain.from_iterable(_expanded(os.fspath(name)) for name in names)
    given = list({os.path.normpath(name): name for name in expanded}.values())
    is_single = len(given) == 1
    sources: list[Folder | Archive] = []
    files: list[str] = []
    lists: list[Path] = []
    folders = {os.path.abspath(name) for name in given if Path(name).is_dir()}  # noqa: PTH100
    for name in given:
        path = Path(name)
        prefix = "" if is_single else f"{path.as_posix()}/"
        above = _parents(name) if recursive or not path.is_dir() else []
        if name == "-":
            files += _lines(_standard_input() if listed is None else listed.read())
        elif folders.intersection(above if recursive else above[:1]):
            continue  # it comes with its folder
        elif path.is_dir():
            sources.append(Folder(path, list_files(path, recursive=recursive), prefix))
        elif not os.path.lexists(path):
            raise InputError(_why_nothing(path))
        elif path.is_file() and _is_archive(path):
            sources.append(Archive(path, prefix, limits))
        elif path.is_file() and is_list(path):
            lists.append(path)
            files += _lines(path.read_bytes())
        else:
            files.append(name)
    if files:
        sources.append(Folder(Path(), _once(natural_sort(files)), is_list=True))
    return Inputs(tuple(sources), tuple(lists))


def list_files(folder: Path, *, recursive: bool = False) -> list[str]:
    """List what may be a picture in a folder: all but folders, in natural order.

    Returns:
        Names, or paths inside ``folder`` with ``/`` between. A folder inside that cannot be
        listed is named too, with a ``/`` at the end, and gets a row that says so.

    Raises:
        InputError: the folder is not there or cannot be listed.
    """
    names: list[str] = []
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif not entry.name.startswith(OWN_FILE_PREFIX) and not _leads_to_folder(entry):
                        names.append(name)
        except OSError as error:
            if not inside:
                raise InputError(_why_no_folder(folder, error)) from error
            names.append(f"{inside}/")
        if not recursive:
            break
    return natural_sort(names)


def _expanded(name: str) -> Iterable[str]:
    """Expand a pattern that no shell did (Windows'), unless a file is really called so."""
    if not has_magic(name) or os.path.lexists(name):
        return (name,)
    if not (found := glob(name, recursive=True)):  # noqa: PTH207  (a pattern with any root)
        raise InputError(f"nothing fits the pattern {name}. Look at the folder's name and suffix")
    return natural_sort(found)


def _parents(name: str) -> list[str]:
    """Give the folders that a file or folder lies in, the nearest first."""
    return [str(folder) for folder in Path(os.path.abspath(name)).parents]  # noqa: PTH100


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise InputError("'-' reads names from standard input, which is closed")
    return sys.stdin.buffer.read()


def _lines(text: bytes) -> list[str]:
    """Read a list of files of this machine."""
    return [Path(name).as_posix() for name in read_list(text)]


def read_list(text: bytes) -> list[str]:
    """Read a list of names: a line each, or between zero bytes as ``find -print0`` gives them."""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # PowerShell's
        text = text.decode("utf-16", "replace").encode()
    text = text.removeprefix(codecs.BOM_UTF8)
    separator = b"\0" if b"\0" in text else b"\n"
    lines = (line.removesuffix(b"\r") for line in text.split(separator))
    return [os.fsdecode(line) for line in lines if line.strip()]


def _once(names: list[str]) -> list[str]:
    """Leave out names that stand twice; equal ones are neighbours."""
    return [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return looks_like_archive(file.read(512))
    except OSError:
        return False  # the reader says what is wrong with it


def is_list(path: Path) -> bool:
    """Tell whether a file is a list of names: by its suffix, and because it is no picture."""
    if path.suffix.lower() not in _LISTS:
        return False
    try:
        with path.open("rb") as file:
            return not looks_like_image(path.stem, file.read(16))
    except OSError:
        return False


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether a link leads to a folder; one to nothing or in a circle does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _why_nothing(path: Path) -> str:
    return (
        f"{path} is not there. Give a folder with pictures in it, a picture, an archive or a list"
    )


def _why_no_folder(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the folder {folder} is not there. Give a folder with pictures in it"
    if isinstance(error, NotADirectoryError):
        return f"{folder} is not a folder. Give a folder with pictures in it"
    return f"cannot list the folder {folder}: {error.strerror or error}"
