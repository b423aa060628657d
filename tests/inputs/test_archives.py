"""Tar and zip files of every kind: old versions, links, sparse files, odd numbers, names."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image
from made_archives import BLOCK, header, member, number, old_gnu_sparse, pax, zip_of

from facegender.inputs.paths import collect_inputs
from facegender.inputs.sources import InputFile

GOOD, OTHER = encode(image(seed=1)), encode(image(seed=2))
END = bytes(2 * BLOCK)

Read = Callable[[bytes], list[InputFile]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads an archive with this content."""

    def call(content: bytes, name: str = "archive") -> list[InputFile]:
        path = tmp_path / name
        path.write_bytes(content)
        return list(collect_inputs([path]))

    return call


def contents(files: list[InputFile]) -> dict[str, bytes]:
    assert not [file.problem for file in files if file.problem]
    found = {file.key: file.data for file in files}
    assert len(found) == len(files)  # no name twice
    return found


TARS = {
    "v7": (member(b"a.png", GOOD, kind=b"\0", magic=b""), "a.png"),
    "ustar": (member(b"a.png", GOOD), "a.png"),
    "gnu": (member(b"a.png", GOOD, magic=b"ustar  \0"), "a.png"),
    "gnu, long name": (
        member(b"././@LongLink", b"d/" * 150 + b"a.png\0", kind=b"L", magic=b"ustar  \0")
        + member(b"d/" * 50, GOOD, magic=b"ustar  \0"),
        "d/" * 150 + "a.png",
    ),
    "gnu, uid in base 256": (member(b"a.png", GOOD, uid=number(2**40, 8)), "a.png"),
    "gnu, time before 1970": (member(b"a.png", GOOD, mtime=number(-(10**9), 12)), "a.png"),
    "uid that is no number": (member(b"a.png", GOOD, uid=b"nobody\0\0"), "a.png"),
    "time that is no number": (member(b"a.png", GOOD, mtime=b"yesterday\0\0\0"), "a.png"),
    "pax, long name": (pax(path="é/" * 120 + "中.png") + member(b"x", GOOD), "é/" * 120 + "中.png"),
    "pax, huge uid": (pax(uid=str(10**30)) + member(b"a.png", GOOD), "a.png"),
    "pax, year 31000": (pax(mtime=str(10**12) + ".5") + member(b"a.png", GOOD), "a.png"),
    "pax, time beyond 64 bits": (pax(mtime=str(10**40)) + member(b"a.png", GOOD), "a.png"),
    "pax, infinite time": (pax(mtime="inf") + member(b"a.png", GOOD), "a.png"),
    "pax, no time": (pax(mtime="nan") + member(b"a.png", GOOD), "a.png"),
    "pax, time before 1970": (pax(mtime="-1.5") + member(b"a.png", GOOD), "a.png"),
    "pax, size": (
        pax(size=str(len(GOOD))) + header(b"a.png", 0) + GOOD + bytes(-len(GOOD) % BLOCK),
        "a.png",
    ),
    "old gnu sparse": (old_gnu_sparse("a.png", GOOD, len(GOOD)), "a.png"),
    "latin-1 name": (member(b"caf\xe9.png", GOOD), "caf\udce9.png"),
    "absolute name": (member(b"/tmp/a.png", GOOD), "/tmp/a.png"),
}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", TARS)
def test_tars(kind: str, is_packed: bool, read: Read) -> None:
    content, name = TARS[kind]
    content += member(b"last.png", OTHER) + END
    found = contents(read(gzip.compress(content) if is_packed else content))
    assert found == {name: GOOD, "last.png": OTHER}


def test_a_sparse_file_with_a_hole(read: Read) -> None:
    content = old_gnu_sparse("a.png", GOOD, len(GOOD) + 5000) + member(b"last.png", OTHER) + END
    assert contents(read(content)) == {"a.png": GOOD + bytes(5000), "last.png": OTHER}


def test_impossible_sizes_are_damage(read: Read) -> None:
    for block in (
        header(b"a.png", 0)[:124] + b"\xff" * 12 + header(b"a.png", 0)[136:],  # below zero
        pax(size="-5") + header(b"a.png", 0),
        pax(size=str(10**30)) + header(b"a.png", 0),
    ):
        files = read(member(b"first.png", OTHER) + block + END)
        assert files[0].data == OTHER
        assert files[-1].problem and not [file for file in files[1:] if file.data]


def test_the_last_of_several_members_of_a_name_counts(read: Read) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("a.png", OTHER), ("b.png", GOOD), ("./a.png", GOOD)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert contents(read(file.getvalue())) == {"a.png": GOOD, "b.png": GOOD}
    packed = zip_of([b"a.png", b"b.png", b"./a.png"], GOOD)
    assert len(contents(read(packed))) == 2


def test_hard_links(read: Read) -> None:
    """To a file before them, to another link, and to what is not there."""
    content = member(b"a.png", GOOD) + header(b"b.png", 0, kind=b"1", link=b"a.png")
    content += header(b"c.png", 0, kind=b"1", link=b"./b.png")
    found = contents(read(content + END))
    assert found == dict.fromkeys(("a.png", "b.png", "c.png"), GOOD)
    (file,) = read(header(b"b.png", 0, kind=b"1", link=b"a.png") + END)
    assert file.problem == "cannot be read: a hard link to a.png, which is not in the archive"


NAMES = {
    "gbk": ["中文/照片.png", "北京旅行.png"],
    "cp932": ["写真/東京タワー.png", "家族の写真.png"],
    "cp866": ["Фото/Семья.png", "лето на даче.png"],
    "cp437": ["café/Größe.png", "señor.png"],
    "utf-8": ["中文/é.png", "Фото.png"],
    "ascii": ["a/b.png", "c.png"],
}


@pytest.mark.parametrize("encoding", NAMES)
def test_names_in_a_zip(encoding: str, read: Read) -> None:
    names = [name.encode(encoding) for name in NAMES[encoding]]
    assert contents(read(zip_of(names, GOOD))) == dict.fromkeys(NAMES[encoding], GOOD)


def test_names_that_no_encoding_explains_stay_apart(read: Read) -> None:
    names = [b"\xff\xfe\x81.png", b"\xff\xfe\x8d.png"]
    assert len(contents(read(zip_of(names, GOOD)))) == 2


def test_zip64(read: Read) -> None:
    packed = zip_of([b"a.png", b"b.png"], GOOD, is_zip64=True)
    assert contents(read(packed)) == {"a.png": GOOD, "b.png": GOOD}


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_compression_in_a_zip(method: int, read: Read) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        packed.writestr("folder/", b"")
        packed.writestr("folder\\a.png", GOOD)
    assert contents(read(file.getvalue())) == {"folder/a.png": GOOD}
