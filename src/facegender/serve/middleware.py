"""What stands around every request: its id, its log line, its count, its safe headers."""

from __future__ import annotations

import asyncio
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facegender.serve import logs
from facegender.serve.problems import ProblemError, to_response
from facegender.serve.prometheus import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing from another host, no inline script or style, in no other page's frame."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GONE = 499  # what nginx logs for a client that went away


class RequestMiddleware:
    """The outermost layer: whatever happens inside, a client sees an answer and no traceback."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Put it around an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0
        # HEAD asks for the headers that GET would have; the server below sends no body for it
        asked = dict(scope, method="GET") if scope["method"] == "HEAD" else scope

        async def framed(message: Message) -> None:
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
                await self._app(asked, receive, framed)
            except ProblemError as problem:
                await problem.response(request_id)(scope, receive, framed)
            except HTTPException as error:
                await to_response(error.status_code, request_id, error.headers)(
                    scope, receive, framed
                )
            except ClientDisconnect:
                status = _GONE
            except Exception as error:
                logs.say_error("failed", error, request_id=request_id)
                if status:  # half an answer is out: only the end of the connection says that
                    raise asyncio.CancelledError from None
                failure = ProblemError("internal", "The request could not be answered.")
                await failure.response(request_id)(scope, receive, framed)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(asked.get("route"), "path", "other")
            self._metrics.request(route, status or _GONE, seconds)
            logs.say(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                status=status or _GONE,
                seconds=round(seconds, 4),
                **scope["state"].get("log", {}),
            )
