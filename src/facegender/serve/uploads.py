"""Read images from a request body into memory, within limits. Nothing is written to disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from facegender.serve.problems import ProblemError
from facegender.serve.settings import Settings

FIELD = "files"
"""The multipart field with the images."""

_PART_ENCODINGS = (b"content-encoding", b"content-transfer-encoding")
_PLAIN_CODINGS = ("", "identity", "binary", "8bit", "7bit")
_DRAIN_SECONDS = 5.0
_MAX_HEADER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image.

    Attributes:
        name: the client's file name, only returned in the rows; None for a raw body.
        data: the file's bytes; empty where ``error`` is set.
        error: why the upload was rejected; empty where it was not.
    """

    name: str | None
    data: bytes
    error: str = ""


class MemoryBudget:
    """Counts the bytes of images in memory, over all requests."""

    def __init__(self, max_bytes: int) -> None:
        """Start at zero."""
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def reserve(self) -> Reservation:
        """Open an empty reservation for one request."""
        return Reservation(self)


class Reservation:
    """The bytes that one request has reserved; a context manager that releases them at its end."""

    def __init__(self, budget: MemoryBudget) -> None:
        """Start at zero."""
        self._budget = budget
        self._bytes = 0

    def add(self, count: int) -> None:
        """Reserve more bytes.

        Raises:
            ProblemError: the budget of all requests is exhausted.
        """
        if self._budget.used_bytes + count > self._budget.max_bytes:
            raise ProblemError(
                "queue-full",
                "The images of all requests exceed the memory limit.",
                headers={"Retry-After": "1"},
            )
        self._budget.used_bytes += count
        self._bytes += count

    def __enter__(self) -> Reservation:
        """Return the reservation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release all bytes."""
        self._budget.used_bytes -= self._bytes
        self._bytes = 0


async def read_uploads(
    request: Request, settings: Settings, reservation: Reservation
) -> list[Upload]:
    """Read the images of a request.

    Args:
        request: multipart with the field ``files``, or the bytes of one image.
        settings: the limits.
        reservation: counts the bytes in memory.

    Returns:
        The images in the order of the request. In a form, an image with too many bytes is an
        :class:`Upload` with an ``error``.

    Raises:
        ProblemError: unsupported content type, too many bytes or files, malformed, or too slow.
        ClientDisconnect: the client disconnected.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    is_form = kind == b"multipart/form-data"
    if not is_form and not kind.startswith(b"image/") and kind != b"application/octet-stream":
        shown = kind.decode("ascii", "replace")[:100]
        raise ProblemError("unsupported-media-type", f"The content type is {shown!r}.")
    _check_encoding(request)
    _check_content_length(request, settings)
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            chunks = _limited_chunks(request, settings)
            if is_form:
                return await _read_form(
                    chunks, options.get(b"boundary", b""), settings, reservation
                )
            return await _read_raw(chunks, settings, reservation)
    except TimeoutError:
        raise ProblemError(
            "request-timeout",
            f"The request was not received within {settings.timeout_seconds:g} seconds.",
            headers={"Connection": "close"},
        ) from None


async def drain(request: Request) -> None:
    """Read and discard the rest of a rejected request, for a limited time.

    A client whose connection closes while it sends does not see the response.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in request.stream():
                pass


def check_query(request: Request, names: Collection[str] = ()) -> None:
    """Reject query parameters that the route does not have, and repeated ones.

    Args:
        request: the request.
        names: the parameters of the route.

    Raises:
        ProblemError: a parameter is unknown, or given more than once.
    """
    allowed = f"the parameters are {', '.join(names)}" if names else "there are no parameters"
    counts = Counter(name for name, _ in request.query_params.multi_items())
    errors = [
        {
            "in": f"query.{name[:100]}",
            "message": "Given more than once" if name in names else f"Unknown: {allowed}",
        }
        for name, count in counts.items()
        if name not in names or count > 1
    ]
    if errors:
        shown = ", ".join(error["in"].removeprefix("query.") for error in errors[:3])
        raise ProblemError(
            "invalid-request", f"A query parameter is unknown or repeated: {shown}.", errors=errors
        )


