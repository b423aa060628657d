"""The network in a real Chromium: the same pixels, faces and answers as ``predict``.

Chromium's path is taken from CHROMIUM, npm's onnxruntime-web from ONNXRUNTIME_WEB (as
``--runtime`` takes it), from the ``node_modules`` of this folder or one above, or from where
``npm pack`` put it.
"""

from __future__ import annotations

import base64
import csv
import functools
import http.server
import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from made import encode, image
from PIL import Image
from skimage.data import astronaut as read_astronaut

from facegender.errors import InputError, UnreadableImageError
from facegender.faces import detection, face_aligner, tiles, yunet
from facegender.faces.alignment import ALIGNED_CROP, align_crop
from facegender.images.decode import decode
from facegender.images.formats import DEFAULT_IMAGE_LIMITS
from facegender.images.pixels import Resize, resize
from facegender.inference import preprocess
from facegender.inference.classifier import Classifier
from facegender.inference.predict import predict_folder
from facegender.model.model_file import LABELS, read_model_file
from facegender.results.process_results import write_process_results
from facegender.web import static_site
from facegender.web.static_site import WebRuntime, find_runtime, write_site

FACES = Path(__file__).parents[2] / "faces"
CHROMIUM = next(
    (
        path
        for path in (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium", "/usr/bin/google-chrome")
        if path and Path(path).exists()
    ),
    None,
)
EXIF = 274  # the tag of the orientation
STORED = {  # how an upright image is stored in a file whose EXIF says so
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        path = CHROMIUM or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium here: name its program in CHROMIUM")
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


class Files(http.server.SimpleHTTPRequestHandler):
    """Gives out a folder as ``python -m http.server`` does, with some headers more or other."""

    more: dict[str, str] = {}  # noqa: RUF012  (set where a server is made)

    def end_headers(self) -> None:
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server that does not mind browsers that go away in the middle of a file."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Untyped(Files):
    """A server that knows the types of HTML, CSS and .js alone, and lets nobody guess."""

    more = {"X-Content-Type-Options": "nosniff"}  # noqa: RUF012

    def guess_type(self, path: Any) -> str:
        known = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
        return known.get(Path(path).suffix, "application/octet-stream")


class Isolated(Files):
    """A server whose pages may use threads."""

    more = {  # noqa: RUF012
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
        "connect-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:",
    }


Serve = Callable[..., str]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Gives a folder's address."""
    running = []

    def start(folder: Path, kind: type[Files] = Files) -> str:
        handler = functools.partial(kind, directory=str(folder))
        server = Server(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


# ---- the parts, without the runtime ------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(
    browser: Any, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """Calls a function of a module: pixels go in and come out as arrays."""
    folder = tmp_path_factory.mktemp("modules")
    for path in (Path(static_site.__file__).parent / "browser").glob("*.js"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "blank.html").write_text("<!doctype html><title>blank</title>")
    page = browser.new_page()
    page.goto(f"{serve(folder)}/blank.html")

    def call(expression: str, **values: Any) -> Any:
        given = {
            name: {"pixels": base64.b64encode(value.tobytes()).decode(), "shape": value.shape}
            if isinstance(value, np.ndarray)
            else value
            for name, value in values.items()
        }
        body = """async (given) => {
            for (const [name, value] of Object.entries(given)) {
                if (!value?.shape) continue;
                const data = Uint8Array.from(atob(value.pixels), (one) => one.charCodeAt(0));
                const [height, width] = value.shape;
                given[name] = width ? { width, height, data } : data;
            }
            const found = await (async () => { %s })();
            if (!found?.data) return found;
            let text = "";
            for (let at = 0; at < found.data.length; at += 32768) {
                text += String.fromCharCode(...found.data.subarray(at, at + 32768));
            }
            return { width: found.width, height: found.height, pixels: btoa(text) };
        }"""
        imports = "const [pixels, faces, decode, tiles] = await Promise.all(" + (
            "['pixels', 'faces', 'decode', 'tiles'].map((name) => import(`/${name}.js`))); "
        )
        found = page.evaluate(body % (imports + "return " + expression), given)
        if isinstance(found, dict) and "pixels" in found:
            data = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
            return data.reshape(found["height"], found["width"], 3)
        return found

    yield call
    page.close()


def test_the_numbers_are_those_of_python(modules: Callable[..., Any]) -> None:
    rules = modules("faces.RULES")
    assert rules == {
        "minScore": yunet.MIN_SCORE,
        "confidentScore": detection.CONFIDENT_SCORE,
        "minRotationGain": detection.MIN_ROTATION_GAIN,
        "rotatedMinScore": detection.ROTATED_MIN_SCORE,
        "mainFaceMinArea": detection.MAIN_FACE_MIN_AREA,
        "closeUpFraction": face_aligner.CLOSE_UP_FRACTION,
        "nmsIou": yunet._NMS_IOU,
        "nmsContained": yunet._NMS_CONTAINED,
        "nmsAreaRatio": yunet._NMS_AREA_RATIO,
        "smallScaleFace": detection.SMALL_SCALE_FACE,
        "maxStride": yunet.MAX_STRIDE,
        "strides": list(yunet._STRIDES),
        "smallSide": yunet.SMALL_SIDE,
        "largeSide": yunet.LARGE_SIDE,
        "detectionSide": preprocess.DETECTION_SIDE,
        "margin": 0.3,
        "padding": 0.6,
        "template": [list(point) for point in ALIGNED_CROP.template],
    }
    assert modules("tiles.TILES") == {
        "side": yunet.LARGE_SIDE,
        "smallFace": tiles.SMALL_FACE,
        "shortSide": tiles.SHORT_SIDE,
        "overlap": tiles.TILE_OVERLAP,
        "maxTiles": tiles.MAX_TILES,
        "minScore": tiles.TILE_MIN_SCORE,
        "minGain": tiles._MIN_GAIN,
        "edge": tiles._EDGE,
    }
    for width, height in ((1280, 853), (2560, 1707), (5120, 853), (700, 30)):
        given = {"width": width, "height": height}
        expected = [list(tile) for tile in tiles._tiles(width, height)]
        assert modules("tiles.tilesOf(given)", **given) == expected
    assert modules("pixels.GRAY") == yunet.GRAY
    assert modules("decode.MAX_PIXELS") == DEFAULT_IMAGE_LIMITS.pixels
    assert modules("[0.5, 1.5, 2.5, 2.4, 2.6, 7].map(pixels.round)") == [0, 2, 2, 2, 3, 7]


@pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow took the passes in another order")
@pytest.mark.parametrize("kind", ["box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        *(((300, 200), (92, 128)), ((60, 50), (128, 128)), ((1000, 7), (10, 128))),
        *(((128, 64), (128, 128)), ((64, 128), (128, 128)), ((1, 1), (3, 5))),
        *(((195, 150), (110, 96)), ((192, 126), (76, 65)), ((146, 51), (60, 35))),
    ],
)
def test_images_are_made_smaller_as_pillow_does(
    kind: str, given: tuple[int, int], wanted: tuple[int, int], modules: Callable[..., Any]
) -> None:
    """To the last bit."""
    pixels = np.random.default_rng(3).integers(0, 256, (*given, 3), np.uint8)
    found = modules(
        "pixels.resize(given.image, given.width, given.height, given.kind)",
        image=pixels,
        height=wanted[0],
        width=wanted[1],
        kind=kind,
    )
    np.testing.assert_array_equal(found, resize(pixels, Resize(*wanted, interpolation=kind)))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_whole_parts_are_the_means_of_squares(factor: int, modules: Callable[..., Any]) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (61, 83, 3), np.uint8)
    found = modules("pixels.reduce(given.image, given.factor)", image=pixels, factor=factor)
    expected = np.asarray(Image.fromarray(pixels).reduce(factor))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1  # Pillow rounds by whole numbers


def test_quarter_turns(modules: Callable[..., Any]) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(
        modules("pixels.rotate90(given.image)", image=pixels), np.rot90(pixels)
    )


@pytest.mark.parametrize("seed", range(12))
def test_faces_are_cut_out_as_in_python(seed: int, modules: Callable[..., Any]) -> None:
    """Turned, large, small, beyond the image's edges: to the last bit but a few."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (240, 320, 3), np.uint8)
    points = np.array(ALIGNED_CROP.template) @ (1, 1j) - (0.5 + 0.5j)
    size = np.exp(rng.uniform(np.log(15), np.log(500)))
    where = points * size * np.exp(1j * rng.uniform(-np.pi, np.pi))
    where += complex(rng.uniform(-20, 340), rng.uniform(-20, 260))
    landmarks = np.column_stack((where.real, where.imag)) + rng.normal(0, 0.02 * size, (5, 2))
    landmarks = landmarks.astype(np.float32)
    resize = Resize(92, 76)
    found = modules(
        "faces.alignCrop(given.image, given.landmarks, faces.RULES.template, given.size)",
        image=pixels,
        landmarks=landmarks.tolist(),
        size={"width": 76, "height": 92, "interpolation": "bilinear"},
    )
    expected = align_crop(pixels, landmarks, ALIGNED_CROP, resize)
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3


def test_landmarks_in_one_point(modules: Callable[..., Any]) -> None:
    said = modules(
        "(() => { try { faces.estimateSimilarity(Array(5).fill([3, 3]), faces.RULES.template) }"
        " catch (error) { return error.message } })()"
    )
    assert said == "the landmarks are one point"


def read(modules: Callable[..., Any], data: bytes) -> Any:
    """Decode in the browser: pixels, or why not."""
    return modules(
        "decode.decode(given.file).catch((error) =>"
        " error instanceof decode.UnreadableError ? error.message : `unexpected: ${error}`)",
        file=np.frombuffer(data, np.uint8),
    )


def textured(mode: str = "RGB", size: tuple[int, int] = (75, 53)) -> Image.Image:
    """An image with edges and even parts."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.dstack((across, down, 255 - across)).astype(np.uint8)
    pixels[10:20, 30:60] = (250, 20, 60)
    return Image.fromarray(pixels).convert(mode)


def see_through() -> Image.Image:
    image = textured("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(textured("L")).astype(np.uint16) * 250)


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (encode(textured()), 0),
        (encode(textured("L")), 0),
        (encode(textured("1")), 0),
        (encode(textured().quantize(32)), 0),
        (encode(textured(), "BMP"), 0),
        (encode(textured().quantize(32), "GIF"), 0),
        (encode(textured(), "WEBP", lossless=True), 0),
        (encode(see_through()), 1),
        (encode(see_through(), "WEBP", lossless=True), 2),
        (encode(deep()), 1),
        (encode(textured(), "JPEG", quality=90), 3),
        (encode(textured("L"), "JPEG", quality=90), 3),
        (encode(textured(), "JPEG", quality=90, progressive=True), 3),
        (encode(textured(), "JPEG", quality=90, subsampling=0), 3),
        (encode(textured(), "WEBP", quality=90), 4),
    ],
)
def test_images_are_decoded_as_in_python(
    data: bytes, most: int, modules: Callable[..., Any]
) -> None:
    found = read(modules, data)
    assert not isinstance(found, str), found
    expected = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= most


def test_a_large_image_is_taken_strip_by_strip(modules: Callable[..., Any]) -> None:
    data = encode(textured(size=(4500, 1100)), "JPEG")
    found = modules(
        "decode.decode(given.file).then((image) => pixels.crop(image, 4400, 0, 4500, 1100))",
        file=np.frombuffer(data, np.uint8),
    )
    assert np.abs(found.astype(int) - decode(data)[:, 4400:]).max() <= 3


def stored(image: Image.Image, orientation: int, kind: str, **options: Any) -> bytes:
    """An upright image as a rotated camera writes it."""
    way = STORED[orientation]
    exif = Image.Exif()
    exif[EXIF] = orientation
    turned = image if way is None else image.transpose(way)
    return encode(turned, kind, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_are_turned_upright(
    orientation: int, kind: str, modules: Callable[..., Any]
) -> None:
    data = stored(textured(), orientation, kind, **({"quality": 95} if kind == "JPEG" else {}))
    found = read(modules, data)
    assert found.shape == (53, 75, 3)
    assert np.abs(found.astype(int) - decode(data)).max() <= (3 if kind == "JPEG" else 0)


JPEG = encode(textured(size=(400, 300)), "JPEG", quality=90)
PROGRESSIVE = encode(textured(size=(400, 300)), "JPEG", quality=90, progressive=True)
PNG = encode(textured(size=(400, 300)))
END = b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, no image", "not an image in a known format"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image"),
        (JPEG[: len(JPEG) // 2], "damaged JPEG"),
        (JPEG[:-600], "damaged JPEG"),
        (JPEG[: len(JPEG) // 2] + END, "truncated"),
        (JPEG[:-200] + END, "truncated"),
        (PROGRESSIVE[: len(PROGRESSIVE) // 2] + END, "truncated"),
        (PNG[: len(PNG) // 2], "damaged PNG"),
        (PNG[:45] + b"\x77" * 9 + PNG[54:], "damaged PNG"),
        (encode(textured(), "WEBP")[:-90], "damaged WebP"),
        (encode(textured(), "TIFF"), "TIFF, or a format that it does not support"),
    ],
)
def test_what_is_no_whole_image_is_refused(
    data: bytes, says: str, modules: Callable[..., Any]
) -> None:
    found = read(modules, data)
    assert isinstance(found, str) and "unexpected" not in found and says in found
    if "TIFF" not in says:
        with pytest.raises(UnreadableImageError):
            decode(data)


# ---- the whole page ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime() -> WebRuntime:
    try:
        return find_runtime(os.environ.get("ONNXRUNTIME_WEB"))
    except InputError as error:
        pytest.skip(f"no onnxruntime-web here (name its place in ONNXRUNTIME_WEB): {error}")


@pytest.fixture(scope="module")
def site(runtime: WebRuntime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "site"
    write_site(folder, read_model_file(), runtime)
    return folder


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing may have gone wrong, been sent or come from elsewhere."""
    contexts, wrong = [], []

    def open_page(address: str, *, is_whole: bool = True, **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-US"} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)

        def asked(request: Any) -> None:
            is_own = request.url.startswith((address, "blob:"))
            query = request.url.partition("?")[2]  # nothing but the digest of what is asked for
            if not is_own or request.method != "GET" or not re.fullmatch("|[0-9a-f]{16}", query):
                wrong.append(f"{request.method} {request.url}")

        page.on("request", asked)
        if is_whole:
            page.on("console", lambda message: wrong.append(message.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        until(page, "document.querySelector('#privacy').textContent !== ''")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def until(page: Any, expression: str) -> None:
    """Wait; Playwright's own way would have the page run text, which its policy forbids."""
    for _ in range(2400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within two minutes: {expression}")


def put_in(page: Any, files: list[Path]) -> None:
    page.set_input_files("#files", [str(path) for path in files])


def wait_for_all(page: Any) -> None:
    until(page, "document.querySelector('#status').textContent.startsWith('Done')")


def saved(page: Any, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def details(page: Any) -> dict[str, list[dict[str, str]]]:
    """What the page saves as its details: rows by file."""
    rows: dict[str, list[dict[str, str]]] = {}
    text = saved(page, "#save-csv").decode()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        rows.setdefault(row["file"], []).append(row)
    return rows


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portraits, the astronaut and images made of them: turned, small, tight, many, large."""
    folder = tmp_path_factory.mktemp("album")
    portraits = {path.stem: Image.open(path).convert("RGB") for path in FACES.glob("*.jpg")}
    for path in FACES.glob("*.jpg"):
        shutil.copy(path, folder)
    astronaut = Image.fromarray(read_astronaut())
    astronaut.save(folder / "astronaut.png")
    astronaut.save(folder / "astronaut.webp", quality=90)
    astronaut.convert("L").save(folder / "gray.jpg")
    for orientation in STORED:
        data = stored(astronaut.crop((20, 0, 512, 400)), orientation, "JPEG", quality=90)
        (folder / f"exif {orientation}.jpg").write_bytes(data)
    woman, man = portraits["eileen_collins"], portraits["joe_biden"]
    for degrees in (90, 180, 270):
        man.rotate(degrees, expand=True).save(folder / f"turned {degrees}.png")
    man.rotate(30, Image.Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128)).save(
        folder / "tilted.jpg", quality=92
    )
    woman.resize((64, 64)).save(folder / "small.png")
    woman.crop((30, 32, 130, 135)).save(folder / "tight.png")
    crowd = Image.new("RGB", (1500, 1100), (90, 110, 80))
    for at, (_, portrait) in enumerate(sorted(portraits.items())):
        side = 300 - 30 * at
        place = (20 + (at % 3) * 480, 60 + (at // 3) * 520)
        crowd.paste(portrait.resize((side, side), Image.Resampling.LANCZOS), place)
    crowd.save(folder / "crowd.png")
    large = astronaut.resize((2600, 2600), Image.Resampling.BICUBIC).crop((0, 0, 2600, 2000))
    (folder / "large.jpg").write_bytes(stored(large, 6, "JPEG", quality=88))
    Image.new("RGB", (200, 300), "navy").save(folder / "empty.png")
    (folder / "cut.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    return folder


def test_the_answers_are_those_of_predict(
    site: Path,
    album: Path,
    serve: Serve,
    visit: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = list(predict_folder(album))
    page = visit(serve(site))
    put_in(page, sorted(album.iterdir()))
    wait_for_all(page)
    assert page.inner_text("#error") == ""
    found = details(page)
    apart, shifts = [], []
    for row in rows:
        there = found[str(row.file)][row.face_index or 0]
        assert len(found[str(row.file)]) == sum(one.file == row.file for one in rows)
        same = ("status", "label", "crop", "width", "height")
        assert [there[name] or None for name in same] == [
            None if (value := getattr(row, name)) is None else str(value) for name in same
        ], row
        if row.probability is not None and row.box is not None:
            apart.append(abs(float(there["probability"]) - row.probability))
            shifts.extend(
                abs(int(there[f"box_{side}"]) - getattr(row.box, side))
                for side in ("x", "y", "width", "height")
            )
    with capsys.disabled():
        print(f" {len(apart)} faces: {max(apart):.4f} of probability, {max(shifts)} px apart ")
    assert len(apart) == 30
    assert max(apart) <= 0.01 and max(shifts) <= 2
    write_process_results(tmp_path / "process_results.json", rows)
    expected = (tmp_path / "process_results.json").read_bytes()
    assert saved(page, "#save-json") == expected


@pytest.fixture
def portraits() -> list[Path]:
    return sorted(FACES.glob("*.jpg"))


def labels(page: Any) -> dict[str, str]:
    found: dict[str, str] = json.loads(saved(page, "#save-json"))
    return found


EXPECTED = {
    "barack_obama.jpg": "male",
    "barack_obama_speaking.jpg": "male",
    "barack_obama_standing.jpg": "male",
    "eileen_collins.jpg": "female",
    "grace_hopper.jpg": "male",  # wrong, and the same wrong as in predict
    "joe_biden.jpg": "male",
}


def test_once_loaded_it_answers_without_any_network(
    site: Path, serve: Serve, visit: Callable[..., Any], portraits: list[Path]
) -> None:
    page = visit(serve(site))
    assert "never leave" in page.inner_text("#privacy")
    assert page.is_hidden("#for-programs"), "there is no API where there is no server of ours"
    put_in(page, portraits[:1])
    wait_for_all(page)
    page.context.set_offline(True)
    put_in(page, portraits[1:])
    until(page, "document.querySelector('#status').textContent.endsWith(' 6.')")
    assert labels(page) == EXPECTED


@pytest.mark.parametrize(("kind", "is_isolated"), [(Untyped, False), (Isolated, True)])
def test_other_servers(
    kind: type[Files],
    is_isolated: bool,
    site: Path,
    serve: Serve,
    visit: Callable[..., Any],
    portraits: list[Path],
) -> None:
    """One that knows few types, and one that lets pages use threads and sends a policy."""
    page = visit(serve(site, kind))
    assert page.evaluate("crossOriginIsolated") is is_isolated
    put_in(page, portraits)
    wait_for_all(page)
    assert labels(page) == EXPECTED


def test_the_page_stays_alive_and_can_be_stopped(
    site: Path, serve: Serve, visit: Callable[..., Any], portraits: list[Path]
) -> None:
    page = visit(serve(site))
    put_in(page, portraits[:1])
    wait_for_all(page)
    page.evaluate("window.ticks = 0; setInterval(() => { window.ticks += 1 }, 10)")
    page.set_input_files("#files", [str(path) for path in portraits * 3])
    until(page, "window.ticks > 20")
    assert page.is_visible("#progress")
    page.click("#stop")
    until(page, "document.querySelector('#status').textContent.startsWith('Stopped')")
    assert page.is_hidden("#progress")
    put_in(page, portraits[:1])  # goes on with those that wait
    wait_for_all(page)
    answers = [one["label"] for rows in details(page).values() for one in rows]
    assert len(answers) == 20 and set(answers) <= set(LABELS)


def test_what_is_missing_on_the_server_is_said(
    site: Path, serve: Serve, visit: Callable[..., Any], portraits: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    (broken / "local/yunet.onnx").unlink()
    page = visit(serve(broken), is_whole=False)
    put_in(page, portraits[:1])
    until(page, "document.querySelector('#error').textContent")
    assert "yunet.onnx" in page.inner_text("#error") and "404" in page.inner_text("#error")
    data = (site / "local/yunet.onnx").read_bytes()
    (broken / "local/yunet.onnx").write_bytes(data[:-1])
    os.utime(broken / "local/yunet.onnx", (1, 1))  # so old that browsers keep it
    put_in(page, portraits[:1])
    until(page, "document.querySelector('#error').textContent.includes('bytes')")
    (broken / "local/yunet.onnx").write_bytes(data)
    put_in(page, portraits[:1])
    wait_for_all(page)  # those that waited, too
    assert len(labels(page)) == 3


def test_opened_by_a_double_click_it_says_what_to_do(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text("main [role=alert]")
    page.close()


def test_another_network_by_its_own_rules(
    runtime: WebRuntime,
    model_path: Path,
    serve: Serve,
    visit: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """One with the crop rule none: without a detection, it gets the full image."""
    write_site(tmp_path / "site", read_model_file(model_path), runtime)
    names = {"a.png": "male", "b.png": "female"}
    for seed, (name, label) in enumerate(names.items()):
        image(label, (90, 70), seed).save(tmp_path / name)
    expected = Classifier.load(model_path).predict([tmp_path / name for name in names])
    page = visit(serve(tmp_path / "site"))
    put_in(page, [tmp_path / name for name in names])
    wait_for_all(page)
    found = details(page)
    for row, name in zip(expected, names, strict=True):
        (there,) = found[name]
        assert (there["label"], there["crop"]) == (row.label, row.crop) == (names[name], "none")
        assert float(there["probability"]) == pytest.approx(row.probability, abs=2e-4)
