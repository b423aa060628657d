"""The folder that ``facegender page`` writes, and the errors where it cannot."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from made import build_model

from facegender.cli import main
from facegender.errors import InputError, ModelFileError, OutputError
from facegender.model.model_file import read_model_file
from facegender.web import static_site
from facegender.web.static_site import (
    RUNTIME_PACKAGE,
    RUNTIME_VERSION,
    WebRuntime,
    find_runtime,
    write_site,
)

PARTS = {
    "package.json": json.dumps({"name": RUNTIME_PACKAGE, "version": "9.9.9"}).encode(),
    "dist/ort.wasm.bundle.min.mjs": b"export const made = 1;",
    "dist/ort-wasm-simd-threaded.wasm": b"\0asm",
}
MADE = WebRuntime("9.9.9", {"ort.js": b"export const made = 1;", "ort.wasm": b"\0asm"})


def lay_out(folder: Path, parts: dict[str, bytes] = PARTS) -> Path:
    for name, data in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, parts: dict[str, bytes] = PARTS) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in parts.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder above which there is no runtime."""
    monkeypatch.chdir(tmp_path)
    if any((folder / "node_modules" / RUNTIME_PACKAGE).is_dir() for folder in tmp_path.parents):
        pytest.skip(f"there is an {RUNTIME_PACKAGE} above {tmp_path}")
    return tmp_path


def test_the_runtime_is_found_wherever_npm_puts_it(nowhere: Path) -> None:
    package = lay_out(nowhere / "above/node_modules" / RUNTIME_PACKAGE)
    packed = pack(nowhere / "packed.tgz")
    for place in (package, package.parent, package.parent.parent, packed):
        assert find_runtime(str(place)) == MADE


