"""Work in other processes, so that what hangs or crashes there costs one piece of it, not the run.

Decoders are C code that meets damaged files: a fault in one ends its whole process, and nothing can
stop one that hangs but the end of its process. The standard library's pools break as a whole when a
process dies and want the caller's script to guard its main part; this one does neither.

Pieces may go in groups, for a change of processes costs more than a small piece. A process marks in
memory that both sides see how many pieces of its group it has begun. So the one that it died of is
known; the others of the group are done again, and all of them where it had begun none.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from types import TracebackType
from typing import IO, Any, ParamSpec, Self, TypeVar

from facegender.errors import FacegenderError

P = ParamSpec("P")
T = TypeVar("T")

_READY = b"facegender"
_WATCH_SECONDS = 0.25
_STOOD_STILL_SECONDS = 2.0
_LENGTH_BYTES = 8
_PIPE_BYTES = 1 << 20
"""The pixels of a group fit into a pipe of that size at once."""

_MARK_BYTES = 8
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # else NumPy starts threads that spin for 30 ms
    # Memory that a picture has let go of is the next one's, not the system's (glibc)
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
}


class WorkerDiedError(Exception):
    """The process that did a piece of work died of it, or was ended for it took too long."""


class WorkerPool:
    """Processes that work on pieces side by side; a context manager.

    Example:
        >>> with Pool(2, seconds=60) as pool:
        ...     pool.submit(len, "four").result()
        4
    """

    def __init__(self, processes: int, *, timeout: float) -> None:
        """Start the processes.

        Args:
            processes: how many.
            timeout: how long one piece may take; then its process is ended.
        """
        self.processes = processes
        self._seconds = timeout
        self._workers = [_WorkerProcess() for _ in range(processes)]
        self._idle = list(self._workers)
        self._threads = ThreadPoolExecutor(processes, "facegender-worker")
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._end_what_hangs, daemon=True)
        self._watch.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called in one of the processes; it and its values must be picklable.

        Returns:
            What gives the value, or raises :class:`WorkerDiedError` or what the function raised.
        """
        return self._threads.submit(self._one, function, args, kwargs)

    def submit_group(
        self, function: Callable[..., T], tasks: Sequence[object], *args: object
    ) -> Future[list[T | Exception]]:
        """Have a function called for each piece, all in one process, one after the other.

        Args:
            function: takes a piece and then ``args``; all of it must be picklable.
            pieces: each may take as long as a single one of :meth:`submit`.
            args: the same for all.

        Returns:
            What gives, in the pieces' order, the value for each, or the :class:`WorkerDiedError` or
            other exception that it has instead.
        """
        return self._threads.submit(self._all, function, [(one, *args) for one in tasks], {})

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

    def _one(self, function: Callable[..., T], args: tuple[object, ...], kwargs: Any) -> T:
        (value,) = self._all(function, [args], kwargs)
        if isinstance(value, Exception):
            raise value
        return value

    def _all(
        self, function: Callable[..., T], tasks: list[tuple[object, ...]], kwargs: Any
    ) -> list[T | Exception]:
        worker = self._idle.pop()  # there are as many threads as processes
        found: list[T | Exception] = []
        dead: list[tuple[int, WorkerDiedError]] = []
        is_second_try = False
        try:
            while tasks:
                try:
                    found = worker.ask((function, tasks, kwargs), self._seconds)
                    break
                except WorkerDiedError as error:
                    if self._closed.is_set():
                        raise
                    at = worker.begun - 1
                    worker.end()
                    worker.start()
                    if self._closed.is_set():  # meanwhile: nobody else ends this one
                        worker.kill()
                    if at < 0 and not is_second_try:  # it died of none of them
                        is_second_try = True
                        continue
                    at = max(0, at)
                    tasks = tasks[:at] + tasks[at + 1 :]
                    dead.append((at, error))
        finally:
            self._idle.append(worker)
        for at, died in reversed(dead):
            found.insert(at, died)
        return found

    def _end_what_hangs(self) -> None:
        watched = time.monotonic()
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            stood_still = now - watched > _STOOD_STILL_SECONDS  # this process, by Ctrl-Z say
            watched = now
            for worker in self._workers:
                if stood_still:
                    worker.begin_waiting()
                else:
                    worker.end_if_late(self._seconds)


