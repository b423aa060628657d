"""Schemas of the API's JSON, for its OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FaceBox(BaseModel):
    """Bounding box of a face in pixels of the upright image, from its top left corner."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class FaceRow(BaseModel):
    """Prediction for one face, or the reason why there is none; a row as `--details` writes it."""

    file: str | None = Field(description="file name from the request; null for a raw body")
    face_index: int | None = Field(description="0 is the main face of the image", ge=0)
    status: Literal["ok", "unknown", "no_face", "unreadable"]
    label: Literal["female", "male"] | None = Field(
        description="with the status `unknown`: the more probable label"
    )
    probability: float | None = Field(description="probability of that label", ge=0.5, le=1)
    box: FaceBox | None
    detection_score: float | None = Field(description="score of the face detector", ge=0, le=1)
    crop: Literal["aligned", "none"] | None = Field(
        description="`aligned`: the aligned face; `none`: the full image"
    )
    width: int | None = Field(description="width of the upright image in pixels", ge=1)
    height: int | None = Field(description="height of the upright image in pixels", ge=1)
    error: str | None = Field(description="why there is no prediction")


class ImageResult(BaseModel):
    """Result for one image, at its position in the request."""

    rows: list[FaceRow] = Field(description="one row per face, or one that says why there is none")
    seconds: float = Field(description="time to process the image", ge=0)


class Timing(BaseModel):
    """Durations of one request in seconds."""

    receive: float = Field(description="time to receive the request", ge=0)
    predict: float = Field(description="time to process the images, queueing included", ge=0)


class PredictResponse(BaseModel):
    """Results of a request. A label is a guess at what people would say, not a fact."""

    model: str = Field(description="SHA-256 of the model file")
    images: list[ImageResult]
    seconds: Timing


class ServerLimits(BaseModel):
    """Limits of the server per request and per image."""

    max_images: int = Field(description="images per request")
    max_request_bytes: int = Field(description="bytes per request")
    max_image_bytes: int = Field(description="bytes per image")
    max_image_pixels: int = Field(description="pixels per image")
    timeout_seconds: float = Field(description="to receive a request, and again to process it")


class ModelInfo(BaseModel):
    """The model card, the server's defaults and its limits."""

    name: str
    digest: str = Field(description="SHA-256 of the model file")
    labels: list[str]
    caveat: str
    faces: Literal["auto", "detect", "whole"]
    min_confidence: float = Field(description="predictions with a lower probability are `unknown`")
    metrics: dict[str, Any] = Field(description="measured metrics with counts and intervals")
    data: dict[str, Any] = Field(description="training data")
    license: str
    terms: str
    created: str
    version: str = Field(description="version of facegender")
    limits: ServerLimits


class HealthState(BaseModel):
    """State of the server: `ok` or `ready`."""

    status: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    errors: list[dict[str, Any]] | None = None
