from __future__ import annotations

import ast
import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, image
from PIL import Image
from serve.conftest import Server
from serve.test_api import slow

import facegender
from facegender.images.pixels import Pixels

CHROMIUM = next(
    (
        path
        for path in (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium", "/usr/bin/google-chrome")
        if path and Path(path).exists()
    ),
    None,
)
TOKEN = "a-token-of-some-length-1234"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """One that finds faces, also for a network that takes full images."""
    return start("--faces", "detect")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        path = CHROMIUM or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium here: name its program in CHROMIUM")
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *CAMERA])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing may have gone wrong or asked for another host."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def show(server: Server, expected: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-US"} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)

        def said(message: Any) -> None:
            if not any(one in message.text for one in expected):
                wrong.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda one: one.url.startswith((server.url, "blob:", "data:")) or wrong.append(one.url),
        )
        with page.expect_response("**/model"):
            page.goto(server.url)
        return page

    yield show
    for context in contexts:
        context.close()
    assert not wrong


def until_said(page: Any, text: str) -> None:
    """Wait for a line of the page; Playwright's own wait needs what the policy forbids."""
    for _ in range(1200):
        if text in page.locator("#status").inner_text():
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never said {text!r}, but {page.locator('#status').inner_text()!r}")


def until(page: Any, condition: str) -> None:
    """Wait until something is true in the page."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def until_focus(page: Any, name: str) -> None:
    """Wait until the card of an image has the focus."""
    until(page, f"document.activeElement.querySelector('.name')?.textContent === {name!r}")


def as_files(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files.items()]


def hand_over(page: Any, kind: str, files: dict[str, bytes]) -> None:
    """Drop files on the page, or paste them."""
    page.evaluate(
        """([kind, files]) => {
            const transfer = new DataTransfer();
            for (const [name, data] of files) {
                const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            }
            const event = kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
                : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [kind, [[name, base64.b64encode(data).decode()] for name, data in files.items()]],
    )


def saved(page: Any, button: str, name: str) -> bytes:
    with page.expect_download() as download:
        page.locator(button).click()
    assert download.value.suggested_filename == name
    return Path(download.value.path()).read_bytes()


def counts(page: Any) -> dict[str, int]:
    return {
        part.locator("dt").inner_text(): int(part.locator("dd").inner_text())
        for part in page.locator("#counts > div").all()
    }


@pytest.fixture(scope="module")
def ten(astronaut: Pixels) -> dict[str, bytes]:
    """Ten images, a broken one and one without a face among them."""
    face = Image.fromarray(astronaut).crop((100, 0, 350, 250))
    turns = {f"{at}.png": encode(face.rotate(at, expand=True)) for at in (1, 2, 3, 9, 10, 11, 100)}
    return turns | {
        "é, 中 \"'&<b>.png": encode(face.resize((125, 125))),
        "broken.jpg": encode(face, "JPEG")[:-300],
        "sea.png": encode(Image.new("RGB", (64, 64), (0, 60, 120))),
    }


