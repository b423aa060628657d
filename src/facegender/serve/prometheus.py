"""What a server counts of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

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


class Metrics:
    """One server's counts. None of them tells of a single picture, or of what was answered."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "facegender_requests",
            "Requests, by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "facegender_request_seconds",
            "From a request's first byte to the last of its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            "facegender_pictures",
            "Pictures answered for, by status of their first row.",
            ("status",),
            registry=self._registry,
        )
        self._batches = Histogram(
            "facegender_batch_faces",
            "Faces that went through the network together.",
            buckets=(1, 2, 4, 8, 16),
            registry=self._registry,
        )
        self.waiting = Gauge(
            "facegender_pictures_waiting",
            "Pictures taken up and not answered yet.",
            registry=self._registry,
        )
        self.held = Gauge(
            "facegender_held_bytes", "Bytes of pictures in memory.", registry=self._registry
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def rows(self, rows: Iterable[Prediction]) -> None:
        """Count a picture that was answered for, by its first row."""
        for row in rows:
            self._images.labels(row.status.value).inc()
            return

    def batch(self, faces: int) -> None:
        """Count a run of the network."""
        self._batches.observe(faces)

    def text(self) -> bytes:
        """Write all of it in Prometheus' form."""
        return generate_latest(self._registry)
