"""Limits on connections: how long one may wait, and how many a client may have."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from facegender.serve import logs
from facegender.serve.problems import MEDIA_TYPE, PROBLEM_KINDS
from facegender.serve.settings import Settings

_MAX_HEADER_SECONDS = 10.0
_MAX_IDLE_SECONDS = 15.0
_REFUSED_SECONDS = 2.0
_MIN_WRITTEN_BYTES = 16 * 2**10  # a client that reads fewer of them in the limit has stalled
_IPV6_CLIENT_BITS = 64  # one client usually has a whole network of addresses


@dataclass(slots=True)
class ConnectionGuard:
    """Closes connections that wait for too long, and refuses those that are too many.

    Attributes:
        header_seconds: maximum time until the header of a request is complete, from the start of
            the connection or the first byte of a later request.
        idle_seconds: maximum time between a response and the first byte of the next request.
        transfer_seconds: maximum time to receive the rest of a request that is already answered,
            and maximum time without progress of a response.
        max_per_client: maximum connections per client address; 0 is no limit.
    """

    header_seconds: float
    idle_seconds: float
    transfer_seconds: float
    max_per_client: int
    connections: set[GuardedConnection] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_settings(cls, settings: Settings) -> ConnectionGuard:
        """Take the limits of a server; none is longer than its timeout."""
        return cls(
            header_seconds=min(_MAX_HEADER_SECONDS, settings.timeout_seconds),
            idle_seconds=min(_MAX_IDLE_SECONDS, settings.timeout_seconds),
            transfer_seconds=settings.timeout_seconds,
            max_per_client=settings.max_connections_per_client,
        )

    def protocol(self) -> type[H11Protocol]:
        """Make the protocol class of the connections of this guard."""

        class BoundConnection(GuardedConnection):
            guard = self

        return BoundConnection

    async def watch(self) -> None:
        """Check all connections again and again, until cancelled."""
        limits = (self.header_seconds, self.idle_seconds, self.transfer_seconds)
        while True:
            await asyncio.sleep(min(*limits, 2.0) / 4)
            for connection in list(self.connections):
                connection.close_if_overdue()


class GuardedConnection(H11Protocol):
    """A connection under the limits of a guard.

    A request that the application works on has the application's own limits; here are those of
    the time before and after: a header that does not end, silence, the rest of a body that nobody
    needs, and a response that the client does not read.
    """

    guard: ClassVar[ConnectionGuard]
    _address: str = ""
    _refused: bool = False
    _phase: tuple[str, object] = ("", None)
    _since: float = 0.0
    _unsent: int = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection; refuse it when its client has too many."""
        super().connection_made(transport)
        guard = self.guard
        self._address = client_of(self.client)
        guard.connections.add(self)
        guard.counts[self._address] += 1
        count = guard.counts[self._address]
        if guard.max_per_client and count > guard.max_per_client:
            self._refused = True
            logs.log_event("connection_refused", connections=count)
            if count > 2 * guard.max_per_client:  # too many even to be told the reason
                transport.abort()
                return
            transport.write(_refusal(guard.max_per_client))
            transport.write_eof()
        self.close_if_overdue()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no longer."""
        super().connection_lost(exc)
        guard = self.guard
        guard.connections.discard(self)
        guard.counts[self._address] -= 1
        if not guard.counts[self._address]:
            del guard.counts[self._address]

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends; drop it on a refused connection."""
        if not self._refused:
            super().data_received(data)
            self.close_if_overdue()  # so that a phase begins with its first byte

    def close_if_overdue(self) -> None:
        """Close the connection if its present phase has lasted too long."""
        phase, limit = self._current_phase()
        now = self.loop.time()
        key = (phase, self.cycle)
        if key != self._phase or limit is None or self._has_progress(phase):
            self._phase, self._since = key, now
            self._unsent = self.transport.get_write_buffer_size()
        elif now - self._since >= limit:
            self.transport.abort()

    def _current_phase(self) -> tuple[str, float | None]:
        """Return what the connection waits for and the longest time that it may."""
        guard = self.guard
        if self._refused:
            return "refused", _REFUSED_SECONDS
        if self.transport.get_write_buffer_size():
            return "response", guard.transfer_seconds
        if self.cycle is not None and not self.cycle.response_complete:
            return "application", None
        if self.conn.their_state is not h11.IDLE:
            return "rest of the request", guard.transfer_seconds
        if self.cycle is None or self.conn.trailing_data[0]:
            return "header", guard.header_seconds
        return "idle", guard.idle_seconds

    def _has_progress(self, phase: str) -> bool:
        """Check whether the client has read enough of a response since the phase began."""
        if phase != "response":
            return False
        unsent = self.transport.get_write_buffer_size()
        return unsent > self._unsent or unsent <= self._unsent - _MIN_WRITTEN_BYTES


def client_of(address: tuple[str, int] | None) -> str:
    """Return what counts as one client: an IPv4 address or an IPv6 network of 64 bits."""
    if address is None:
        return ""
    try:
        host = ipaddress.ip_address(address[0].partition("%")[0])
    except ValueError:
        return address[0]
    if isinstance(host, ipaddress.IPv4Address):
        return str(host)
    if host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    return str(ipaddress.ip_network((host, _IPV6_CLIENT_BITS), strict=False))


def _refusal(max_per_client: int) -> bytes:
    """Write the response for a connection over the limit; there is no request yet."""
    kind = PROBLEM_KINDS["too-many-connections"]
    body = json.dumps(
        {
            "type": "/problems/too-many-connections",
            "title": kind.title,
            "status": kind.status,
            "detail": f"Your address has more than {max_per_client} connections. {kind.advice}",
        }
    ).encode()
    header = (
        f"HTTP/1.1 {kind.status} Service Unavailable\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return header.encode() + body
