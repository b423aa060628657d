"""Members of a tar archive, of any version, compressed or not.

tarfile overlooks a truncated or damaged end and gives up at values that do not matter here, so
that headers are checked and repaired, and the decompression is done, in this module.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import posixpath
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Self, TypeAlias

from facegender.inputs.member import DAMAGE_ERRORS, FOLDER, Member, to_int64

OpenFile: TypeAlias = Callable[[], IO[bytes]]

_EXTENSION_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
    | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_DECOMPRESSORS: tuple[tuple[bytes, Callable[[IO[bytes]], AbstractContextManager[Any]]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_MAX_HEADER_BYTES = 1 << 20
_MAX_PADDING_MEBIBYTES = 1024
_MAX_CACHED_BYTES = 1 << 28
# Fields of a header that no answer depends on: mode, owner, group, time, device.
_FIELDS = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
_CHECKSUM = slice(148, 156)


class _StrictHeader(tarfile.TarInfo):
    """A tar header that reports damage, which tarfile's own takes for the end of the archive.

    It also refuses a name or attribute block that would fill the memory, and accepts an owner, a
    mode or a time that is no number.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        """Parse one 512-byte header; only a block of zeros ends the archive."""
        try:
            header = super().frombuf(_repaired(bytes(buf)), encoding or "utf-8", errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"invalid header ({error})") from error
        is_extension = header.type in _EXTENSION_HEADERS
        if (is_extension and header.size > _MAX_HEADER_BYTES) or header.size < 0:
            raise tarfile.ReadError(f"impossible size {header.size} in a header")
        return header


def _repaired(block: bytes) -> bytes:
    """Return a header with zeros in place of fields that are no numbers and do not matter."""
    if len(block) != tarfile.BLOCKSIZE:
        return block
    bad = [place for place in _FIELDS if not _is_number(block[slice(*place)])]
    if not bad or not _has_checksum(block):
        return block
    repaired = bytearray(block)
    for start, end in bad:
        repaired[start:end] = b"0" * (end - start - 1) + b"\0"
    repaired[_CHECKSUM] = b" " * 8
    repaired[_CHECKSUM] = b"%06o\0 " % sum(repaired)
    return bytes(repaired)


def _is_number(text: bytes) -> bool:
    if text[0] in (0o200, 0o377):  # base 256
        return True
    try:
        return bool(int(text.partition(b"\0")[0].strip() or b"0", 8) >= 0)
    except ValueError:
        return False


