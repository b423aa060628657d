"""Pictures of many requests -> one network: read side by side, gathered into batches, answered."""

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

_FEW = 12
"""Up to so many faces go through the network one by one, which is quicker than a whole run: a face
alone takes 1.2 times its share of a run (2.4 and 2.0 ms, ONNX Runtime on one core)."""

_BUSY_SECONDS = 0.25
"""The longest that a face waits for a run to fill while all cores are at work."""


@dataclass(frozen=True, slots=True)
class TimedRows:
    """A picture's rows, and how long they took from when it was taken up."""

    rows: tuple[Prediction, ...]
    seconds: float


@dataclass(slots=True)
class _Waiting:
    """A face on its way to the network."""

    pixels: Pixels
    probabilities: asyncio.Future[NDArray[np.float32]]


class Engine:
    """One network that answers for all requests; an asynchronous context manager.

    Pictures are read in processes of their own, so that one that crashes or hangs its decoder costs
    its own row. Their faces are gathered for a few milliseconds, or while all cores are at work
    until a run is full, and go through the network together, in as many threads as the classifier
    has. At most ``settings.queue`` pictures are under way.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Take the network; nothing is started yet.

        Args:
            classifier: the network.
            settings: limits and waiting times.
            on_batch: is told how many faces went through the network together.

        Raises:
            InputError: another word for ``settings.faces``.
            ValueError: a threshold outside 0.5 to 1.
        """
        described = classifier.description
        self._readers = {
            word: PreprocessOptions(described.crop, described.resize, word, settings.limits)
            for word in FACE_MODES
        }
        PreprocessOptions(described.crop, described.resize, settings.faces)
        classifier.threshold(settings.min_confidence)
        self.classifier = classifier
        self.settings = settings
        self.images = 0
        """That are taken up and not answered yet."""
        self._on_batch = on_batch
        self._reading = 0
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._free = asyncio.Semaphore(classifier.threads)
        self._runs: set[asyncio.Task[None]] = set()
        self._rate = 0.0

    async def __aenter__(self) -> Self:
        """Start the processes, and see one picture through, so that the first request finds all.

        Raises:
            FacegenderError: a picture cannot be answered here at all.
        """
        # half of a request's time, so that what hangs costs its own row and not the request
        self._pool = WorkerPool(self.settings.processes, timeout=self.settings.seconds / 2)
        self._network = ThreadPoolExecutor(self.classifier.threads, "facegender-network")
        self._classifying = asyncio.create_task(self._classify())
        try:
            file = io.BytesIO()
            Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
            many = [Upload(None, file.getvalue())] * self.settings.processes
            answers = await asyncio.gather(*(self._answer(one, "whole", None) for one in many))
            if any(answer.rows[0].label is None for answer in answers):
                raise FacegenderError(f"no picture can be read here: {answers[0].rows[0].error}")
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
        for task in (self._classifying, *self._runs):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self._pool.__exit__, None, None, None)
        self._network.shutdown(cancel_futures=True)

    @property
    def is_full(self) -> bool:
        """Tell whether not one more picture would be taken up."""
        return self.images >= self.settings.queue

    def check_room(self, count: int) -> None:
        """Refuse pictures that the queue has no room for.

        Raises:
            ProblemError: says when to come again, by how fast pictures are answered now.
        """
        if self.images + count <= self.settings.queue:
            return
        seconds = self.images / self._rate if self._rate else 1.0
        raise ProblemError(
            "queue-full",
            f"{self.images} pictures wait, and {self.settings.queue} may.",
            headers={"Retry-After": str(min(60, max(1, round(seconds))))},
        )

    async def answer(
        self, uploads: Sequence[Upload], faces: str | None, min_confidence: float | None
    ) -> list[TimedRows]:
        """Answer for the pictures of one request, in their order.

        A caller that is cancelled gives up its place: what was not begun is not done.

        Args:
            uploads: the pictures.
            faces: ``auto``, ``detect``, ``whole``; None takes the server's setting.
            min_confidence: None takes the server's setting.

        Raises:
            ProblemError: there is no room for them, or they took too long.
        """
        self.check_room(len(uploads))
        self.images += len(uploads)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.seconds), asyncio.TaskGroup() as group:
                faces = faces or self.settings.faces
                tasks = [
                    group.create_task(self._answer(one, faces, min_confidence)) for one in uploads
                ]
        except TimeoutError:
            raise ProblemError(
                "timed-out",
                f"{len(uploads)} pictures were not answered within {self.settings.seconds:g} "
                "seconds.",
                headers={"Retry-After": "5"},
            ) from None
        finally:
            self.images -= len(uploads)
        rate = (self.images + len(uploads)) / (time.perf_counter() - started)
        self._rate = 0.8 * self._rate + 0.2 * rate if self._rate else rate
        return [task.result() for task in tasks]

    async def _answer(self, upload: Upload, faces: str, min_confidence: float | None) -> TimedRows:
        started = time.perf_counter()
        if min_confidence is None:
            min_confidence = self.settings.min_confidence
        try:
            reading = await self._read(upload, self._readers[faces])
        except (UnreadableImageError, WorkerDiedError) as error:
            rows: tuple[Prediction, ...] = (
                Prediction(upload.name, Status.UNREADABLE, error=str(error)),
            )
        else:
            found = [self._put(crop.pixels) for crop in reading.crops]
            both = iter(await asyncio.gather(*found))
            rows = self.classifier.rows(upload.name, reading, both, min_confidence)
        return TimedRows(rows, time.perf_counter() - started)

    async def _read(self, upload: Upload, reader: PreprocessOptions) -> PreprocessedImage:
        """Read a picture in one of the processes.

        Raises:
            UnreadableImageError, DiedError: it cannot be read.
        """
        if upload.problem:
            raise UnreadableImageError(upload.problem)
        self._reading += 1
        try:
            work = self._pool.submit(preprocess_file, upload.data, reader)
            reading = await asyncio.wrap_future(work)
        finally:
            self._reading -= 1
            self._arrived.set()  # whoever gathers may have waited for it
        if reading is None:
            raise UnreadableImageError("is no picture by its content")
        return reading

    def _put(self, pixels: Pixels) -> asyncio.Future[NDArray[np.float32]]:
        """Put a face before the network; the network comes to it soon."""
        waiting = _Waiting(pixels, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return waiting.probabilities

    async def _classify(self) -> None:
        """Take what waits to the network, for the engine's whole life."""
        while True:
            await self._free.acquire()
            batch: list[_Waiting] = []
            while not batch:
                self._arrived.clear()
                if self._waiting:
                    await self._gather()
                else:
                    await self._arrived.wait()
                taken = [
                    self._waiting.popleft() for _ in range(min(BATCH_SIZE, len(self._waiting)))
                ]
                batch = [one for one in taken if not one.probabilities.done()]  # else cancelled
            run = asyncio.create_task(self._answer_batch(batch))
            self._runs.add(run)
            run.add_done_callback(self._ended)

    def _ended(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        self._free.release()
        self._arrived.set()  # as where a picture is read

    async def _gather(self) -> None:
        """Wait for other faces to go through the network with those that wait.

        That is a few milliseconds. But while all cores are at work anyway it is until a run is
        full, which costs them less than a few faces at a time.
        """
        few = self.settings.gather_seconds
        if not few or not self._reading or len(self._waiting) >= BATCH_SIZE:
            return
        await asyncio.sleep(few)
        with suppress(TimeoutError):
            async with asyncio.timeout(_BUSY_SECONDS):
                while len(self._waiting) < BATCH_SIZE and self._is_busy:
                    self._arrived.clear()
                    await self._arrived.wait()

    @property
    def _is_busy(self) -> bool:
        """Tell whether more is under way than cores can work on."""
        return self._reading > 0 and self._reading + len(self._runs) > self.settings.processes

    async def _answer_batch(self, batch: Sequence[_Waiting]) -> None:
        self._on_batch(len(batch))
        pixels = np.stack([one.pixels for one in batch])
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._network, self._run, pixels)
        except Exception as error:  # whoever waits is told; the next batch may do
            for one in batch:
                if not one.probabilities.done():
                    one.probabilities.set_exception(error)
            return
        for one, both in zip(batch, found, strict=True):
            if not one.probabilities.done():
                one.probabilities.set_result(both)

    def _run(self, pixels: Pixels) -> NDArray[np.float32]:
        if len(pixels) > _FEW:
            return self.classifier.probabilities(pixels)
        one_by_one = [
            self.classifier.probabilities(pixels[at : at + 1], is_alone=True)
            for at in range(len(pixels))
        ]
        return np.concatenate(one_by_one)
