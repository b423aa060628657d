"""Errors of the API as RFC 9457 problem details: ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem: its HTTP status, its title, and what the client can do."""

    status: int
    title: str
    advice: str


PROBLEM_KINDS = {
    "token-missing": ProblemKind(
        401, "The token is missing or invalid", "Send the header 'Authorization: Bearer TOKEN'."
    ),
    "request-timeout": ProblemKind(
        408,
        "The request was not received in time",
        "Send fewer images per request, or use a faster connection.",
    ),
    "too-large": ProblemKind(
        413,
        "The request is too large",
        "Split it into smaller requests; GET /model returns the limits.",
    ),
    "unsupported-media-type": ProblemKind(
        415,
        "The content type is not supported",
        "Send multipart/form-data with the field 'files', or one image as image/* or "
        "application/octet-stream.",
    ),
    "invalid-request": ProblemKind(
        422,
        "The request is invalid",
        "See 'detail' and 'errors' for the cause, and /docs for the API.",
    ),
    "internal-error": ProblemKind(
        500,
        "Internal server error",
        "The server log has the cause under this request id. Retry later.",
    ),
    "queue-full": ProblemKind(
        503,
        "The server is overloaded",
        "Retry after the number of seconds in the header 'Retry-After'.",
    ),
    "too-many-connections": ProblemKind(
        503,
        "Too many connections from one address",
        "Close connections that you do not use, or reuse them; then retry.",
    ),
    "prediction-timeout": ProblemKind(
        503,
        "The prediction took too long",
        "Send fewer images per request, or retry later.",
    ),
}
"""All kinds by name; ``GET /problems/NAME`` describes each."""


class ProblemError(Exception):
    """Ends a request with a problem of one of :data:`PROBLEM_KINDS`."""

    def __init__(
        self, name: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        """Describe the problem.

        Args:
            name: key in :data:`PROBLEM_KINDS`.
            detail: what is wrong with this request, for a person.
            headers: additional response headers.
            members: additional members of the JSON object.
        """
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self, request_id: str) -> JSONResponse:
        """Build the HTTP response."""
        kind = PROBLEM_KINDS[self.name]
        return _response(
            {
                "type": f"/problems/{self.name}",
                "title": kind.title,
                "status": kind.status,
                "detail": f"{self.detail} {kind.advice}",
                "request_id": request_id,
                **self.members,
            },
            self.headers,
        )


def to_response(
    status: int, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build the response for an error that its HTTP status describes: 404, 405."""
    phrase = HTTPStatus(status).phrase
    return _response(
        {"type": "about:blank", "title": phrase, "status": status, "request_id": request_id},
        headers or {},
    )


def _response(members: dict[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(members, members["status"], dict(headers), MEDIA_TYPE)