def _has_checksum(block: bytes) -> bool:
    try:
        stated = int(block[_CHECKSUM].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    return stated == sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


@dataclass(slots=True)
class _Plan:
    """What extracting the archive would leave.

    Attributes:
        last: for each path, the number of the last member of that name.
        sources: for each hard link, the number of the member with its content.
        sizes: of those members in bytes.
        uses: how many hard links each of those members has.
    """

    last: dict[str, int] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    uses: Counter[int] = field(default_factory=Counter)


def tar_members(open_file: OpenFile, signature: bytes, *, as_extracted: bool) -> Iterator[Member]:
    """List the members of a tar in its order, read from front to back.

    Args:
        open_file: opens the archive from its start.
        signature: its first bytes.
        as_extracted: list what extracting it would leave: of several members of one name the last
            one, and hard links as files. The headers are read once more for that.
    """
    plan = _scan(open_file, signature) if as_extracted else None
    cached: dict[int, bytes] = {}
    with _open_stream(open_file, signature) as archive:
        for number, member in _members(archive):
            problem, size, source = _problem(member), member.size, None
            opener: Callable[[], IO[bytes] | None] = partial(archive.extractfile, member)
            if plan is not None:
                if number in plan.uses and _fits(plan, cached, number):
                    content = archive.extractfile(member)
                    cached[number] = content.read() if content else b""
                    opener = partial(io.BytesIO, cached[number])
                if problem != FOLDER and plan.last.get(_path(member.name), number) != number:
                    continue
                source = plan.sources.get(number)
            if source is not None and plan is not None:
                problem, size = "", plan.sizes[source]
                opener = partial(_open_source, open_file, signature, source)
                if source in cached:
                    opener = partial(io.BytesIO, cached[source])
                    plan.uses[source] -= 1
                    if not plan.uses[source]:
                        del cached[source]
            elif member.islnk() and plan is not None:
                problem = f"a hard link to {member.linkname}, which is not in the archive"
            yield Member(member.name, size, problem, opener, _time(member))
        yield from _check_end(archive)


def _scan(open_file: OpenFile, signature: bytes) -> _Plan:
    """Read the headers of an archive, up to damage."""
    plan = _Plan()
    with suppress(*DAMAGE_ERRORS), _open_stream(open_file, signature) as archive:
        for number, member in _members(archive):
            path = _path(member.name)
            if member.islnk():
                source = plan.last.get(_path(member.linkname))
                source = None if source is None else plan.sources.get(source, source)
                if source is not None and source in plan.sizes:
                    plan.sources[number] = source
                    plan.uses[source] += 1
            elif member.isreg():
                plan.sizes[number] = member.size
            if not member.isdir():
                plan.last[path] = number
    plan.sizes = {number: plan.sizes[number] for number in plan.uses}
    return plan


def _members(archive: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo]]:
    number = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else memory grows
        if member.size < 0:
            raise tarfile.ReadError(f"impossible size {member.size} of {member.name}")
        yield number, member
        _skip_content(archive)
        number += 1


def _skip_content(archive: tarfile.TarFile) -> None:
    """Read up to the next header; tarfile does not stop at the end of the file."""
    stream = archive.fileobj
    while stream is not None and (left := archive.offset - stream.tell()) > 0:
        if not stream.read(min(left, 1 << 20)):
            raise tarfile.ReadError("unexpected end of data")


@contextmanager
def _open_stream(open_file: OpenFile, signature: bytes) -> Iterator[tarfile.TarFile]:
    decompress = next(
        (opener for start, opener in _DECOMPRESSORS if signature.startswith(start)), nullcontext
    )
    with (
        open_file() as file,
        decompress(file) as raw,
        tarfile.open(fileobj=raw, mode="r|", tarinfo=_StrictHeader) as archive,
    ):
        yield archive


def _open_source(open_file: OpenFile, signature: bytes, source: int) -> IO[bytes] | None:
    """Read the content of a hard link, too large to be kept, from the archive once more."""
    with _open_stream(open_file, signature) as archive:
        for number, member in _members(archive):
            if number == source:
                content = archive.extractfile(member)
                return None if content is None else io.BytesIO(content.read())
    return None


def _fits(plan: _Plan, cached: dict[int, bytes], number: int) -> bool:
    return sum(map(len, cached.values())) + plan.sizes[number] <= _MAX_CACHED_BYTES


def _problem(member: tarfile.TarInfo) -> str:
    if member.isreg():
        return ""
    if member.isdir():
        return FOLDER
    return "a link" if member.issym() or member.islnk() else "a special file"


def _path(name: str) -> str:
    """Return the path that a name stands for, as two names can be one file."""
    return posixpath.normpath(name).lstrip("/")


def _time(member: tarfile.TarInfo) -> int:
    return to_int64(member.mtime if math.isfinite(member.mtime) else 0)


def _check_end(archive: tarfile.TarFile) -> Iterator[Member]:
    """Read the padding, which lets the decompressor compare its checksum; yield what is wrong."""
    for _ in range(_MAX_PADDING_MEBIBYTES):
        padding = archive.fileobj.read(1 << 20) if archive.fileobj else b""
        if padding.strip(b"\0"):
            problem = "data after the end of the archive (two archives joined?)"
            yield Member("", 0, problem, lambda: None)
            return
        if not padding:
            return