def test_ten_dropped_answered_and_saved_as_by_the_command_line(
    server: Server,
    open_page: Callable[..., Any],
    ten: dict[str, bytes],
    model_path: Path,
    photos: Callable[..., Path],
    tmp_path: Path,
) -> None:
    page = open_page(server)
    hand_over(page, "drop", ten)
    until_said(page, "Done. Images: 10.")
    assert page.locator(".card").count() == page.locator("#rows tr").count() == 10
    found = counts(page)
    assert found["images"] == 10 and found["unreadable"] == 1 and found["no face"] == 1
    assert found["female"] + found["male"] + found["unknown"] == 8
    photos(ten)
    command = [sys.executable, "-m", "facegender", "predict", "photos", "--model", model_path]
    run = subprocess.run(
        [*command, "--faces", "detect", "-o", "results.json", "--details", "details.csv"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert run.returncode == 1, run.stderr
    results = saved(page, "#save-json", "process_results.json")
    assert results == (tmp_path / "results.json").read_bytes()
    assert list(json.loads(results))[:4] == ["1.png", "2.png", "3.png", "9.png"]
    rows, expected = (
        sorted(csv.DictReader(io.StringIO(data.decode(), newline="")), key=lambda row: row["file"])
        for data in (
            saved(page, "#save-csv", "details.csv"),
            (tmp_path / "details.csv").read_bytes(),
        )
    )
    for row, wanted in zip(rows, expected, strict=True):
        for column, value in wanted.items():
            if column in ("probability", "detection_score") and value:
                # one at a time or sixteen together: the same but for the last bit
                assert float(row[column]) == pytest.approx(float(value), abs=1e-4)
            else:
                assert row[column] == value


def test_boxes_are_where_the_rows_say(
    server: Server, open_page: Callable[..., Any], astronaut: Pixels
) -> None:
    page = open_page(server, viewport={"width": 1280, "height": 900})
    page.set_input_files("#files", as_files({"a.png": encode(Image.fromarray(astronaut))}))
    until_said(page, "Done. Images: 1.")
    (row,) = server.predict(("a.png", encode(Image.fromarray(astronaut)))).json()["images"][0][
        "rows"
    ]
    page.locator(".open").click()
    dialog = page.get_by_role("dialog", name="a.png")
    image = dialog.locator("img").bounding_box()
    box = dialog.locator(".box").bounding_box()
    scale = image["width"] / 512
    assert box["x"] - image["x"] == pytest.approx(row["box"]["x"] * scale, abs=1.5)
    assert box["y"] - image["y"] == pytest.approx(row["box"]["y"] * scale, abs=1.5)
    assert box["width"] == pytest.approx(row["box"]["width"] * scale, abs=1.5)
    said = f"{row['label']} {100 * row['probability']:.1f} %"
    assert dialog.locator(".box").inner_text() == said
    assert dialog.locator("li").all_inner_texts() == [
        f"{said} (face detection score {row['detection_score']:.2f})"
    ]
    assert said in dialog.locator("img").get_attribute("alt")


def test_small_faces_of_several_show_their_place_in_the_list_alone(
    server: Server, open_page: Callable[..., Any], astronaut: Pixels
) -> None:
    page = open_page(server, viewport={"width": 1280, "height": 900})
    face = astronaut[:300, 100:360]
    two = Image.fromarray(np.concatenate([face, face], axis=1))
    page.set_input_files("#files", as_files({"a.png": encode(two)}))
    until_said(page, "Done. Images: 1.")
    assert page.locator(".card .box").all_inner_texts() == ["1", "2"]
    page.locator(".open").click()
    listed = page.get_by_role("dialog", name="a.png").locator("li").all_inner_texts()
    for place, (tag, line) in enumerate(
        zip(page.locator("#lightbox .box").all_inner_texts(), listed, strict=True), start=1
    ):
        assert tag == f"{place} {line.partition(' (')[0]}"


def test_paste_and_names_that_come_twice(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    for at in range(3):
        hand_over(page, "paste", {"image.png": encode(image(seed=at))})
        until_said(page, f"Done. Images: {at + 1}.")
    names = page.locator(".card .name").all_inner_texts()
    assert names == ["image.png", "image (2).png", "image (3).png"]
    page.locator("#clear").click()
    assert not page.locator("#results").is_visible()
    assert page.evaluate("document.activeElement.id") == "choose-images"


def test_a_folder(
    server: Server, open_page: Callable[..., Any], photos: Callable[..., Path]
) -> None:
    page = open_page(server)
    data = encode(image(seed=1))
    folder = photos({"b.png": data, "in/a.png": data, "notes.txt": b"none"})
    page.set_input_files("#folder", str(folder))
    until_said(page, "Done. Images: 2.")
    assert sorted(page.locator(".card .name").all_inner_texts()) == ["b.png", "in/a.png"]


def test_the_camera(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server, permissions=["camera"])
    page.evaluate(  # A quick hand: the button is pressed in the moment in which it can be.
        """() => {
          const button = document.getElementById("take-photo");
          const quick = new MutationObserver(() => {
            if (button.disabled) return;
            quick.disconnect();
            button.click();
          });
          quick.observe(button, { attributes: true });
        }"""
    )
    page.locator("#open-camera").click()
    until_said(page, "Done. Images: 1.")
    assert page.locator("#camera-status").inner_text() == "Photo taken: camera 1.jpg"
    page.keyboard.press("Escape")
    until(page, "document.getElementById('video').srcObject === null")
    assert page.locator(".card .result").inner_text() == "no face"


def test_many_are_shown_part_by_part(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    data = encode(image(seed=1, size=(8, 8)))
    page.set_input_files("#files", as_files({f"{at}.png": data for at in range(130)}))
    until_said(page, "Done. Images: 130.")
    assert (page.locator(".card").count(), page.locator("#rows tr").count()) == (24, 100)
    page.locator("#more-rows").click()
    page.locator("#more-cards").click()
    assert (page.locator(".card").count(), page.locator("#rows tr").count()) == (72, 130)
    assert page.evaluate(
        "document.activeElement.closest('li') === document.querySelectorAll('.card')[24]"
    )
    assert counts(page)["images"] == 130


@pytest.fixture(scope="module")
def narrow(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server for few and small images, with a token."""
    token = tmp_path_factory.mktemp("token") / "token.txt"
    token.write_text(TOKEN)
    return start(
        *("--max-bytes", 60_000, "--max-images", 2, "--queue", 2, "--token-file", token),
        *("--faces", "detect"),
    )


def test_token_huge_file_and_full_queue(
    narrow: Server, server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(narrow, expected=("status of 401 ", "status of 503 "))
    page.locator("#token-form").wait_for()
    until(page, "document.activeElement.id === 'token'")
    page.locator("#token").fill("wrong-wrong-wrong-wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The token is not valid.").wait_for()
    page.locator("#token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.locator("#token-form").wait_for(state="hidden")
    # Two requests of two images at once, and the queue takes two: one has to wait
    files = {f"{at}.png": slow() for at in range(6)} | {"huge.png": bytes(60_001)}
    page.set_input_files("#files", as_files(files))
    until_said(page, "The server is busy")
    until_said(page, "Done. Images: 7.")
    assert counts(page) == {
        **{"images": 7, "female": 0, "male": 0, "unknown": 0},
        **{"no face": 6, "unreadable": 1},
    }
    refused = page.locator("#rows tr").filter(has_text="huge.png").inner_text()
    assert "60,001 bytes are over the limit of 60,000" in refused


def test_stop_and_a_server_that_is_gone(
    start: Callable[..., Server], open_page: Callable[..., Any]
) -> None:
    server = start("--max-images", 1)
    page = open_page(server, expected=("ERR_INTERNET_DISCONNECTED",))
    page.evaluate(  # clicked from within: from here it may come when all is answered
        """const progress = document.getElementById("progress");
        new MutationObserver((_, watch) => {
            watch.disconnect();
            setTimeout(() => document.getElementById("stop").click(), 100);
        }).observe(progress, { attributes: true });"""
    )
    page.set_input_files("#files", as_files({f"{at}.png": slow() for at in range(12)}))
    until_said(page, "Stopped.")
    page.context.set_offline(True)
    hand_over(page, "drop", {"more.png": encode(image(seed=1))})
    page.get_by_text("Prediction failed: the server cannot be reached").wait_for()
    page.context.set_offline(False)
    page.locator("#resume").click()
    until_said(page, "Done. Images: 13.")
    assert not page.locator("#resume").is_visible()


def test_images_may_come_before_the_server_has_said_its_limits(
    start: Callable[..., Server], open_page: Callable[..., Any]
) -> None:
    server = start("--max-images", 1)
    page = open_page(server)
    delayed: list[Any] = []
    page.route("**/model", lambda route: delayed.append(route))
    page.reload()
    page.set_input_files(
        "#files", as_files({f"{at}.png": encode(image(seed=at)) for at in range(3)})
    )
    page.wait_for_timeout(500)
    assert delayed and page.locator("#status").inner_text() == "Processed: 0 of 3"
    for route in delayed:
        route.continue_()
    until_said(page, "Done. Images: 3.")
    assert page.locator("#error").inner_text() == ""


def test_by_keyboard_alone(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    until(page, "document.activeElement.id === 'choose-images'")
    page.evaluate(
        """document.getElementById("files").addEventListener("click", (event) => {
            event.preventDefault(); // no dialog of the system's, which no test can answer
            window.isAsked = true;
        })"""
    )
    page.keyboard.press("Enter")
    until(page, "window.isAsked")
    page.set_input_files(
        "#files", as_files({f"{at}.png": encode(image(seed=at)) for at in range(2)})
    )
    until_said(page, "Done. Images: 2.")
    page.locator(".open").nth(0).focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog", name="0.png").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("dialog", name="1.png").is_visible()
    page.keyboard.press("Escape")
    until_focus(page, "1.png")


def test_russian(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server, locale="ru-RU")
    assert page.evaluate("document.documentElement.lang") == "ru"
    assert "не факт" in page.locator("#caveat").inner_text()
    english = "not a fact about a person"
    assert page.locator("#language").inner_text() == "English"
    page.locator("#language").click()
    assert english in page.locator("#caveat").inner_text()
    assert page.locator("#language").inner_text() == "Русский"
    page.reload()
    assert english in page.locator("#caveat").inner_text(), "the choice is saved"


REASON_MODULES = (
    *("images/decode.py", "images/color.py", "images/jpeg.py"),
    *("inference/worker_pool.py", "serve/batching.py"),
)


def reasons() -> set[str]:
    """What this project's code says of an image without a prediction; 7 for every placeholder.

    Readers of files are left out: the page gives them none by name.
    """
    package = Path(facegender.__file__).parent
    found = set()
    for name in REASON_MODULES:
        tree = ast.parse((package / name).read_text("utf-8"))
        constants = {
            str(one.targets[0].id): one.value.value
            for one in tree.body
            if isinstance(one, ast.Assign)
            and isinstance(one.targets[0], ast.Name)
            and isinstance(one.value, ast.Constant)
        }
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(function):
                    if (
                        function.name != "read_image_file"
                        and isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Name)
                        and call.func.id in ("UnreadableImageError", "WorkerDiedError")
                    ):
                        found.add(text_of(call.args[0], constants))
    found |= {"60,001 bytes are over the limit of 60,000"}  # by server.js and uploads.py
    script = (package / "web" / "browser" / "decode.js").read_text("utf-8")
    for thrown in re.findall(r"new UnreadableError\((.*?)\);", script, re.S):
        texts = re.findall(r"[`\"](.+?)[`\"]", thrown)
        found |= {re.sub(r"\$\{.*?\}", "7", text) for text in texts}
    return found - {""}


def text_of(node: ast.expr, constants: dict[str, object]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(one, constants) for one in node.values)
    if isinstance(node, ast.Name):
        return str(constants.get(node.id, ""))
    return "7" if isinstance(node, ast.FormattedValue) else ""


def test_every_reason_is_said_in_russian(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server, locale="ru-RU")
    translated = page.evaluate(
        """async (reasons) => {
            const { translateError } = await import("./i18n.js");
            return reasons.map((one) => [one, translateError(one)]);
        }""",
        sorted(reasons()),
    )
    assert len(translated) > 10
    assert not [one for one, said in translated if said.isascii()]
    page.set_input_files("#files", as_files({"a.png": b"", "b.png": b"no image"}))
    until_said(page, "Готово. Изображений: 2.")
    notes = page.locator("#rows td:last-child").all_inner_texts()
    assert notes == ["файл пуст (0 байт)", "содержимое не является изображением известного формата"]


def test_both_languages_say_the_same_things() -> None:
    from facegender.serve.pages import WEB_APP

    text = (WEB_APP / "messages.js").read_text("utf-8")
    english, russian = text.split("\n  ru: {")[0], text.split("\n  ru: {")[1].split("\n};")[0]
    keys = [
        set(re.findall(r"(?:^ {4}|, )(\w+): [\"\[\n]", part, re.M)) for part in (english, russian)
    ]
    assert keys[0] == keys[1] and len(keys[0]) > 50
    used = {
        word
        for path in WEB_APP.iterdir()
        for word in re.findall(r'(?:message\(|data-message=)"(\w+)"', path.read_text("utf-8"))
    }
    assert used <= keys[0], used - keys[0]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_and_width(
    width: int, scheme: str, server: Server, open_page: Callable[..., Any], ten: dict[str, bytes]
) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is missing")
    script = (Path(axe.__path__[0]) / "axe.min.js").read_text("utf-8")
    page = open_page(
        server, color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900}
    )
    page.add_script_tag(content=script)

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [
            (one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]
        ] == []

    check()
    hand_over(page, "drop", ten)
    until_said(page, "Done. Images: 10.")
    check()
    page.locator(".open").nth(0).click()
    check()
    page.keyboard.press("Escape")
    page.locator("#language").click()
    page.locator("#open-camera").click()
    check()


def test_the_page_of_the_api(server: Server, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: one.url.startswith(server.url) or wrong.append(one.url))
    page.goto(server.url)
    page.get_by_role("link", name="the API").click()
    page.get_by_text("Classify every face in one or more images").click()
    page.get_by_role("button", name="Try it out").wait_for()
    context.close()
    assert [one for one in wrong if not one.startswith("data:")] == []


@pytest.mark.parametrize("language", ["en-US", "ru-RU"])
def test_tags_and_names_keep_what_matters_on_a_phone(
    language: str, start: Callable[..., Server], open_page: Callable[..., Any], astronaut: Any
) -> None:
    server = start()
    page = open_page(server, viewport={"width": 390, "height": 800}, locale=language)
    face = Image.fromarray(astronaut)
    wide = Image.new("RGB", (1400, 512), "gray")
    wide.paste(face, (880, 0))  # the face is near the right edge
    files = {
        f"{'a long name that says little ' * 4}{at:04}.png": encode(one)
        for at, one in enumerate((face, wide, face.crop((150, 0, 330, 512))))
    }
    page.set_input_files("#files", as_files(files))
    until(page, "document.querySelectorAll('.card .tag').length >= 1")
    until(page, "document.getElementById('progress').hidden")
    page.wait_for_timeout(300)
    outside = """() => [...document.querySelectorAll(".card .tag")].filter((tag) => {
        const outer = tag.closest(".thumbnail").getBoundingClientRect();
        const inner = tag.getBoundingClientRect();
        return !tag.textContent.includes("%") || inner.width < 30 || inner.left < outer.left - 1
            || inner.right > outer.right + 1 || inner.top < outer.top - 1;
    }).length"""
    assert page.evaluate(outside) == 0
    assert page.locator(".card .name").all_inner_texts() == list(files)
    for at, name in enumerate(files):
        element = page.locator(".card .name").nth(at)
        assert element.text_content() == name and element.get_attribute("title") == name
        room, end = element.bounding_box(), element.locator(".name-end").bounding_box()
        assert element.locator(".name-end").text_content().endswith(f"{at:04}.png")
        assert end["x"] + end["width"] <= room["x"] + room["width"] + 1
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate(outside) == 0
    assert page.locator(".card .name").all_inner_texts() == list(files)


def test_while_files_are_dragged_the_page_says_what_dropping_does(
    server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(server)
    hint = page.locator(".drop-hint")
    drag = """([kind, isFile]) => {
        const dataTransfer = new DataTransfer();
        if (isFile) dataTransfer.items.add(new File(["x"], "a.png", { type: "image/png" }));
        else dataTransfer.setData("text/plain", "x");
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true }));
    }"""
    assert not hint.is_visible()
    page.evaluate(drag, ["dragover", True])
    assert hint.is_visible() and hint.inner_text() == "Drop to classify"
    page.evaluate(drag, ["dragleave", True])
    assert not hint.is_visible()
    page.evaluate(drag, ["dragover", False])
    assert not hint.is_visible(), "only files can be dropped"
