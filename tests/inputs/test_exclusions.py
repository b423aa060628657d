"""What is left out of folders, archives and lists."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

from facegender.inputs.exclusions import is_excluded
from facegender.inputs.paths import collect_inputs

GOOD = encode(image(seed=1))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*_edited.jpg", "a/b_edited.jpg", True),
        ("*_edited.jpg", "a/b_edited.jpg.png", False),
        ("private", "private/a.jpg", True),
        ("private", "x/private/y/a.jpg", True),
        ("private", "privateer/a.jpg", False),
        ("private/", "private/a.jpg", True),
        ("./x/private", "x/private/a.jpg", True),
        ("x/private", "private/a.jpg", False),
        ("x/*/a.jpg", "x/y/a.jpg", True),
        ("IMG_000[1-3].jpg", "IMG_0002.jpg", True),
        ("IMG_000?.jpg", "IMG_0010.jpg", False),
        ("*.JPG", "a.jpg", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert is_excluded(name, [pattern]) == expected
    assert is_excluded(name, ["nothing", pattern]) == expected
    assert not is_excluded(name)


@pytest.mark.parametrize(
    "name", ["@eaDir/1.jpg/x.jpg", "a/Thumbs.DB", "a.jpg~", "$RECYCLE.BIN/a.jpg", "x/._a.jpg"]
)
def test_litter(name: str) -> None:
    assert is_excluded(name) and not is_excluded(name, with_litter=False)


def test_every_kind_of_input_leaves_them_out(
    photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("1.png", "2_edited.png", "x/3.png", "private/4.png", "@eaDir/5.png")
    monkeypatch.chdir(photos(dict.fromkeys(names, GOOD)))
    exclude, left = ["*_edited.*", "private"], ["1.png", "x/3.png"]
    with zipfile.ZipFile("all.zip", "w") as packed:
        for name in names:
            packed.writestr(name, GOOD)
    Path("names").write_text("\n".join(names))

    def keys(*named: str, lists: tuple[str, ...] = ()) -> list[str]:
        inputs = collect_inputs(
            named, lists=lists, exclude=[*exclude, "n*", "*.zip"], recursive=True
        )
        return [file.key for file in inputs]

    assert keys(".") == keys("all.zip") == left
    assert keys("1.png", "2_edited.png") == ["1.png"]
    assert keys(lists=("names",)) == ["1.png", "@eaDir/5.png", "x/3.png"]  # litter that is named
