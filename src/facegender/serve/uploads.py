"""A request's body -> pictures in memory, within limits; nothing is ever written to a disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from facegender.serve.problems import ProblemError
from facegender.serve.settings import Settings

FIELD = "files"
"""The multipart field that pictures come in."""

_DRAIN_SECONDS = 5.0
_MOST_HEADER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it came in; ``problem`` says why it was not kept.

    ``name`` is the client's word for it, None for raw bytes; it is given back and used for nothing
    else.
    """

    name: str | None
    data: bytes
    problem: str = ""


class MemoryBudget:
    """Counts the bytes of pictures in memory, of all requests together."""

    def __init__(self, most: int) -> None:
        """Start with none."""
        self.most = most
        self.bytes = 0

    def share(self) -> Reservation:
        """Give a request its own account."""
        return Reservation(self)


class Reservation:
    """What one request holds; a context manager that gives it all back at its end."""

    def __init__(self, held: MemoryBudget) -> None:
        """Start with none."""
        self._held = held
        self._bytes = 0

    def add(self, count: int) -> None:
        """Take up bytes.

        Raises:
            ProblemError: all requests together hold too much.
        """
        if self._held.bytes + count > self._held.most:
            raise ProblemError(
                "queue-full",
                "The pictures of all requests take too much memory.",
                headers={"Retry-After": "1"},
            )
        self._held.bytes += count
        self._bytes += count

    def __enter__(self) -> Reservation:
        """Give the account."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back."""
        self._held.bytes -= self._bytes
        self._bytes = 0


async def read_uploads(request: Request, settings: Settings, share: Reservation) -> list[Upload]:
    """Read the pictures of a request.

    Args:
        request: multipart with the field ``files``, or the bytes of one picture.
        settings: with the limits.
        share: the request's account of bytes held.

    Returns:
        The pictures in the order they came. One that has too many bytes is not kept, and says so.

    Raises:
        ProblemError: another content type, too many bytes or files, malformed, too slow.
        ClientDisconnect: the client went away.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    is_form = kind == b"multipart/form-data"
    if not is_form and not kind.startswith(b"image/") and kind != b"application/octet-stream":
        shown = kind.decode("ascii", "replace")[:100]
        raise ProblemError("not-a-picture-type", f"The content type is {shown!r}.")
    _check_length(request, settings)
    try:
        async with asyncio.timeout(settings.seconds):
            coming = _counted(request, settings)
            if is_form:
                return await _form(coming, options.get(b"boundary", b""), settings, share)
            return await _raw(coming, settings, share)
    except TimeoutError:
        raise ProblemError(
            "too-slow", f"It was not there within {settings.seconds:g} seconds."
        ) from None


async def drain(request: Request) -> None:
    """Let a client finish sending what will not be read, for a bounded time.

    One that is cut off while it sends does not see the answer that says why.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in request.stream():
                pass


def _check_length(request: Request, settings: Settings) -> None:
    """Refuse by the header already what would be too much."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.request_bytes:
        raise _too_many_bytes(settings)


def _too_many_bytes(settings: Settings) -> ProblemError:
    return ProblemError("too-large", f"It has more than {settings.request_bytes:,} bytes.")


async def _counted(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > settings.request_bytes:
            raise _too_many_bytes(settings)
        yield chunk


async def _raw(
    coming: AsyncIterator[bytes], settings: Settings, share: Reservation
) -> list[Upload]:
    data = bytearray()
    async for chunk in coming:
        share.add(len(chunk))
        data += chunk
        if len(data) > settings.limits.bytes:
            raise ProblemError(
                "too-large", f"A picture has more than {settings.limits.bytes:,} bytes."
            )
    if not data:
        raise ProblemError("malformed", "The body is empty: there is no picture in it.")
    return [Upload(None, bytes(data))]


async def _form(
    coming: AsyncIterator[bytes], boundary: bytes, settings: Settings, share: Reservation
) -> list[Upload]:
    form = _Form(settings, share)
    try:
        if not boundary:
            raise ProblemError("malformed", "The content type names no boundary.")
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in coming:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError("malformed", f"The multipart body is damaged: {error}.") from None
    if not form.is_ended:
        raise ProblemError("malformed", "The multipart body ends before its closing boundary.")
    if not form.uploads:
        raise ProblemError("malformed", f"There is no file in the field '{FIELD}'.")
    return form.uploads


@dataclass(slots=True)
class _Form:
    """Takes what the parser of a multipart body finds."""

    settings: Settings
    share: Reservation
    uploads: list[Upload] = field(default_factory=list)
    is_ended: bool = False
    _key: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _name: str | None = None
    _data: bytearray = field(default_factory=bytearray)
    _size: int = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._key = self._value = self._disposition = b""
        self._name, self._size = None, 0
        self._data = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._key) + len(self._value) > _MOST_HEADER_BYTES:
            raise ProblemError("malformed", "A part of the form has too long a header.")

    def _header_end(self) -> None:
        if self._key.lower() == b"content-disposition":
            self._disposition = self._value
        self._key = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise ProblemError("malformed", f"Every part has to be a file of the field '{FIELD}'.")
        if len(self.uploads) == self.settings.files:
            raise ProblemError("too-large", f"It has more than {self.settings.files} files.")
        self._name = options[b"filename"].decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self.settings.limits.bytes:
            self.share.add(end - start)
            self._data += data[start:end]
        else:
            self._data.clear()

    def _part_end(self) -> None:
        most, problem = self.settings.limits.bytes, ""
        if self._size > most:
            problem = f"{self._size:,} bytes are over the limit of {most:,}"
        self.uploads.append(Upload(self._name, bytes(self._data), problem))
        self._data = bytearray()

    def _end(self) -> None:
        self.is_ended = True
