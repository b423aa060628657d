"""What the user names, and the files behind it."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

from facegender.errors import InputError
from facegender.images.formats import ImageLimits
from facegender.inputs.paths import collect_inputs

Photos = Callable[..., Path]
GOOD = encode(image(seed=1))


@pytest.fixture
def here(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, as the working folder."""
    names = ("1.png", "2.png", "10.png", "a/1.png", "b/1.png", "b/c/1.png")
    folder = photos(dict.fromkeys(names, GOOD))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("named", "keys"),
    [
        (["."], ["1.png", "2.png", "10.png"]),
        (["a"], ["1.png"]),
        (["a", "b"], ["a/1.png", "b/1.png"]),
        (["a", "a/", "./a"], ["1.png"]),
        (["a/1.png"], ["a/1.png"]),
        (["2.png", "1.png", "2.png"], ["1.png", "2.png"]),
        (["*.png"], ["1.png", "2.png", "10.png"]),
        (["[12].png", "b"], ["b/1.png", "1.png", "2.png"]),
        (["**/1.png"], ["1.png", "a/1.png", "b/1.png", "b/c/1.png"]),
    ],
    ids=str,
)
def test_keys(here: Path, named: list[str], keys: list[str]) -> None:
    inputs = collect_inputs(named)
    found = [item.key for item in inputs]
    assert found == keys and inputs.total == len(keys)
    assert all(item.path and item.path.read_bytes() == GOOD for item in inputs)
    assert all(item.size == len(GOOD) and item.state > 0 for item in inputs)


def test_folders_inside(here: Path) -> None:
    keys = [item.key for item in collect_inputs(["b"], recursive=True)]
    assert keys == ["1.png", "c/1.png"]