def test_the_runtime_is_found_by_itself(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(nowhere / f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz")
    assert find_runtime(None) == MADE
    (nowhere / f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz").unlink()
    lay_out(nowhere / "node_modules" / RUNTIME_PACKAGE)
    (nowhere / "some/where").mkdir(parents=True)
    monkeypatch.chdir(nowhere / "some/where")
    assert find_runtime(None) == MADE


OTHER = PARTS | {"package.json": b'{"name": "left-pad", "version": "1.0.0"}'}
LACKING = {name: data for name, data in PARTS.items() if not name.endswith(".wasm")}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (OTHER, "left-pad, not onnxruntime-web"),
        (LACKING, f"Tested: {RUNTIME_PACKAGE}@{RUNTIME_VERSION}"),
        (PARTS | {"package.json": b"[]"}, "is not npm's"),
        (PARTS | {"package.json": b"{"}, "is not npm's"),
        ({}, "is not npm's"),
    ],
)
def test_another_package_is_refused(parts: dict[str, bytes], says: str, tmp_path: Path) -> None:
    (tmp_path / "npm").mkdir()
    for place in (lay_out(tmp_path / "npm", parts), pack(tmp_path / "packed.tgz", parts)):
        with pytest.raises(InputError, match=says):
            find_runtime(str(place))


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tgz").write_text("nothing")
    for name in ("cut.tgz", "text.tgz"):
        with pytest.raises(InputError, match=r"not a complete \.tgz"):
            find_runtime(str(tmp_path / name))
    with pytest.raises(InputError, match="Not found"):
        find_runtime(str(tmp_path / "gone"))


def test_without_a_runtime_the_line_that_gets_it(
    nowhere: Path, model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user's own command, to be copied as it is."""
    package = f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz"
    for given, command in (
        (["-o", "site"], "facegender page -o site"),
        (
            ["-o", "my site", "--model", str(model_path)],
            f"facegender page -o 'my site' --model {model_path}",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["page", *given])
        assert ended.value.code == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"run {command} --runtime npm to download" in said
        assert f"npm pack {RUNTIME_PACKAGE}@{RUNTIME_VERSION}" in said
        assert said.endswith(f"run {command} --runtime {package}")
    assert list(nowhere.iterdir()) == []


def test_without_npm_it_says_so(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(nowhere))
    with pytest.raises(SystemExit) as ended:
        main(["page", "-o", "site", "--runtime", "npm"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "npm is not installed" in said and "npm pack" in said
    assert "run facegender page -o site --runtime onnxruntime-web" in said
    assert list(nowhere.iterdir()) == []


def test_an_error_of_npm_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'registry is away' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InputError, match="registry is away"):
        find_runtime("npm")


def test_the_folder_holds_everything(model_path: Path, tmp_path: Path) -> None:
    model = read_model_file(model_path)
    site = tmp_path / "site"
    size = write_site(site, model, MADE)
    files = {str(path.relative_to(site)): path for path in site.rglob("*") if path.is_file()}
    assert size == sum(path.stat().st_size for path in files.values())
    assert {"index.html", "app.js", "style.css", "server.js", "local/worker.js"} < set(files)
    assert files["local/model.onnx"].read_bytes() == model_path.read_bytes()
    assert files["local/runtime/ort.wasm"].read_bytes() == b"\0asm"
    assert "local/local.js" in files["server.js"].read_text("utf-8")
    card = json.loads(files["local/model.json"].read_text("utf-8"))
    assert card["digest"] == model.digest and card["labels"] == ["female", "male"]
    assert card["resize"] == {"width": 32, "height": 32, "interpolation": "bilinear"}
    assert list(card["files"]) == ["model.onnx", "yunet.onnx", "runtime/ort.wasm"]
    for name, said in card["files"].items():
        data = files[f"local/{name}"].read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    licenses = "".join(path.read_text("utf-8") for name, path in files.items() if "licen" in name)
    assert "Apache License" in licenses and "research" in licenses
    assert "Microsoft" in licenses and "libfacedetection" in licenses
    assert not [name for name in files if name.endswith((".mjs", ".py", ".tmp"))]
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_no_file_of_the_page_asks_another_host(model_path: Path, tmp_path: Path) -> None:
    write_site(tmp_path / "site", read_model_file(model_path), MADE)
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in (".js", ".html", ".css", ".svg"):
            text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in text and "//cdn" not in text, path
            assert text.count("http://") == text.count("http://127.0.0.1:8000"), path


def test_an_older_page_is_replaced_whole(model_path: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_site(site, read_model_file(model_path), MADE)
    (site / "old.js").write_text("left over")
    write_site(site, read_model_file(model_path), MADE)
    assert not (site / "old.js").exists() and (site / "index.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_folder_of_something_else_stays(model_path: Path, tmp_path: Path) -> None:
    model = read_model_file(model_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"image")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(photos)
    for place, says in (
        (photos, "did not write"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "link", "is not a folder"),
        (tmp_path / "gone/site", "Create it first"),
    ):
        with pytest.raises(OutputError, match=says):
            write_site(place, model, MADE)
    assert (photos / "a.jpg").read_bytes() == b"image"
    (tmp_path / "empty").mkdir()
    write_site(tmp_path / "empty", model, MADE)


def test_an_older_page_stays_where_a_new_one_fails(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    model = read_model_file(model_path)
    write_site(site, model, MADE)
    shutil.copy(site / "index.html", tmp_path / "before.html")
    with pytest.raises(KeyError):
        write_site(site, model, WebRuntime("1", {"ort.js": b""}))
    monkeypatch.setattr(static_site, "_HERE", tmp_path / "gone")
    with pytest.raises(OutputError):
        write_site(site, model, MADE)
    assert (site / "index.html").read_bytes() == (tmp_path / "before.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before.html", "site"]


def test_a_network_that_the_page_cannot_serve(tmp_path: Path) -> None:
    resize = {
        **{"height": 32, "width": 32, "interpolation": "bilinear"},
        **{"resize_mode": "letterbox", "antialias": True},
    }
    (tmp_path / "model.onnx").write_bytes(build_model({"resize": resize}))
    with pytest.raises(ModelFileError, match="resize_mode 'letterbox'"):
        write_site(tmp_path / "site", read_model_file(tmp_path / "model.onnx"), MADE)
    assert not (tmp_path / "site").exists()
