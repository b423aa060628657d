from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made import encode, image

fsspec = pytest.importorskip("fsspec", reason="the extra 'cluster' is not installed")

from facegender.cluster.shards import Shard, plan_shards  # noqa: E402
from facegender.errors import FacegenderError, InputError  # noqa: E402
from facegender.inputs.paths import collect_inputs  # noqa: E402

Photos = Callable[..., Path]
GOOD = encode(image("male", seed=1))
NAMES = [f"{number}.png" for number in range(1, 12)]


@pytest.fixture
def store() -> Iterator[Any]:
    """An object store in this process's memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


def keys_of(shards: list[Shard]) -> list[str]:
    return [shard.prefix + name for shard in shards for name in shard.names]


def test_a_folder_in_shards(photos: Photos) -> None:
    folder = photos(dict.fromkeys(NAMES, GOOD))
    shards = plan_shards([str(folder)], shard_size=4)
    assert [len(shard.names) for shard in shards] == [4, 4, 3]
    assert [shard.number for shard in shards] == [0, 1, 2]
    assert keys_of(shards) == [item.key for item in collect_inputs([folder])] == NAMES
    assert (
        plan_shards([f"file://{folder}"], shard_size=4)
        == shards
        == plan_shards([str(folder)], shard_size=4)
    )


def test_the_state_is_that_of_the_shard(photos: Photos) -> None:
    folder = photos(dict.fromkeys(NAMES, GOOD))
    before = plan_shards([str(folder)], shard_size=4)
    os.utime(folder / "5.png", ns=(1, 1))
    after = plan_shards([str(folder)], shard_size=4)
    assert [a.state == b.state for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert before[0].file_name("one model") != before[0].file_name("another")
    assert before[0].file_name("one model") == after[0].file_name("one model")
    assert before[1].file_name("one model") != after[1].file_name("one model")


def test_archives_are_shards(photos: Photos, tmp_path: Path) -> None:
    import tarfile

    folder = photos({"a.png": GOOD})
    for name in ("one.tar", "two.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.add(folder / "a.png", "a.png")
    shards = plan_shards([str(tmp_path / "*.tar"), str(folder)])
    assert [shard.is_archive for shard in shards] == [True, True, False]
    assert [shard.prefix for shard in shards][:2] == [
        f"{tmp_path}/one.tar/",
        f"{tmp_path}/two.tar/",
    ]


def test_a_list_from_standard_input(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(dict.fromkeys(NAMES, GOOD))
    monkeypatch.chdir(folder)
    (shard,) = plan_shards(["-"], stdin=b"10.png\n2.png\n2.png\n")
    assert shard.names == ("2.png", "10.png") and shard.is_list
    assert shard.root == str(folder)  # so that it means the same on another machine


def test_a_folder_of_a_store(store: Any) -> None:
    for name in NAMES:
        store.pipe_file(f"/bucket/photos/{name}", GOOD)
    store.pipe_file("/bucket/photos/inner/12.png", GOOD)
    shards = plan_shards(["memory://bucket/photos"], shard_size=4)
    assert keys_of(shards) == NAMES
    assert shards[0].sizes == (len(GOOD),) * 4
    assert keys_of(plan_shards(["memory://bucket/photos/"], recursive=True)) == [
        *NAMES,
        "inner/12.png",
    ]
    assert shards == plan_shards(["memory://bucket/photos"], shard_size=4)
    store.pipe_file("/bucket/photos/3.png", GOOD + b"0")
    assert shards[0].state != plan_shards(["memory://bucket/photos"], shard_size=4)[0].state


def test_patterns_archives_and_lists_of_a_store(store: Any) -> None:
    for name in ("2.tar", "10.tar", "a.png"):
        store.pipe_file(f"/bucket/{name}", GOOD)
    archives = plan_shards(["memory://bucket/*.tar"])
    assert [shard.root for shard in archives] == [
        "memory:///bucket/2.tar",
        "memory:///bucket/10.tar",
    ]
    store.pipe_file("/bucket/all.txt", b"memory://bucket/a.png\nmemory://bucket/2.tar\n")
    archive, files = plan_shards(["memory://bucket/all.txt"])
    assert archive.is_archive and archive.prefix == "memory://bucket/2.tar/"
    assert files.names == ("memory://bucket/a.png",) and files.root == ""


@pytest.mark.parametrize(
    ("names", "listed", "reason"),
    [
        (["gone"], None, "^Folder not found: gone$"),
        (["memory://bucket/none/"], None, "No file in"),
        (["memory://bucket/gone"], None, "File not found: memory://bucket/gone"),
        (["memory://bucket/gone.tar"], None, "File not found: memory://bucket/gone.tar"),
        (["memory://bucket/gone.txt"], None, "Cannot read the list"),
        (["memory://bucket/*.jpg"], None, "No file matches"),
        (["wrong://bucket/a.jpg/"], None, "Cannot read"),
        (["-", "memory://bucket/a.jpg"], b"b.jpg", "[Uu]se two runs"),
        (["-"], b"b.jpg\nmemory://bucket/a.jpg", "and also the local path"),
    ],
)
def test_what_cannot_be_planned(
    store: Any, names: list[str], listed: bytes | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        plan_shards(names, stdin=listed)


def test_a_store_without_its_library() -> None:
    with pytest.raises(FacegenderError, match="dropbox"):  # nobody here has that one
        plan_shards(["dropbox://bucket/photos/"])
