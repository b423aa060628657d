from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from made import encode, image
from PIL import Image
from serve.conftest import Server, until

from facegender.errors import InputError
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.serve.settings import Settings, read_token

START_TOKEN = "a-token-of-some-length-1234"


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says that it is ``side`` pixels wide and high."""
    small = encode(Image.new("L", (1, 1)))
    header = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    chunk = b"IHDR" + header
    return small[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + small[33:]


@cache
def slow() -> bytes:
    """An image that takes a while to read, for its many pixels; a few kilobytes."""
    return encode(Image.new("RGB", (2000, 2000), (10, 20, 30)), compress_level=1)


def problem_of(response: requests.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == status
    result: dict[str, Any] = response.json()
    assert result["status"] == status and result["title"] and result["type"]
    assert result["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text and ".py" not in response.text
    return result


# ---- answers -----------------------------------------------------------------------------------


def test_the_same_rows_as_by_the_library(
    server: Server, classifier: Classifier, astronaut: Pixels, tmp_path: Path
) -> None:
    files = {
        "astronaut é中.png": encode(Image.fromarray(astronaut)),
        "female.png": encode(image("female", seed=1)),
        "broken.jpg": encode(image(seed=2), "JPEG")[:-60],
        "empty.jpg": b"",
        "notes.txt": b"no image at all",
    }
    for faces in ("auto", "detect", "whole"):
        response = server.predict(*files.items(), params={"faces": faces})
        assert response.status_code == 200
        result = response.json()
        assert result["model"] == classifier.digest
        assert (
            result["seconds"]["predict"] >= max(one["seconds"] for one in result["images"]) - 0.01
        )
        for (name, data), one in zip(files.items(), result["images"], strict=True):
            path = tmp_path / name
            path.write_bytes(data)
            expected = [row.to_dict() for row in classifier.predict_faces(path, faces=faces)]
            if name == "notes.txt":  # a name is not looked at, so only its content is wrong
                expected[0]["error"] = "not an image in a known format"
            assert one["rows"] == [row | {"file": name} for row in expected]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "image/x-whatever"])
def test_raw_bytes(server: Server, kind: str) -> None:
    response = requests.post(
        f"{server.url}/predict?faces=whole",
        data=encode(image("female", seed=3)),
        headers={"content-type": kind},
        timeout=60,
    )
    (one,) = response.json()["images"]
    assert [(row["file"], row["label"], row["status"]) for row in one["rows"]] == [
        (None, "female", "ok")
    ]


def test_the_threshold_of_a_request(server: Server) -> None:
    grayscale = encode(Image.new("RGB", (40, 40), (90, 95, 94)))
    labels = []
    for below in (0.5, 0.99):
        response = server.predict(
            ("a.png", grayscale), params={"faces": "whole", "min_confidence": below}
        )
        labels.append(response.json()["images"][0]["rows"][0]["status"])
    assert labels == ["ok", "unknown"]


def test_faces_are_gathered(server: Server) -> None:
    runs, faces = (f"facegender_batch_faces_{what}" for what in ("count", "sum"))
    files = [(f"{at}.png", encode(image(seed=at))) for at in range(32)]
    taken = []
    for _ in range(10):  # on a machine that is busy elsewhere faces may come too slowly to meet
        before = server.count(runs), server.count(faces)
        result = server.predict(*files, params={"faces": "whole"}).json()
        assert [one["rows"][0]["file"] for one in result["images"]] == [name for name, _ in files]
        assert server.count(faces) - before[1] == 32
        taken.append(server.count(runs) - before[0])
        if taken[-1] < 32:
            break
    assert min(taken) < 32


def test_many_clients_and_no_neighbours_answer(server: Server) -> None:
    wrong: list[object] = []

    def ask(at: int) -> None:
        label = ("male", "female")[at % 2]
        data = encode(image(label, seed=at))
        result = server.predict((f"{at}.png", data), params={"faces": "whole"}).json()
        row = result["images"][0]["rows"][0]
        if (row["file"], row["label"]) != (f"{at}.png", label):
            wrong.append((at, result))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- what is refused ---------------------------------------------------------------------------

_FORM = {"content-type": "multipart/form-data; boundary=x"}
_PART = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\nhi\r\n--x--\r\n'
_CODED_PART = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n'
    b"%s\r\n\r\naGk=\r\n--x--\r\n"
)
_ENCODED = {"content-type": "image/png"}


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "says"),
    [
        ("", {}, b"", 415, "content type"),
        ("", {"content-type": "application/json"}, b"{}", 415, "application/json"),
        ("", {"content-type": "image/png"}, b"", 422, "empty"),
        ("", {"content-type": "multipart/form-data"}, b"x", 422, "boundary"),
        ("", _FORM, b"", 422, "ends before"),
        ("", _FORM, b"--x--\r\n", 422, "no file|malformed"),
        ("", _FORM, b"nonsense", 422, "malformed"),
        ("", _FORM, (_PART % (b"files", b'; filename="a"'))[:-12], 422, "ends before|malformed"),
        ("", _FORM, _PART % (b"files", b""), 422, "file of the field"),
        ("", _FORM, _PART % (b"other", b'; filename="a"'), 422, "file of the field"),
        (
            "",
            _FORM,
            _PART % (b"files" * 3000, b'; filename="a"'),
            422,
            "a header of more than|malformed",
        ),
        ("?faces=none", {"content-type": "image/png"}, b"x", 422, "parameter"),
        ("?min_confidence=0.4", {"content-type": "image/png"}, b"x", 422, "parameter"),
        ("?min_confidence=nan", {"content-type": "image/png"}, b"x", 422, "parameter"),
        ("?min_confidnce=0.9", {"content-type": "image/png"}, b"x", 422, "unknown"),
        ("?Faces=auto", {"content-type": "image/png"}, b"x", 422, "unknown"),
        ("?", {"content-type": "image/png"}, b"", 422, "empty"),
        ("?x", {"content-type": "image/png"}, b"x", 422, "unknown or repeated: x."),
        ("?x=", {"content-type": "image/png"}, b"x", 422, "unknown"),
        ("?faces=auto&faces=whole", {"content-type": "image/png"}, b"x", 422, "repeated"),
        ("", _ENCODED | {"content-encoding": "gzip"}, b"x", 415, "'gzip'"),
        ("", _ENCODED | {"content-encoding": "BR"}, b"x", 415, "'br'"),
        ("", _ENCODED | {"content-encoding": "identity, zstd"}, b"x", 415, "zstd"),
        ("", _FORM | {"content-encoding": "deflate"}, b"x", 415, "'deflate'"),
        ("", _FORM, _CODED_PART % b"Content-Transfer-Encoding: base64", 415, "'base64'"),
        ("", _FORM, _CODED_PART % b"content-encoding: GZIP", 415, "'gzip'"),
    ],
)
def test_wrong_requests(
    server: Server, query: str, headers: dict[str, str], body: bytes, status: int, says: str
) -> None:
    response = requests.post(f"{server.url}/predict{query}", data=body, headers=headers, timeout=60)
    result = problem_of(response, status)
    assert any(word in result["detail"] for word in says.split("|")), result
    assert server.get(result["type"]).status_code == 200


@pytest.mark.parametrize("path", ["/model", "/metrics"])
def test_a_parameter_where_there_is_none(server: Server, path: str) -> None:
    result = problem_of(server.get(f"{path}?verbose=1"), 422)
    assert result["errors"] == [
        {"in": "query.verbose", "message": "Unknown: there are no parameters"}
    ]


def test_probes_may_have_any_parameter(server: Server) -> None:
    for path in ("/health", "/ready", "/"):
        assert server.get(f"{path}?t=123").status_code == 200


def test_a_body_that_says_that_it_is_not_encoded(server: Server) -> None:
    data = encode(image("female", seed=3))
    body = (_CODED_PART % b"Content-Transfer-Encoding: binary").replace(b"aGk=", data)
    for headers, content in (
        ({"content-type": "image/png", "content-encoding": "Identity"}, data),
        (_FORM, body),
    ):
        url = f"{server.url}/predict?faces=whole&min_confidence=0.5"
        response = requests.post(url, data=content, headers=headers, timeout=60)
        assert response.json()["images"][0]["rows"][0]["label"] == "female"
    refused = requests.post(
        f"{server.url}/predict",
        data=b"x",
        headers={"content-type": "image/png", "content-encoding": "gzip"},
        timeout=60,
    )
    assert refused.headers["accept-encoding"] == "identity"


def test_other_paths_and_methods(server: Server) -> None:
    assert problem_of(server.get("/nothing"), 404)["type"] == "about:blank"
    assert problem_of(server.get("/problems/nothing"), 404)
    assert problem_of(server.get("/docs/app.py"), 404)
    assert problem_of(server.get("/..%2fapp.py"), 404)
    refused = server.get("/predict")
    problem_of(refused, 405)
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/app.js", "/docs", "/health", "/ready", "/model"])
def test_head_has_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    changing = ("date", "x-request-id")
    head, get = (
        requests.request(method, f"{server.url}{path}", timeout=60) for method in ("HEAD", "GET")
    )
    assert head.status_code == 200 and head.content == b""
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in get.headers.items() if name not in changing
    }
    assert requests.head(f"{server.url}/predict", timeout=60).status_code == 405


def test_bombs_are_rows(server: Server) -> None:
    result = server.predict(
        ("bomb.png", bomb(60_000)), ("good.png", encode(image(seed=1))), params={"faces": "whole"}
    ).json()
    first, second = (one["rows"][0] for one in result["images"])
    assert "over the limit of 100,000,000 pixels" in first["error"]
    assert second["status"] == "ok"


@pytest.fixture(scope="module")
def narrow(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with low limits and a token."""
    token = tmp_path_factory.mktemp("token") / "token.txt"
    token.write_text(f" {START_TOKEN}\n")
    return start(
        *("--max-bytes", 20_000, "--max-request-bytes", 50_000, "--max-images", 4),
        *("--max-inflight-bytes", 60_000, "--queue", 4, "--timeout", 3, "--token-file", token),
    )


