"""Ctrl-C and SIGTERM as a request to stop, so that training ends with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from facegender.errors import StoppedError


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C and SIGTERM instead of ending the process; a second Ctrl-C interrupts at once.

    A ``StoppedError`` that leaves the block gets the exit code of the signal, 128 + its number.

    Yields:
        A function that returns whether a signal was received.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread (a notebook): signals stay as they are
            break
    try:
        yield lambda: bool(received)
    except StoppedError as error:
        if received:
            error.code = 128 + received[0]
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
