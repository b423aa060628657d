"""Lists of names with any name, in pipes and on standard input."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

from facegender.errors import InputError
from facegender.inputs import lists
from facegender.inputs.paths import collect_inputs

GOOD = encode(image(seed=1))


@pytest.fixture
def here(photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = photos(dict.fromkeys(("1.png", "2.png", "é 中.png"), GOOD))
    monkeypatch.chdir(folder)
    return folder


def keys(*named: str, stdin: bytes | None = None, lists: tuple[str, ...] = ()) -> list[str]:
    stream = None if stdin is None else io.BytesIO(stdin)
    return [file.key for file in collect_inputs(named, lists=lists, stdin=stream)]


@pytest.mark.parametrize("name", ["names", "names.csv", "names.jpg", "names.txt"])
def test_a_list_with_any_name(name: str, here: Path) -> None:
    Path(name).write_text("é 中.png\n\n1.png\n", "utf-8")
    assert keys(lists=(name,)) == ["1.png", "é 中.png"]
    assert keys("2.png", lists=(name, f"./{name}")) == ["1.png", "2.png", "é 中.png"]
    assert collect_inputs([], lists=[name]).lists == (Path(name),)


def test_standard_input_as_a_list(here: Path) -> None:
    assert keys(stdin=b"1.png\n", lists=("-",)) == ["1.png"]
    assert keys("-", stdin=b"1.png\n", lists=("-",)) == ["1.png"]  # read once
    Path("names").write_text("2.png\n")
    assert keys(stdin=b"1.png\n", lists=("-", "names")) == ["1.png", "2.png"]
    assert collect_inputs([], lists=["-"], stdin=io.BytesIO(b"")).lists == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_as_a_list(here: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=("2.png\n1.png\n",))
    writer.start()
    assert keys(lists=("pipe",)) == ["1.png", "2.png"]
    writer.join()


@pytest.mark.parametrize("data", [GOOD, b"PK\x03\x04" + bytes(40), bytes(4096)])
def test_what_is_no_list(data: bytes, here: Path) -> None:
    Path("names").write_bytes(data)
    message = "names is not a list of names: one path per line is expected"
    with pytest.raises(InputError, match=message):
        keys(lists=("names",))
    with pytest.raises(InputError, match=r"^Standard input is not a list of names"):
        keys("-", stdin=data)


def test_a_list_that_is_too_large(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 100)
    Path("names").write_bytes(b"1.png\n" * 20)
    with pytest.raises(InputError, match="names has more than 100 bytes, too many for a list"):
        keys(lists=("names",))
    with pytest.raises(InputError, match="Standard input has more than 100 bytes"):
        keys("-", stdin=b"1.png\n" * 20)


def test_a_list_that_is_not_there(here: Path) -> None:
    with pytest.raises(InputError, match=r"^Cannot read the list gone: No such file"):
        keys(lists=("gone",))
    with pytest.raises(InputError, match=r"^\. is a folder, not a list of names$"):
        keys(lists=(".",))
