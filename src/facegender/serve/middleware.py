"""Middleware around every request: request id, log line, metrics, security headers."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facegender.serve import logs
from facegender.serve.problems import ProblemError, to_response
from facegender.serve.prometheus import ServerMetrics

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Allows nothing from other hosts, no inline script or style, and no framing by other pages."""

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CORS_SECONDS = 600  # how long a browser may reuse the response to a preflight request
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnects


class RequestMiddleware:
    """The outermost layer: every request gets a response, and no client sees a traceback."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics
        self.unanswered = 0
        """Requests that were cancelled before their response was complete."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client_id = Headers(scope=scope).get("x-request-id", "")
        request_id = client_id if _REQUEST_ID.fullmatch(client_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0
        # HEAD gets the headers of GET; uvicorn drops the body
        inner_scope = dict(scope, method="GET") if scope["method"] == "HEAD" else scope

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Request-ID"] = request_id
            await send(message)

        try:
            try:
                await self._app(inner_scope, receive, send_with_headers)
            except ProblemError as problem:
                await problem.response(request_id)(scope, receive, send_with_headers)
            except HTTPException as error:
                await to_response(error.status_code, request_id, error.headers)(
                    scope, receive, send_with_headers
                )
            except ClientDisconnect:
                status = _CLIENT_CLOSED_REQUEST
            except asyncio.CancelledError:
                self.unanswered += 1
                raise
            except Exception as error:
                logs.log_error("request_failed", error, request_id=request_id)
                if status:  # the response has begun: only closing the connection reports the error
                    raise asyncio.CancelledError from None
                failure = ProblemError("internal-error", "The request could not be processed.")
                await failure.response(request_id)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(inner_scope.get("route"), "path", "other")
            self._metrics.count_request(route, status or _CLIENT_CLOSED_REQUEST, seconds)
            logs.log_event(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                status=status or _CLIENT_CLOSED_REQUEST,
                seconds=round(seconds, 4),
                **scope["state"].get("log", {}),
            )


def allow_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Let pages of other origins use an application, with its token but without cookies.

    Args:
        app: the application.
        origins: the origins; ``*`` is all, none leaves the application as it is.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
        expose_headers=("Retry-After", "X-Request-ID"),
        max_age=_CORS_SECONDS,
    )