LETS_IN = {"authorization": f"Bearer {START_TOKEN}"}


def test_limits(narrow: Server) -> None:
    good = encode(image(seed=1))
    result = narrow.predict(("large.png", bytes(20_001)), ("a.png", good), headers=LETS_IN).json()
    first, second = (one["rows"][0] for one in result["images"])
    assert first["error"] == "20,001 bytes are over the limit of 20,000"
    assert second["status"] != "unreadable"
    five = [(f"{at}.png", good) for at in range(5)]
    assert "4 files" in problem_of(narrow.predict(*five, headers=LETS_IN), 413)["detail"]
    large = narrow.predict(("a.png", bytes(60_000)), headers=LETS_IN)
    assert "50,000 bytes" in problem_of(large, 413)["detail"]
    unsaid = requests.post(  # no Content-Length: it is counted as it comes
        f"{narrow.url}/predict",
        data=itertools.repeat(bytes(1000), 60),
        headers=LETS_IN | {"content-type": "image/png"},
        timeout=60,
    )
    assert "bytes" in problem_of(unsaid, 413)["detail"]


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", f"Basic {START_TOKEN}", f"Bearer {START_TOKEN}x"]
)
@pytest.mark.parametrize("path", ["/predict", "/model", "/metrics"])
def test_without_the_token(narrow: Server, path: str, given: str | None) -> None:
    ask = requests.post if path == "/predict" else requests.get
    headers = {} if given is None else {"authorization": given}
    refused = ask(f"{narrow.url}{path}", headers=headers, timeout=60)
    assert problem_of(refused, 401)["type"] == "/problems/token-missing"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert START_TOKEN not in refused.text


