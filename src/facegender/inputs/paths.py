"""Collect the files behind what the user names: folders, files, archives, lists, patterns, ``-``.

Files are opened only to detect what they are; archives are read front to back, never unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import escape, glob, has_magic
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from facegender.errors import InputError
from facegender.files import OWN_FILE_PREFIX, natural_sort
from facegender.images.formats import (
    DEFAULT_IMAGE_LIMITS,
    HEAD_BYTES,
    ImageLimits,
    looks_like_archive,
    looks_like_image,
)
from facegender.inputs.exclusions import is_excluded
from facegender.inputs.lists import is_list, read_list_file, read_standard_input
from facegender.inputs.sources import Archive, Folder, InputFile

MAX_ENTRIES_COUNTED = 50_000
"""Maximum number of files and folders that are looked at in subfolders that are not included."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All files behind what the user named, in order. Can be iterated more than once.

    Attributes:
        sources: folders and archives.
        lists: the text lists that named some of the files.
        is_recursive: subfolders are included.
        exclude: patterns of files and folders that are left out.
    """

    sources: tuple[Folder | Archive, ...]
    lists: tuple[Path, ...] = ()
    is_recursive: bool = False
    exclude: tuple[str, ...] = ()

    @property
    def total(self) -> int | None:
        """Number of files; None if there is an archive, whose number is unknown."""
        if any(isinstance(source, Archive) for source in self.sources):
            return None
        return sum(len(source.names) for source in self.sources if isinstance(source, Folder))

    def __iter__(self) -> Iterator[InputFile]:
        """Yield the files of all sources."""
        return chain.from_iterable(self.sources)

    def files(self) -> Iterator[Path]:
        """Yield the archives and lists that are read."""
        yield from self.lists
        yield from (source.path for source in self.sources if isinstance(source, Archive))

    def folders(self) -> set[Path]:
        """Return the folders that images are read from."""
        folders = [source for source in self.sources if isinstance(source, Folder)]
        listed = {os.path.dirname(name) for each in folders if each.is_list for name in each.names}  # noqa: PTH120
        return {each.root for each in folders if not each.is_list} | set(map(Path, listed))

    def count_in_subfolders(self, limit: int) -> int:
        """Count the images, by suffix, in subfolders that are not included.

        Args:
            limit: where counting ends. It also ends after :data:`MAX_ENTRIES_COUNTED` files and
                folders, so that it takes less than a second.
        """
        if self.is_recursive:
            return 0
        roots = [each.root for each in self.sources if isinstance(each, Folder) if not each.is_list]
        named = {os.path.abspath(root) for root in roots}  # noqa: PTH100
        names = chain.from_iterable(_walk_subfolders(root, self.exclude, named) for root in roots)
        looked_at = islice(names, MAX_ENTRIES_COUNTED)
        images = (name for name in looked_at if looks_like_image(name, b""))
        return sum(1 for _ in islice(images, limit))


def collect_inputs(
    names: Sequence[str | os.PathLike[str]],
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    exclude: Sequence[str] = (),
    recursive: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
    stdin: BinaryIO | None = None,
) -> Inputs:
    """Find the files behind what the user named.

    The key of a file is its path as given; of a file in a single folder or archive, its path
    inside. With several inputs the keys begin with the input's name, so that they are unique.

    Args:
        names: folders, image files, archives (tar, compressed or not, and zip), text lists
            (:data:`LIST_SUFFIXES`: one name per line), patterns with ``*``, or ``-`` for a list
            on standard input.
        lists: text lists with any name, also named pipes, or ``-``; each is read once.
        exclude: patterns of files and folders that are left out of folders, archives and lists,
            besides :data:`facegender.inputs.exclusions.LITTER`; see
            :func:`facegender.inputs.exclusions.is_excluded`.
        recursive: include subfolders (links to folders are not followed).
        limits: maximum size of a file in an archive.
        stdin: what ``-`` reads; None takes standard input.

    Raises:
        InputError: an input is missing or cannot be listed, or a pattern matches nothing.
    """
    list_names = [os.fspath(name) for name in lists]
    on_stdin = [name for name in list_names if name == "-"]
    expanded = chain.from_iterable(_expand(os.fspath(name)) for name in [*names, *on_stdin])
    unique = list({os.path.normpath(name): name for name in expanded}.values())
    list_names = [name for name in list_names if name != "-"]
    list_paths = list({os.path.normpath(name): Path(name) for name in list_names}.values())
    is_single = len(unique) == 1 and not list_paths
    sources: list[Folder | Archive] = []
    files: list[str] = []
    patterns = tuple(exclude)
    folders = {os.path.abspath(name) for name in unique if Path(name).is_dir()}  # noqa: PTH100
    for name in unique:
        path = Path(name)
        prefix = "" if is_single else f"{path.as_posix()}/"
        parents = _parents(name) if recursive or not path.is_dir() else []
        if name == "-":
            files += read_standard_input(stdin)
        elif folders.intersection(parents if recursive else parents[:1]):
            continue  # it is part of a folder that is named too
        elif path.is_dir():
            found = list_files(path, recursive=recursive, exclude=patterns)
            sources.append(Folder(path, found, prefix))
        elif not os.path.lexists(path):
            kind = "File" if path.suffix else "Folder"
            raise InputError(f"{kind} not found: {path}")
        elif path.is_file() and _is_archive(path):
            sources.append(Archive(path, prefix, limits, patterns))
        elif path.is_file() and is_list(path):
            list_paths.append(path)
        else:
            files.append(name)
    for path in list_paths:
        files += read_list_file(path)
    files = [name for name in files if not is_excluded(name, patterns, with_litter=False)]
    if files:
        sources.append(Folder(Path(), _without_repeats(natural_sort(files)), is_list=True))
    return Inputs(tuple(sources), tuple(list_paths), recursive, patterns)


def list_files(folder: Path, *, recursive: bool = False, exclude: Sequence[str] = ()) -> list[str]:
    """List all files of a folder except facegender's own and excluded ones, in natural order.

    Args:
        folder: the folder.
        recursive: include subfolders.
        exclude: patterns, see :func:`facegender.inputs.exclusions.is_excluded`.

    Returns:
        Paths inside ``folder``, with ``/``. A subfolder that cannot be listed is included with a
        ``/`` at the end, so that the results mention it.

    Raises:
        InputError: the folder is missing or cannot be listed.
    """
    names: list[str] = []
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if is_excluded(name, exclude):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name)
                    elif not entry.name.startswith(OWN_FILE_PREFIX) and not _links_to_folder(entry):
                        names.append(name)
        except OSError as error:
            if not inside:
                raise InputError(_describe_folder_error(folder, error)) from error
            names.append(f"{inside}/")
        if not recursive:
            break
    return natural_sort(names)


def _expand(name: str) -> Iterable[str]:
    """Expand a pattern that the shell did not (Windows), unless a file has that name."""
    if not has_magic(name) or os.path.lexists(name):
        return (name,)
    if not (found := glob(name, recursive=True)):  # noqa: PTH207  (a pattern with any root)
        raise InputError(_describe_pattern(name))
    return natural_sort(found)


def _parents(name: str) -> list[str]:
    """Return the folders that a path is in, the nearest first."""
    return [str(folder) for folder in Path(os.path.abspath(name)).parents]  # noqa: PTH100


def _describe_pattern(name: str) -> str:
    """Say that no file matches a pattern, and how to write brackets that are part of a name."""
    message = f"No file matches the pattern {name}."
    if "[" not in name.replace("[[]", ""):
        return f"{message} Check its folder and suffix"
    message = f"{message} [ and ] are a pattern for one of the characters between them."
    folder = _literal_folder(name)
    if folder is None:
        escaped = name.replace("[", "[[]")
        return f"{message} If they are part of the name, write [[] for [: {escaped}"
    escaped = escape(folder) + name[len(folder) :]
    if glob(escaped, recursive=True):  # noqa: PTH207
        return f"{message} The folder {folder} exists: to read it, write {escaped}"
    return f"{message} The folder {folder} exists, but nothing in it matches {escaped} either"


def _literal_folder(pattern: str) -> str | None:
    """Return the folder of a pattern that exists under the name that the pattern spells."""
    folder = os.path.dirname(pattern)  # noqa: PTH120  (Path would change its spelling)
    while has_magic(folder):
        if Path(folder).is_dir():
            return folder
        folder = os.path.dirname(folder)  # noqa: PTH120
    return None


def _without_repeats(names: list[str]) -> list[str]:
    """Remove repeated names from a sorted list."""
    return [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return looks_like_archive(file.read(HEAD_BYTES))
    except OSError:
        return False  # reported when the file is read


def _walk_subfolders(root: Path, exclude: Sequence[str], named: set[str]) -> Iterator[str]:
    """Yield the names of the files in subfolders; an empty name for each folder.

    Args:
        root: the folder.
        exclude: patterns of what is left out.
        named: absolute paths of folders that are inputs themselves, whose files are left out.
    """
    for folder, folders, files in os.walk(root):
        inside = Path(folder).relative_to(root).as_posix()
        folders[:] = [
            name
            for name in folders
            if not is_excluded(f"{inside}/{name}", exclude)
            and os.path.abspath(f"{folder}/{name}") not in named  # noqa: PTH100
        ]
        yield ""
        if inside != ".":
            yield from (name for name in files if not is_excluded(f"{inside}/{name}", exclude))


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether a link leads to a folder; one to nothing or in a circle does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _describe_folder_error(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"Folder not found: {folder}"
    if isinstance(error, NotADirectoryError):
        return f"{folder} is not a folder"
    return f"Cannot list the folder {folder}: {error.strerror or error}"
