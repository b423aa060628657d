"""Pages of other origins: what the server allows, and what a browser makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from made import encode, image
from serve.conftest import Server

from facegender.errors import InputError
from facegender.serve.settings import Settings

ALLOWED = ("https://example.org", "http://localhost:3000")
TOKEN = "a-token-of-some-length-1234"


@pytest.fixture(scope="module")
def shared(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that allows two origins and requires a token."""
    token = tmp_path_factory.mktemp("token") / "token.txt"
    token.write_text(TOKEN)
    first, second = ALLOWED
    return start("--cors-origin", first, "--cors-origin", second + "/", "--token-file", token)


def preflight(server: Server, origin: str, **headers: str) -> requests.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return requests.options(f"{server.url}/predict", headers=asked | headers, timeout=60)


@pytest.mark.parametrize("origin", ALLOWED)
def test_a_preflight_request_needs_no_token(shared: Server, origin: str) -> None:
    headers = {"Access-Control-Request-Headers": "authorization,content-type,x-request-id"}
    response = preflight(shared, origin, **headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-request-id"))
    assert "origin" in response.headers["vary"].lower()
    assert "access-control-allow-credentials" not in response.headers
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    "origin",
    ["https://example.org.evil.test", "http://example.org", "https://example.org:8443", "null"],
)
def test_another_origin_is_not_allowed(shared: Server, origin: str) -> None:
    for response in (
        preflight(shared, origin),
        shared.get("/health", headers={"Origin": origin}),
    ):
        assert "access-control-allow-origin" not in response.headers


def test_answers_and_errors_can_be_read(shared: Server) -> None:
    headers = {"Origin": ALLOWED[0], "Authorization": f"Bearer {TOKEN}"}
    answer = shared.predict(("a.png", encode(image(seed=1))), headers=headers)
    for response, status in (
        (answer, 200),
        (shared.get("/model", headers={"Origin": ALLOWED[0]}), 401),
        (shared.get("/model?x=1", headers=headers), 422),
        (shared.get("/nothing", headers=headers), 404),
    ):
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ALLOWED[0]
        exposed = response.headers["access-control-expose-headers"].lower()
        assert "retry-after" in exposed and "x-request-id" in exposed


def test_without_the_option_no_origin_is_allowed(server: Server) -> None:
    assert preflight(server, ALLOWED[0]).status_code == 405
    response = server.get("/health", headers={"Origin": ALLOWED[0]})
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_all_origins(start: Callable[..., Server]) -> None:
    server = start("--cors-origin", "*")
    assert preflight(server, "https://any.test").headers["access-control-allow-origin"] == "*"
    answer = server.get("/health", headers={"Origin": "https://any.test"})
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origin",
    [
        *("example.org", "https://example.org/app", "https://Example.org", "", "https://"),
        *("http://example.org:80", "https://example.org:443", "https://*.example.org"),
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(InputError, match="is not an origin"):
        Settings(cors_origins=(origin,))


@pytest.mark.parametrize(
    "origin",
    [
        *(*ALLOWED, "http://127.0.0.1:8000", "http://[::1]:8000", "null", "*"),
        *("chrome-extension://abcdefgh", "http://example.org:443", "https://example.org:8080"),
    ],
)
def test_what_is_an_origin(origin: str) -> None:
    assert Settings(cors_origins=(origin,)).cors_origins == (origin,)


def test_a_browser_reads_the_answer_from_an_allowed_page_only(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    other = start()  # its page is of another origin, as it has another port
    server = start("--cors-origin", other.url)
    ask: Any = """async (url) => {
        const body = await (await fetch("/favicon.svg")).blob().catch(() => new Blob(["x"]));
        try {
            const answer = await fetch(url + "/predict", {
                method: "POST", body, headers: {"Content-Type": "image/png"}});
            return (await answer.json()).images.length;
        } catch (error) { return String(error); }
    }"""
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        for page_of, url, found in ((other, server, 1), (server, other, "TypeError")):
            page = browser.new_page(bypass_csp=True)
            page.goto(page_of.url)
            answer = page.evaluate(ask, url.url)
            assert str(answer).startswith(str(found)), answer
        browser.close()


def _chromium() -> str:
    import os
    import shutil

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return path or pytest.skip("no Chromium here")
