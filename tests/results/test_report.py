from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, image
from PIL import Image

from facegender.errors import OutputError
from facegender.images.decode import decode
from facegender.images.pixels import THUMBNAIL, thumbnail
from facegender.results.report import CAVEAT, ReportImage, ReportInfo, relative_url, write_report

ABOUT = ReportInfo(
    model="mean",
    fingerprint="0123abcd",
    version="0.2.0",
    created="2026-11-01T12:00:00+00:00",
    input="photos",
    terms="for tests",
    caveat="Children fail.",
)

HOSTILE = [
    "</script><script>alert(1)</script>.jpg",
    "<!-- <script> .jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "a&quot;b'c\"d,e.jpg",
    "line\nbreak\r.jpg",
    "tab\tnul-less\x01\x7f.jpg",
    "é中🙂\u202egpj.exe\u2028\u2029.jpg",
    "__proto__",
    "=1+1;@SUM(A1).csv",
    "]]>${x}`{x}$&.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "  spaces  ",
]


def row(file: str, **more: Any) -> dict[str, Any]:
    """A row of the details file, of a face of 40x50 pixels in an image of 200x160."""
    return {
        "file": file,
        "face_index": 0,
        "status": "ok",
        "label": "female",
        "probability": 0.9731,
        "box": {"x": 60, "y": 40, "width": 40, "height": 50},
        "detection_score": 0.91,
        "crop": "aligned",
        "width": 200,
        "height": 160,
        "error": None,
    } | more


def without_face(file: str, **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("face_index", "label", "probability", "box", "detection_score", "crop")
    )
    return row(file, **nothing, status="no_face") | more


def unreadable(file: str, error: str) -> dict[str, Any]:
    return without_face(file, status="unreadable", width=None, height=None, error=error)


def small(seed: int = 0) -> bytes:
    return thumbnail(np.asarray(image(size=(200, 160), seed=seed)))


