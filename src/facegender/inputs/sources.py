"""The files of folders and archives, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facegender.errors import InputError, UnsupportedImageError
from facegender.images.formats import (
    DEFAULT_IMAGE_LIMITS,
    HEAD_BYTES,
    FileKind,
    ImageLimits,
    classify,
    describe_excess,
    looks_like_image,
)
from facegender.images.raw import check_raw_file
from facegender.inputs.archives import list_members, read_member
from facegender.inputs.exclusions import is_excluded
from facegender.inputs.member import FOLDER, Member, to_int64


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that may be an image.

    Attributes:
        key: its name in the results.
        identity: identifies it independently of its key: its absolute path; in an archive its
            index there, with the archive's absolute path, size and modification time.
        path: where it is on the disk; None inside an archive.
        data: its content, inside an archive; empty if there is a problem.
        size: in bytes.
        state: changes with its content, as ``size`` does: the modification time in nanoseconds, 64
            bits; inside an archive :attr:`Member.state`.
        problem: why it cannot be read, or empty.
        unsupported: what to do with a file of a kind that is not read, or empty.
        is_image: False if it is no image by name and content, and was not read.
    """

    key: str
    identity: str = ""
    path: Path | None = None
    data: bytes = b""
    size: int = 0
    state: int = 0
    problem: str = ""
    unsupported: str = ""
    is_image: bool = True


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of a folder.

    Attributes:
        root: the folder.
        names: paths relative to it; one with ``/`` at the end is a folder that cannot be listed.
        prefix: the keys of the files begin with it.
        is_list: the files were named one by one.
    """

    root: Path
    names: Sequence[str]
    prefix: str = ""
    is_list: bool = False

    def __iter__(self) -> Iterator[InputFile]:
        """Yield the files in order, each with its current size and time."""
        root = os.path.abspath(self.root)  # noqa: PTH100  (links are not resolved)
        for name in self.names:
            key = self.prefix + name
            if name.endswith("/"):
                yield InputFile(key, problem="the folder cannot be listed")
                continue
            path = self.root / name
            identity = os.path.join(root, name)  # noqa: PTH118  (a name may be absolute)
            try:
                found = path.stat()
                state = to_int64(found.st_mtime_ns)
                yield InputFile(key, identity, path, b"", found.st_size, state)
            except (OSError, OverflowError, ValueError):  # reported when the file is read
                yield InputFile(key, identity, path)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar or zip.

    Attributes:
        path: its file.
        prefix: the keys of its members begin with it.
        limits: maximum size of a member.
        exclude: patterns of members that are left out.
    """

    path: Path
    prefix: str = ""
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS
    exclude: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[InputFile]:
        """Yield the members in the archive's order; damage is a file with a problem."""
        found = self.path.stat()
        path = os.path.abspath(self.path)  # noqa: PTH100
        identity = f"{path} {found.st_size} {found.st_mtime_ns}"
        name = str(self.path)
        members = list_members(name, self.path, as_extracted=True)
        return archive_files(name, members, identity, self.prefix, self.limits, self.exclude)


def archive_files(
    archive: str,
    members: Iterable[Member],
    identity: str,
    prefix: str = "",
    limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
    exclude: Sequence[str] = (),
) -> Iterator[InputFile]:
    """Yield the members of an archive from any storage; damage is a file with a problem.

    Args:
        archive: its name, for errors.
        members: its members.
        identity: identifies the archive and its content.
        prefix: the keys of the members begin with it.
        limits: maximum size of a member.
        exclude: patterns of members that are left out.
    """
    try:
        for number, member in enumerate(members):
            name = member.name.removeprefix("./")
            if member.problem == FOLDER or is_excluded(name, exclude):
                continue
            file = InputFile(
                prefix + name,
                f"{number} in {identity}",
                size=to_int64(member.size),
                state=member.state,
            )
            if member.problem:
                yield replace(file, problem=f"cannot be read: {member.problem}")
            else:
                yield _read_member(archive, member, file, limits)
    except InputError as error:
        yield InputFile(prefix or f"{Path(archive).name}/", problem=str(error))


def _read_member(archive: str, member: Member, file: InputFile, limits: ImageLimits) -> InputFile:
    """Read a member if it is an image that is not too large; of others only the first bytes."""
    is_small = member.size <= limits.bytes

    def is_wanted(head: bytes) -> bool:
        return is_small and looks_like_image(member.name, head)

    data = read_member(archive, member, is_wanted)
    if not is_small and looks_like_image(member.name, data):
        return replace(file, problem=describe_excess(member.size, limits))
    return with_content(file, member.name, data)


def with_content(file: InputFile, name: str, data: bytes) -> InputFile:
    """Return a file with its content, or with the reason why it is not read.

    Args:
        file: the file without its content.
        name: its name.
        data: its content; of a file that is no image, its first bytes suffice.
    """
    classified = classify(name, data[:HEAD_BYTES])
    if classified.kind is FileKind.OTHER:
        return replace(file, is_image=False)
    if classified.kind is not FileKind.IMAGE:
        return replace(file, unsupported=classified.reason)
    try:
        check_raw_file(name, data)
    except UnsupportedImageError as error:
        return replace(file, unsupported=str(error))
    return replace(file, data=data)
