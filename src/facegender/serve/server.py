"""The server process: listen on an address, serve, shut down gracefully."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from facegender.errors import FacegenderError, InputError
from facegender.inference.classifier import Classifier
from facegender.serve import logs
from facegender.serve.app import create_app
from facegender.serve.connections import ConnectionGuard
from facegender.serve.settings import Settings

_SHUTDOWN_SECONDS = 5.0


def listen(host: str, port: int) -> socket.socket:
    """Bind an address; port 0 is any free port.

    Raises:
        InputError: the port is in use, or the address is not one of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}. "
            "Choose another address with --host and --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    classifier: Classifier,
    settings: Settings,
    listening: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are completed first.

    Args:
        classifier: the model.
        settings: limits, timeouts, the token.
        listening: the socket; see :func:`listen`.
        on_ready: called once the server accepts requests.

    Raises:
        FacegenderError: the server cannot start.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: SIGTERM, and a request in progress had no response when the time was up.
    """
    guard = ConnectionGuard.from_settings(settings)
    app = create_app(classifier, settings)
    config = uvicorn.Config(
        app,
        http=guard.protocol(),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(guard.idle_seconds),
        timeout_graceful_shutdown=round(2 * settings.timeout_seconds + _SHUTDOWN_SECONDS),
    )
    server = _Server(config, guard, on_ready)
    try:
        server.run(sockets=[listening])
    except SystemExit as end:
        if server.started:
            raise
        raise FacegenderError("The server could not start; see the log lines above") from end
    finally:
        logs.log_event("stopped")
    if server.was_terminated and app.unanswered:
        raise SystemExit(128 + signal.SIGTERM)


class _Server(uvicorn.Server):
    """A uvicorn server that watches its connections and for which SIGTERM is a normal end."""

    def __init__(
        self, config: uvicorn.Config, guard: ConnectionGuard, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.was_terminated = False
        self._guard = guard
        self._watching: asyncio.Task[None] | None = None
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._watching = asyncio.create_task(self._guard.watch())
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._watching is not None:
            self._watching.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:  # not raised again after the end, as uvicorn does
            self.was_terminated = self.should_exit = True
        else:
            super().handle_exit(sig, frame)
