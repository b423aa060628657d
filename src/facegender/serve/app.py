"""The application: what can be asked for, and what is answered."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import fastapi_offline
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

import facegender
from facegender.inference.classifier import Classifier
from facegender.results.report import CAVEAT
from facegender.serve import schemas as shapes
from facegender.serve.batching import Engine
from facegender.serve.middleware import RequestMiddleware
from facegender.serve.problems import MEDIA_TYPE, PROBLEM_KINDS, ProblemError, to_response
from facegender.serve.prometheus import CONTENT_TYPE, Metrics
from facegender.serve.settings import Settings
from facegender.serve.uploads import FIELD, MemoryBudget, drain, read_uploads

WEB = Path(facegender.__file__).parent / "web" / "app"
"""The page."""

_DOCS = Path(__file__).parent / "docs"
_SWAGGER = Path(fastapi_offline.__file__).parent / "static"
_SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_TYPES = {  # said here, for some systems know others
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_T = TypeVar("_T")

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary", "minLength": 1}
            },
            "image/*": {"schema": {"type": "string", "format": "binary", "minLength": 1}},
        },
    }
}


def build(classifier: Classifier, settings: Settings) -> ASGIApp:
    """Put the application together; the engine starts with it and ends with it.

    Args:
        classifier: the network that answers.
        settings: limits, waiting, the token.
    """
    metrics = Metrics()
    engine = Engine(classifier, settings, metrics.batch)
    held = MemoryBudget(settings.held_bytes)
    metrics.waiting.set_function(lambda: engine.images)
    metrics.held.set_function(lambda: held.bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield

    app = FastAPI(
        title="facegender",
        version=facegender.__version__,
        description=f"Tells from a picture of a face whether people would label it male or female. "
        f"{CAVEAT} Pictures stay in memory and are neither stored nor logged.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_problems(500),
    )
    _answer_errors(app)

    def check_token(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if settings.token and not hmac.compare_digest(given, b"Bearer " + settings.token.encode()):
            raise ProblemError(
                "token-missing",
                "This server asks for a token.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @app.post(
        "/predict",
        summary="Answer for every face in one or many pictures",
        responses={
            200: {"model": shapes.PredictResponse},
            **_problems(401, 408, 413, 415, 422, 503),
        },
        openapi_extra=_BODY,
    )
    async def predict(
        request: Request,
        faces: Annotated[
            Literal["auto", "detect", "whole"] | None,
            Query(description="how faces are found; the server's own setting if left out"),
        ] = None,
        min_confidence: Annotated[
            float | None,
            Query(ge=0.5, le=1, description="answers less probable than this are `unknown`"),
        ] = None,
    ) -> Response:
        """Send pictures as multipart/form-data in the field `files`, or one as raw bytes.

        A picture that cannot be read has a row that says why; the others are answered all the same.
        """
        started = time.perf_counter()
        with held.share() as share:
            try:
                check_token(request)
                engine.check_room(1)
                uploads = await read_uploads(request, settings, share)
                engine.check_room(len(uploads))
            except ProblemError as problem:
                if problem.name != "too-slow":
                    await drain(request)
                raise
            received = time.perf_counter()
            request.state.log = {"pictures": len(uploads)}
            answered = await _while_there(request, engine.answer(uploads, faces, min_confidence))
        for one in answered:
            metrics.rows(one.rows)
        ended = time.perf_counter()
        return JSONResponse(
            {
                "model": classifier.digest,
                "pictures": [
                    {
                        "rows": [row.to_dict() for row in one.rows],
                        "seconds": round(one.seconds, 4),
                    }
                    for one in answered
                ],
                "seconds": {
                    "receive": round(received - started, 4),
                    "answer": round(ended - received, 4),
                },
            }
        )

    @app.get("/health", summary="Is the server there", response_model=shapes.HealthState)
    async def health() -> dict[str, str]:
        """Tell that the server is there."""
        return {"status": "ok"}

    @app.get(
        "/ready",
        summary="Would a picture be taken up now",
        response_model=shapes.HealthState,
        responses=_problems(503),
    )
    async def ready() -> dict[str, str]:
        """Tell whether a picture would be taken up now."""
        engine.check_room(1)
        return {"status": "ready"}

    @app.get(
        "/model",
        summary="The network's card",
        response_model=shapes.ModelInfo,
        responses=_problems(401),
    )
    async def model(request: Request) -> dict[str, Any]:
        """Describe the network: its labels, its figures with counts, its terms, the limits."""
        check_token(request)
        return card(classifier, settings)

    @app.get(
        "/metrics",
        summary="Counts, for Prometheus",
        response_class=PlainTextResponse,
        responses=_problems(401),
    )
    async def numbers(request: Request) -> Response:
        """Give the server's counts, for Prometheus."""
        check_token(request)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    _add_pages(app)
    if settings.token:
        _ask_for_token(app)
    return RequestMiddleware(app, metrics)


def card(classifier: Classifier, settings: Settings) -> dict[str, Any]:
    """Describe a network and the limits it is served within; the answer of ``GET /model``."""
    described = json.loads(classifier.description.to_json())
    shared = ("name", "labels", "metrics", "data", "license", "terms", "created")
    return {name: described[name] for name in shared} | {
        "digest": classifier.digest,
        "caveat": CAVEAT,
        "faces": settings.faces,
        "min_confidence": classifier.threshold(settings.min_confidence),
        "version": facegender.__version__,
        "limits": {
            "files": settings.files,
            "request_bytes": settings.request_bytes,
            "bytes": settings.limits.bytes,
            "pixels": settings.limits.pixels,
            "seconds": settings.seconds,
        },
    }


async def _while_there(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for work as long as the client does.

    Raises:
        ClientDisconnect: it went away, and the work was given up.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, watching):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, ProblemError):
                    await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe statuses that come as a problem, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "model": shapes.ProblemDetails,
            "description": "; ".join(
                kind.title for kind in PROBLEM_KINDS.values() if kind.status == status
            )
            or "Problem",
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def _answer_errors(app: FastAPI) -> None:
    """Have every error answered as a problem, and as one of ours."""

    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return error.response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return to_response(error.status_code, request.state.request_id, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"in": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()
        ]
        wrong = ProblemError("malformed", "A parameter is wrong.", errors=errors)
        await drain(request)
        return wrong.response(request.state.request_id)


def _add_pages(app: FastAPI) -> None:
    """Add the page, the API's page, and what the problems' types lead to."""

    @app.get("/problems/{name}", include_in_schema=False)
    async def problem(name: str) -> Response:
        if name not in PROBLEM_KINDS:
            raise HTTPException(404)
        kind = PROBLEM_KINDS[name]
        return PlainTextResponse(f"{kind.title} ({kind.status})\n\n{kind.advice}\n")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _file(_DOCS / "docs.html")

    @app.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> Response:
        if name in _SWAGGER_FILES:
            return _file(_SWAGGER / name)
        if name in ("docs.js", "docs.css"):
            return _file(_DOCS / name)
        raise HTTPException(404)

    for path in sorted(WEB.iterdir()):
        if path.suffix in _TYPES:
            _add_file(app, path)


def _file(path: Path) -> Response:
    """Give a file; a browser asks each time whether it is still the same."""
    return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})


def _add_file(app: FastAPI, path: Path) -> None:
    """Add a file of the page."""

    @app.get("/" if path.name == "index.html" else f"/{path.name}", include_in_schema=False)
    async def file() -> Response:
        return _file(path)


def _ask_for_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that a token is asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path in ("/predict", "/model", "/metrics"):
            for operation in document["paths"][path].values():
                operation["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
