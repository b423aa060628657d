"""What a person names -> parts: pieces of work that one machine answers for at a time.

A part is a slice of a folder or list, or one archive. The same names give the same parts in the
same order, so that a run that goes on finds what it has done.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from facegender.cluster.storage import (
    RemoteFile,
    as_folder,
    as_path,
    fetch,
    is_address,
    is_folder,
    list_remote,
    stat_remote,
)
from facegender.errors import InputError
from facegender.files import natural_sort
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
from facegender.inputs.paths import Archive, Folder, Inputs, collect_inputs, is_list, read_list

SHARD_SIZE = 2000
"""Pictures in a part of a folder or list, where nothing else is asked for."""

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
_LISTS = (".txt", ".lst", ".list")
_PATTERN = frozenset("*?[")
_ASKED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of the work.

    Attributes:
        number: its place among the parts, from 0.
        root: the folder that the names are in, absolute or an address; or the archive.
        prefix: the keys begin with it.
        names: paths inside ``root``; in a list of addresses whole ones. Empty for an archive.
        sizes: of a store's files in bytes, as far as known; else empty.
        is_list: the files were named one by one.
        is_archive: ``root`` is one.
        state: a digest of the names and of what tells the files' states apart.
    """

    number: int
    root: str
    prefix: str = ""
    names: tuple[str, ...] = ()
    sizes: tuple[int | None, ...] = ()
    is_list: bool = False
    is_archive: bool = False
    state: str = ""

    def file_name(self, run_id: str) -> str:
        """Name the file with its answers: by place, and by all that they depend on.

        Args:
            binding: a digest of the network and the options.
        """
        digest = hashlib.sha256(f"{run_id} {self.state}".encode()).hexdigest()
        return f"shard-{self.number:08}-{digest[:16]}.parquet"


def plan_shards(
    names: Sequence[str],
    *,
    recursive: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
    shard_size: int = SHARD_SIZE,
    listed: bytes | None = None,
) -> list[Shard]:
    """Cut what a person named into parts, in the order that one machine would answer in.

    Args:
        names: as for :func:`facegender.inputs.paths.collect_inputs`; or addresses of stores: folders
            (without a suffix, or with ``/`` at the end), archives and lists (by suffix), patterns,
            pictures. A list names files of this machine, or addresses of pictures and archives.
        recursive: also what is in the folders' folders.
        limits: what a file may cost.
        shard_size: pictures in a part of a folder or list; an archive is always one part.
        listed: the list that stands for ``-``.

    Raises:
        InputError: one of them is not there or cannot be listed; paths and addresses mixed.
    """
    paths: list[str] = []
    named: list[str] = []
    lines: list[str] = []
    for name in dict.fromkeys(map(as_path, names)):
        if is_address(name):
            if name.lower().endswith(_LISTS):
                lines += _only_addresses(_lines_of(name), name)
            else:
                named.append(name)
            continue
        text = listed if name == "-" else None
        if name != "-" and Path(name).is_file() and is_list(Path(name)):
            text = Path(name).read_bytes()
        inside = [] if text is None else read_list(text)
        if any(map(is_address, inside)):
            lines += _only_addresses(inside, name)
        else:
            paths.append(name)
    if paths and (named or lines):
        raise InputError(
            "some inputs are addresses and some are paths of this machine. Give them to two runs, "
            "each with an --output of its own"
        )
    stream = None if listed is None else BytesIO(listed)
    shards = (
        _on_disk(
            collect_inputs(paths, recursive=recursive, limits=limits, listed=stream), shard_size
        )
        if paths
        else _in_stores(named, lines, recursive, shard_size)
    )
    return [replace(each, number=number) for number, each in enumerate(shards)]


def _on_disk(inputs: Inputs, size: int) -> Iterator[Shard]:
    """Cut folders, lists and archives of a file system that all machines see."""
    for piece in inputs.sources:
        # Not resolved: links stay as they are named
        if isinstance(piece, Archive):
            root = os.path.abspath(piece.path)  # noqa: PTH100
            found = piece.path.stat()
            state = _digest([(root, piece.prefix, found.st_size, found.st_mtime_ns)])
            yield Shard(0, root, piece.prefix, is_archive=True, state=state)
            continue
        root = os.path.abspath(piece.root)  # noqa: PTH100
        for start in range(0, len(piece.names), size):
            some = tuple(piece.names[start : start + size])
            items = Folder(piece.root, some, piece.prefix, piece.is_list)
            state = _digest((each.key, each.identity, each.size, each.mtime_ns) for each in items)
            yield Shard(0, root, piece.prefix, some, is_list=piece.is_list, state=state)


def _in_stores(
    named: Sequence[str], lines: Sequence[str], recursive: bool, size: int
) -> Iterator[Shard]:
    """Cut what lies in stores: folders and archives, each for itself, then single files."""
    entries: list[RemoteFile] = []
    for address in named:
        if _PATTERN.intersection(address):
            fitting = {each.address: each for each in list_remote(address, recursive)}
            if not fitting:
                raise InputError(f"nothing fits the pattern {address}. Look at its folder")
            entries += [fitting[name] for name in natural_sort(fitting)]
        elif "." in address.rstrip("/").rpartition("/")[2] and not address.endswith("/"):
            entries.append(RemoteFile(address))
        elif is_folder(address):
            entries.append(RemoteFile(as_folder(address)))
        else:
            entries.append(stat_remote(address))
    every = {each.address: each for each in [*entries, *map(RemoteFile, lines)]}
    is_archive = {name: name.lower().endswith(_ARCHIVES) for name in every}
    unasked = [name for name, each in every.items() if is_archive[name] and each.size is None]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        every |= {each.address: each for each in threads.map(stat_remote, unasked)}
    files: list[str] = []
    for name, each in every.items():
        prefix = "" if len(every) == 1 else f"{name.rstrip('/')}/"
        if name.endswith("/"):
            inside = {found.address: found for found in list_remote(name, recursive)}
            if not inside:
                raise InputError(f"no file lies in {name}. Look at the name, or add --recursive")
            ordered = [inside[address] for address in natural_sort(inside)]
            yield from _slices(name, prefix, ordered, size)
        elif is_archive[name]:
            state = _digest([(name, prefix, each.size, each.state)])
            yield Shard(0, name, prefix, is_archive=True, state=state)
        else:
            files.append(name)
    single = [every[name] for name in natural_sort(files)]
    yield from _slices("", "", single, size, is_list=True)


def _slices(
    root: str, prefix: str, files: Sequence[RemoteFile], size: int, *, is_list: bool = False
) -> Iterator[Shard]:
    """Cut a store's files; the state is what the listing told of them."""
    for start in range(0, len(files), size):
        some = files[start : start + size]
        names = tuple(each.address.removeprefix(root) for each in some)
        rows = [(each.address, each.size, each.state) for each in some]
        sizes = tuple(each.size for each in some)
        yield Shard(0, root, prefix, names, sizes, is_list, state=_digest([(prefix,), *rows]))


def _lines_of(address: str) -> list[str]:
    (text,) = fetch([address])
    if isinstance(text, str):
        raise InputError(f"the list {address} {text}")
    return read_list(text)


def _only_addresses(lines: Sequence[str], where: str) -> Sequence[str]:
    for line in lines:
        if not is_address(line):
            raise InputError(
                f"the list {where} names addresses and also {line!r}. Make it one or the other"
            )
    return lines


def _digest(rows: Iterable[Sequence[object]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(row)).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()
