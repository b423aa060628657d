"""A folder that any web server can give out: the page, the networks, the runtime for browsers.

The page is the one of ``facegender serve``; its answers come from the visitor's own browser. What
browsers run networks with, ONNX Runtime compiled to WebAssembly, is npm's ``onnxruntime-web``. It
is no part of this package (14 MB): it is taken from where npm put it.
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

PACKAGE = "onnxruntime-web"
"""What npm calls the runtime."""

VERSION = "1.30.0"
"""The version that the tests ran with, and that ``--runtime npm`` gets."""

_HERE = Path(__file__).parent
_SCRIPT, _BINARY = "ort.js", "ort.wasm"
# Under names that every web server knows the type of: a module that comes as anything but a script
# is refused by browsers, and .mjs is unknown to many a server
_PARTS = {
    "dist/ort.wasm.bundle.min.mjs": _SCRIPT,
    "dist/ort-wasm-simd-threaded.wasm": _BINARY,
}
_INDEX, _ANSWERS = "index.html", "server.js"  # of the page; the latter is where it asks
_MARK = "local/model.json"
_SECONDS = 300.0  # for npm to get 33 MB


@dataclass(frozen=True, slots=True)
class Runtime:
    """What browsers run networks with: its version, and its files' contents by our names."""

    version: str
    files: Mapping[str, bytes]


def find_runtime(place: str | None) -> Runtime:
    """Take the runtime from where it was put, or have npm get it.

    Args:
        place: npm's folder of the package, a folder with it in ``node_modules``, the ``.tgz`` of
            ``npm pack``; ``npm`` downloads it; None looks in this folder and those above it.

    Raises:
        InputError: it is not there, is no such package, or npm cannot get it.
    """
    if place == "npm":
        return _from_npm()
    if place is not None:
        return _read(Path(place))
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "node_modules" / PACKAGE).is_dir():
            return _read(folder)
    packed = here / f"{PACKAGE}-{VERSION}.tgz"
    if packed.is_file():
        return _read(packed)
    raise InputError(
        f"{PACKAGE} is not here: what browsers run the network with (by Microsoft, MIT licence). "
        "With Node.js installed the same command with  --runtime npm  downloads it (33 MB). "
        f"Or get it elsewhere with  npm pack {PACKAGE}@{VERSION}  and give the file:  "
        f"--runtime {PACKAGE}-{VERSION}.tgz"
    )


