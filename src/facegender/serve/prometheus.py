"""Metrics of a server in the Prometheus format."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from facegender.results.predictions import Prediction

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class ServerMetrics:
    """Counters of one server. None describes a single image or its prediction."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "facegender_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "facegender_request_seconds",
            "Time from the first byte of a request to the last byte of its response, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            "facegender_images",
            "Processed images by the status of their first row.",
            ("status",),
            registry=self._registry,
        )
        self._batch_faces = Histogram(
            "facegender_batch_faces",
            "Faces per batch.",
            buckets=(1, 2, 4, 8, 16),
            registry=self._registry,
        )
        self.inflight_images = Gauge(
            "facegender_inflight_images",
            "Images that are queued or in progress.",
            registry=self._registry,
        )
        self.inflight_bytes = Gauge(
            "facegender_inflight_bytes", "Bytes of images in memory.", registry=self._registry
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def count_image(self, rows: Sequence[Prediction]) -> None:
        """Count a processed image by the status of its first row."""
        self._images.labels(rows[0].status.value).inc()

    def count_batch(self, faces: int) -> None:
        """Count a batch by its number of faces."""
        self._batch_faces.observe(faces)

    def render(self) -> bytes:
        """Write all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