class Blocks(HTMLParser):
    """Reads a page as a browser does, and keeps what its script blocks hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.blocks: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self._inside = True
            self.blocks.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.blocks[-1]
            self.blocks[-1] = (attributes, text + data)

    def of(self, name: str) -> list[str]:
        return [
            text for found, text in self.blocks if name in (found.get("class"), found.get("id"))
        ]


# ---- the file ----------------------------------------------------------------------------------


def test_rows_and_small_copies_are_all_in_the_page(tmp_path: Path) -> None:
    images = [ReportImage((row(f"{n}.jpg"),), small(n), f"{n}.jpg") for n in range(130)]
    images[7] = ReportImage((unreadable("7.jpg", "cut off"),))
    assert write_report(tmp_path / "report.html", images, ABOUT) == 130
    page = Blocks((tmp_path / "report.html").read_text("utf-8"))
    found = [one for block in page.of("images") for one in json.loads(block)]
    assert [one["rows"] for one in found] == [list(one.rows) for one in images]
    assert [one["source"] for one in found] == [one.source for one in images]
    lines = [line for block in page.of("thumbnails") for line in block.split("\n")]
    assert [None if x == "-" else base64.b64decode(x) for x in lines] == [
        one.thumbnail for one in images
    ]
    assert json.loads(page.of("data-about")[0])["model"] == "mean"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.html"
    write_report(plain, [ReportImage((row("a.jpg"),))], ABOUT)
    path = tmp_path / "report.html"
    about = ReportInfo(name, name, name, name, name, name, name)
    found = (row(name), row(name, face_index=1, error=name))
    assert write_report(path, [ReportImage(found)], about) == 1
    page = Blocks(path.read_text("utf-8"))
    assert page.tags == Blocks(plain.read_text("utf-8")).tags, "nothing became an element"
    assert json.loads(page.of("images")[0])[0]["rows"] == list(found)
    assert json.loads(page.of("data-about")[0])["terms"] == name


def test_the_policy_names_its_own_script_and_style_and_no_host(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [], ABOUT)
    page = (tmp_path / "report.html").read_text("utf-8")
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found
    policy = {part.split()[0]: part.split()[1:] for part in found[1].split(";")}
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["img-src"] == ["'self'", "file:", "data:"]
    for kind in ("script-src", "style-src"):
        assert len(policy[kind]) == 1 and policy[kind][0].startswith("'sha256-")
    assert not re.search(r"https?://|//[a-z]+\.", page.partition("<!doctype html>")[2])


def test_an_empty_report(tmp_path: Path) -> None:
    assert write_report(tmp_path / "report.html", [], ABOUT) == 0


def test_skipped_files_are_no_images(tmp_path: Path) -> None:
    images = [ReportImage((without_face("a.txt", status="skipped"),))]
    assert write_report(tmp_path / "report.html", images, ABOUT) == 0


def test_a_report_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def stopped() -> Iterator[ReportImage]:
        yield from (ReportImage((row(f"{n}.jpg"),)) for n in range(100))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(path, stopped(), ABOUT)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("report.html", "old")]
    with pytest.raises(OutputError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "report.html", [], ABOUT)


def test_memory_is_flat(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        data = small()
        images = (ReportImage((row(f"{n}.jpg"),), data + bytes(9)) for n in range(count))
        tracemalloc.start()
        try:
            write_report(tmp_path / "report.html", images, ABOUT)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(2_000) < peak(200) + 500_000


@pytest.mark.parametrize(
    "rows",
    [(), (row("a.jpg"), row("b.jpg"))],
)
def test_rows_of_no_single_image(rows: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(ValueError, match="the same file"):
        ReportImage(rows)


@pytest.mark.parametrize(
    "source",
    [
        *("https://example.org/a.jpg", "//example.org/a.jpg", "javascript:alert(1)", "data:,x"),
        *("\\\\host\\a.jpg", " //example.org/a.jpg", "/\t/example.org/a.jpg", "HTTP:a", ""),
    ],
)
def test_an_original_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        ReportImage((row("a.jpg"),), None, source)


@pytest.mark.parametrize(
    ("at", "link"),
    [
        ("photos/a.jpg", "photos/a.jpg"),
        ("photos/sub/é #1?%.jpg", "photos/sub/%C3%A9%20%231%3F%25.jpg"),
        ("http:x.jpg", "http%3Ax.jpg"),
        ("../a.jpg", "../a.jpg"),
        ("photos/../b.jpg", "b.jpg"),
    ],
)
def test_links_are_relative_and_quoted(at: str, link: str, tmp_path: Path) -> None:
    found = relative_url(tmp_path / "out" / at, tmp_path / "out" / "report.html")
    assert found == link
    ReportImage((row("a.jpg"),), None, found)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 400), (160, 64)),
        ((90, 300), (48, 160)),
        ((40, 48), (40, 48)),
        ((5000, 3), (160, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_small_copies(size: tuple[int, int], expected: tuple[int, int]) -> None:
    data = thumbnail(np.full((size[1], size[0], 3), 77, np.uint8))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", expected)
        assert max(image.size) <= THUMBNAIL
    assert np.abs(decode(data).astype(int) - 77).max() <= 2


# ---- the page in a browser ---------------------------------------------------------------------

CHROMIUM = next(
    (
        path
        for path in (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium", "/usr/bin/google-chrome")
        if path and Path(path).exists()
    ),
    None,
)
AXE = os.environ.get("AXE_CORE", "")


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


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a report; at the end nothing may have gone wrong or asked for another host."""
    contexts, wrong = [], []

    def show(path: Path, missing: tuple[str, ...] = (), script: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-US", "timezone_id": "UTC"} | options)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(60_000)

        def said(message: Any) -> None:
            if not any(name in message.location["url"] for name in missing):
                wrong.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda one: one.url[:5] in ("file:", "data:", "blob:") or wrong.append(one.url),
        )
        page.goto(path.as_uri())
        until(page, "document.querySelector('#counts > div') !== null")
        return page

    yield show
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report of seven images, three of whose originals are there."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "photos").mkdir()
    report = folder / "report.html"

    def original(name: str, seed: int) -> str:
        path = folder / "photos" / name
        path.write_bytes(encode(image(size=(200, 160), seed=seed)))
        return relative_url(path, report)

    second = {"x": 140, "y": 100, "width": 80, "height": 60}
    images = [
        ReportImage((row("1 é#?.png"),), small(1), original("1 é#?.png", 1)),
        ReportImage(
            (
                row("two.png", label="male", probability=0.8),
                row("two.png", face_index=1, box=second),
            ),
            small(2),
            original("two.png", 2),
        ),
        ReportImage(
            (row("gone.png", label="male", probability=0.99),), small(3), "photos/gone.png"
        ),
        ReportImage((row("in.tar/a.png", status="unknown", probability=0.55),), small(4)),
        ReportImage((without_face("sea.png"),), small(5), original("sea.png", 5)),
        ReportImage((unreadable("cut.jpg", "cut <b>off</b>"),)),
        ReportImage((unreadable("empty.jpg", "the file is empty (0 bytes)"),)),
    ]
    write_report(report, images, ABOUT)
    return report


