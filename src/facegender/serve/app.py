"""The HTTP application: its API routes and its error handlers."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from facegender import __version__
from facegender.inference.classifier import Classifier
from facegender.results.report import CAVEAT
from facegender.serve.batching import Engine, TimedRows
from facegender.serve.middleware import RequestMiddleware, allow_origins
from facegender.serve.openapi import PREDICT_BODY, problem_responses, require_token
from facegender.serve.pages import add_pages
from facegender.serve.problems import ProblemError, to_response
from facegender.serve.prometheus import CONTENT_TYPE, ServerMetrics
from facegender.serve.schemas import HealthState, ModelInfo, PredictResponse
from facegender.serve.settings import Settings
from facegender.serve.uploads import MemoryBudget, check_query, drain, read_uploads

PREDICT_PARAMETERS = ("faces", "min_confidence")
"""The query parameters of ``POST /predict``."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Service:
    """What the API routes share."""

    classifier: Classifier
    settings: Settings
    metrics: ServerMetrics
    engine: Engine
    budget: MemoryBudget

    def check_token(self, request: Request) -> None:
        """Reject a request without the server's token.

        Raises:
            ProblemError: the token is missing or wrong.
        """
        token = self.settings.token
        header = request.headers.get("authorization", "").encode("latin-1")
        if token and not hmac.compare_digest(header, b"Bearer " + token.encode()):
            raise ProblemError(
                "token-missing",
                "This server requires a token.",
                headers={"WWW-Authenticate": "Bearer"},
            )


def create_app(classifier: Classifier, settings: Settings) -> RequestMiddleware:
    """Build the application; the engine starts and ends with it.

    Args:
        classifier: the model.
        settings: limits, timeouts, the token.
    """
    metrics = ServerMetrics()
    engine = Engine(classifier, settings, metrics.count_batch)
    budget = MemoryBudget(settings.max_inflight_bytes)
    metrics.inflight_images.set_function(lambda: engine.inflight_images)
    metrics.inflight_bytes.set_function(lambda: budget.used_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield

    app = FastAPI(
        title="facegender",
        version=__version__,
        description=f"Classifies faces in photos as male or female. {CAVEAT} "
        "Images stay in memory and are never stored or logged.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=problem_responses(500),
    )
    service = _Service(classifier, settings, metrics, engine, budget)
    _add_error_handlers(app)
    _add_predict(app, service)
    _add_info(app, service)
    add_pages(app)
    if settings.token:
        require_token(app, ("/predict", "/model", "/metrics"))
    return RequestMiddleware(allow_origins(app, settings.cors_origins), metrics)


def _add_predict(app: FastAPI, service: _Service) -> None:
    """Add ``POST /predict``."""

    @app.post(
        "/predict",
        summary="Classify every face in one or more images",
        responses={
            200: {"model": PredictResponse},
            **problem_responses(401, 408, 413, 415, 422, 503),
        },
        openapi_extra=PREDICT_BODY,
    )
    async def predict(
        request: Request,
        faces: Annotated[
            Literal["auto", "detect", "whole"] | None,
            Query(description="face mode; by default the server's setting"),
        ] = None,
        min_confidence: Annotated[
            float | None,
            Query(ge=0.5, le=1, description="predictions with a lower probability are `unknown`"),
        ] = None,
    ) -> Response:
        """Send images as multipart/form-data in the field `files`, or one image as raw bytes.

        An image that cannot be read gets a row with the reason; the others are not affected.
        """
        started = time.perf_counter()
        with service.budget.reserve() as reservation:
            try:
                service.check_token(request)
                check_query(request, PREDICT_PARAMETERS)
                service.engine.check_capacity(1)
                uploads = await read_uploads(request, service.settings, reservation)
                service.engine.check_capacity(len(uploads))
            except ProblemError as problem:
                if problem.name != "request-timeout":
                    await drain(request)
                raise
            received = time.perf_counter()
            request.state.log = {"images": len(uploads)}
            results = await _cancel_on_disconnect(
                request, service.engine.predict(uploads, faces, min_confidence)
            )
        for result in results:
            service.metrics.count_image(result.rows)
        return _predict_response(
            service.classifier, results, received - started, time.perf_counter() - received
        )


def _predict_response(
    classifier: Classifier,
    results: list[TimedRows],
    receive_seconds: float,
    predict_seconds: float,
) -> JSONResponse:
    """Write results in the form of :class:`PredictResponse`, without validating every row."""
    return JSONResponse(
        {
            "model": classifier.digest,
            "images": [
                {
                    "rows": [row.to_dict() for row in result.rows],
                    "seconds": round(result.seconds, 4),
                }
                for result in results
            ],
            "seconds": {
                "receive": round(receive_seconds, 4),
                "predict": round(predict_seconds, 4),
            },
        }
    )


def _add_info(app: FastAPI, service: _Service) -> None:
    """Add the routes that describe the server: health, readiness, the model, metrics."""

    @app.get("/health", summary="Check that the server is running", response_model=HealthState)
    async def health() -> dict[str, str]:
        """Answer as long as the server is running."""
        return {"status": "ok"}

    @app.get(
        "/ready",
        summary="Check that the server accepts images",
        response_model=HealthState,
        responses=problem_responses(503),
    )
    async def ready() -> dict[str, str]:
        """Answer 503 while the queue is full."""
        service.engine.check_capacity(1)
        return {"status": "ready"}

    @app.get(
        "/model",
        summary="Describe the model and the limits of the server",
        response_model=ModelInfo,
        responses=problem_responses(401, 422),
    )
    async def model(request: Request) -> dict[str, Any]:
        """Return the model card, the server's defaults and its limits."""
        service.check_token(request)
        check_query(request)
        return _model_info(service.classifier, service.settings)

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
        responses=problem_responses(401, 422),
    )
    async def metrics(request: Request) -> Response:
        """Return the server's metrics in the Prometheus text format."""
        service.check_token(request)
        check_query(request)
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def _model_info(classifier: Classifier, settings: Settings) -> dict[str, Any]:
    """Describe the model and the server in the form of :class:`ModelInfo`."""
    described = json.loads(classifier.description.to_json())
    card = ("name", "labels", "metrics", "data", "license", "terms", "created")
    return {name: described[name] for name in card} | {
        "digest": classifier.digest,
        "caveat": CAVEAT,
        "faces": settings.faces,
        "min_confidence": classifier.threshold(settings.min_confidence),
        "version": __version__,
        "limits": {
            "max_images": settings.max_images,
            "max_request_bytes": settings.max_request_bytes,
            "max_image_bytes": settings.limits.bytes,
            "max_image_pixels": settings.limits.pixels,
            "timeout_seconds": settings.timeout_seconds,
        },
    }


async def _cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Await a result; cancel the work when the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_for_disconnect(request))
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


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_error_handlers(app: FastAPI) -> None:
    """Send every error as problem details, those of Starlette and FastAPI too."""

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
            {"in": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()
        ]
        invalid_request = ProblemError("invalid-request", "A parameter is invalid.", errors=errors)
        await drain(request)
        return invalid_request.response(request.state.request_id)
