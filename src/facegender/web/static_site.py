"""Write a static site: the web page, the models, and the runtime that browsers need.

The page is the one of ``facegender serve``; its predictions come from the visitor's own browser,
by ONNX Runtime compiled to WebAssembly. That is npm's package ``onnxruntime-web``, which this
package does not contain (14 MB): it is read from where npm put it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from facegender import __version__
from facegender.errors import InputError, ModelFileError, OutputError
from facegender.faces.yunet import DETECTOR_NAME
from facegender.model.model_file import MODEL_NAME, ModelFile

RUNTIME_PACKAGE = "onnxruntime-web"
"""The runtime's name on npm."""

RUNTIME_VERSION = "1.30.0"
"""The tested version, which ``--runtime npm`` downloads."""

_HERE = Path(__file__).parent
_SCRIPT, _BINARY = "ort.js", "ort.wasm"
# Renamed to .js: browsers refuse modules with another media type, and many web servers do not know
# the type of .mjs
_RUNTIME_FILES = {
    "dist/ort.wasm.bundle.min.mjs": _SCRIPT,
    "dist/ort-wasm-simd-threaded.wasm": _BINARY,
}
_INDEX, _SERVER = "index.html", "server.js"
_MODEL_INFO = "local/model.json"
_NPM_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class WebRuntime:
    """The runtime for browsers: its version, and the content of its files by their names here."""

    version: str
    files: Mapping[str, bytes]


def find_runtime(place: str | None, command: str = "facegender page -o DIR") -> WebRuntime:
    """Read the runtime from where npm put it, or download it with npm.

    Args:
        place: npm's folder of the package, a folder with it in ``node_modules``, or the ``.tgz``
            of ``npm pack``; ``npm`` downloads it; None looks in the working folder and those
            above it.
        command: what the error says to run again, with ``--runtime`` behind it.

    Raises:
        InputError: not found, not this package, or npm cannot download it.
    """
    if place == "npm":
        return _download_with_npm(command)
    if place is not None:
        return _read(Path(place))
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "node_modules" / RUNTIME_PACKAGE).is_dir():
            return _read(folder)
    packed = here / f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz"
    if packed.is_file():
        return _read(packed)
    raise InputError(
        f"{RUNTIME_PACKAGE} not found; browsers run the model with it (Microsoft, MIT license). "
        f"With Node.js, run  {command} --runtime npm  to download it (33 MB). "
        f"Otherwise {_by_hand(command)}"
    )


def _by_hand(command: str) -> str:
    """Say how to get the runtime on a machine without npm."""
    return (
        f"run  npm pack {RUNTIME_PACKAGE}@{RUNTIME_VERSION}  on another machine, copy the file "
        f"here, and run  {command} --runtime {RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz"
    )


def write_site(folder: Path, model: ModelFile, runtime: WebRuntime) -> int:
    """Write the site; an earlier site in the folder is replaced when the new one is complete.

    Args:
        folder: a new folder, an empty one, or one with an earlier site.
        model: the model file.
        runtime: the runtime for browsers.

    Returns:
        The size of the folder in bytes.

    Raises:
        ModelFileError: the page does not support the model's preprocessing.
        OutputError: the folder has other files, or cannot be written.
    """
    resize_mode = model.description.resize.resize_mode
    if resize_mode != "stretch":
        raise ModelFileError(
            f"{model.path} has the resize_mode {resize_mode!r}; the page supports 'stretch' only"
        )
    check_folder(folder)
    with _replacing_folder(folder) as new:
        for name, content in _contents(model, runtime):
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def check_folder(folder: Path) -> None:
    """Check that the site can be written to a folder; change nothing.

    Raises:
        OutputError: its parent is missing, or it has files that are not an earlier site.
    """
    if not folder.parent.is_dir():
        raise OutputError(
            f"Cannot write {folder}: the folder {folder.parent} does not exist. Create it first"
        )
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"Cannot write {folder}: it is not a folder. Choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MODEL_INFO).is_file():
        raise OutputError(
            f"Cannot write {folder}: it has files that 'facegender page' did not write. "
            "Choose a new folder"
        )


