"""Members of folders, tar and zip archives, read front to back and never unpacked to disk.

A member's content exists only in memory, so no name in an archive can lead outside it. The kind of
an archive is detected from its content.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from facegender.errors import InputError
from facegender.images.formats import HEAD_BYTES
from facegender.inputs.member import DAMAGE_ERRORS, ENCRYPTED, FOLDER, Member, to_int64
from facegender.inputs.tar import tar_members
from facegender.inputs.zip_names import member_names

LAYOUT = (
    "Expected images in folders named male/ and female/ (at any depth), in a folder, a .tar, "
    ".tar.gz, .tar.bz2, .tar.xz or .zip, or a metadata table with a label for each file."
)

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")


def name_problem(name: str) -> str:
    """Return why a member of this name must not be used; empty if it may be."""
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


def read_member(
    archive: str, member: Member, is_wanted: Callable[[bytes], bool] | None = None
) -> bytes:
    """Read one member, but never more than its stated size.

    Args:
        archive: the archive's name, for errors.
        member: the member.
        is_wanted: tells by the first :data:`facegender.images.formats.HEAD_BYTES` bytes whether
            the rest is read; None reads it.

    Returns:
        The content, or its first bytes if it is not wanted.

    Raises:
        InputError: the archive is damaged.
    """
    with _explain_damage(archive):
        stream = member.open()
        if stream is None:
            raise ValueError(f"{member.name} has no content")
        with stream:
            head = b""
            if is_wanted is not None:
                head = stream.read(min(HEAD_BYTES, member.size))
                if not is_wanted(head):
                    return head
            data = head + stream.read(member.size + 1 - len(head))
        if len(data) != member.size:
            raise ValueError(f"{member.name} does not have its stated size, {member.size} bytes")
    return data


def list_members(archive: str, path: Path, *, as_extracted: bool = False) -> Iterator[Member]:
    """List the members of a folder or archive in its own order.

    Args:
        archive: its name, for errors.
        path: the folder or file.
        as_extracted: list what extracting an archive would leave: of several members of one name
            the last one, and hard links as files.

    Raises:
        InputError: it is missing, damaged, or neither a tar nor a zip.
    """
    with _explain_damage(archive):
        if path.is_dir():
            members = _folder_members(path)
        elif not path.is_file():
            raise InputError(f"{path} is neither a folder nor a file. {LAYOUT}")
        else:
            members = _archive_members(partial(_open_file, path), as_extracted)
    yield from _explain_damage_of_each(archive, members)


def list_archive_members(archive: str, open_file: Callable[[], IO[bytes]]) -> Iterator[Member]:
    """List what extracting a tar or zip from any storage would leave; see :func:`list_members`.

    Args:
        archive: its name, for errors.
        open_file: opens it from its start; the file of a zip must be seekable.
    """
    return _explain_damage_of_each(archive, _archive_members(open_file, as_extracted=True))


def _explain_damage_of_each(archive: str, members: Iterator[Member]) -> Iterator[Member]:
    while True:
        with _explain_damage(archive):
            member = next(members, None)
        if member is None:
            return
        yield member


@contextmanager
def _explain_damage(archive: str) -> Iterator[None]:
    """Convert the errors of a damaged archive to an InputError with its name."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{archive} cannot be read ({error}). Change its permissions.") from error
    except DAMAGE_ERRORS as error:
        raise InputError(
            f"{archive} cannot be read completely: damaged, truncated, or neither a tar nor a zip "
            f"({error or type(error).__name__}). Copy or download it again, or unpack it and name "
            "the folder."
        ) from error


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
    return path.open("rb")


def _archive_members(open_file: Callable[[], IO[bytes]], as_extracted: bool) -> Iterator[Member]:
    """List a zip or tar, by its signature."""
    with open_file() as stream:
        signature = stream.read(6)
    is_zip = signature.startswith(_ZIP_SIGNATURES)
    if is_zip:
        yield from _zip_members(open_file, as_extracted)
    else:
        yield from tar_members(open_file, signature, as_extracted=as_extracted)


def _zip_members(open_file: Callable[[], IO[bytes]], as_extracted: bool) -> Iterator[Member]:
    """List a zip by its directory; backslashes in names, against the standard, become ``/``."""
    with open_file() as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [name.replace("\\", "/") for name in member_names(members)]
        last = {name.removeprefix("./"): number for number, name in enumerate(names)}
        for number, (name, info) in enumerate(zip(names, members, strict=True)):
            if as_extracted and last[name.removeprefix("./")] != number:
                continue
            problem = FOLDER if name.endswith("/") else _mode_problem(info.external_attr >> 16)
            problem = ENCRYPTED if info.flag_bits & 0x1 else problem
            opener = partial(archive.open, info)
            yield Member(name, info.file_size, problem, opener, to_int64(info.CRC))


def _mode_problem(mode: int) -> str:
    """Return what a Unix file mode stands for; empty for a regular file or no type at all."""
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG):
        return ""
    if kind == stat.S_IFDIR:
        return FOLDER
    return "a link" if kind == stat.S_IFLNK else "a special file"