def test_with_the_token(narrow: Server) -> None:
    assert narrow.get("/model", headers=LETS_IN).json()["limits"]["max_images"] == 4
    for path in ("/health", "/ready", "/", "/docs"):
        assert narrow.get(path).status_code == 200
    document = narrow.get("/openapi.json").json()
    assert document["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert not any(START_TOKEN in line for line in narrow.lines)


def test_a_slow_client_is_not_waited_for(narrow: Server) -> None:
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 9000\r\nAuthorization: Bearer %s\r\n\r\nhal" % START_TOKEN.encode()
        )
        started = time.monotonic()
        others = narrow.predict(("a.png", encode(image(seed=1))), headers=LETS_IN)
        assert others.status_code == 200 and time.monotonic() - started < 2.5
        assert b" 408 " in line.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize("said", [b"", b"POST /predict HTT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_never_finishes_its_header(narrow: Server, said: bytes) -> None:
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(said)
        assert line.recv(4096) == b"", "the connection is closed"


# ---- too much at once, clients that leave, the end ---------------------------------------------

MANY = 8


@pytest.fixture
def busy(start: Callable[..., Server]) -> Server:
    return start("--queue", MANY, "--max-images", MANY)


def begin(server: Server) -> tuple[threading.Thread, list[requests.Response]]:
    """Have a request with slow images under way, which fills the queue."""
    answers: list[requests.Response] = []
    images = [(f"{at}.png", slow()) for at in range(MANY)]
    thread = threading.Thread(target=lambda: answers.append(server.predict(*images)))
    thread.start()
    until(lambda: server.count("facegender_inflight_images") == MANY, "images are queued")
    return thread, answers


def test_a_full_queue_then_an_end_with_an_answer(busy: Server) -> None:
    thread, answers = begin(busy)
    refused = busy.predict(("a.png", encode(image(seed=1))))
    result = problem_of(refused, 503)
    assert result["type"] == "/problems/queue-full" and f"{MANY} images are" in result["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert problem_of(busy.get("/ready"), 503)
    assert busy.get("/health").json() == {"status": "ok"}
    assert busy.end() == 0
    thread.join()
    assert answers[0].status_code == 200
    assert len(answers[0].json()["images"]) == MANY
    with pytest.raises(requests.ConnectionError):
        busy.get("/health")
    assert busy.log()[-1]["event"] == "stopped"


def test_a_client_that_leaves_gives_up_its_place(busy: Server) -> None:
    started = time.monotonic()
    thread, _ = begin(busy)
    thread.join()
    whole = time.monotonic() - started
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%s\r\n'
    body = (part % slow()) * MANY + b"--x--\r\n"
    host, port = busy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" % len(body) + body
        )
        until(lambda: busy.count("facegender_inflight_images") == MANY, "images are queued")
    left = time.monotonic()
    until(lambda: busy.count("facegender_inflight_images") == 0, "nothing waits")
    assert time.monotonic() - left < whole / 2, "its images were not read to the end"
    until(lambda: any(line.get("status") == 499 for line in busy.log()), "it is logged")
    assert busy.predict(("a.png", encode(image(seed=1)))).status_code == 200


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="its readers cannot be found")
def test_a_reader_that_dies_costs_its_own_row(busy: Server) -> None:
    thread, answers = begin(busy)
    tasks = Path(f"/proc/{busy.process.pid}/task").glob("*/children")
    readers = [int(one) for task in tasks for one in task.read_text().split()]
    os.kill(readers[0], signal.SIGKILL)
    thread.join()
    rows = [one["rows"][0] for one in answers[0].json()["images"]]
    errors = [row["error"] for row in rows if row["status"] == "unreadable"]
    assert len(errors) == 1 and "crashed (SIGKILL" in errors[0]
    again = busy.predict(("a.png", encode(image(seed=1))))
    assert again.json()["images"][0]["rows"][0]["status"] != "unreadable"


# ---- what it tells of itself -------------------------------------------------------------------


def test_the_card(server: Server, classifier: Classifier) -> None:
    result = server.get("/model").json()
    assert (result["name"], result["digest"]) == ("mean", classifier.digest)
    assert result["labels"] == ["female", "male"]
    assert "not a fact about a person" in result["caveat"]
    assert set(result["limits"]) == {
        *("max_images", "max_request_bytes", "max_image_bytes", "max_image_pixels"),
        "timeout_seconds",
    }


def test_ids_and_logs_and_nothing_of_the_images(start: Callable[..., Server]) -> None:
    server = start()
    given = server.predict(
        ("a name of mine.png", encode(image(seed=1))),
        headers={"x-request-id": "mine-1"},
        params={"faces": "whole"},
    )
    assert given.headers["x-request-id"] == "mine-1"
    made = server.get("/health", headers={"x-request-id": "a b\tc" * 50}).headers["x-request-id"]
    assert len(made) == 32
    until(lambda: len(server.log()) >= 2, "both are logged")
    first, second = server.log()
    assert (first["request_id"], first["route"], first["status"]) == ("mine-1", "/predict", 200)
    assert first["images"] == 1 and first["seconds"] > 0
    assert (second["request_id"], second["route"]) == (made, "/health")
    assert not any("name of mine" in line or "male" in line for line in server.lines)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system counts no writes")
def test_images_never_touch_the_disk(server: Server) -> None:
    large = encode(Image.effect_noise((1500, 1500), 90))  # over what libraries keep in memory
    assert len(large) > 2_000_000
    process = server.process.pid
    before = set(Path(f"/proc/{process}/cwd/").rglob("*"))
    assert server.predict(("a.png", large), ("b.png", large)).status_code == 200
    assert set(Path(f"/proc/{process}/cwd/").rglob("*")) == before
    with Path(f"/proc/{process}/io").open() as counts:
        written = dict(line.split(": ") for line in counts.read().splitlines())["write_bytes"]
    assert int(written) < 2_000_000


def test_metrics(server: Server) -> None:
    before = server.count("facegender_images_total", status="unreadable")
    server.predict(("a.png", b"x"))
    assert server.count("facegender_images_total", status="unreadable") == before + 1
    assert server.count("facegender_requests_total", route="/predict", status="200") >= 1
    assert server.count("process_resident_memory_bytes") > 1e7
    assert server.count("facegender_inflight_bytes") == 0


def test_headers_and_pages_name_no_other_host(server: Server) -> None:
    for path in ("/", "/app.js", "/docs", "/docs/docs.js", "/health", "/nothing"):
        headers = server.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    for path in (
        "/",
        "/app.js",
        "/server.js",
        "/style.css",
        "/messages.js",
        "/i18n.js",
        "/docs",
        "/docs/docs.js",
    ):
        response = server.get(path)
        assert response.status_code == 200
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text


# ---- settings and the command line --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_images": 0}, "below 1"),
        ({"max_request_bytes": 2, "max_inflight_bytes": 1}, "all requests together"),
        ({"max_images": 9, "queue_size": 8}, "has room for"),
    ],
)
def test_settings_that_answer_nobody(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Settings(**options)


@pytest.mark.parametrize(
    ("text", "says"),
    [("short", "16"), ("", "16"), ("two words of a token here", "one word"), (None, "Cannot read")],
)
def test_tokens_that_are_none(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with pytest.raises(InputError, match=says):
        read_token(tmp_path / "token")
    assert "a-token" not in repr(Settings(token=START_TOKEN))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "TAKEN"], "Choose another address with --host and --port"),
        (["--host", "192.0.2.1", "--port", "0"], "Cannot listen on 192.0.2.1"),
        (["--model", "nothing.onnx", "--port", "0"], "Cannot read the model file"),
        (["--faces", "some", "--port", "0"], "auto, detect, whole"),
    ],
)
def test_a_server_that_cannot_start(
    options: list[str], says: str, server: Server, tmp_path: Path
) -> None:
    taken = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "facegender", "serve"]
    found = subprocess.run(
        [*command, *(taken if one == "TAKEN" else one for one in options)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert says in found.stderr and "Traceback" not in found.stderr


def test_without_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from facegender.cli import main\nmain(['serve'])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 2
    assert "pip install '.[serve]'" in found.stderr