def write_page(folder: Path, model: ModelFile, runtime: Runtime) -> int:
    """Write the folder; an older page of ours there is replaced once the new one is whole.

    Args:
        folder: where to; new, empty, or an earlier page.
        model: the network.
        runtime: what browsers run it with.

    Returns:
        How many bytes the folder has.

    Raises:
        ModelFileError: the page cannot bring pictures before this network as it learned them.
        OutputError: it cannot be written there, or there is something else.
    """
    if model.description.resize.resize_mode != "stretch":
        raise ModelFileError(
            f"{model.path} takes pictures by the aspect rule "
            f"{model.description.resize.resize_mode!r}, which the page does not follow; it follows "
            "'stretch', as all recipes have it"
        )
    check_folder(folder)
    with _replacing_folder(folder) as new:
        for name, content in _contents(model, runtime):
            place = new / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier page; leave nothing behind.

    Raises:
        OutputError: it cannot be written there, or there is something else.
    """
    if not folder.parent.is_dir():
        raise OutputError(
            f"cannot write {folder}: the folder {folder.parent} is not there. Create it first"
        )
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"cannot write {folder}: it is no folder of its own; name a new one")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise OutputError(
            f"cannot write {folder}: it holds something else than a page of 'facegender page'. "
            "Name a new folder"
        )


def _contents(model: ModelFile, runtime: Runtime) -> Iterator[tuple[str, bytes]]:
    """Give every file of the page: its name in the folder, its content."""
    networks = {
        MODEL_NAME: model.path.read_bytes(),
        DETECTOR_NAME: (_HERE.parent / "faces" / DETECTOR_NAME).read_bytes(),
        f"runtime/{_BINARY}": runtime.files[_BINARY],
    }
    for path in sorted((_HERE / "app").iterdir()):
        if path.name == _INDEX:
            yield path.name, _with_hint(path.read_text("utf-8")).encode()
        elif path.is_file() and path.name != _ANSWERS:
            yield path.name, path.read_bytes()
    yield _ANSWERS, b'export * from "./local/local.js";\n'
    for path in sorted((_HERE / "browser").iterdir()):
        yield f"local/{path.name}", path.read_bytes()
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in networks.items()
    }
    card = _card(model, runtime) | {"files": files}
    yield _MARK, json.dumps(card, ensure_ascii=False, indent=1).encode()
    yield f"local/runtime/{_SCRIPT}", runtime.files[_SCRIPT]
    for name, data in networks.items():
        yield f"local/{name}", data
    for name, text in _licences().items():
        yield f"licences/{name}", text.encode()


def _with_hint(page: str) -> str:
    """Have the page say what to do when it is opened as a file, where browsers run no modules."""
    before = '<script type="module"'
    assert before in page, "the page has no script"
    return page.replace(before, f'<script src="local/opened.js" defer></script>\n{before}', 1)


def _card(model: ModelFile, runtime: Runtime) -> dict[str, Any]:
    """Describe the network for the page; what ``GET /model`` of ``facegender serve`` answers."""
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
        "runtime": f"{PACKAGE} {runtime.version}",
        "resize": {
            "width": described.resize.width,
            "height": described.resize.height,
            "filter": described.resize.interpolation,
        },
        "crop": {"rule": described.crop.rule, "template": described.crop.template},
    }


def _licences() -> dict[str, str]:
    """Gather what has to go with what the folder holds.

    Raises:
        OutputError: a text is not where the installation put it.
    """
    texts: dict[str, str] = {}
    for name in ("LICENSE", "LICENSE-MODEL"):
        texts[f"facegender-{name}.txt"] = _licence("facegender", name, _HERE.parents[2] / name)
    import onnxruntime

    place = Path(onnxruntime.__file__).parent  # the same licence as its build for browsers
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        path = place / name
        texts[f"onnxruntime-{path.stem}.txt"] = _licence("onnxruntime", name, path)
    return texts


def _licence(package: str, name: str, beside: Path) -> str:
    try:
        text = distribution(package).read_text(f"licenses/{name}")
    except PackageNotFoundError:
        text = None
    if text is None and beside.is_file():
        text = beside.read_text("utf-8")
    if text is None:
        raise OutputError(f"{name} of {package}, which the page must carry, is not installed")
    return text


def _read(place: Path) -> Runtime:
    """Read the package out of npm's folder, one that holds it, or a packed file."""
    if not place.exists():
        raise InputError(f"--runtime {place} is not there")
    if place.is_file():
        return _unpack(place)
    inside = (place / "node_modules" / PACKAGE, place / PACKAGE)
    folder = next((one for one in inside if one.is_dir()), place)
    return _pick(lambda name: (folder / name).read_bytes(), folder)


def _unpack(packed: Path) -> Runtime:
    def read(name: str) -> bytes:
        member = archive.extractfile(f"package/{name}")
        if member is None:
            raise KeyError(name)
        return member.read()

    try:
        with tarfile.open(packed, "r:gz") as archive:
            return _pick(read, packed)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"--runtime {packed} is no whole .tgz file: {error}") from error


def _pick(read: Callable[[str], bytes], place: Path) -> Runtime:
    """Read the few files that are needed.

    Raises:
        InputError: they are not there.
    """
    try:
        about = json.loads(read("package.json"))
        name = about["name"]
        if name != PACKAGE:
            raise InputError(f"--runtime {place} is {name}, not {PACKAGE}")
        return Runtime(about["version"], {ours: read(theirs) for theirs, ours in _PARTS.items()})
    except (KeyError, FileNotFoundError, NotADirectoryError, ValueError, TypeError) as error:
        raise InputError(
            f"--runtime {place} is not npm's {PACKAGE}, or of a version that is made up "
            f"otherwise ({error}). Known to work: {PACKAGE}@{VERSION}"
        ) from error


def _from_npm() -> Runtime:
    """Have npm download the package; it checks its digest."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "npm is not installed; it comes with Node.js. Or, on a machine that has it:  "
            f"npm pack {PACKAGE}@{VERSION}  and give the file with --runtime"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"npm did not get {PACKAGE} in {_SECONDS:.0f} seconds") from None
        packed = Path(folder) / f"{PACKAGE}-{VERSION}.tgz"
        if done.returncode or not packed.is_file():
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise InputError(f"npm cannot get {PACKAGE}: {said[:300]}")
        return _read(packed)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder that becomes ``folder`` at a clean end, and vanishes at any other.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".facegender-page-") as made:
            new = Path(made) / "new"
            new.mkdir()
            yield new
            old = Path(made) / "old"
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
