"""WorkerPool: run functions in other processes, where a crash or a hang costs one task only.

Image decoders are C code that meets damaged files: a fault in one ends its process, and one that
hangs can be stopped only by ending its process. The standard library's pools break as a whole when
a process dies, and need a guard around the main part of the caller's script; this pool does not.

Tasks can be sent in groups, because one round trip to a process costs more than a small task. A
process counts the tasks of its group that it has started in shared memory. So the task that ended
it is known, and the others of the group are run again; all of them, if it had started none.
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
_SUSPENDED_SECONDS = 2.0
_LENGTH_BYTES = 8
_PIPE_BYTES = 1 << 20  # the pixels of a group fit
_COUNTER_BYTES = 8
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # else NumPy starts threads that spin for 30 ms
    # glibc: memory that one image has freed is reused, not returned to the system
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
}


class WorkerDiedError(Exception):
    """The process that ran a task crashed, or was ended because the task took too long."""


class WorkerPool:
    """Processes that run tasks concurrently; a context manager.

    Example:
        >>> with WorkerPool(2, timeout=60) as pool:
        ...     pool.submit(len, "four").result()
        4

    Attributes:
        processes: their number.
    """

    def __init__(self, processes: int, *, timeout: float) -> None:
        """Start the processes.

        Args:
            processes: their number.
            timeout: seconds for one task; then its process is ended.
        """
        self.processes = processes
        self._timeout = timeout
        self._workers = [_WorkerProcess() for _ in range(processes)]
        self._idle = list(self._workers)
        self._threads = ThreadPoolExecutor(processes, "facegender-worker")
        self._closed = threading.Event()
        self._watchdog = threading.Thread(target=self._end_late_workers, daemon=True)
        self._watchdog.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in one of the processes; it and its arguments must be picklable.

        Returns:
            The future result; it raises :class:`WorkerDiedError`, or what the function raised.
        """
        return self._threads.submit(self._run_one, function, args, kwargs)

    def submit_group(
        self, function: Callable[..., T], tasks: Sequence[object], *args: object
    ) -> Future[list[T | Exception]]:
        """Call a function for each task, one after the other in the same process.

        Args:
            function: takes a task and then ``args``; all must be picklable.
            tasks: each may take as long as a single one of :meth:`submit`.
            args: the same for all tasks.

        Returns:
            The future list of results in the order of the tasks; for a task that failed,
            :class:`WorkerDiedError` or what the function raised.
        """
        return self._threads.submit(self._run_group, function, [(one, *args) for one in tasks], {})

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes; tasks that were not started are dropped."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()  # so that no thread waits for a result any more
        self._threads.shutdown(wait=True)
        self._watchdog.join()
        for worker in self._workers:
            worker.end()

    def _run_one(self, function: Callable[..., T], args: tuple[object, ...], kwargs: Any) -> T:
        (result,) = self._run_group(function, [args], kwargs)
        if isinstance(result, Exception):
            raise result
        return result

    def _run_group(
        self, function: Callable[..., T], tasks: list[tuple[object, ...]], kwargs: Any
    ) -> list[T | Exception]:
        worker = self._idle.pop()  # there are as many threads as processes
        results: list[T | Exception] = []
        deaths: list[tuple[int, WorkerDiedError]] = []
        is_second_try = False
        try:
            while tasks:
                try:
                    results = worker.run((function, tasks, kwargs), self._timeout)
                    break
                except WorkerDiedError as error:
                    if self._closed.is_set():
                        raise
                    index = worker.started_tasks - 1
                    worker.end()
                    worker.start()
                    if self._closed.is_set():  # meanwhile: nobody else ends this process
                        worker.kill()
                    if index < 0 and not is_second_try:  # no task was the cause
                        is_second_try = True
                        continue
                    index = max(0, index)
                    tasks = tasks[:index] + tasks[index + 1 :]
                    deaths.append((index, error))
        finally:
            self._idle.append(worker)
        for index, death in reversed(deaths):
            results.insert(index, death)
        return results

    def _end_late_workers(self) -> None:
        checked = time.monotonic()
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            was_suspended = now - checked > _SUSPENDED_SECONDS  # this process, by Ctrl-Z say
            checked = now
            for worker in self._workers:
                if was_suspended:
                    worker.restart_clock()
                else:
                    worker.end_if_late(self._timeout)


