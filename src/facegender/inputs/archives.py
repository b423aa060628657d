"""The entries of folders, tar and zip archives, read front to back and never unpacked to disk.

A member's bytes exist only in memory, so no name in an archive can lead outside it. What an archive
is, is told by its content.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from facegender.errors import InputError

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
FOLDER = "a folder"
ENCRYPTED = "encrypted (it needs a password)"
_TAR_EXTRA_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
    | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], AbstractContextManager[Any]]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_LONGEST_TAR_HEADER_BYTES = 1 << 20
_LONGEST_TAR_TAIL_MEBIBYTES = 1024
LAYOUT = (
    "Expected pictures in folders named male/ and female/ (at any depth), in a folder, a .tar, "
    ".tar.gz, .tar.bz2, .tar.xz or .zip, or a table with a gender for each file."
)
_DAMAGE = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # what zipfile raises for a compression method it does not know
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an input; `problem` says why it must not be opened, empty if it may be.

    `modified` tells one state of it from another: its time, or in a zip its checksum.
    """

    name: str
    size: int
    problem: str
    open: Callable[[], IO[bytes] | None]
    mtime_ns: int = 0


class _StrictHeader(tarfile.TarInfo):
    """A tar header that never lets damage pass for the end of the archive, as tarfile's own does.

    It also refuses a name or attribute block so long that reading it would fill the memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        """Parse one 512-byte header; only a whole block of zeros may end the archive."""
        try:
            header = super().frombuf(buf, encoding or "utf-8", errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"no header where one must be ({error})") from error
        too_long = header.type in _TAR_EXTRA_HEADERS and header.size > _LONGEST_TAR_HEADER_BYTES
        if too_long or header.size < 0:
            raise tarfile.ReadError(f"impossible size {header.size} in a header")
        return header


def looks_like_archive(head: bytes) -> bool:
    """Tell whether a file is a tar, packed or not, or a zip, by its first 512 bytes."""
    starts = (*_ZIP_STARTS, *(start for start, _ in _OPENERS))
    return head.startswith(starts) or head[257:262] == b"ustar"


def name_problem(name: str) -> str:
    """Say why a file of this name must not be used; empty if it may be."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:[/\\]", name):
        return "an absolute path"
    if ".." in parts:
        return "a path with '..'"
    if "__MACOSX" in parts:
        return "macOS metadata"
    if any(part.startswith(".") for part in parts):
        return "a hidden file"
    if not parts or parts[-1].lower() in _SYSTEM_FILES:
        return "a system file"
    return ""


@contextmanager
def _damage_explained(archive: str) -> Iterator[None]:
    """Turn what the readers raise for a bad archive into an InputError that names it."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{archive} cannot be read ({error}). Change its permissions.") from error
    except _DAMAGE as error:
        raise InputError(
            f"{archive} cannot be read to its end: it is damaged, cut short, or no tar or zip "
            f"archive ({error or type(error).__name__}). Copy or download it again, or unpack it "
            "yourself and give the folder."
        ) from error


def read_member(archive: str, member: Member) -> bytes:
    """Read one member whole, but never past its declared size."""
    with _damage_explained(archive):
        stream = member.open()
        if stream is None:
            raise ValueError(f"{member.name} has no content")
        with stream:
            data = stream.read(member.size + 1)
        if len(data) != member.size:
            raise ValueError(f"{member.name} is not of its declared size of {member.size} bytes")
    return data


def list_members(archive: str, path: Path) -> Iterator[Member]:
    """List an input's entries in its own order; its kind is told by content, not by its name."""
    with _damage_explained(archive):
        if path.is_dir():
            members = _folder_members(path)
        elif not path.is_file():
            raise InputError(f"{path} is neither a folder nor a file. {LAYOUT}")
        else:
            members = _packed_members(partial(_open_file, path))
    yield from _explained(archive, members)


def list_packed(archive: str, open_file: Callable[[], IO[bytes]]) -> Iterator[Member]:
    """List the entries of a tar or zip that lies anywhere; see :func:`list_members`.

    Args:
        archive: what it is called in errors.
        open_file: opens it anew; a zip's file must be able to seek.
    """
    return _explained(archive, _packed_members(open_file))


def _explained(archive: str, members: Iterator[Member]) -> Iterator[Member]:
    while True:
        with _damage_explained(archive):
            member = next(members, None)
        if member is None:
            return
        yield member


def _folder_members(root: Path) -> Iterator[Member]:
    """Walk a folder in sorted order; links are never followed."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=fail):
        folders.sort()
        for name in sorted(files + folders):
            path = Path(folder, name)
            status = path.lstat()
            inside = path.relative_to(root).as_posix()
            problem = _mode_problem(status.st_mode)
            if problem == FOLDER and name_problem(inside):
                folders.remove(name)
                problem = name_problem(inside)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            yield Member(inside, size, problem, partial(_open_file, path))


def _open_file(path: Path) -> IO[bytes]:
    """Open a file of a folder for reading."""
    return path.open("rb")


def _packed_members(open_file: Callable[[], IO[bytes]]) -> Iterator[Member]:
    """List a tar or zip, whichever its first bytes say."""
    with open_file() as stream:
        magic = stream.read(6)
    is_zip = magic.startswith(_ZIP_STARTS)
    yield from _zip_members(open_file) if is_zip else _tar_members(open_file, magic)


def _tar_members(open_file: Callable[[], IO[bytes]], magic: bytes) -> Iterator[Member]:
    """Stream a tar; the decompressor is ours, as tarfile's own overlooks a cut or damaged end."""
    decompress = next(
        (opener for start, opener in _OPENERS if magic.startswith(start)), nullcontext
    )
    with (
        open_file() as file,
        decompress(file) as raw,
        tarfile.open(fileobj=raw, mode="r|", tarinfo=_StrictHeader) as archive,
    ):
        while (member := archive.next()) is not None:
            # tarfile remembers every member, which would fill the memory and serves nothing here.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg():
                problem = ""
            elif member.isdir():
                problem = FOLDER
            else:
                problem = "a link" if member.issym() or member.islnk() else "a special file"
            opener = partial(archive.extractfile, member)
            yield Member(member.name, member.size, problem, opener, int(member.mtime))
        # Reading on to the end lets the decompressor compare its checksum.
        for _ in range(_LONGEST_TAR_TAIL_MEBIBYTES):
            tail = archive.fileobj.read(1 << 20) if archive.fileobj else b""
            if tail.strip(b"\0"):
                yield Member("", 0, "more follows its end mark: two archives joined?", lambda: None)
                return
            if not tail:
                return


def _zip_members(open_file: Callable[[], IO[bytes]]) -> Iterator[Member]:
    """List a zip by its directory; names with backslashes, against the standard, are put right."""
    with open_file() as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename.replace("\\", "/")
            problem = FOLDER if name.endswith("/") else _mode_problem(info.external_attr >> 16)
            problem = ENCRYPTED if info.flag_bits & 0x1 else problem
            yield Member(name, info.file_size, problem, partial(archive.open, info), info.CRC)


def _mode_problem(mode: int) -> str:
    """Say what a Unix file mode stands for unless it is a plain file, or of no kind at all."""
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG):
        return ""
    if kind == stat.S_IFDIR:
        return FOLDER
    return "a link" if kind == stat.S_IFLNK else "a special file"