def test_lists(here: Path) -> None:
    Path("names.txt").write_bytes(b"b/1.png\r\n\n./1.png\ngone.png\nb/1.png\n")
    keys = ["1.png", "b/1.png", "gone.png"]
    assert [item.key for item in collect_inputs(["names.txt"])] == keys
    listed = io.BytesIO(b"b/1.png\0with\nnewline.png\0")
    assert [item.key for item in collect_inputs(["-"], stdin=listed)] == [
        "b/1.png",
        "with\nnewline.png",
    ]
    for encoding in ("utf-8-sig", "utf-16"):
        Path("windows.txt").write_text("b/1.png\n", encoding=encoding)
        assert [item.key for item in collect_inputs(["windows.txt"])] == ["b/1.png"]
    assert collect_inputs(["windows.txt"]).lists == (Path("windows.txt"),)
    Path("image.txt").write_bytes(GOOD)  # not a list by its content
    assert [item.key for item in collect_inputs(["image.txt"])] == ["image.txt"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.zip", "no suffix"])
def test_archives(here: Path, name: str) -> None:
    members = {
        "./x/2.png": GOOD,
        "x/notes.txt": b"hi",
        "../.up.png": GOOD,
        "__MACOSX/x/._2.png": b"\x00\x05\x16\x07" + bytes(60),
        "x/big.png": bytes(len(GOOD) + 1),
    }
    if name == "a.zip":
        with zipfile.ZipFile(name, "w") as packed:
            for member, data in members.items():
                packed.writestr(member, data)
    else:
        with tarfile.open(name, f"w:{name.partition('.tar.')[2]}") as tar:
            for member, data in members.items():
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
            link = tarfile.TarInfo("x/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    inputs = collect_inputs([name], limits=ImageLimits(bytes=len(GOOD)))
    found = {item.key: item for item in inputs}
    assert inputs.total is None
    assert found["x/2.png"].data == GOOD and found["x/2.png"].path is None
    assert not found["x/notes.txt"].is_image and "__MACOSX/x/._2.png" not in found
    assert found["../.up.png"].data == GOOD  # a name only: nothing is ever unpacked
    assert len({item.identity for item in found.values() if item.data}) == 2
    assert "over the limit" in found["x/big.png"].problem
    assert name == "a.zip" or "a link" in found["x/link.png"].problem
    both = [item.key for item in collect_inputs([name, "a"])]
    assert f"{name}/x/2.png" in both and "a/1.png" in both


def test_a_damaged_archive_is_a_row_after_its_good_members(here: Path) -> None:
    with tarfile.open("a.tar.gz", "w:gz") as tar:
        for n in range(40):
            data = os.urandom(4000)
            header = tarfile.TarInfo(f"{n}.png")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    packed = Path("a.tar.gz").read_bytes()
    Path("a.tar.gz").write_bytes(packed[: len(packed) // 2])
    items = list(collect_inputs(["a.tar.gz", "a"]))
    assert len([item for item in items if item.data]) > 5
    (bad,) = [item for item in items if item.problem]
    assert bad.key == "a.tar.gz/" and "damaged" in bad.problem
    assert items[-1].key == "a/1.png"


def test_what_vanished_among_others_is_a_row(here: Path) -> None:
    Path("link.png").symlink_to("gone.png")
    for named in (["1.png", "link.png"], ["[1l]*.png"]):
        assert "link.png" in [item.key for item in collect_inputs(named)]


def test_what_lies_in_a_named_folder_comes_once(here: Path) -> None:
    assert [item.key for item in collect_inputs(["a", "a/1.png"])] == ["a/1.png"]
    keys = [item.key for item in collect_inputs(["b", "b/c", "b/c/1.png"], recursive=True)]
    assert keys == ["b/1.png", "b/c/1.png"]
    assert len(list(collect_inputs(["b", "b/c"]))) == 2


def test_an_encrypted_member_is_a_row(here: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as packed:
        for name in ("1.png", "2.png", "3.png"):
            packed.writestr(name, GOOD)
    data = bytearray(Path("a.zip").read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[second + 8] |= 1  # the flag in the directory's entry
    Path("a.zip").write_bytes(data)
    problems = {item.key: item.problem for item in collect_inputs(["a.zip"])}
    assert "password" in problems["2.png"] and not problems["1.png"] and not problems["3.png"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("gone", "^Folder not found: gone$"),
        ("*.tiff", "No file matches the pattern"),
        ("a/gone.png", "^File not found: a/gone.png$"),
    ],
)
def test_what_is_not_there(here: Path, named: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collect_inputs([named])


@pytest.mark.parametrize(
    ("named", "end"),
    [
        ("p [2024]/*.png", "The folder p [2024] exists: to read it, write p [[]2024]/*.png"),
        ("p [2024]/x/[ab].png", "to read it, write p [[]2024]/x/[ab].png"),
        ("./p [2024]//*.png", "to read it, write ./p [[]2024]//*.png"),
        ("p [2024]/*.gif", "exists, but nothing in it matches p [[]2024]/*.gif either"),
        ("IMG[1].png", "If they are part of the name, write [[] for [: IMG[[]1].png"),
        ("p [[]2024]/*.gif", "gif. Check its folder and suffix"),
    ],
)
def test_brackets_in_a_pattern(here: Path, named: str, end: str) -> None:
    Path("p [2024]/x").mkdir(parents=True)
    for name in ("p [2024]/1.png", "p [2024]/x/a.png"):
        Path(name).write_bytes(GOOD)
    with pytest.raises(InputError) as error:
        collect_inputs([named])
    assert str(error.value).startswith(f"No file matches the pattern {named}.")
    assert str(error.value).endswith(end)
    assert ("one of the characters between them" in str(error.value)) == ("[[]" not in named)
    for written in re.findall(r"to read it, write (.*)", str(error.value)):
        assert len(list(collect_inputs([written]))) == 1
    assert len(list(collect_inputs(["p [2024]"]))) == 1  # a name that exists is no pattern


def test_images_in_subfolders_are_counted(here: Path) -> None:
    Path("b/notes.md").write_bytes(b"x")
    Path("b/@eaDir").mkdir()
    Path("b/@eaDir/1.png").write_bytes(GOOD)
    assert collect_inputs(["."]).count_in_subfolders(99) == 3
    assert collect_inputs(["."]).count_in_subfolders(2) == 2
    assert collect_inputs(["."], exclude=["c"]).count_in_subfolders(99) == 2
    assert collect_inputs([".", "b"]).count_in_subfolders(99) == 2  # b is an input itself
    assert collect_inputs(["."], recursive=True).count_in_subfolders(99) == 0
    assert collect_inputs(["1.png"]).count_in_subfolders(99) == 0


def test_our_own_files_are_no_input(here: Path) -> None:
    Path("a/.facegender-process_results.json.journal").write_bytes(b"SQLite")
    assert [item.key for item in collect_inputs(["a"])] == ["1.png"]
