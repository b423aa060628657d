"""BatchedNetwork: collects crops of faces into batches and classifies them in threads."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facegender.images.pixels import Pixels
from facegender.inference.face_classifier import FaceClassifier
from facegender.model.runtime import BATCH_SIZE


@dataclass(slots=True)
class Batch:
    """One batch for the network: its crops so far, and its probabilities once it has started."""

    pixels: Pixels
    count: int = 0
    probabilities: Future[NDArray[np.float32]] | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has run."""
        return self.probabilities is not None and self.probabilities.done()


Slot: TypeAlias = tuple[Batch, int]
"""A crop's batch and its index there."""


class BatchedNetwork:
    """Collects crops into batches and runs the network on several batches concurrently.

    The crops of one image may be in two batches. A batch starts when it is full, or when one of
    its results is waited for.
    """

    def __init__(self, classifier: FaceClassifier) -> None:
        """Start the threads, one per concurrent run of the network."""
        resize = classifier.description.resize
        self._shape = (BATCH_SIZE, resize.height, resize.width, 3)
        self._classifier = classifier
        self._max_running = 2 * classifier.threads
        self._threads = ThreadPoolExecutor(classifier.threads, "facegender-network")
        self._filling: Batch | None = None
        self._running: deque[Batch] = deque()

    def add(self, pixels: Pixels) -> Slot:
        """Add a crop to the current batch."""
        batch = self._filling = self._filling or Batch(np.empty(self._shape, np.uint8))
        batch.pixels[batch.count] = pixels
        batch.count += 1
        if batch.count == BATCH_SIZE:
            self._start(batch)
        return batch, batch.count - 1

    def wait_for(self, batch: Batch, index: int) -> NDArray[np.float32]:
        """Return the probabilities of one crop, ``float32 [2]``."""
        if batch.probabilities is None:
            self._start(batch)
        assert batch.probabilities is not None
        row: NDArray[np.float32] = batch.probabilities.result()[index]
        return row

    @property
    def is_busy(self) -> bool:
        """Whether enough batches are running to keep all threads busy."""
        while self._running and self._running[0].is_done:
            self._running.popleft()
        return len(self._running) >= self._max_running

    def _start(self, batch: Batch) -> None:
        filled = batch.pixels[: batch.count]
        batch.probabilities = self._threads.submit(self._classifier.probabilities, filled)
        self._running.append(batch)
        self._filling = None

    def __enter__(self) -> Self:
        """Return the network."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the batch that is running; drop the others."""
        self._threads.shutdown(cancel_futures=True)