class _WorkerProcess:
    """One process that answers one request at a time."""

    def __init__(self) -> None:
        self._is_asked = self._is_late = False
        self.start()

    def start(self) -> None:
        """Start the process; it says that it is there with its first answer."""
        # Not multiprocessing: that runs the caller's own script again in every process.
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        module = "facegender.inference.worker_pool"
        code = f"import sys; sys.path[:] = {path!r}; from {module} import run_worker; run_worker()"
        self._is_new = True
        with tempfile.TemporaryFile() as file:
            file.truncate(_MARK_BYTES)
            self._mark = mmap.mmap(file.fileno(), _MARK_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,  # the one more thing that a process is given on every system
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is the main process's to answer
            )
        for pipe in (self._process.stdin, self._process.stdout):
            _enlarge(pipe)

    @property
    def begun(self) -> int:
        """How many pieces of its group it has begun."""
        return int.from_bytes(self._mark[:], "little")

    def ask(self, request: object, timeout: float) -> Any:
        """Send a request and wait for the answer.

        Raises:
            DiedError: the process died, or took too long for a piece and was ended.
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
            self._mark[:] = bytes(_MARK_BYTES)
            self._is_new, self._is_late = False, False
            self.begin_waiting()
            self._is_asked = True
            _send(into, request)
            return _receive(out)
        except (EOFError, OSError):
            code = self._process.wait()
            if self._is_late:
                raise WorkerDiedError(f"took longer than {timeout:g} seconds") from None
            raise WorkerDiedError(f"the process that read it died ({_name_of(code)})") from None
        finally:
            self._is_asked = False

    def begin_waiting(self) -> None:
        """Count the time of the piece that it is at from now."""
        self._seen, self._since = self.begun, time.monotonic()

    def end_if_late(self, timeout: float) -> None:
        """End the process where it has been at one piece for longer than that."""
        if not self._is_asked:
            return
        if self.begun != self._seen:
            self.begin_waiting()
        elif time.monotonic() > self._since + timeout:
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


def run_worker() -> None:
    """Answer requests until there are no more: the other process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    mark = mmap.mmap(2, _MARK_BYTES)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        for stream in (1, 2):  # decoders talk there, and must not speak in between
            os.dup2(nowhere.fileno(), stream)
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            function, tasks, kwargs = _receive(requests)
        except EOFError:
            return
        found = []
        for at, args in enumerate(tasks, 1):
            mark[:] = at.to_bytes(_MARK_BYTES, "little")
            try:
                found.append(function(*args, **kwargs))
            except Exception as error:
                found.append(error)
        _send(answers, found)


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Have a pipe hold the pixels of a group at once, where the system lets it (Linux)."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        assert pipe is not None
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _send(pipe: IO[bytes], message: object) -> None:
    """Write a message; arrays go beside it as they lie in memory, without a copy on the way."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(text), *(array.raw() for array in arrays)]
    lengths = [len(parts), *(len(part) for part in parts)]
    pipe.write(struct.pack(f"<{len(lengths)}q", *lengths))
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Read one message whole.

    Raises:
        EOFError: the other side is gone.
    """
    lengths = _lengths(pipe, _lengths(pipe, 1)[0])
    whole = memoryview(_exactly(pipe, sum(lengths)))
    text, *arrays = [
        whole[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)
    ]
    return pickle.loads(text, buffers=arrays)


def _lengths(pipe: IO[bytes], count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}q", _exactly(pipe, count * _LENGTH_BYTES))


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
