"""Work in other processes, so that what hangs or crashes there costs one piece of it, not the run.

Decoders are C code that meets damaged files: a fault in one ends its whole process, and nothing can
stop one that hangs but the end of its process. The standard library's pools break as a whole when a
process dies and want the caller's script to guard its main part; this one does neither.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, ParamSpec, Self, TypeVar

from facegender.errors import FacegenderError

P = ParamSpec("P")
T = TypeVar("T")

_READY = b"facegender"
_WATCH_SECONDS = 0.25
_LENGTH_BYTES = 8
_PIPE_BYTES = 1 << 20
"""A picture's pixels fit into a pipe of that size at once (Linux; elsewhere it is as it is)."""


class DiedError(Exception):
    """The process that did a piece of work died of it, or was ended for it took too long."""


class Pool:
    """Processes that work on pieces side by side; a context manager.

    Example:
        >>> with Pool(2, seconds=60) as pool:
        ...     pool.submit(len, "four").result()
        4
    """

    def __init__(self, processes: int, *, seconds: float) -> None:
        """Start the processes.

        Args:
            processes: how many.
            seconds: how long one piece may take; then its process is ended.
        """
        self._seconds = seconds
        self._workers = [_Worker() for _ in range(processes)]
        self._idle = list(self._workers)
        self._threads = ThreadPoolExecutor(processes, "facegender-worker")
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._end_what_hangs, daemon=True)
        self._watch.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called in one of the processes; it and its values must be picklable.

        Returns:
            What gives the value, or raises :class:`DiedError` or what the function raised.
        """
        return self._threads.submit(self._ask, function, args, kwargs)

    def __enter__(self) -> Self:
        """Give the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes; what was not begun is never done."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()  # so that no thread waits for an answer any more
        self._threads.shutdown(wait=True)
        self._watch.join()
        for worker in self._workers:
            worker.end()

    def _ask(self, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        worker = self._idle.pop()  # there are as many threads as processes
        try:
            done, value = worker.ask((function, args, kwargs), self._seconds)
        except DiedError:
            if not self._closed.is_set():
                worker.end()
                worker.start()
            raise
        finally:
            self._idle.append(worker)
        if not done:
            raise value
        result: T = value
        return result

    def _end_what_hangs(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            for worker in self._workers:
                worker.end_if_late()


class _Worker:
    """One process that answers one request at a time."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._is_late = False
        self.start()

    def start(self) -> None:
        """Start the process; it says that it is there with its first answer."""
        # Not multiprocessing: that runs the caller's own script again in every process.
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        code = f"import sys; sys.path[:] = {path!r}; from facegender.isolated import serve; serve()"
        self._is_new = True
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders talk there
            start_new_session=True,  # Ctrl-C is the main process's to answer
            pipesize=_PIPE_BYTES,
        )

    def ask(self, request: object, seconds: float) -> tuple[bool, Any]:
        """Send a request and wait for the answer.

        Raises:
            DiedError: the process died, or took too long and was ended.
            FacegenderError: no process can be started here at all.
        """
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        try:
            if self._is_new and out.read(len(_READY)) != _READY:
                raise FacegenderError(
                    "a process to read pictures in cannot be started "
                    f"({sys.executable} ended with {self._process.wait()})"
                )
            self._is_new, self._is_late = False, False
            self._deadline = time.monotonic() + seconds
            _send(into, request)
            answer: tuple[bool, Any] = _receive(out)
            return answer
        except (EOFError, OSError):
            code = self._process.wait()
            if self._is_late:
                raise DiedError(f"took longer than {seconds:g} seconds") from None
            raise DiedError(f"the process that read it died ({_name_of(code)})") from None
        finally:
            self._deadline = None

    def end_if_late(self) -> None:
        """End the process where its answer is overdue."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline:
            self._is_late = True
            self._process.kill()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def end(self) -> None:
        """End the process and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent yet cannot be any more
                    pipe.close()


def serve() -> None:
    """Answer requests until there are no more: the other process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak in between
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            function, args, kwargs = request
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        _send(answers, answer)


def _send(pipe: IO[bytes], message: object) -> None:
    """Write a message; arrays go beside it as they lie in memory, without a copy on the way."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(text), *(array.raw() for array in arrays)]
    lengths = [len(parts), *(len(part) for part in parts)]
    pipe.write(b"".join(length.to_bytes(_LENGTH_BYTES, "little") for length in lengths))
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Read one message whole.

    Raises:
        EOFError: the other side is gone.
    """
    text, *arrays = [_exactly(pipe, length) for length in _lengths(pipe, _lengths(pipe, 1)[0])]
    return pickle.loads(text, buffers=arrays)


def _lengths(pipe: IO[bytes], count: int) -> list[int]:
    data = _exactly(pipe, count * _LENGTH_BYTES)
    return [
        int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        for at in range(0, len(data), _LENGTH_BYTES)
    ]


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _name_of(code: int) -> str:
    """Say how a process ended: by which signal, or with which code."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}: out of memory?" if name == "SIGKILL" else name