def _check_encoding(request: Request) -> None:
    """Reject a compressed body; images are compressed already."""
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    if {coding.strip() for coding in codings} - {"", "identity"}:
        shown = ", ".join(coding.strip() for coding in codings)[:100]
        raise ProblemError(
            "unsupported-media-type",
            f"The content encoding is {shown!r}; send the body without one.",
            headers={"Accept-Encoding": "identity"},
        )


def _check_content_length(request: Request, settings: Settings) -> None:
    """Reject a request by its header, before its body is read."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_request_bytes:
        raise _too_large(settings)


def _too_large(settings: Settings) -> ProblemError:
    return ProblemError(
        "too-large", f"The request has more than {settings.max_request_bytes:,} bytes."
    )


async def _limited_chunks(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > settings.max_request_bytes:
            raise _too_large(settings)
        yield chunk


async def _read_raw(
    chunks: AsyncIterator[bytes], settings: Settings, reservation: Reservation
) -> list[Upload]:
    data = bytearray()
    async for chunk in chunks:
        reservation.add(len(chunk))
        data += chunk
        if len(data) > settings.limits.bytes:
            raise ProblemError(
                "too-large", f"The image has more than {settings.limits.bytes:,} bytes."
            )
    if not data:
        raise ProblemError("invalid-request", "The body is empty; expected an image.")
    return [Upload(None, bytes(data))]


async def _read_form(
    chunks: AsyncIterator[bytes], boundary: bytes, settings: Settings, reservation: Reservation
) -> list[Upload]:
    reader = _FormReader(settings, reservation)
    try:
        if not boundary:
            raise ProblemError("invalid-request", "The content type has no boundary.")
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(
            "invalid-request", f"The multipart body is malformed: {error}."
        ) from None
    if not reader.is_complete:
        raise ProblemError("invalid-request", "The multipart body ends before its last boundary.")
    if not reader.uploads:
        raise ProblemError("invalid-request", f"The field '{FIELD}' has no file.")
    return reader.uploads


@dataclass(slots=True)
class _FormReader:
    """Receives the callbacks of the multipart parser and collects the uploads."""

    settings: Settings
    reservation: Reservation
    uploads: list[Upload] = field(default_factory=list)
    is_complete: bool = False
    _header_name: bytes = b""
    _header_value: bytes = b""
    _disposition: bytes = b""
    _file_name: str | None = None
    _data: bytearray = field(default_factory=bytearray)
    _size: int = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._header_name = self._header_value = self._disposition = b""
        self._file_name, self._size = None, 0
        self._data = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header_size()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header_size()

    def _check_header_size(self) -> None:
        if len(self._header_name) + len(self._header_value) > _MAX_HEADER_BYTES:
            raise ProblemError(
                "invalid-request", f"A part has a header of more than {_MAX_HEADER_BYTES:,} bytes."
            )

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        elif self._header_name.lower() in _PART_ENCODINGS:
            coding = self._header_value.decode("latin-1").strip().lower()
            if coding not in _PLAIN_CODINGS:
                raise ProblemError(
                    "unsupported-media-type",
                    f"A part of the form has the encoding {coding[:100]!r}; send it without one.",
                )
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise ProblemError(
                "invalid-request", f"Every part must be a file of the field '{FIELD}'."
            )
        if len(self.uploads) == self.settings.max_images:
            raise ProblemError(
                "too-large", f"The request has more than {self.settings.max_images} files."
            )
        self._file_name = options[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self.settings.limits.bytes:
            self.reservation.add(end - start)
            self._data += data[start:end]
        else:
            self._data.clear()

    def _on_part_end(self) -> None:
        limit, error = self.settings.limits.bytes, ""
        if self._size > limit:
            error = f"{self._size:,} bytes are over the limit of {limit:,}"
        self.uploads.append(Upload(self._file_name, bytes(self._data), error))
        self._data = bytearray()

    def _on_end(self) -> None:
        self.is_complete = True
