"""Settings of a server: limits, timeouts, the token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from facegender.errors import InputError
from facegender.images.formats import ImageLimits
from facegender.model.runtime import count_cores

_MIB = 2**20
_MIN_TOKEN_LENGTH = 16
# As browsers send it: no path, no default port
_ORIGIN = re.compile(
    r"(http://(?!.*:80$)|https://(?!.*:443$)|(?!https?:)[a-z][a-z0-9+.-]*://)"
    r"([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?|null"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves; constant while it runs.

    Attributes:
        faces: face mode of requests that set none: ``auto``, ``detect`` or ``whole``.
        min_confidence: threshold of requests that set none; None uses the model's own.
        limits: maximum bytes and pixels per image.
        max_images: maximum images per request.
        max_request_bytes: maximum bytes per request.
        max_inflight_bytes: maximum bytes of images in memory, over all requests.
        queue_size: maximum images that are queued or in progress, over all requests.
        timeout_seconds: maximum time to receive a request, and again to process it. Preprocessing
            one image may take half of it.
        max_connections_per_client: maximum connections per client address; 0 is no limit.
        max_batch_delay_ms: maximum time that a face waits for others to share a batch.
        processes: number of processes that preprocess images.
        cors_origins: origins whose pages may use the API, as ``https://example.org``; ``*`` is all.
        token: required from clients; empty means that none is required.
    """

    faces: str = "auto"
    min_confidence: float | None = None
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(100_000_000, 32 * _MIB))
    max_images: int = 64
    max_request_bytes: int = 128 * _MIB
    max_inflight_bytes: int = 512 * _MIB
    queue_size: int = 1024
    timeout_seconds: float = 60.0
    max_connections_per_client: int = 256
    max_batch_delay_ms: float = 5.0
    processes: int = field(default_factory=lambda: min(count_cores(), 16))
    cors_origins: tuple[str, ...] = ()
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse limits under which no request can succeed.

        Raises:
            InputError: a limit is too small, two limits contradict each other, or an origin is not
                valid.
        """
        counts = (self.max_images, self.max_request_bytes, self.queue_size, self.processes)
        if min(counts) < 1 or self.timeout_seconds <= 0 or self.max_batch_delay_ms < 0:
            raise InputError("A limit of the server is below 1: no image could be processed")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise InputError(
                    f"--cors-origin {origin!r} is not an origin: write the scheme, the host in "
                    "lower case and the port if it is not the default one, without a path, as in "
                    "https://example.org or http://localhost:3000; or '*' for all"
                )
        if self.max_connections_per_client < 0:
            raise InputError(
                "The maximum of connections per client is below 0; 0 is no limit: "
                "correct --max-connections-per-client"
            )
        if self.max_request_bytes > self.max_inflight_bytes:
            raise InputError(
                f"A request may have {self.max_request_bytes:,} bytes, but all requests together "
                f"only {self.max_inflight_bytes:,}: raise --max-inflight-bytes or lower "
                "--max-request-bytes"
            )
        if self.max_images > self.queue_size:
            raise InputError(
                f"A request may have {self.max_images} images, but the queue has room for "
                f"{self.queue_size}: raise --queue or lower --max-images"
            )


def read_token(path: Path) -> str:
    """Read the token that clients must send.

    Args:
        path: a text file with the token alone; surrounding whitespace is ignored.

    Raises:
        InputError: the file cannot be read, or the token is too short, has whitespace or is not
            ASCII.
    """
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"Cannot read the token file {path}: {reason}") from error
    if len(token) < _MIN_TOKEN_LENGTH or not token.isascii() or any(map(str.isspace, token)):
        raise InputError(
            f"The token in {path} must be one word of at least {_MIN_TOKEN_LENGTH} ASCII "
            "characters. Create one with:  "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token
