"""The server around the application: listens, waits for slow clients only so long, ends cleanly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from facegender.errors import FacegenderError, InputError
from facegender.inference.classifier import Classifier
from facegender.serve import logs
from facegender.serve.app import build
from facegender.serve.settings import Settings

_HEADER_SECONDS = 10.0  # most of it; less by a shorter time limit
_END_SECONDS = 5.0


def listen(host: str, port: int) -> socket.socket:
    """Take an address; port 0 is any that is free.

    Raises:
        InputError: it is taken, or not one of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. "
            "Choose another with --host and --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """Give the address of a listening socket as a person opens it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    classifier: Classifier,
    settings: Settings,
    listening: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is under way then is still answered.

    Args:
        classifier: the network.
        settings: limits, waiting, the token.
        listening: where; see :func:`listen`.
        on_ready: is called once requests are answered.

    Raises:
        FacegenderError: it cannot start.
        KeyboardInterrupt, SystemExit: what ended it.
    """
    config = uvicorn.Config(
        build(classifier, settings),
        http=_patient(min(_HEADER_SECONDS, settings.seconds)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(2 * settings.seconds + _END_SECONDS),
    )
    server = _Server(config, on_ready)
    try:
        server.run(sockets=[listening])
    except SystemExit as end:
        if server.started:
            raise
        raise FacegenderError("the server could not start; the lines above say why") from end
    finally:
        logs.say("ended")


class _Server(uvicorn.Server):
    """uvicorn's, which says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _patient(seconds: float) -> type[H11Protocol]:
    """Make connections that are closed where no whole header comes within so many seconds."""

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self._end_if_silent)

        def _end_if_silent(self) -> None:
            if self.conn.their_state is h11.IDLE and self.cycle is None:
                self.transport.close()

    return Patient
