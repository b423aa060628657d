"""Labelled samples, streamed out of folders, tar and zip archives without unpacking them to disk.

Every input is read once, front to back, and a picture's bytes exist only in memory, so no name in
an archive can lead outside it. Whatever is no picture of ours is reported and never read.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from facegender.errors import InputError
from facegender.model_file import LABELS

_GENDERS = {
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("male", "m", "man"), "male"),
    "": "",
}
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_FOLDER = "a folder"
_TAR_EXTRA_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
    | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], AbstractContextManager[Any]]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_LONGEST_TAR_HEADER_BYTES = 1 << 20
_LONGEST_TAR_TAIL_MEBIBYTES = 1024
_LAYOUT = (
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
class Sample:
    """One labelled picture: where it came from and what is known of it; (archive, file) is unique.

    `archive` is the name (not the path) of the archive or folder, `file` the "/"-separated name in
    it, `label` one of LABELS; the rest is the table's and empty where it says nothing.
    """

    archive: str
    file: str
    label: str
    person: str = ""
    source: str = ""
    age: str = ""
    race: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is read before an input is taken for an archive bomb, over all inputs together."""

    members: int = 5_000_000
    member_bytes: int = 256 << 20
    total_bytes: int = 1 << 40


DEFAULT_LIMITS = Limits()


def stream_samples(
    inputs: Sequence[Path],
    table: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
    on_skip: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[Sample, bytes]]:
    """Yield each labelled picture's sample and file bytes, so that nothing is unpacked to disk.

    The label is the innermost folder named male or female, unless the table's `gender` says
    otherwise. `on_skip(name, reason)` hears of every file, and at the end of every table row, that
    came to nothing. Bytes are not decoded here: a sample may turn out to be no picture.

    Raises InputError: for a missing input, two inputs of one name, or a wrong table at the call;
    for a damaged or encrypted archive, a passed limit, no sample at all, or a table of which no
    row matched, while iterating.
    """
    if not inputs:
        raise InputError(f"No input was given. {_LAYOUT}")
    paths: dict[str, Path] = {}
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path of the folder or archive.")
        name = _input_name(path)
        if name in paths:
            raise InputError(
                f"{paths[name]} and {path} have the same name, {name}, which must tell samples "
                "apart. Rename one of them, or give it once."
            )
        paths[name] = path
    rows = {} if table is None else _read_table(table)
    return _stream(paths, table, rows, limits, on_skip or (lambda _name, _reason: None))


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table; `facts` are person, source, age and race, as in a Sample."""

    line: int
    gender: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of an input; `problem` says why it must not be opened, empty if it may be."""

    name: str
    size: int
    problem: str
    open: Callable[[], IO[bytes] | None]


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


def _stream(
    paths: dict[str, Path],
    table: Path | None,
    rows: dict[tuple[str, str], _Row],
    limits: Limits,
    on_skip: Callable[[str, str], None],
) -> Iterator[tuple[Sample, bytes]]:
    """Do the work of `stream_samples` once its arguments are known to be good."""
    matched: set[tuple[str, str]] = set()
    strays = _strays(rows, paths)
    found = members = total_bytes = 0
    for archive, path in paths.items():
        seen: set[str] = set()
        for member in _members(archive, path):
            members += 1
            total_bytes += member.size
            shown = f"{archive}/{member.name}"
            if members > limits.members:
                raise _limit_error(archive, "members", limits.members, "files and folders")
            if total_bytes > limits.total_bytes:
                raise _limit_error(archive, "total_bytes", limits.total_bytes, "bytes in all")
            if member.problem == _FOLDER:
                continue
            if reason := member.problem or _name_problem(member.name):
                on_skip(shown, reason)
                continue
            file = _plain_name(member.name)
            key = (archive, file) if (archive, file) in rows else strays.get(file, ("", file))
            row = rows.get(key)
            label = (row.gender if row else "") or _folder_label(file)
            if row:
                matched.add(key)
            if not label:
                on_skip(shown, "not in a folder named male or female, and no gender in a table")
                continue
            if file in seen:
                on_skip(shown, "a second file of this name; the first one counts")
                continue
            seen.add(file)
            if member.size > limits.member_bytes:
                raise _limit_error(shown, "member_bytes", limits.member_bytes, "bytes in a file")
            data = _read(archive, member)
            found += 1
            yield Sample(archive, file, label, *(row.facts if row else ())), data
    if not found:
        given = ", ".join(map(str, paths.values()))
        hint = f" No row of {table} matched a file either." if rows and not matched else ""
        raise InputError(f"No labelled picture in {given}.{hint} {_LAYOUT}")
    if rows and not matched:
        raise InputError(
            f"Not one row of {table} matches a file. Its `file` must be the name inside the "
            f"archive or folder, and its `archive` empty or one of: {', '.join(paths)}."
        )
    for key, row in rows.items():
        if key not in matched:
            on_skip("/".join(filter(None, key)), f"line {row.line} of {table} matches no file")


