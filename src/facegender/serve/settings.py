"""What a server may be asked for, and what it gives up at: limits, waiting, the token."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from facegender.errors import InputError
from facegender.images.formats import ImageLimits
from facegender.model.runtime import count_cores

MIB = 2**20
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves, the same for its whole life.

    Attributes:
        faces: how faces are found where a request says nothing; ``auto``, ``detect`` or ``whole``.
        min_confidence: the threshold where a request says nothing; None is the network's own.
        limits: what one picture may cost, in bytes and pixels.
        files: most pictures of one request.
        request_bytes: most bytes of one request.
        held_bytes: most bytes of pictures in memory at once, of all requests together.
        queue: most pictures that are taken up and not answered yet, of all requests together.
        seconds: how long a request may take to come in, then to be answered; the reading of one
            picture may take half of it.
        gather_seconds: how long a face waits for others to go through the network with it.
        processes: that read pictures side by side.
        token: what requests have to bring; empty lets everybody in.
    """

    faces: str = "auto"
    min_confidence: float | None = None
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(100_000_000, 32 * MIB))
    files: int = 64
    request_bytes: int = 128 * MIB
    held_bytes: int = 512 * MIB
    queue: int = 1024
    seconds: float = 60.0
    gather_seconds: float = 0.005
    processes: int = field(default_factory=lambda: min(count_cores(), 16))
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse limits by which no request could ever be answered.

        Raises:
            InputError: one of them is too small, or two contradict each other.
        """
        counts = (self.files, self.request_bytes, self.queue, self.processes)
        if min(counts) < 1 or self.seconds <= 0 or self.gather_seconds < 0:
            raise InputError("a limit of the server is below 1: no picture could be answered")
        if self.request_bytes > self.held_bytes:
            raise InputError(
                f"one request may have {self.request_bytes:,} bytes, but all together only "
                f"{self.held_bytes:,}: raise the second or lower the first"
            )
        if self.files > self.queue:
            raise InputError(
                f"one request may have {self.files} pictures, but only {self.queue} may wait: "
                "raise --queue or lower --max-files"
            )


def read_token(path: Path) -> str:
    """Read the token that requests have to bring.

    Args:
        path: a text file that holds it and nothing else; space around it is no part of it.

    Raises:
        InputError: it cannot be read, or is too short or not plain ASCII without space.
    """
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise InputError(f"cannot read the token file {path}: {reason}") from error
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or any(map(str.isspace, token)):
        raise InputError(
            f"the token in {path} has to be one word of {_SHORTEST_TOKEN} ASCII characters or "
            "more. Make one with:  python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token
