"""Dynamic batching: preprocess images of many requests in parallel, run the model on batches."""

from __future__ import annotations

import asyncio
import io
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegender.errors import FacegenderError, UnreadableImageError
from facegender.faces.face_aligner import FACE_MODES
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.inference.preprocess import PreprocessedImage, PreprocessOptions, preprocess_file
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool
from facegender.model.runtime import BATCH_SIZE
from facegender.results.predictions import Prediction, Status
from facegender.serve.problems import ProblemError
from facegender.serve.settings import Settings
from facegender.serve.uploads import Upload

_MAX_SINGLE_FACES = 12
"""Batches of up to this size run face by face, which is faster than one padded run of 16: a single
face takes 2.4 ms, a face of a full run 2.0 ms (ONNX Runtime on one core)."""

_MAX_BUSY_DELAY_SECONDS = 0.25
"""Maximum time that a face waits for a full batch while all cores are busy."""


@dataclass(frozen=True, slots=True)
class TimedRows:
    """The rows of one image, and the time from its start to its end."""

    rows: tuple[Prediction, ...]
    seconds: float


@dataclass(slots=True)
class _QueuedFace:
    """A face that waits for a batch."""

    pixels: Pixels
    probabilities: asyncio.Future[NDArray[np.float32]]


class Engine:
    """Runs one model for all requests; an asynchronous context manager.

    Images are preprocessed in separate processes, so that a decoder that crashes or hangs costs
    one row. Their faces wait a few milliseconds for others, or for a full batch while all cores
    are busy, and run through the model together, in the classifier's number of threads. At most
    ``settings.queue_size`` images are queued or in progress.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        on_batch: Callable[[int], None] = lambda faces: None,
    ) -> None:
        """Prepare the engine; ``async with`` starts it.

        Args:
            classifier: the model.
            settings: limits and timeouts.
            on_batch: called with the number of faces of each batch.

        Raises:
            InputError: ``settings.faces`` is not a face mode.
            ValueError: a threshold outside 0.5 to 1.
        """
        described = classifier.description
        self._preprocess_options = {
            mode: PreprocessOptions(described.crop, described.resize, mode, settings.limits)
            for mode in FACE_MODES
        }
        PreprocessOptions(described.crop, described.resize, settings.faces)
        classifier.threshold(settings.min_confidence)
        self.classifier = classifier
        self.settings = settings
        self.inflight_images = 0
        """Number of images that are queued or in progress."""
        self._on_batch = on_batch
        self._preprocessing = 0
        self._queue: deque[_QueuedFace] = deque()
        self._changed = asyncio.Event()
        self._free_threads = asyncio.Semaphore(classifier.threads)
        self._batches: set[asyncio.Task[None]] = set()
        self._images_per_second = 0.0

    async def __aenter__(self) -> Self:
        """Start the processes and warm up: every process preprocesses one image.

        Raises:
            FacegenderError: no image can be processed on this machine.
        """
        # Half of a request's time, so that a hanging decoder costs its own row, not the request
        self._pool = WorkerPool(self.settings.processes, timeout=self.settings.timeout_seconds / 2)
        self._threads = ThreadPoolExecutor(self.classifier.threads, "facegender-network")
        self._batcher = asyncio.create_task(self._dispatch_batches())
        try:
            file = io.BytesIO()
            Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
            uploads = [Upload(None, file.getvalue())] * self.settings.processes
            results = await asyncio.gather(
                *(self._predict_image(upload, "whole", None) for upload in uploads)
            )
            if any(result.rows[0].label is None for result in results):
                raise FacegenderError(
                    f"Images cannot be read on this machine: {results[0].rows[0].error}"
                )
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        for task in (self._batcher, *self._batches):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self._pool.__exit__, None, None, None)
        self._threads.shutdown(cancel_futures=True)

    def check_capacity(self, count: int) -> None:
        """Reject images for which the queue has no room.

        Raises:
            ProblemError: the queue is full; ``Retry-After`` is estimated from the current rate.
        """
        if self.inflight_images + count <= self.settings.queue_size:
            return
        rate = self._images_per_second
        seconds = self.inflight_images / rate if rate else 1.0
        raise ProblemError(
            "queue-full",
            f"{self.inflight_images} images are in the queue; its limit is "
            f"{self.settings.queue_size}.",
            headers={"Retry-After": str(min(60, max(1, round(seconds))))},
        )

    async def predict(
        self, uploads: Sequence[Upload], faces: str | None, min_confidence: float | None
    ) -> list[TimedRows]:
        """Classify the images of one request.

        Cancelling the caller frees its place in the queue; work that has not begun is dropped.

        Args:
            uploads: the images.
            faces: ``auto``, ``detect``, ``whole``; None uses the server's setting.
            min_confidence: 0.5 to 1; None uses the server's setting.

        Returns:
            The results in the order of ``uploads``.

        Raises:
            ProblemError: the queue is full, or the images took too long.
        """
        self.check_capacity(len(uploads))
        self.inflight_images += len(uploads)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.timeout_seconds), asyncio.TaskGroup() as group:
                mode = faces or self.settings.faces
                tasks = [
                    group.create_task(self._predict_image(upload, mode, min_confidence))
                    for upload in uploads
                ]
        except TimeoutError:
            raise ProblemError(
                "prediction-timeout",
                f"{len(uploads)} images were not processed within "
                f"{self.settings.timeout_seconds:g} seconds.",
                headers={"Retry-After": "5"},
            ) from None
        finally:
            self.inflight_images -= len(uploads)
        self._update_rate((self.inflight_images + len(uploads)) / (time.perf_counter() - started))
        return [task.result() for task in tasks]

    def _update_rate(self, images_per_second: float) -> None:
        """Keep an exponential moving average of the images per second."""
        if self._images_per_second:
            images_per_second = 0.8 * self._images_per_second + 0.2 * images_per_second
        self._images_per_second = images_per_second

    async def _predict_image(
        self, upload: Upload, faces: str, min_confidence: float | None
    ) -> TimedRows:
        started = time.perf_counter()
        if min_confidence is None:
            min_confidence = self.settings.min_confidence
        try:
            image = await self._preprocess(upload, self._preprocess_options[faces])
        except (UnreadableImageError, WorkerDiedError) as error:
            rows: tuple[Prediction, ...] = (
                Prediction(upload.name, Status.UNREADABLE, error=str(error)),
            )
        else:
            queued = [self._enqueue(crop.pixels) for crop in image.crops]
            probabilities = iter(await asyncio.gather(*queued))
            rows = self.classifier.rows(upload.name, image, probabilities, min_confidence)
        return TimedRows(rows, time.perf_counter() - started)

    async def _preprocess(self, upload: Upload, options: PreprocessOptions) -> PreprocessedImage:
        """Preprocess an image in one of the processes.

        Raises:
            UnreadableImageError, WorkerDiedError: it cannot be read.
        """
        if upload.error:
            raise UnreadableImageError(upload.error)
        self._preprocessing += 1
        try:
            work = self._pool.submit(preprocess_file, upload.data, options)
            image = await asyncio.wrap_future(work)
        finally:
            self._preprocessing -= 1
            self._changed.set()  # a batch may be waiting for this image
        assert image is not None, "only files are skipped, by their name"
        return image

    def _enqueue(self, pixels: Pixels) -> asyncio.Future[NDArray[np.float32]]:
        """Queue a face; the future gets its probabilities."""
        face = _QueuedFace(pixels, asyncio.get_running_loop().create_future())
        self._queue.append(face)
        self._changed.set()
        return face.probabilities

    async def _dispatch_batches(self) -> None:
        """Run queued faces in batches, as long as the engine lives."""
        while True:
            await self._free_threads.acquire()
            batch: list[_QueuedFace] = []
            while not batch:
                self._changed.clear()
                if self._queue:
                    await self._wait_for_more()
                else:
                    await self._changed.wait()
                faces = [self._queue.popleft() for _ in range(min(BATCH_SIZE, len(self._queue)))]
                batch = [face for face in faces if not face.probabilities.done()]  # cancelled
            task = asyncio.create_task(self._run_batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._on_batch_done)

    def _on_batch_done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._free_threads.release()
        self._changed.set()

    async def _wait_for_more(self) -> None:
        """Let the queue grow before a batch is taken from it.

        Wait for ``max_batch_delay_ms``; while all cores are busy, wait until a batch is full,
        which costs them less than several small batches.
        """
        delay_ms = self.settings.max_batch_delay_ms
        if not delay_ms or not self._preprocessing or len(self._queue) >= BATCH_SIZE:
            return
        await asyncio.sleep(delay_ms / 1000)
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_BUSY_DELAY_SECONDS):
                while len(self._queue) < BATCH_SIZE and self._is_busy:
                    self._changed.clear()
                    await self._changed.wait()

    @property
    def _is_busy(self) -> bool:
        """Whether there is more work than cores."""
        work = self._preprocessing + len(self._batches)
        return self._preprocessing > 0 and work > self.settings.processes

    async def _run_batch(self, batch: Sequence[_QueuedFace]) -> None:
        self._on_batch(len(batch))
        pixels = np.stack([face.pixels for face in batch])
        loop = asyncio.get_running_loop()
        try:
            table = await loop.run_in_executor(self._threads, self._probabilities, pixels)
        except Exception as error:  # fails the requests of this batch; the next batch may succeed
            for face in batch:
                if not face.probabilities.done():
                    face.probabilities.set_exception(error)
            return
        for face, probabilities in zip(batch, table, strict=True):
            if not face.probabilities.done():
                face.probabilities.set_result(probabilities)

    def _probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Run the model: ``uint8 [N, H, W, 3]`` to ``float32 [N, 2]``."""
        if len(pixels) > _MAX_SINGLE_FACES:
            return self.classifier.probabilities(pixels)
        one_by_one = [
            self.classifier.probabilities(pixels[index : index + 1], is_alone=True)
            for index in range(len(pixels))
        ]
        return np.concatenate(one_by_one)