def _strays(
    rows: dict[tuple[str, str], _Row], archives: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Rows for archives that were not given, by file: those of a set that was unpacked or renamed.

    Only a file named once in the table can be told without its archive.
    """
    given = {"", *archives}
    times = Counter(file for _, file in rows)
    return {key[1]: key for key in rows if key[0] not in given and times[key[1]] == 1}


def _limit_error(where: str, limit: str, value: int, unit: str) -> InputError:
    """Say which limit was passed, and how to go on if the input is to be trusted."""
    return InputError(
        f"{where}: more than {value:,} {unit}, which looks like an archive bomb. If the data is "
        f"sound, raise the limit `{limit}`."
    )


def _input_name(path: Path) -> str:
    """Give the last part of a path, also for "." and ".."."""
    name = path.absolute().name
    return name if name not in ("", "..") else path.resolve().name or "/"


def _plain_name(name: str) -> str:
    """Drop a leading "./" and other empty steps, so that table and archive spell names alike."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _folder_label(file: str) -> str:
    """Find the innermost folder that is named as a label; empty if none is."""
    folders = (part.lower() for part in reversed(file.split("/")[:-1]))
    return next((part for part in folders if part in LABELS), "")


def _name_problem(name: str) -> str:
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


def _read(archive: str, member: _Member) -> bytes:
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


def _members(archive: str, path: Path) -> Iterator[_Member]:
    """List an input's entries in its own order; its kind is told by content, not by its name."""
    with _damage_explained(archive):
        if path.is_dir():
            members = _folder_members(path)
        elif not path.is_file():
            raise InputError(f"{path} is neither a folder nor a file. {_LAYOUT}")
        else:
            with path.open("rb") as stream:
                magic = stream.read(6)
            is_zip = magic.startswith((b"PK\x03\x04", b"PK\x05\x06"))
            members = _zip_members(archive, path) if is_zip else _tar_members(path, magic)
    while True:
        with _damage_explained(archive):
            member = next(members, None)
        if member is None:
            return
        yield member


def _folder_members(root: Path) -> Iterator[_Member]:
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
            if problem == _FOLDER and _name_problem(inside):
                folders.remove(name)
                problem = _name_problem(inside)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            yield _Member(inside, size, problem, partial(_open_file, path))


def _open_file(path: Path) -> IO[bytes]:
    """Open a file of a folder for reading."""
    return path.open("rb")


def _tar_members(path: Path, magic: bytes) -> Iterator[_Member]:
    """Stream a tar; the decompressor is ours, as tarfile's own overlooks a cut or damaged end."""
    decompress = next(
        (opener for start, opener in _OPENERS if magic.startswith(start)), nullcontext
    )
    with (
        path.open("rb") as file,
        decompress(file) as raw,
        tarfile.open(fileobj=raw, mode="r|", tarinfo=_StrictHeader) as archive,
    ):
        while (member := archive.next()) is not None:
            # tarfile remembers every member, which would fill the memory and serves nothing here.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg():
                problem = ""
            elif member.isdir():
                problem = _FOLDER
            else:
                problem = "a link" if member.issym() or member.islnk() else "a special file"
            yield _Member(member.name, member.size, problem, partial(archive.extractfile, member))
        # Reading on to the end lets the decompressor compare its checksum.
        for _ in range(_LONGEST_TAR_TAIL_MEBIBYTES):
            tail = archive.fileobj.read(1 << 20) if archive.fileobj else b""
            if tail.strip(b"\0"):
                yield _Member(
                    "", 0, "more follows its end mark: two archives joined?", lambda: None
                )
                return
            if not tail:
                return


def _zip_members(archive_name: str, path: Path) -> Iterator[_Member]:
    """List a zip by its directory; names with backslashes, against the standard, are put right."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.replace("\\", "/")
            if info.flag_bits & 0x1:
                raise InputError(
                    f"{archive_name} is encrypted ({name} needs a password). Unpack it yourself "
                    "and give the folder, or pack it again without a password."
                )
            problem = _FOLDER if name.endswith("/") else _mode_problem(info.external_attr >> 16)
            yield _Member(name, info.file_size, problem, partial(archive.open, info))


def _mode_problem(mode: int) -> str:
    """Say what a Unix file mode stands for unless it is a plain file, or of no kind at all."""
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG):
        return ""
    if kind == stat.S_IFDIR:
        return _FOLDER
    return "a link" if kind == stat.S_IFLNK else "a special file"


def _read_table(path: Path) -> dict[tuple[str, str], _Row]:
    """Read the table of corrections, keyed by (archive or "", file)."""
    rows: dict[tuple[str, str], _Row] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = [column.strip().lower() for column in next(reader, [])]
            if "file" not in columns:
                raise InputError(
                    f"{path}, line 1: no column named `file` among {columns}. Give a "
                    "comma-separated table with a heading; its `file` is the name in the archive."
                )
            for values in reader:
                if values:
                    key, row = _parse_row(path, reader.line_num, columns, values)
                    if key in rows:
                        raise InputError(
                            f"{path}, line {row.line}: {key[1]} was already on line "
                            f"{rows[key].line}. Keep one of the two."
                        )
                    rows[key] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The table {path} cannot be read ({error}). Give a CSV file in UTF-8."
        ) from error
    return rows


def _parse_row(
    path: Path, line: int, columns: list[str], values: list[str]
) -> tuple[tuple[str, str], _Row]:
    """Check one line of the table and give its key and content."""
    if len(values) > len(columns):
        raise InputError(
            f"{path}, line {line}: {len(values)} values for {len(columns)} columns. Put values "
            "with commas in double quotes."
        )
    cells = dict(zip(columns, values, strict=False))
    file = _plain_name(cells.get("file", ""))
    if not file:
        raise InputError(f"{path}, line {line}: `file` is empty. Fill it in or remove the line.")
    said = cells.get("gender", "").strip()
    gender = _GENDERS.get(said.lower())
    if gender is None:
        raise InputError(
            f"{path}, line {line}: gender {said!r} is not known. Write male or female, or leave "
            "it empty to keep the folder's label."
        )
    facts = tuple(cells.get(name, "").strip() for name in ("person", "source", "age", "race"))
    archive = cells.get("archive", "").strip()
    return (archive, file), _Row(line, gender, facts)
