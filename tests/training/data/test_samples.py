"""Samples of every kind of input, the metadata table, and all that is skipped or refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegender.errors import InputError
from facegender.training.data.samples import ArchiveLimits, Sample, stream_samples

FACES = {"male/1.jpg": b"one", "female/2.png": b"two", "set/MALE/deep/3.jpg": b""}
EXPECTED = {
    ("male/1.jpg", "male", b"one"),
    ("female/2.png", "female", b"two"),
    ("set/MALE/deep/3.jpg", "male", b""),
}
Entry = tuple[str, bytes]


def folder(path: Path, entries: Sequence[Entry]) -> Path:
    path.mkdir()
    for name, data in entries:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar(path: Path, entries: Sequence[Entry], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, entries: Sequence[Entry]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


MAKERS: dict[str, Callable[[Path, Sequence[Entry]], Path]] = {
    "folder": folder,
    "tar": tar,
    "tar.gz": lambda path, entries: tar(path, entries, "w:gz"),
    "tar.bz2": lambda path, entries: tar(path, entries, "w:bz2"),
    "tar.xz": lambda path, entries: tar(path, entries, "w:xz"),
    "zip": zipped,
}
ARCHIVES = [kind for kind in MAKERS if kind != "folder"]


def collect(
    *inputs: Path, metadata: Path | None = None, limits: ArchiveLimits | None = None
) -> tuple[list[tuple[Sample, bytes]], dict[str, str]]:
    skipped: dict[str, str] = {}
    found = stream_samples(inputs, metadata, limits or ArchiveLimits(), skipped.__setitem__)
    return list(found), skipped


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_input_is_known_by_its_content(tmp_path: Path, kind: str):
    path = MAKERS[kind](tmp_path / "data.bin", list(FACES.items()))
    found, skipped = collect(path)
    assert {(item.file, item.label, data) for item, data in found} == EXPECTED
    assert {item.archive for item, _ in found} == {"data.bin"}
    assert skipped == {}


def test_several_inputs_are_read_in_turn_and_nothing_is_written(tmp_path: Path):
    inputs = [MAKERS[kind](tmp_path / f"x.{kind}", [("male/a.jpg", b"a")]) for kind in MAKERS]
    before = sorted(tmp_path.rglob("*"))
    found, _ = collect(*inputs)
    assert [item.archive for item, _ in found] == [path.name for path in inputs]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_walked_in_sorted_order(tmp_path: Path):
    names = [f"male/{name}.jpg" for name in "cab"] + ["female/z.jpg", "male/0/q.jpg"]
    found, _ = collect(folder(tmp_path / "data", [(name, b"") for name in names]))
    assert [item.file for item, _ in found] == [
        "female/z.jpg",
        "male/a.jpg",
        "male/b.jpg",
        "male/c.jpg",
        "male/0/q.jpg",
    ]


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "faces", list(FACES.items()))
    monkeypatch.chdir(root / "male")
    assert {item.archive for item, _ in collect(Path(".."))[0]} == {"faces"}
    monkeypatch.chdir(root)
    assert {item.archive for item, _ in collect(Path())[0]} == {"faces"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("male/x.jpg", "male"),
        ("./male/x.jpg", "male"),
        ("Female/x.jpg", "female"),
        ("male/female/x.jpg", "female"),
        ("female/male/a/b/x.jpg", "male"),
        ("male/\u0436 \u5973.jpg", "male"),
        ("x.jpg", None),
        ("males/x.jpg", None),
        ("x/male", None),
        ("male.jpg", None),
    ],
)
@pytest.mark.parametrize("kind", MAKERS)
def test_the_label_is_the_innermost_folder(tmp_path: Path, kind: str, name: str, label: str | None):
    path = MAKERS[kind](tmp_path / "data", [("male/ok.jpg", b""), (name, b"face")])
    found, skipped = collect(path)
    rest = [item for item, _ in found if not item.file.endswith("ok.jpg")]
    if label:
        assert rest == [Sample("data", name.removeprefix("./"), label)]
    else:
        assert rest == []
        assert "not in a folder" in skipped[f"data/{name}"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/male/x.jpg", "absolute"),
        ("C:/male/x.jpg", "absolute"),
        ("male/../../x.jpg", "'..'"),
        ("male/.DS_Store", "hidden"),
        ("male/._x.jpg", "hidden"),
        (".git/male/x.jpg", "hidden"),
        ("__MACOSX/male/x.jpg", "macOS"),
        ("male/Thumbs.db", "system"),
        ("male/desktop.ini", "system"),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_unsafe_and_junk_names_are_skipped(tmp_path: Path, kind: str, name: str, reason: str):
    if kind == "folder" and reason in ("absolute", "'..'"):
        pytest.skip("no folder can hold such a name")
    path = MAKERS[kind](tmp_path / "data", [("male/ok.jpg", b""), (name, b"face")])
    found, skipped = collect(path)
    assert [item.file for item, _ in found] == ["male/ok.jpg"]
    (shown, said), *more = skipped.items()
    assert f"data/{name}".startswith(shown)
    assert reason in said
    assert not more


def test_backslashes_in_a_zip_part_folders(tmp_path: Path):
    found, skipped = collect(
        zipped(tmp_path / "z", [("male\\1.jpg", b"1"), ("male\\..\\..\\2.jpg", b"2")])
    )
    assert [item.file for item, _ in found] == ["male/1.jpg"]
    assert list(skipped.values()) == ["a path with '..'"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a special file"),
        (tarfile.BLKTYPE, "a special file"),
        (tarfile.FIFOTYPE, "a special file"),
    ],
)
def test_links_and_devices_in_a_tar_are_skipped(tmp_path: Path, kind: bytes, reason: str):
    with tarfile.open(tmp_path / "t", "w") as archive:
        for name, member_kind in (("male", tarfile.DIRTYPE), ("male/odd.jpg", kind)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = member_kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("male/ok.jpg"))
    found, skipped = collect(tmp_path / "t")
    assert [item.file for item, _ in found] == ["male/ok.jpg"]
    assert skipped == {"t/male/odd.jpg": reason}


def test_links_and_pipes_in_a_folder_are_skipped(tmp_path: Path):
    root = folder(tmp_path / "data", [("male/ok.jpg", b"")])
    (root / "male" / "link.jpg").symlink_to(root / "male" / "ok.jpg")
    (root / "female").symlink_to(tmp_path)
    os.mkfifo(root / "male" / "pipe.jpg")
    found, skipped = collect(root)
    assert [item.file for item, _ in found] == ["male/ok.jpg"]
    assert skipped == {
        "data/female": "a link",
        "data/male/link.jpg": "a link",
        "data/male/pipe.jpg": "a special file",
    }


def test_a_link_in_a_zip_is_skipped(tmp_path: Path):
    info = zipfile.ZipInfo("male/link.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("male/ok.jpg", b"")
        archive.mkdir("female") if hasattr(archive, "mkdir") else None
    found, skipped = collect(tmp_path / "z")
    assert [item.file for item, _ in found] == ["male/ok.jpg"]
    assert skipped == {"z/male/link.jpg": "a link"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_the_second_of_a_name_is_skipped(tmp_path: Path, kind: str):
    entries = [("male/a.jpg", b"1"), ("./male/a.jpg", b"2"), ("male/a.jpg", b"3")]
    found, skipped = collect(MAKERS[kind](tmp_path / "data", entries))
    assert [data for _, data in found] == [b"1"]
    assert all("second file" in reason for reason in skipped.values())


# Damage


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("subset", [0.3, 0.6, 0.8])
def test_a_cut_archive_is_an_error_that_names_it(tmp_path: Path, kind: str, subset: float):
    draw = random.Random(1)
    path = MAKERS[kind](
        tmp_path / "data", [(f"male/{n}.jpg", draw.randbytes(3000)) for n in range(20)]
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * subset)])
    with pytest.raises(InputError, match=r"^data .*damaged"):
        collect(path)


def test_a_tar_cut_between_two_members_or_broken_in_a_header_is_an_error(tmp_path: Path):
    path = tar(tmp_path / "data", [("male/1.jpg", b"1"), ("male/2.jpg", b"2")])
    whole = path.read_bytes()
    for broken in (whole[:1024], whole[:1124], whole[:1024] + b"x" * 512 + whole[1536:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="damaged"):
            collect(path)


def test_a_wrong_checksum_at_the_end_is_an_error(tmp_path: Path):
    path = MAKERS["tar.gz"](tmp_path / "data", list(FACES.items()))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC"):
        collect(path)


def test_a_second_archive_behind_the_first_is_reported(tmp_path: Path):
    path = tar(tmp_path / "data", [("male/1.jpg", b"1")])
    path.write_bytes(path.read_bytes() * 2)
    found, skipped = collect(path)
    assert len(found) == 1
    assert "two archives joined" in skipped["data/"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff a jpeg", gzip.compress(b"a text"), b"PK\x03\x04"]
)
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        collect(tmp_path / "data")


def test_an_encrypted_zip_is_an_error(tmp_path: Path):
    path = zipped(tmp_path / "z.zip", [("male/1.jpg", b"1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"z\.zip is encrypted"):
        collect(path)


def test_an_endless_name_in_a_tar_is_refused_before_it_is_read(tmp_path: Path):
    info = tarfile.TarInfo("male/1.jpg")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "t").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="impossible size"):
        collect(tmp_path / "t")


@pytest.mark.parametrize("kind", ARCHIVES)
@given(st.integers(0, 2**16), st.integers(1, 255))
@settings(max_examples=15, deadline=None)
def test_a_damaged_byte_gives_the_right_bytes_or_an_error(tmp_path_factory, kind, place, change):
    draw = random.Random(1)
    content = [(f"male/{n}.jpg", draw.randbytes(200)) for n in range(4)]
    path = MAKERS[kind](tmp_path_factory.mktemp("damage") / "data", content)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)
    try:
        found, _ = collect(path)
    except InputError:
        return
    if kind != "tar":  # a plain tar has no checksum of what it holds
        assert {data for _, data in found} <= {data for _, data in content}


# Limits


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (ArchiveLimits(members=2), "`members`"),
        (ArchiveLimits(member_bytes=2), "`member_bytes`"),
        (ArchiveLimits(total_bytes=5), "`total_bytes`"),
        (ArchiveLimits(members=8, member_bytes=3, total_bytes=6), None),
    ],
)
def test_a_limit_is_named_when_it_is_passed(
    tmp_path: Path, kind: str, limits: ArchiveLimits, name: str | None
):
    path = MAKERS[kind](tmp_path / "data", list(FACES.items()))
    if name is None:
        assert len(collect(path, limits=limits)[0]) == 3
        return
    with pytest.raises(InputError, match=name):
        collect(path, limits=limits)


def test_a_zip_that_lies_about_a_size_is_an_error(tmp_path: Path):
    path = zipped(tmp_path / "z", [("male/1.jpg", bytes(100_000))])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        collect(path, limits=ArchiveLimits(member_bytes=100))


def test_a_large_file_that_is_no_sample_is_no_error(tmp_path: Path):
    path = tar(tmp_path / "t", [("film.mp4", bytes(9000)), ("male/1.jpg", b"1")])
    assert len(collect(path, limits=ArchiveLimits(member_bytes=10))[0]) == 1


# Inputs


def test_missing_and_like_named_inputs_are_refused_before_anything_is_read(tmp_path: Path):
    one = folder(tmp_path / "x.tar", list(FACES.items()))
    (tmp_path / "b").mkdir()
    two = tar(tmp_path / "b" / "x.tar", list(FACES.items()))
    with pytest.raises(InputError, match="does not exist"):
        stream_samples([one, tmp_path / "none"])
    with pytest.raises(InputError, match="Rename one"):
        stream_samples([one, two])
    with pytest.raises(InputError, match="No input"):
        stream_samples([])
    with pytest.raises(InputError, match="neither a folder nor a file"):
        list(stream_samples([Path("/dev/null")]))


@pytest.mark.parametrize("kind", MAKERS)
def test_no_sample_at_all_says_what_is_expected(tmp_path: Path, kind: str):
    path = MAKERS[kind](tmp_path / "data", [("men/1.jpg", b"1")])
    with pytest.raises(InputError, match="male/ and female/"):
        collect(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="male/ and female/"):
        collect(MAKERS[kind](tmp_path / "empty" / "data", []))


# The table


def test_the_table_supplies_corrects_and_adds(tmp_path: Path):
    entries = [("male/1.jpg", b""), ("male/2.jpg", b""), ("3.jpg", b""), ("4.jpg", b"")]
    one, two = tar(tmp_path / "a.tar", entries), zipped(tmp_path / "b.zip", entries)
    table = tmp_path / "table.csv"
    table.write_text(
        "Archive,file,label,person,age,race,source\n"
        "b.zip,./male/1.jpg,WOMAN,ann,30,x,web\n"
        ",male/1.jpg,,bob,,,\n"
        ",3.jpg, f ,,,,film\n"
        "c.zip,3.jpg,m,,,,\n"
        ",gone.jpg,m,,,,\n",
        encoding="utf-8-sig",
    )
    found, skipped = collect(one, two, metadata=table)
    assert [item for item, _ in found] == [
        Sample("a.tar", "male/1.jpg", "male", person="bob"),
        Sample("a.tar", "male/2.jpg", "male"),
        Sample("a.tar", "3.jpg", "female", source="film"),
        Sample("b.zip", "male/1.jpg", "female", "ann", "web", "30", "x"),
        Sample("b.zip", "male/2.jpg", "male"),
        Sample("b.zip", "3.jpg", "female", source="film"),
    ]
    assert list(skipped) == ["a.tar/4.jpg", "b.zip/4.jpg", str(table)]
    assert skipped[str(table)] == "rows that match no file: 2 (first: line 5)"


def test_a_table_still_fits_an_archive_that_was_renamed(tmp_path: Path):
    one = tar(tmp_path / "renamed.tar", [("male/1.jpg", b""), ("male/2.jpg", b"")])
    table = tmp_path / "table.csv"
    table.write_text(
        "archive,file,gender,person\n"
        "old.tar,male/1.jpg,f,ann\n"
        "old.tar,male/2.jpg,f,bob\n"  # named for two archives, so it could be either's
        "other.tar,male/2.jpg,f,cid\n"
    )
    found, _ = collect(one, metadata=table)
    assert [item for item, _ in found] == [
        Sample("renamed.tar", "male/1.jpg", "female", person="ann"),
        Sample("renamed.tar", "male/2.jpg", "male"),
    ]


@pytest.mark.parametrize("column", ["label", "gender"])
@pytest.mark.parametrize(
    ("text", "label"),
    [("m", "male"), ("Man", "male"), ("MALE", "male"), ("F", "female"), ("woman", "female")],
)
def test_labels_of_the_table(tmp_path: Path, column: str, text: str, label: str):
    path = folder(tmp_path / "data", [("x.jpg", b"")])
    table = tmp_path / "table.csv"
    table.write_text(f"file,{column}\nx.jpg,{text}\n")
    assert [item.label for item, _ in collect(path, metadata=table)[0]] == [label]


def test_a_table_may_have_label_and_gender_where_they_agree(tmp_path: Path):
    path = folder(tmp_path / "data", [("1.jpg", b""), ("2.jpg", b""), ("3.jpg", b"")])
    table = tmp_path / "table.csv"
    table.write_text("file,gender,label\n1.jpg,m,male\n2.jpg,f,\n3.jpg,,male\n")
    found, _ = collect(path, metadata=table)
    assert [item.label for item, _ in found] == ["male", "female", "male"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1: no column named `file`"),
        (b"file,label,gender\nx.jpg,male,f\n", "line 2: label 'male' and gender 'female' differ"),
        (b"file,label\nx.jpg,unknown\n", "line 2: label 'unknown' is not known"),
        (b"name,gender\nmale/1.jpg,m\n", "line 1: no column named `file`"),
        (b"file,gender\nmale/1.jpg,m\nx.jpg,unknown\n", "line 3: gender 'unknown'"),
        (b"file,gender\n,m\n", "line 2: `file` is empty"),
        (b"file\nmale/1.jpg\n./male/1.jpg\n", "line 3: male/1.jpg was already on line 2"),
        (b"file\nmale/a, b.jpg\n", "line 2: 2 values for 1 columns"),
        (b"file\n\xff\xfe\n", "UTF-8"),
        (b'file\n"x\n', "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused_at_once(tmp_path: Path, text: bytes, message: str):
    path = folder(tmp_path / "data", list(FACES.items()))
    table = tmp_path / "table.csv"
    table.write_bytes(text)
    with pytest.raises(InputError, match=message):
        stream_samples([path], table)


def test_a_table_that_matches_nothing_is_an_error(tmp_path: Path):
    path = folder(tmp_path / "data", list(FACES.items()))
    table = tmp_path / "table.csv"
    table.write_text("file\ndata/male/1.jpg\n")
    with pytest.raises(InputError, match="Not one row"):
        collect(path, metadata=table)
    with pytest.raises(InputError, match="cannot be read"):
        stream_samples([path], tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"No row of .* matched"):
        collect(folder(tmp_path / "other", [("x.jpg", b"")]), metadata=table)


def test_a_name_that_is_not_utf8(tmp_path: Path):
    name = b"male/\xe9.jpg".decode("utf-8", "surrogateescape")
    path = tmp_path / "t"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert [item.file for item, _ in collect(path)[0]] == [name]
