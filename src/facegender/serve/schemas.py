"""The shapes of what the API answers, for its OpenAPI document and for whoever reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FaceBox(BaseModel):
    """Where a face is, in pixels of the upright picture, from its top left."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class FaceRow(BaseModel):
    """The answer for one face, or for a picture without one; a row as `--details` writes it."""

    file: str | None = Field(description="the name that came with the picture")
    face_index: int | None = Field(description="0 is the face that the picture shows", ge=0)
    status: Literal["ok", "unknown", "no_face", "unreadable"]
    label: Literal["female", "male"] | None = Field(
        description="with the status `unknown` it is the better guess"
    )
    probability: float | None = Field(description="of that label", ge=0.5, le=1)
    box: FaceBox | None
    detection_score: float | None = Field(description="how sure the face detector was", ge=0, le=1)
    crop: Literal["aligned", "whole"] | None
    width: int | None = Field(description="of the upright picture, in pixels", ge=1)
    height: int | None = Field(description="likewise", ge=1)
    error: str | None = Field(description="why there is no answer")


class ImageResult(BaseModel):
    """What is answered for one picture, in the place that it had in the request."""

    rows: list[FaceRow] = Field(description="one for each face, or one that says why there is none")
    seconds: float = Field(description="from when it was taken up", ge=0)


class Timing(BaseModel):
    """How long a request took."""

    receive: float = Field(description="to come in", ge=0)
    answer: float = Field(description="to be answered, waiting included", ge=0)


class PredictResponse(BaseModel):
    """The answer to a request. Each is a guess at a label that people gave, not a fact."""

    model: str = Field(description="SHA-256 of the network's file")
    images: list[ImageResult]
    seconds: Timing


class ServerLimits(BaseModel):
    """What one request may have, and what one picture may."""

    files: int
    request_bytes: int
    bytes: int
    pixels: int
    seconds: float


class ModelInfo(BaseModel):
    """The network that answers: its card."""

    name: str
    digest: str = Field(description="SHA-256 of its file")
    labels: list[str]
    caveat: str
    faces: Literal["auto", "detect", "whole"]
    min_confidence: float = Field(description="answers less probable than this are `unknown`")
    metrics: dict[str, Any] = Field(description="what was measured, with counts")
    data: dict[str, Any] = Field(description="what it learned from")
    license: str
    terms: str
    created: str
    version: str = Field(description="of facegender")
    limits: ServerLimits


class HealthState(BaseModel):
    """Whether the server is there, or ready."""

    status: str


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    errors: list[dict[str, Any]] | None = None