class _WorkerProcess:
    """One process that handles one request at a time."""

    def __init__(self) -> None:
        self._is_busy = self._is_late = False
        self.start()

    def start(self) -> None:
        """Start the process; it confirms that it is ready before its first result."""
        # Not multiprocessing, which runs the caller's own script again in every process.
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        module = "facegender.inference.worker_pool"
        code = f"import sys; sys.path[:] = {path!r}; from {module} import run_worker; run_worker()"
        self._is_new = True
        with tempfile.TemporaryFile() as file:
            file.truncate(_COUNTER_BYTES)
            self._counter = mmap.mmap(file.fileno(), _COUNTER_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,  # the only further file that a process inherits on every system
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is handled by the main process
            )
        for pipe in (self._process.stdin, self._process.stdout):
            _enlarge(pipe)

    @property
    def started_tasks(self) -> int:
        """Number of tasks of its group that it has started."""
        return int.from_bytes(self._counter[:], "little")

    def run(self, request: object, timeout: float) -> Any:
        """Send a request and wait for the results.

        Raises:
            WorkerDiedError: the process crashed, or a task took longer than ``timeout`` seconds.
            FacegenderError: no process can be started at all.
        """
        requests, results = self._process.stdin, self._process.stdout
        assert requests is not None and results is not None
        try:
            if self._is_new and results.read(len(_READY)) != _READY:
                raise FacegenderError(
                    "Cannot start a worker process "
                    f"({sys.executable} ended with {self._process.wait()})"
                )
            self._counter[:] = bytes(_COUNTER_BYTES)
            self._is_new, self._is_late = False, False
            self.restart_clock()
            self._is_busy = True
            _send(requests, request)
            return _receive(results)
        except (EOFError, OSError):
            code = self._process.wait()
            if self._is_late:
                raise WorkerDiedError(f"took longer than {timeout:g} seconds") from None
            raise WorkerDiedError(f"the decoder crashed ({_exit_reason(code)})") from None
        finally:
            self._is_busy = False

    def restart_clock(self) -> None:
        """Measure the time of the current task from now."""
        self._timed_task, self._timed_from = self.started_tasks, time.monotonic()

    def end_if_late(self, timeout: float) -> None:
        """End the process if the current task has taken longer than ``timeout`` seconds."""
        if not self._is_busy:
            return
        if self.started_tasks != self._timed_task:
            self.restart_clock()
        elif time.monotonic() > self._timed_from + timeout:
            self._is_late = True
            self._process.kill()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def end(self) -> None:
        """End the process and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # unsent data cannot be flushed any more
                    pipe.close()


def run_worker() -> None:
    """Handle requests until standard input closes: the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    counter = mmap.mmap(2, _COUNTER_BYTES)
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        for stream in (1, 2):  # what decoders print must not mix with the results
            os.dup2(null.fileno(), stream)
    results.write(_READY)
    results.flush()
    while True:
        try:
            function, tasks, kwargs = _receive(requests)
        except EOFError:
            return
        group = []
        for number, args in enumerate(tasks, 1):
            counter[:] = number.to_bytes(_COUNTER_BYTES, "little")
            try:
                group.append(function(*args, **kwargs))
            except Exception as error:
                group.append(_to_picklable(error))
        _send(results, group)


def _to_picklable(error: Exception) -> Exception:
    """Return an error that arrives in the main process: some cannot be pickled, or unpickled."""
    try:
        pickle.loads(pickle.dumps(error, protocol=5))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Enlarge a pipe to :data:`_PIPE_BYTES`, if the system can (Linux)."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        assert pipe is not None
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _send(pipe: IO[bytes], message: object) -> None:
    """Write a message; arrays follow as raw memory, without a copy."""
    arrays: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    buffers = [memoryview(pickled), *(array.raw() for array in arrays)]
    lengths = [len(buffers), *(len(buffer) for buffer in buffers)]
    pipe.write(struct.pack(f"<{len(lengths)}q", *lengths))
    for buffer in buffers:
        pipe.write(buffer)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Read one complete message.

    Raises:
        EOFError: the other side has closed.
    """
    lengths = _read_lengths(pipe, _read_lengths(pipe, 1)[0])
    message = memoryview(_read_exactly(pipe, sum(lengths)))
    pickled, *arrays = [
        message[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)
    ]
    return pickle.loads(pickled, buffers=arrays)


def _read_lengths(pipe: IO[bytes], count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}q", _read_exactly(pipe, count * _LENGTH_BYTES))


def _read_exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _exit_reason(code: int) -> str:
    """Describe how a process ended: its exit code or the signal."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}: out of memory?" if name == "SIGKILL" else name
