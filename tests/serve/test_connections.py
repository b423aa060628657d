"""Clients that hold connections: real sockets, a server with small limits."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests
from made import encode, image
from serve.conftest import Server, until

from facegender.serve.connections import client_of

LIMIT = 2.0
SLACK = 3.0  # the machine may be busy
CLIENTS = 200
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def strict(start: Callable[..., Server]) -> Server:
    return start("--timeout", LIMIT)


def connect(server: Server, **options: int) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    line = socket.socket()
    for name, value in options.items():
        line.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    line.settimeout(30)
    line.connect((host, int(port)))
    return line


def is_closed(line: socket.socket) -> bool:
    """Whether the server has closed it; what it still sent is dropped."""
    try:
        while select.select([line], [], [], 0)[0]:
            if not line.recv(65536):
                return True
    except ConnectionError:
        return True
    return False


def is_healthy(line: socket.socket) -> bool:
    """Send a request and read its whole response."""
    line.sendall(HEALTH)
    received = b""
    while not received.endswith(b"}"):
        data = line.recv(4096)
        assert data, received
        received += data
    return received.startswith(b"HTTP/1.1 200")


def seconds_open(line: socket.socket, drip: bytes = b"") -> float:
    """How long the server keeps a connection on which one byte comes now and then."""
    started = time.monotonic()
    while not is_closed(line):
        assert time.monotonic() - started < 30, "still open"
        if drip:
            try:
                line.send(drip)
            except ConnectionError:
                break
        time.sleep(0.1)
    return time.monotonic() - started


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dripping"])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: y",
        HEALTH + b"G",
        HEALTH * 2 + b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: y",
        POST % b"/predict" + b"hal",
        HEALTH + POST % b"/predict" + b"hal",
        POST % b"/health" + b"hal",
        POST % b"/nothing" + b"hal",
    ],
    ids=[
        *("nothing", "one byte", "a header"),
        *("one byte later", "a header later"),
        *("a body", "a body later", "a body for a 405", "a body for a 404"),
    ],
)
def test_no_request_is_waited_for_without_limit(strict: Server, said: bytes, drip: bytes) -> None:
    with connect(strict) as line:
        line.sendall(said)
        assert seconds_open(line, drip) < 2 * LIMIT + SLACK


def test_an_idle_connection_is_closed_and_a_used_one_is_kept(strict: Server) -> None:
    with connect(strict) as line:
        started = time.monotonic()
        while time.monotonic() - started < 2 * LIMIT:  # longer than any limit of one request
            assert is_healthy(line)
            time.sleep(LIMIT / 4)
        assert LIMIT / 2 < seconds_open(line) < LIMIT + SLACK


def test_a_response_that_is_not_read_is_not_kept(strict: Server) -> None:
    before = sockets_of(strict)
    with connect(strict, SO_RCVBUF=4096) as line:
        line.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        until(lambda: sockets_of(strict) > before, "the server takes it")
        started = time.monotonic()
        until(lambda: sockets_of(strict) <= before, "the server drops it")
        assert time.monotonic() - started < 2 * LIMIT + SLACK


def sockets_of(server: Server) -> int:
    """Count the open sockets of the server's process."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    if not folder.is_dir():
        pytest.skip("open sockets are counted in /proc")
    count = 0
    for entry in folder.iterdir():
        with suppress(OSError):  # closed since
            count += str(entry.readlink()).startswith("socket:")
    return count


def test_a_slow_reader_gets_the_whole_response(strict: Server) -> None:
    whole = len(strict.get("/docs/swagger-ui-bundle.js").content)
    with connect(strict, SO_RCVBUF=4096) as line:
        line.sendall(
            b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received, started = b"", time.monotonic()
        while data := line.recv(8192):
            received += data
            seconds = 2.5 * LIMIT * len(received) / whole  # slower than one limit
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
    assert len(received.partition(b"\r\n\r\n")[2]) == whole


@pytest.mark.parametrize(
    "said",
    [b"", HEALTH + b"G", POST % b"/predict" + b"hal"],
    ids=["nothing", "one byte later", "a body"],
)
def test_many_that_hold_and_one_beside_them(strict: Server, said: bytes) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(strict)) for _ in range(CLIENTS)]
        for line in lines:
            line.sendall(said)
        answer = strict.predict(("a.png", encode(image(seed=1))), params={"faces": "whole"})
        assert answer.status_code == 200
        assert answer.json()["images"][0]["rows"][0]["status"] == "ok"
        open_lines = [line for line in lines if not is_closed(line)]
        ends = time.monotonic() + 2 * LIMIT + SLACK
        while open_lines and time.monotonic() < ends:
            open_lines = [line for line in open_lines if not is_closed(line)]
            time.sleep(0.05)
        assert len(open_lines) == 0
    assert strict.get("/health").json() == {"status": "ok"}


# ---- connections per client --------------------------------------------------------------------

FEW = 4


@pytest.fixture
def few(start: Callable[..., Server]) -> Iterator[tuple[Server, list[socket.socket]]]:
    server = start("--max-connections-per-client", FEW)
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(server)) for _ in range(FEW)]
        for line in lines:
            assert is_healthy(line)
        yield server, lines


def test_one_more_connection_is_refused_with_the_reason(
    few: tuple[Server, list[socket.socket]],
) -> None:
    server, lines = few
    refused = server.get("/health")
    assert refused.status_code == 503 and refused.headers["connection"] == "close"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    problem = json.loads(refused.text)
    assert problem["type"] == "/problems/too-many-connections"
    assert f"more than {FEW} connections" in problem["detail"]
    for line in lines:  # the others do not notice
        assert is_healthy(line)
    lines.pop().close()
    until(lambda: server.get("/health").status_code == 200, "there is room again")
    assert server.get(problem["type"]).status_code == 200
    assert any(entry["event"] == "connection_refused" for entry in server.log())


def test_refused_connections_do_not_pile_up(few: tuple[Server, list[socket.socket]]) -> None:
    server, _ = few
    with ExitStack() as stack:
        more = [stack.enter_context(connect(server)) for _ in range(10 * FEW)]
        until(lambda: sum(not is_closed(line) for line in more) == 0, "all are closed")


def test_zero_is_no_limit(start: Callable[..., Server]) -> None:
    server = start("--max-connections-per-client", 0)
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(server)) for _ in range(300)]
        assert server.get("/health").status_code == 200
        assert not any(is_closed(line) for line in lines)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8::1", 1), "2001:db8::/64"),
        (("2001:db8::ffff:1", 2), "2001:db8::/64"),
        (("2001:db8:0:1::1", 1), "2001:db8:0:1::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (None, ""),
    ],
)
def test_what_counts_as_one_client(address: tuple[str, int] | None, client: str) -> None:
    assert client_of(address) == client


# ---- the end -----------------------------------------------------------------------------------


def test_clients_that_hold_do_not_delay_the_end(start: Callable[..., Server]) -> None:
    server = start("--timeout", LIMIT)
    with ExitStack() as stack:
        for said in (b"", b"G", HEALTH, HEALTH + b"G", POST % b"/nothing" + b"hal"):
            stack.enter_context(connect(server)).sendall(said)
        until(lambda: server.get("/health").ok, "it answers")
        started = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - started < 2 * LIMIT + SLACK


def test_ctrl_c_is_still_130(start: Callable[..., Server]) -> None:
    server = start()
    assert requests.get(f"{server.url}/health", timeout=60).ok
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130