def until(page: Any, condition: str) -> None:
    """Wait; Playwright's own wait evaluates a string in the page, which its policy forbids."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def names(page: Any) -> list[str]:
    return page.locator("#cards .name").all_inner_texts()


def saved(page: Any, keys: Callable[[], None] | None = None) -> bytes:
    with page.expect_download() as download:
        (keys or page.locator("#save-marks").click)()
    assert download.value.suggested_filename == "facegender-marks.csv"
    return Path(download.value.path()).read_bytes()


def test_counts_histogram_reasons_and_facts(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album)
    counts = {
        part.locator("dt").inner_text(): int(part.locator("dd").inner_text())
        for part in page.locator("#counts > div").all()
    }
    assert counts == {
        "images": 7,
        "faces": 5,
        "female": 1,
        "male": 2,
        "unknown": 1,
        "no face": 1,
        "unreadable": 2,
    }
    described = page.locator("#bars").get_attribute("aria-label")
    assert "Predictions: 4" in described and "At least 98 %: 1." in described
    page.locator("summary").click()
    lines = [line.split("\t") for line in page.locator("#bins tr").all_inner_texts()]
    assert {line[0]: line[1:] for line in lines if line[1:] != ["0", "0", "0"]} == {
        "54\u201356 %": ["0", "0", "1"],
        "80\u201382 %": ["0", "1", "0"],
        "96\u201398 %": ["1", "0", "0"],
        "98\u2013100 %": ["0", "1", "0"],
    }
    assert page.locator("#reasons tr").all_inner_texts() == [
        "cut.jpg\tcut <b>off</b>",
        "empty.jpg\tthe file is empty (0 bytes)",
    ]
    facts = page.locator("#about").inner_text()
    for said in ("mean", "0123abcd", "0.2.0", "photos", "for tests"):
        assert said in facts
    assert "Children fail." in facts
    assert page.locator("#caveat").inner_text() == CAVEAT
    assert page.title() == "facegender report: photos"


def test_unsupported_images_are_counted_and_listed_with_reasons(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    reason = "a video is not read: save frames of it as images"
    images = [
        ReportImage((row("a.png"),), small(1)),
        ReportImage((unreadable("cut.jpg", "cut off"),)),
        ReportImage((unreadable("b.mp4", reason) | {"status": "unsupported"},)),
    ]
    write_report(tmp_path / "r.html", images, ABOUT)
    page = open_page(tmp_path / "r.html")
    assert page.locator("#count-unsupported").inner_text().split("\n") == ["not supported", "1"]
    assert page.locator("#reasons tr").all_inner_texts() == [
        "cut.jpg\tcut off",
        f"b.mp4\t{reason}",
    ]
    page.select_option("#status", "unsupported")
    assert names(page) == ["b.mp4"]


@pytest.mark.parametrize(
    ("choose", "left"),
    [
        ({"label": "female"}, ["1 é#?.png", "in.tar/a.png"]),
        ({"label": "male"}, ["two.png", "gone.png"]),
        ({"status": "unknown"}, ["in.tar/a.png"]),
        ({"status": "no_face"}, ["sea.png"]),
        ({"status": "unreadable"}, ["cut.jpg", "empty.jpg"]),
        ({"status": "several"}, ["two.png"]),
        ({"status": "ok", "text": "PNG"}, ["1 é#?.png", "two.png", "gone.png"]),
        ({"text": "É#"}, ["1 é#?.png"]),
        ({"text": "tar/", "label": "male"}, []),
        ({"from": "80"}, ["1 é#?.png", "two.png", "gone.png"]),
        ({"to": "80"}, ["two.png", "in.tar/a.png"]),
        ({"from": "98", "to": "99"}, ["gone.png"]),
        (
            {"order": "up"},
            ["in.tar/a.png", "two.png", "1 é#?.png", "gone.png", "sea.png", "cut.jpg", "empty.jpg"],
        ),
        ({"order": "down", "to": "99", "from": "90"}, ["gone.png", "1 é#?.png"]),
    ],
)
def test_filters(
    choose: dict[str, str], left: list[str], album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album)
    assert len(names(page)) == 7
    for field, value in choose.items():
        if field in ("label", "status", "order"):
            page.select_option(f"#{field}", value)
        else:
            page.locator(f"#{field}").fill(value)
    assert names(page) == left
    text = page.locator("#shown[role=status]").inner_text()
    assert text == (f"1\u2013{len(left)} of {len(left)} images" if left else "No matching images.")
    page.locator("#reset").click()
    until(page, "document.querySelectorAll('.card').length === 7")


def test_the_range_never_turns_round(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album)
    page.locator("#to").fill("70")
    page.locator("#from").fill("90")
    assert page.locator("#range").inner_text() == "70 % to 70 %"


def test_a_larger_image_with_its_boxes(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album, viewport={"width": 1280, "height": 900})
    page.locator(".open").nth(1).click()
    dialog = page.get_by_role("dialog", name="two.png")
    assert dialog.is_visible()
    until(page, "document.getElementById('lightbox-image').naturalWidth === 200")
    assert page.locator("#lightbox-image").get_attribute("src") == "photos/two.png"
    assert "male 80.0 %" in page.locator("#lightbox-image").get_attribute("alt")
    image = page.locator("#lightbox-image").bounding_box()
    boxes = [box.bounding_box() for box in page.locator(".box").all()]
    scale = image["width"] / 200
    assert image["height"] / 160 == pytest.approx(scale, rel=0.01)
    # The second one reaches outside of the image, and is clipped at its right side.
    for box, (x, y, width, height) in zip(
        boxes, [(60, 40, 40, 50), (140, 100, 60, 60)], strict=True
    ):
        assert box["x"] - image["x"] == pytest.approx(x * scale, abs=1.5)
        assert box["y"] - image["y"] == pytest.approx(y * scale, abs=1.5)
        assert box["width"] == pytest.approx(width * scale, abs=1.5)
        assert box["height"] == pytest.approx(height * scale, abs=1.5)
    assert page.locator("#lightbox-faces li").all_inner_texts() == [
        "male 80.0 % (detection score 0.91)",
        "female 97.3 % (detection score 0.91)",
    ]
    assert page.locator("#lightbox-note").inner_text() == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [("gone.png", "cannot be shown"), ("in.tar/a.png", "cannot be shown"), ("cut.jpg", "cut <b>")],
)
def test_without_an_original(
    name: str, says: str, album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album, missing=("gone.png",))
    page.locator("#text").fill(name)
    page.locator(".open").click()
    until(page, "document.getElementById('lightbox-note').textContent !== ''")
    assert says in page.locator("#lightbox-note").inner_text()
    if name == "cut.jpg":
        assert not page.locator("#lightbox-image").is_visible()
        assert not page.locator("#lightbox-mark").is_visible()
    else:
        assert (
            page.locator("#lightbox-image")
            .get_attribute("src")
            .startswith("data:image/jpeg;base64,")
        )
        until(page, "document.getElementById('lightbox-image').naturalWidth === 160")
        assert page.locator(".box").count() == 1


def test_an_original_that_changed_its_shape_is_not_drawn_on(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    (tmp_path / "a.png").write_bytes(encode(image(size=(160, 200), seed=1)))
    write_report(tmp_path / "r.html", [ReportImage((row("a.png"),), small(1), "a.png")], ABOUT)
    page = open_page(tmp_path / "r.html")
    page.locator(".open").click()
    until(page, "document.getElementById('lightbox-image').src.startsWith('data:')")


def test_an_original_on_its_side_is_upright(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image(size=(160, 200), seed=1), "JPEG", exif=exif)
    assert decode(data).shape == (160, 200, 3)
    (tmp_path / "a.jpg").write_bytes(data)
    write_report(tmp_path / "r.html", [ReportImage((row("a.jpg"),), small(1), "a.jpg")], ABOUT)
    page = open_page(tmp_path / "r.html")
    page.locator(".open").click()
    until(page, "document.getElementById('lightbox-image').naturalWidth === 200")
    assert page.locator("#lightbox-image").get_attribute("src") == "a.jpg"


def test_marks_survive_a_reload_and_are_saved(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album)
    assert page.locator("#save-marks").is_disabled()
    assert page.locator(".card .mark:visible").count() == 4, "only answers can be wrong"
    page.locator(".card .mark").nth(0).click()
    page.locator(".card .mark").nth(3).click()
    page.locator(".open").nth(1).click()
    page.locator("#lightbox-mark").click()
    assert page.locator("#lightbox-mark").get_attribute("aria-pressed") == "true"
    assert "female" in page.locator("#lightbox-announcement").inner_text()
    page.locator("#close").click()
    page.locator(".card .mark").nth(3).click()
    assert page.locator(".card.wrong").count() == 2
    page.reload()
    page.wait_for_selector(".card")
    assert page.locator("#mark-count").inner_text() == "Marked as wrong: 2"
    assert page.locator(".card.wrong").count() == 2
    assert saved(page).decode() == 'file,label\n"1 é#?.png",male\n"two.png",female\n'
    page.select_option("#status", "wrong")
    assert names(page) == ["1 é#?.png", "two.png"]
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#clear-marks").click()
    assert page.locator("#mark-count").inner_text() == "Marked as wrong: 0"
    assert page.locator(".card.wrong").count() == 0


def test_marks_without_storage(album: Path, open_page: Callable[..., Any]) -> None:
    blocked = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }});"
    page = open_page(album, script=blocked)
    page.locator(".card .mark").nth(0).click()
    assert "lost when this page is closed" in page.locator("#mark-count").inner_text()
    assert saved(page).decode() == 'file,label\n"1 é#?.png",male\n'


def test_a_new_report_does_not_take_the_marks_of_another(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    path = tmp_path / "report.html"
    write_report(path, [ReportImage((row("a.jpg"),))], ABOUT)
    page = open_page(path)
    page.locator(".card .mark").click()
    later = ReportInfo(
        *(getattr(ABOUT, name) for name in ("model", "fingerprint", "version")), "2027", "x"
    )
    write_report(path, [ReportImage((row("a.jpg"),))], later)
    page.reload()
    page.wait_for_selector(".card")
    assert page.locator("#mark-count").inner_text() == "Marked as wrong: 0"


def test_hostile_names_in_the_page_and_in_the_table(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    path = tmp_path / "report.html"
    write_report(path, [ReportImage((row(name),), small()) for name in HOSTILE], ABOUT)
    page = open_page(path)
    for button in page.locator(".card .mark").all():
        button.click()
    texts = page.evaluate("[...document.querySelectorAll('.name')].map((one) => one.textContent)")
    assert texts == HOSTILE
    are_text = [name for name in HOSTILE if not re.search("[\ud800-\udfff]", name)]
    page.reload()
    page.wait_for_selector(".card")
    assert page.locator(".card.wrong").count() == len(HOSTILE)
    data = saved(page)
    assert (
        "Left out because their file names are not valid text: 1"
        in page.locator("#announcement").inner_text()
    )
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert rows == [["file", "label"], *([name, "male"] for name in are_text)]


def test_evaluate_and_train_understand_the_table(
    tmp_path: Path, photos: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    samples = pytest.importorskip("facegender.training.data.samples")
    files = [f"{label}/{n}, é.png" for label in ("female", "male") for n in range(2)]
    folder = photos({name: encode(image(seed=n)) for n, name in enumerate(files)})
    report = tmp_path / "report.html"
    rows = [row(name, label=name.split("/")[0]) for name in files]
    write_report(report, [ReportImage((one,), small()) for one in rows], ABOUT)
    page = open_page(report)
    page.locator(".card .mark").nth(1).click()
    (tmp_path / "marks.csv").write_bytes(saved(page))
    found = {
        one.file: one.label for one, _ in samples.stream_samples([folder], tmp_path / "marks.csv")
    }
    assert found == dict(zip(files, ["female", "male", "male", "male"], strict=True))


def test_keyboard_alone(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album, missing=("gone.png",), viewport={"width": 1280, "height": 900})
    keys = page.keyboard

    def focused() -> str:
        return page.evaluate("document.activeElement.closest('.card')?.dataset.index ?? ''")

    keys.press("Tab")
    keys.press("Enter")  # past the overview
    for _ in range(20):
        keys.press("Tab")
        if focused():
            break
    assert focused() == "0"
    keys.press("ArrowRight")
    keys.press("w")
    assert focused() == "1"
    keys.press("End")
    assert focused() == "6"
    keys.press("Home")
    keys.press("Enter")
    dialog = page.locator("#lightbox")
    assert dialog.is_visible()
    for name in ("two.png", "gone.png"):
        keys.press("ArrowRight")
        assert page.locator("#lightbox-name").inner_text() == name
        assert name in page.locator("#lightbox-announcement").inner_text()
    keys.press("w")
    for _ in range(5):
        keys.press("ArrowRight")
    assert page.locator("#position").inner_text() == "7 of 7"
    keys.press("ArrowLeft")
    keys.press("Escape")
    assert not dialog.is_visible()
    place = "document.activeElement.closest('.card')?.dataset.index"
    until(page, f"{place} === '5'")  # where the lightbox was; set after it closed
    assert page.locator("#mark-count").inner_text() == "Marked as wrong: 2"
    page.locator("#text").focus()
    keys.type("w")
    assert page.locator("#mark-count").inner_text() == "Marked as wrong: 2"
    assert names(page) == ["two.png"]
    page.locator("#save-marks").focus()
    assert b'"two.png",female\n"gone.png",female\n' in saved(page, lambda: keys.press("Enter"))
    page.locator("#from").focus()
    keys.press("ArrowRight")
    assert page.locator("#range").inner_text() == "51 % to 100 %"


def test_two_languages(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album, locale="ru-RU")
    assert page.locator("html").get_attribute("lang") == "ru"
    assert page.locator("#overview-title").inner_text() == "Обзор"
    page.locator("#language").click()
    assert page.locator("html").get_attribute("lang") == "en"
    page.reload()
    page.wait_for_selector(".card")
    assert page.locator("#overview-title").inner_text() == "Overview"
    missing = page.evaluate(
        "[Object.keys(MESSAGES.en).filter((key) => !(key in MESSAGES.ru)),"
        " Object.keys(MESSAGES.ru).filter((key) => !(key in MESSAGES.en)),"
        " [...document.querySelectorAll('[data-message]')].map((one) => one.dataset.message)"
        ".filter((key) => !(key in MESSAGES.en))]"
    )
    assert missing == [[], [], []]


def many(count: int) -> Iterable[ReportImage]:
    rng = np.random.default_rng(0)
    pool = [
        thumbnail(np.repeat(np.repeat(noise, 8, axis=0), 8, axis=1))
        for noise in rng.integers(0, 255, (50, 20, 20, 3), dtype=np.uint8)
    ]
    for n in range(count):
        name = f"album {n // 500}/IMG_{n:05}.jpg"
        probability = round(float(0.5 + rng.beta(5, 1) / 2), 4)
        yield ReportImage((row(name, probability=probability),), pool[n % 50], f"{n}.jpg")


def test_ten_thousand_images(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    path = tmp_path / "report.html"
    assert write_report(path, many(10_000), ABOUT) == 10_000
    page = open_page(path, missing=(".jpg",))
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert ready < 20_000, "milliseconds; one to two on a machine with nothing else to do"
    assert page.locator("#count-countImages dd").inner_text() == "10,000"

    def took(action: str) -> float:
        script = f"const start = performance.now(); {action}; return performance.now() - start;"
        return float(page.evaluate(f"() => {{ {script} }}"))

    assert took("byId('text').value = 'IMG_09'; applyFilters()") < 1_000
    assert page.locator("#shown").inner_text() == "1\u201396 of 1,000 images"
    assert took("byId('text').value = ''; byId('order').value = 'up'; applyFilters()") < 2_000
    assert took("showPage(104)") < 2_000
    assert page.locator(".card").count() == 10_000 % 96
    page.evaluate("showPage(50)")
    assert page.locator(".card").count() == 96
    assert page.evaluate("document.images.length") <= 97
    assert page.evaluate("document.getElementsByTagName('*').length") < 2_500
    page.locator(".open").last.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    until(page, "byId('page').value === '51'")  # it turns with the lightbox


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(
    width: int, album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album, viewport={"width": width, "height": 800})
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#language").click()
    page.locator(".open").first.click()
    box = page.locator("#lightbox").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_mark_button_appears_with_the_pointer_or_the_focus(
    album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album)
    button = page.locator(".card .mark").nth(1)
    opacity = "(element) => getComputedStyle(element).opacity"
    assert button.evaluate(opacity) == "0"
    page.locator(".card").nth(1).hover()
    assert button.evaluate(opacity) == "1"
    page.mouse.move(0, 0)
    assert button.evaluate(opacity) == "0"
    page.locator(".open").nth(1).focus()
    page.keyboard.press("Tab")
    assert button.evaluate("(element) => element === document.activeElement")
    assert button.evaluate(opacity) == "1"
    page.keyboard.press("Enter")
    page.locator(".open").nth(0).focus()
    assert button.evaluate(opacity) == "1", "a mark stays in sight"


def test_on_a_touch_screen_the_mark_button_is_always_there(
    album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    button = page.locator(".card .mark").nth(1)
    assert button.evaluate("(element) => getComputedStyle(element).opacity") == "1"
    button.tap()
    assert button.get_attribute("aria-pressed") == "true"


def test_the_histogram_has_axes(album: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(album)
    ticks = page.locator("#percent-axis span")
    assert ticks.all_inner_texts() == [f"{percent} %" for percent in range(50, 101, 10)]
    bars = page.locator("#bars").bounding_box()
    for at, tick in enumerate(ticks.all()):
        box = tick.bounding_box()
        middle = box["x"] + box["width"] / 2
        assert abs(middle - (bars["x"] + bars["width"] * at / 5)) < 1.5
    heights = page.evaluate(
        "[...byId('bars').children].map((bar) => bar.lastElementChild && "
        "bar.getBoundingClientRect().bottom - bar.firstElementChild.getBoundingClientRect().top)"
    )
    end = int(page.locator("#count-axis b").last.inner_text())
    totals = page.evaluate("bins.map((bin) => bin.female + bin.male + bin.unknown)")
    for height, total in zip(heights, totals, strict=True):
        assert abs((height or 0) - total / end * bars["height"]) < 3
    ends = page.evaluate("[1, 2, 3, 7, 11, 100, 101, 4999, 5001].map(axisEnd)")
    assert ends == [1, 2, 5, 10, 20, 100, 200, 5000, 10000]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_names_are_cut_in_the_middle_and_tags_stay_inside(
    width: int, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    files = [f"holiday at the sea with the whole family {at:04}.jpg" for at in range(3)]
    files += ["\u05e9" * 60 + "1.jpg", "short.jpg"]
    boxes = [  # at the edges and in the corners of an image of 300x200
        {"x": 0, "y": 0, "width": 20, "height": 20},
        {"x": 150, "y": 2, "width": 20, "height": 20},
        {"x": 280, "y": 180, "width": 20, "height": 20},
        {"x": 175, "y": 90, "width": 125, "height": 100},
        {"x": 0, "y": 0, "width": 300, "height": 200},
    ]
    report = tmp_path / "report.html"
    images = [
        ReportImage((row(file, box=box),), small(at))
        for at, (file, box) in enumerate(zip(files, boxes, strict=True))
    ]
    write_report(report, images, ABOUT)
    page = open_page(report, viewport={"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert names(page) == files
    for at in range(3):
        element = page.locator("#cards .name").nth(at)
        end = element.locator(".name-end")
        assert end.text_content().endswith(f"{at:04}.jpg")
        assert end.bounding_box()["width"] > 30
        room = element.bounding_box()
        assert end.bounding_box()["x"] + end.bounding_box()["width"] <= room["x"] + room["width"]
    assert page.locator("#cards .name").nth(4).locator("span").count() == 0
    page.locator(".open").first.click()
    for _ in files:
        page.wait_for_timeout(200)
        assert "%" in page.locator("#boxes .tag").inner_text()
        stage, tag = (page.locator(one).bounding_box() for one in (".stage", "#boxes .tag"))
        assert tag["x"] >= stage["x"] - 1 and tag["y"] >= stage["y"] - 1
        assert tag["x"] + tag["width"] <= stage["x"] + stage["width"] + 1
        page.keyboard.press("ArrowRight")


@pytest.mark.skipif(not Path(AXE).is_file(), reason="axe-core: name its axe.min.js in AXE_CORE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_larger", [False, True])
def test_accessibility(
    scheme: str, is_larger: bool, album: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(album, color_scheme=scheme, bypass_csp=True)
    page.locator("summary").click()
    page.locator(".card .mark").nth(0).click()
    if is_larger:
        page.locator(".open").nth(1).click()
    page.add_script_tag(content=Path(AXE).read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [
        (one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]
    ] == []
