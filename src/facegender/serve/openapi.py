"""Parts of the OpenAPI document that FastAPI cannot derive from the routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from facegender.serve.problems import MEDIA_TYPE, PROBLEM_KINDS
from facegender.serve.schemas import ProblemDetails
from facegender.serve.uploads import FIELD

_BINARY = {"type": "string", "format": "binary"}

PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {FIELD: {"type": "array", "minItems": 1, "items": _BINARY}},
                }
            },
            "application/octet-stream": {"schema": _BINARY | {"minLength": 1}},
            "image/*": {"schema": _BINARY | {"minLength": 1}},
        },
    }
}
"""The request body of ``POST /predict``, which the application reads as a stream."""


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the responses for HTTP statuses that are sent as problem details."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {
        status: {
            "model": ProblemDetails,
            "description": "; ".join(
                kind.title for kind in PROBLEM_KINDS.values() if kind.status == status
            ),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def require_token(app: FastAPI, paths: tuple[str, ...]) -> None:
    """State in the document that requests to these paths need a bearer token."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path in paths:
            for operation in document["paths"][path].values():
                operation["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
