"""Object stores and folders (fsspec): list, read, and write atomically."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from facegender.errors import InputError, MissingExtraError, OutputError
from facegender.files import atomic_write

MAX_TRIES = 3
"""How often a file is requested before it counts as unreadable."""

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FIRST_PAUSE_SECONDS = 1.0
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError)
_STATE_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "mtime",
    "LastModified",
    "updated",
    "created",
)


def is_url(name: str) -> bool:
    """Tell a URL (``s3://bucket/photos``) from a local path; ``file://`` is a local path."""
    return _PROTOCOL.match(name) is not None and not name.lower().startswith("file://")


def without_file_scheme(name: str) -> str:
    """Return a local path without ``file://``."""
    return name[len("file://") :] if name.lower().startswith("file://") else name


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in an object store.

    Attributes:
        url: with the protocol.
        size: in bytes; None if the store was not asked.
        state: changes with its content: a checksum or a time; may be empty.
    """

    url: str
    size: int | None = None
    state: str = ""


def filesystem(url: str) -> tuple[Any, str]:
    """Open the store of a URL; credentials come from the environment.

    Returns:
        fsspec's file system, and the path inside it.

    Raises:
        MissingExtraError: fsspec is not installed.
        InputError: the protocol is unknown, or its library is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", "fsspec") from error
    try:
        store, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"Cannot read {url}: {error}") from error
    return store, str(path)


def folder_url(url: str) -> str:
    """Return the URL of a folder as the files in it are listed, with ``/`` at the end."""
    return _protocol(url) + filesystem(url)[1].rstrip("/") + "/"


def list_remote(url: str, recursive: bool = False) -> list[RemoteFile]:
    """List the files in a folder of a store, or those that match a pattern; empty if none.

    Raises:
        InputError: the store does not answer, or denies access.
    """
    store, path = filesystem(url)
    protocol = _protocol(url)
    try:
        if "*" in path or "?" in path or "[" in path:
            entries = store.glob(path, detail=True)
        else:
            entries = store.find(path, maxdepth=None if recursive else 1, detail=True)
    except Exception as error:  # each store has its own exceptions
        raise InputError(f"Cannot list {url}: {error or type(error).__name__}") from error
    files = [info for info in entries.values() if info.get("type") != "directory"]
    return [_remote_file(protocol + info["name"], info) for info in files]


def is_folder(url: str) -> bool:
    """Tell whether a URL is a folder, by its name or because there are files in it.

    Raises:
        InputError: the store does not answer, or denies access.
    """
    store, path = filesystem(url)
    try:
        return url.endswith("/") or bool(store.isdir(path))
    except Exception as error:
        raise InputError(f"Cannot read {url}: {error or type(error).__name__}") from error


def stat_remote(url: str) -> RemoteFile:
    """Return a single file with its size and state.

    Raises:
        InputError: the file is missing, or the store does not answer.
    """
    store, path = filesystem(url)
    try:
        return _remote_file(url, store.info(path))
    except FileNotFoundError:
        raise InputError(f"File not found: {url}") from None
    except Exception as error:
        raise InputError(f"Cannot read {url}: {error or type(error).__name__}") from error


def open_file(url: str) -> IO[bytes]:
    """Open a file of a store for reading; it is seekable."""
    store, path = filesystem(url)
    file: IO[bytes] = store.open(path, "rb")
    return file


def fetch(urls: Sequence[str], head_sizes: Mapping[str, int] | None = None) -> list[bytes | str]:
    """Read files concurrently.

    Args:
        urls: files of one store.
        head_sizes: for some of them, the number of first bytes to read instead of the whole file.

    Returns:
        For each URL the bytes, or the reason why it cannot be read.
    """
    if not urls:
        return []
    store, _ = filesystem(urls[0])
    paths = {url: str(store._strip_protocol(url)) for url in urls}
    contents: dict[str, bytes | str] = {}
    for url, size in (head_sizes or {}).items():
        contents[url] = _fetch_with_retries(store, paths[url], size)
    whole = [paths[url] for url in urls if url not in contents]
    # without repeats: the store returns a file named twice only once
    found = store.cat(list(dict.fromkeys(whole)), on_error="return") if whole else {}
    if isinstance(found, bytes):  # what fsspec returns for a single name
        found = {whole[0]: found}
    for url in urls:
        if url not in contents:
            data = found.get(paths[url])
            if not isinstance(data, bytes):
                data = _fetch_with_retries(store, paths[url], None)
            contents[url] = data
    return [contents[url] for url in urls]


def _fetch_with_retries(store: Any, path: str, size: int | None) -> bytes | str:
    """Read one file, or its first bytes; try again if the store fails rather than the file."""
    error: Exception | None = None
    for attempt in range(MAX_TRIES):
        try:
            return bytes(store.cat_file(path, 0 if size else None, size))
        except FileNotFoundError:
            return "file not found"
        except _PERMANENT_ERRORS as failure:
            return f"cannot be read: {failure}"
        except Exception as failure:  # each store has its own exceptions
            error = failure
        if attempt + 1 < MAX_TRIES:
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return f"cannot be read: {error or type(error).__name__}"


def _protocol(url: str) -> str:
    return url[: url.index("://") + 3]


def _remote_file(url: str, info: Mapping[str, Any]) -> RemoteFile:
    state = next((str(info[key]) for key in _STATE_KEYS if info.get(key) is not None), "")
    size = info.get("size")
    return RemoteFile(url, None if size is None else int(size), state)


@dataclass(frozen=True, slots=True)
class OutputLocation:
    """The folder that results are written to; every file in it appears complete.

    In a file system a file is renamed when it is complete; in a store an unfinished upload leaves
    nothing.

    Attributes:
        address: an absolute path that all machines share, or a URL of an object store.
    """

    address: str

    def create(self) -> None:
        """Create the folder, if it is in a file system.

        Raises:
            OutputError: it cannot be created, or is a file.
        """
        if is_url(self.address):
            return
        try:
            Path(self.address).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"Cannot write into {self.address}: {reason}") from error

    def names(self) -> list[str]:
        """List the names of its files.

        Raises:
            OutputError: it cannot be listed.
        """
        try:
            if not is_url(self.address):
                return [path.name for path in Path(self.address).iterdir() if path.is_file()]
            store, path = filesystem(self.address)
            store.invalidate_cache()
            return [Path(name).name for name in store.find(path, maxdepth=1)]
        except Exception as error:
            raise OutputError(f"Cannot list {self.address}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """Read a file; None if it does not exist.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            if not is_url(self.address):
                return (Path(self.address) / name).read_bytes()
            store, path = filesystem(self.address)
            return bytes(store.cat_file(f"{path.rstrip('/')}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(f"Cannot read {name} in {self.address}: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically.

        Raises:
            OutputError: it cannot be written.
        """
        if not is_url(self.address):
            with atomic_write(Path(self.address) / name) as file:
                file.buffer.write(data)
            return
        try:
            store, path = filesystem(self.address)
            store.pipe_file(f"{path.rstrip('/')}/{name}", data)
        except Exception as error:
            raise OutputError(f"Cannot write {name} into {self.address}: {error}") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            if not is_url(self.address):
                (Path(self.address) / name).unlink(missing_ok=True)
                return
            store, path = filesystem(self.address)
            store.rm_file(f"{path.rstrip('/')}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise OutputError(f"Cannot remove {name} from {self.address}: {error}") from error
