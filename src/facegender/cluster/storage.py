"""Object stores and folders behind one face (fsspec): list, read, write whole."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from facegender.errors import InputError, MissingExtraError, OutputError
from facegender.files import atomic_write

TRIES = 3
"""How often a file is asked for before it gets a row that says why it could not be had."""

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FIRST_PAUSE_SECONDS = 1.0
_GONE = (FileNotFoundError, PermissionError, IsADirectoryError)
_STATES = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "updated", "created")


def is_address(name: str) -> bool:
    """Tell an address (``s3://bucket/photos``) from a path of this machine.

    ``file://`` is another way to write a path.
    """
    return _PROTOCOL.match(name) is not None and not name.lower().startswith("file://")


def as_path(name: str) -> str:
    """Write a path of this machine without ``file://``."""
    return name[len("file://") :] if name.lower().startswith("file://") else name


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a store.

    Attributes:
        address: where it lies, with the protocol.
        size: in bytes; None where the store was not asked.
        state: what changes with its content: a checksum, a time; may be empty.
    """

    address: str
    size: int | None = None
    state: str = ""


def filesystem(address: str) -> tuple[Any, str]:
    """Open the store behind an address; who may read it is the environment's to say.

    Returns:
        fsspec's file system, and the address as it knows it.

    Raises:
        MissingExtraError: fsspec is not installed.
        InputError: no store of that kind is known, or its library is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", "fsspec") from error
    try:
        store, inside = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot read {address}: {error}") from error
    return store, str(inside)


def as_folder(address: str) -> str:
    """Write a folder's address as the files in it are listed, with ``/`` at the end."""
    return _protocol(address) + filesystem(address)[1].rstrip("/") + "/"


def list_remote(address: str, recursive: bool = False) -> list[RemoteFile]:
    """List the files in a folder of a store, or those that a pattern fits; [] where there are none.

    Raises:
        InputError: the store does not answer, or does not let us in.
    """
    store, inside = filesystem(address)
    protocol = _protocol(address)
    try:
        if "*" in inside or "?" in inside or "[" in inside:
            entries = store.glob(inside, detail=True)
        else:
            entries = store.find(inside, maxdepth=None if recursive else 1, detail=True)
    except Exception as error:  # each store has exceptions of its own
        raise InputError(f"cannot list {address}: {error or type(error).__name__}") from error
    files = [info for info in entries.values() if info.get("type") != "directory"]
    return [_found(protocol + info["name"], info) for info in files]


def is_folder(address: str) -> bool:
    """Tell whether an address is a folder of its store, by its name or because files lie in it.

    Raises:
        InputError: the store does not answer, or does not let us in.
    """
    store, inside = filesystem(address)
    try:
        return address.endswith("/") or bool(store.isdir(inside))
    except Exception as error:
        raise InputError(f"cannot read {address}: {error or type(error).__name__}") from error


def stat_remote(address: str) -> RemoteFile:
    """Ask for a single file's size and state.

    Raises:
        InputError: it is not there, or the store does not answer.
    """
    store, inside = filesystem(address)
    try:
        return _found(address, store.info(inside))
    except FileNotFoundError:
        raise InputError(f"{address} is not there") from None
    except Exception as error:
        raise InputError(f"cannot read {address}: {error or type(error).__name__}") from error


def open_file(address: str) -> IO[bytes]:
    """Open a file of a store for reading; it can seek."""
    store, inside = filesystem(address)
    file: IO[bytes] = store.open(inside, "rb")
    return file


def fetch(addresses: Sequence[str], ends: Mapping[str, int] | None = None) -> list[bytes | str]:
    """Get files side by side; each is its bytes, or the reason why it cannot be had.

    Args:
        addresses: all of one store.
        ends: of these only so many first bytes.
    """
    if not addresses:
        return []
    store, _ = filesystem(addresses[0])
    inside = {address: str(store._strip_protocol(address)) for address in addresses}
    got: dict[str, bytes | str] = {}
    for address in ends or ():
        got[address] = _with_patience(store, inside[address], (ends or {})[address])
    wanted = [inside[address] for address in addresses if address not in got]
    # several names that are one file come back once
    found = store.cat(list(dict.fromkeys(wanted)), on_error="return") if wanted else {}
    if isinstance(found, bytes):  # fsspec's answer to a single name
        found = {wanted[0]: found}
    for address in addresses:
        if address not in got:
            data = found.get(inside[address])
            if not isinstance(data, bytes):
                data = _with_patience(store, inside[address], None)
            got[address] = data
    return [got[address] for address in addresses]


def _with_patience(store: Any, inside: str, end: int | None) -> bytes | str:
    """Get one file, and ask again where the store failed and not the file."""
    error: Exception | None = None
    for attempt in range(TRIES):
        try:
            return bytes(store.cat_file(inside, 0 if end else None, end))
        except FileNotFoundError:
            return "is not there"
        except _GONE as refused:
            return f"cannot be read: {refused}"
        except Exception as failed:  # each store has exceptions of its own
            error = failed
        if attempt + 1 < TRIES:
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return f"cannot be fetched: {error or type(error).__name__}"


def _protocol(address: str) -> str:
    return address[: address.index("://") + 3]


def _found(address: str, info: Mapping[str, Any]) -> RemoteFile:
    state = next((str(info[key]) for key in _STATES if info.get(key) is not None), "")
    size = info.get("size")
    return RemoteFile(address, None if size is None else int(size), state)


@dataclass(frozen=True, slots=True)
class OutputLocation:
    """A folder that results are written to: a path that all machines share, or in a store.

    Every file appears whole: in a folder by renaming, in a store because an upload that does not
    end leaves nothing.
    """

    address: str

    def create(self) -> None:
        """Make the folder where it is one of a file system.

        Raises:
            OutputError: it cannot be made, or a file has that name.
        """
        if is_address(self.address):
            return
        try:
            Path(self.address).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write into {self.address}: {reason}") from error

    def names(self) -> list[str]:
        """List the files that lie in it.

        Raises:
            OutputError: it cannot be listed.
        """
        try:
            if not is_address(self.address):
                return [path.name for path in Path(self.address).iterdir() if path.is_file()]
            store, inside = filesystem(self.address)
            store.invalidate_cache()
            return [Path(name).name for name in store.find(inside, maxdepth=1)]
        except Exception as error:
            raise OutputError(f"cannot list {self.address}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            if not is_address(self.address):
                return (Path(self.address) / name).read_bytes()
            store, inside = filesystem(self.address)
            return bytes(store.cat_file(f"{inside.rstrip('/')}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(f"cannot read {name} in {self.address}: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        if not is_address(self.address):
            with atomic_write(Path(self.address) / name) as file:
                file.buffer.write(data)
            return
        try:
            store, inside = filesystem(self.address)
            store.pipe_file(f"{inside.rstrip('/')}/{name}", data)
        except Exception as error:
            raise OutputError(f"cannot write {name} into {self.address}: {error}") from error

    def remove(self, name: str) -> None:
        """Remove a file; none is no error.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            if not is_address(self.address):
                (Path(self.address) / name).unlink(missing_ok=True)
                return
            store, inside = filesystem(self.address)
            store.rm_file(f"{inside.rstrip('/')}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise OutputError(f"cannot remove {name} from {self.address}: {error}") from error
