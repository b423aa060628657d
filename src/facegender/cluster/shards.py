"""Shards: what the user names, divided into units of work for one machine at a time.

A shard is a slice of a folder or list, or one archive. The same inputs give the same shards in the
same order, so that a resumed run finds what it has done.
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
    fetch,
    folder_url,
    is_folder,
    is_url,
    list_remote,
    stat_remote,
    without_file_scheme,
)
from facegender.errors import InputError
from facegender.files import natural_sort
from facegender.images.formats import DEFAULT_IMAGE_LIMITS, ImageLimits
from facegender.inputs.lists import LIST_SUFFIXES, is_list, read_list
from facegender.inputs.paths import Inputs, collect_inputs
from facegender.inputs.sources import Archive, Folder

SHARD_SIZE = 2000
"""Default number of files in a shard of a folder or list."""

# fmt: off
_ARCHIVE_SUFFIXES = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip",
)
# fmt: on
_PATTERN_CHARACTERS = frozenset("*?[")
_CONCURRENT_REQUESTS = 32


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work.

    Attributes:
        number: its index among the shards, from 0.
        root: the folder of the names, an absolute path or a URL; or the archive. Empty for a list
            of URLs.
        prefix: the keys of the files begin with it.
        names: paths inside ``root``; of a list of URLs, the URLs. Empty for an archive.
        sizes: of files in a store, in bytes, if known; else empty.
        is_list: the files were named one by one.
        is_archive: ``root`` is an archive.
        state: a digest that changes with the names and the content of the files.
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
        """Return the name of its result file, which depends on everything that the rows depend on.

        Args:
            run_id: digest of the model and the options.
        """
        digest = hashlib.sha256(f"{run_id} {self.state}".encode()).hexdigest()
        return f"shard-{self.number:08}-{digest[:16]}.parquet"


def plan_shards(
    names: Sequence[str],
    *,
    recursive: bool = False,
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
    shard_size: int = SHARD_SIZE,
    stdin: bytes | None = None,
) -> list[Shard]:
    """Divide what the user names into shards, in the order of a run on one machine.

    Args:
        names: as for :func:`facegender.inputs.paths.collect_inputs`; or URLs of folders (no suffix,
            or ``/`` at the end), archives and lists (by suffix), patterns and images. A list names
            local files, or URLs of images and archives.
        recursive: include subfolders.
        limits: maximum size of a file.
        shard_size: files per shard of a folder or list; an archive is always one shard.
        stdin: the list for ``-``.

    Raises:
        InputError: an input is missing or cannot be listed, or local paths and URLs are mixed.
    """
    paths: list[str] = []
    urls: list[str] = []
    listed_urls: list[str] = []
    for name in dict.fromkeys(map(without_file_scheme, names)):
        if is_url(name):
            if name.lower().endswith(LIST_SUFFIXES):
                listed_urls += _check_all_urls(_fetch_list(name), name)
            else:
                urls.append(name)
            continue
        text = stdin if name == "-" else None
        if name != "-" and Path(name).is_file() and is_list(Path(name)):
            text = Path(name).read_bytes()
        lines = [] if text is None else read_list(text)
        if any(map(is_url, lines)):
            listed_urls += _check_all_urls(lines, name)
        else:
            paths.append(name)
    if paths and (urls or listed_urls):
        raise InputError(
            "Some inputs are URLs and some are local paths. Use two runs, each with an --output"
        )
    stream = None if stdin is None else BytesIO(stdin)
    shards = (
        _local_shards(
            collect_inputs(paths, recursive=recursive, limits=limits, stdin=stream), shard_size
        )
        if paths
        else _remote_shards(urls, listed_urls, recursive, shard_size)
    )
    return [replace(shard, number=number) for number, shard in enumerate(shards)]


def _local_shards(inputs: Inputs, size: int) -> Iterator[Shard]:
    """Divide folders, lists and archives of a file system that all machines share."""
    for source in inputs.sources:
        # links are not resolved
        if isinstance(source, Archive):
            root = os.path.abspath(source.path)  # noqa: PTH100
            found = source.path.stat()
            state = _digest([(root, source.prefix, found.st_size, found.st_mtime_ns)])
            yield Shard(0, root, source.prefix, is_archive=True, state=state)
            continue
        root = os.path.abspath(source.root)  # noqa: PTH100
        for start in range(0, len(source.names), size):
            names = tuple(source.names[start : start + size])
            files = Folder(source.root, names, source.prefix, source.is_list)
            state = _digest((each.key, each.identity, each.size, each.state) for each in files)
            yield Shard(0, root, source.prefix, names, is_list=source.is_list, state=state)


def _remote_shards(
    urls: Sequence[str], listed_urls: Sequence[str], recursive: bool, size: int
) -> Iterator[Shard]:
    """Divide the files of object stores: folders and archives first, then single files."""
    entries = [file for url in urls for file in _expand_url(url, recursive)]
    by_url = {each.url: each for each in [*entries, *map(RemoteFile, listed_urls)]}
    is_archive = {url: url.lower().endswith(_ARCHIVE_SUFFIXES) for url in by_url}
    unknown = [url for url, file in by_url.items() if is_archive[url] and file.size is None]
    with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as threads:
        by_url |= {file.url: file for file in threads.map(stat_remote, unknown)}
    single: list[str] = []
    for url, file in by_url.items():
        prefix = "" if len(by_url) == 1 else f"{url.rstrip('/')}/"
        if url.endswith("/"):
            inside = {found.url: found for found in list_remote(url, recursive)}
            if not inside:
                raise InputError(f"No file in {url}. Check the URL, or add --recursive")
            files = [inside[name] for name in natural_sort(inside)]
            yield from _slices(url, prefix, files, size)
        elif is_archive[url]:
            state = _digest([(url, prefix, file.size, file.state)])
            yield Shard(0, url, prefix, is_archive=True, state=state)
        else:
            single.append(url)
    yield from _slices("", "", [by_url[url] for url in natural_sort(single)], size, is_list=True)


def _expand_url(url: str, recursive: bool) -> list[RemoteFile]:
    """Return the files that a pattern matches, or the file or folder of any other URL."""
    if _PATTERN_CHARACTERS.intersection(url):
        matches = {file.url: file for file in list_remote(url, recursive)}
        if not matches:
            raise InputError(f"No file matches the pattern {url}. Check its folder and suffix")
        return [matches[name] for name in natural_sort(matches)]
    if "." in url.rstrip("/").rpartition("/")[2] and not url.endswith("/"):
        return [RemoteFile(url)]
    return [RemoteFile(folder_url(url)) if is_folder(url) else stat_remote(url)]


def _slices(
    root: str, prefix: str, files: Sequence[RemoteFile], size: int, *, is_list: bool = False
) -> Iterator[Shard]:
    """Divide files of a store; their state is what the listing says."""
    for start in range(0, len(files), size):
        some = files[start : start + size]
        names = tuple(file.url.removeprefix(root) for file in some)
        rows = [(file.url, file.size, file.state) for file in some]
        sizes = tuple(file.size for file in some)
        yield Shard(0, root, prefix, names, sizes, is_list, state=_digest([(prefix,), *rows]))


def _fetch_list(url: str) -> list[str]:
    (text,) = fetch([url])
    if isinstance(text, str):
        raise InputError(f"Cannot read the list {url}: {text}")
    return read_list(text)


def _check_all_urls(lines: Sequence[str], source: str) -> Sequence[str]:
    for line in lines:
        if not is_url(line):
            raise InputError(f"The list {source} has URLs and also the local path {line!r}")
    return lines


def _digest(rows: Iterable[Sequence[object]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(row)).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()