def _contents(model: ModelFile, runtime: WebRuntime) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the site: its name in the folder and its content."""
    networks = {
        MODEL_NAME: model.path.read_bytes(),
        DETECTOR_NAME: (_HERE.parent / "faces" / DETECTOR_NAME).read_bytes(),
        f"runtime/{_BINARY}": runtime.files[_BINARY],
    }
    for path in sorted((_HERE / "app").iterdir()):
        if path.name == _INDEX:
            yield path.name, _with_file_hint(path.read_text("utf-8")).encode()
        elif path.is_file() and path.name != _SERVER:
            yield path.name, path.read_bytes()
    yield _SERVER, b'export * from "./local/local.js";\n'
    for path in sorted((_HERE / "browser").iterdir()):
        yield f"local/{path.name}", path.read_bytes()
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in networks.items()
    }
    info = _model_info(model, runtime) | {"files": files}
    yield _MODEL_INFO, json.dumps(info, ensure_ascii=False, indent=1).encode()
    yield f"local/runtime/{_SCRIPT}", runtime.files[_SCRIPT]
    for name, data in networks.items():
        yield f"local/{name}", data
    for name, text in _licenses().items():
        yield f"licenses/{name}", text.encode()


def _with_file_hint(page: str) -> str:
    """Add the script that tells visitors who open the page as a file to use a web server."""
    module = '<script type="module"'
    assert module in page, "the page has no script"
    return page.replace(module, f'<script src="local/file_url.js" defer></script>\n{module}', 1)


def _model_info(model: ModelFile, runtime: WebRuntime) -> dict[str, Any]:
    """Describe the model for the page; the keys of ``GET /model`` and the preprocessing."""
    described = model.description
    return {
        "name": described.name,
        "digest": model.digest,
        "labels": described.labels,
        "min_confidence": described.min_confidence,
        "metrics": described.metrics,
        "data": described.data,
        "license": described.license,
        "terms": described.terms,
        "created": described.created,
        "version": __version__,
        "runtime": f"{RUNTIME_PACKAGE} {runtime.version}",
        "resize": {
            "width": described.resize.width,
            "height": described.resize.height,
            "interpolation": described.resize.interpolation,
        },
        "crop": {"rule": described.crop.rule, "template": described.crop.template},
    }


def _licenses() -> dict[str, str]:
    """Read the licenses of everything in the site.

    Raises:
        OutputError: a license text is not installed.
    """
    texts: dict[str, str] = {}
    for name in ("LICENSE", "LICENSE-MODEL", "LICENSE-OPEN"):
        texts[f"facegender-{name}.txt"] = _license("facegender", name, _HERE.parents[2] / name)
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent  # its build for browsers has the same license
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        path = folder / name
        texts[f"onnxruntime-{path.stem}.txt"] = _license("onnxruntime", name, path)
    return texts


def _license(package: str, name: str, fallback: Path) -> str:
    try:
        text = distribution(package).read_text(f"licenses/{name}")
    except PackageNotFoundError:
        text = None
    if text is None and fallback.is_file():
        text = fallback.read_text("utf-8")
    if text is None:
        raise OutputError(
            f"{name} of {package} is not installed, and the site must contain it. "
            f"Install {package} again"
        )
    return text


def _read(place: Path) -> WebRuntime:
    """Read the package from npm's folder, a folder that contains it, or a packed file."""
    if not place.exists():
        raise InputError(f"Not found: --runtime {place}")
    if place.is_file():
        return _read_packed(place)
    inside = (place / "node_modules" / RUNTIME_PACKAGE, place / RUNTIME_PACKAGE)
    folder = next((one for one in inside if one.is_dir()), place)
    return _read_files(lambda name: (folder / name).read_bytes(), folder)


def _read_packed(packed: Path) -> WebRuntime:
    def read(name: str) -> bytes:
        member = archive.extractfile(f"package/{name}")
        if member is None:
            raise KeyError(name)
        return member.read()

    try:
        with tarfile.open(packed, "r:gz") as archive:
            return _read_files(read, packed)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"--runtime {packed} is not a complete .tgz file: {error}") from error


def _read_files(read: Callable[[str], bytes], place: Path) -> WebRuntime:
    """Read the files that the page needs.

    Raises:
        InputError: another package, or a file is missing.
    """
    try:
        package = json.loads(read("package.json"))
        name = package["name"]
        if name != RUNTIME_PACKAGE:
            raise InputError(f"--runtime {place} is {name}, not {RUNTIME_PACKAGE}")
        files = {target: read(source) for source, target in _RUNTIME_FILES.items()}
        return WebRuntime(package["version"], files)
    except (KeyError, FileNotFoundError, NotADirectoryError, ValueError, TypeError) as error:
        raise InputError(
            f"--runtime {place} is not npm's {RUNTIME_PACKAGE}, or a version with other files "
            f"({error}). Tested: {RUNTIME_PACKAGE}@{RUNTIME_VERSION}"
        ) from error


def _download_with_npm(command: str) -> WebRuntime:
    """Download the package with npm, which checks its digest."""
    npm = shutil.which("npm")
    package = f"{RUNTIME_PACKAGE}@{RUNTIME_VERSION}"
    if npm is None:
        raise InputError(
            f"npm is not installed; it is part of Node.js. Without it, {_by_hand(command)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        pack = [npm, "pack", package, "--silent"]
        try:
            done = subprocess.run(
                pack,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_NPM_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"npm did not download {package} in {_NPM_TIMEOUT_SECONDS:.0f} seconds"
            ) from None
        packed = Path(folder) / f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz"
        if done.returncode or not packed.is_file():
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise InputError(f"npm cannot download {package}: {reason[:300]}")
        return _read(packed)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``folder`` on success and is deleted on an error.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".facegender-page-") as parent:
            new = Path(parent) / "new"
            new.mkdir()
            yield new
            old = Path(parent) / "old"
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror or error}") from error
