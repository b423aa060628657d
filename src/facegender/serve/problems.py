"""What goes wrong, as RFC 9457 has it: ``application/problem+json`` with what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem: its status, what it is called, and what to do about it."""

    status: int
    title: str
    advice: str


PROBLEM_KINDS = {
    "token-missing": ProblemKind(
        401, "The token is missing or wrong", "Send the header 'Authorization: Bearer TOKEN'."
    ),
    "too-slow": ProblemKind(
        408,
        "The request took too long to come in",
        "Send fewer pictures in one request, or over a faster connection.",
    ),
    "too-large": ProblemKind(
        413,
        "The request has too many bytes or too many files",
        "Send several smaller requests; GET /model names the limits.",
    ),
    "not-a-picture-type": ProblemKind(
        415,
        "The request's content type is not one that pictures come in",
        "Send multipart/form-data with the field 'files', or a picture's bytes as image/* or "
        "application/octet-stream.",
    ),
    "malformed": ProblemKind(
        422,
        "The request cannot be understood",
        "See 'detail' and 'errors' for what is wrong, and /docs for what is expected.",
    ),
    "internal": ProblemKind(
        500,
        "Something went wrong in the server",
        "Its log tells more under the request's id. The same request may work later.",
    ),
    "queue-full": ProblemKind(
        503,
        "Too many pictures are waiting",
        "Send the same request again after the seconds in the header 'Retry-After'.",
    ),
    "timed-out": ProblemKind(
        503,
        "The answer took too long",
        "Send fewer pictures in one request, or the same again later.",
    ),
}
"""All kinds that have a name of their own; ``GET /problems/NAME`` describes each."""


class ProblemError(Exception):
    """Ends a request with a problem of one of :data:`PROBLEM_KINDS`."""

    def __init__(
        self, name: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """Say what happened.

        Args:
            name: of the kind.
            detail: what is wrong with this request, for a person.
            headers: to be sent along.
            more: further members of the answer.
        """
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self, request_id: str) -> JSONResponse:
        """Write it as the answer to a request."""
        kind = PROBLEM_KINDS[self.name]
        return _response(
            {
                "type": f"/problems/{self.name}",
                "title": kind.title,
                "status": kind.status,
                "detail": f"{self.detail} {kind.advice}",
                "request_id": request_id,
                **self.more,
            },
            self.headers,
        )


def to_response(
    status: int, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Write a problem that HTTP's own status says all about: not found, method not allowed."""
    phrase = HTTPStatus(status).phrase
    return _response(
        {"type": "about:blank", "title": phrase, "status": status, "request_id": request_id},
        headers or {},
    )


def _response(values: dict[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(values, values["status"], dict(headers), MEDIA_TYPE)
