"""Parts -> all machines of a Ray cluster, by Ray Data; and the manifest when all are done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from facegender import __version__
from facegender.cluster.shards import Shard
from facegender.cluster.storage import OutputLocation
from facegender.cluster.worker import RUN_FILE, Job, ShardResult, Worker
from facegender.errors import FacegenderError, InputError, MissingExtraError, OutputError
from facegender.results.summary import SummaryCounter

MANIFEST_NAME = "manifest.json"
"""What a finished folder of answers holds: written last."""

CORES_PER_ACTOR = 2
"""Of one actor; on a machine with more there are several."""

_KNOCK_SECONDS = 10.0
_SHARD_FILE = re.compile(r"shard-\d{8}-[0-9a-f]{16}\.parquet")


class Cluster(AbstractContextManager["Cluster"]):
    """A connection to a Ray cluster that runs already."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: ``auto`` for the cluster that this machine belongs to, or its head's
                ``HOST:PORT``.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: there is no cluster.
        """
        if address.startswith("ray://"):
            raise InputError(
                "--cluster takes no ray:// address: give this command on a machine of the "
                "cluster, or send it there with  ray job submit"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ModuleNotFoundError as error:
            raise MissingExtraError("cluster", error.name or "ray") from error
        try:
            _knock(address)
            with _own_sigterm():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster answers at {address}. Start one with  ray start --head  and, on "
                f"the other machines,  ray start --address=HOST:6379  ({error})"
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._ray = ray

    def machines(self) -> list[int]:
        """Count the cores of each machine that may work."""
        alive = (node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"])
        return [int(cores) for cores in alive if cores >= 1]

    def answer(self, shards: Sequence[Shard], job: Job) -> Iterator[ShardResult]:
        """Have parts answered, each by one actor, in the order in which they get done.

        An actor or machine that dies takes its part with it, which another one does again.

        Raises:
            FacegenderError: what a worker found wrong; parts that are written stay.
        """
        from ray.data import ActorPoolStrategy, DataContext

        machines = self.machines()
        if not machines:
            raise InputError("no machine of the cluster has a core free for it (ray status)")
        cores = min(CORES_PER_ACTOR, *machines)
        actors = min(len(shards), sum(have // cores for have in machines))
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        rows = [{"part": pickle.dumps(shard)} for shard in shards]
        answers = self._ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(self._ray.put(replace(job, cores=cores)),),
            num_cpus=cores,
            compute=ActorPoolStrategy(
                min_size=1,
                initial_size=actors,
                max_size=len(shards),  # machines that join later get work too
                max_tasks_in_flight_per_actor=2,
            ),
        )
        try:
            for row in answers.iter_rows():
                yield ShardResult.from_json(row["done"])
        except self._ray.exceptions.RayError as error:
            raise _explained(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the cluster; actors of ours that still work end."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        """Give the connection."""
        return self


class _Actor:
    """What Ray starts on every machine."""

    def __init__(self, job: Any) -> None:
        self._task = job
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer for one part."""
        if self._worker is None:
            # Not earlier: an actor that cannot start says nothing, and is started over again
            import ray

            job = ray.get(self._task) if isinstance(self._task, ray.ObjectRef) else self._task
            self._worker = Worker(job)
        return {"done": self._worker.do(pickle.loads(row["part"])).to_json()}


def _knock(address: str) -> None:
    """Find out in seconds whether anyone is there; Ray itself tries for many minutes.

    Raises:
        OSError, ValueError: no one is, or it is no address.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), _KNOCK_SECONDS):
            pass


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray's own handler prints a trace and ends with exit code 15."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def _explained(error: BaseException) -> FacegenderError:
    """Find what a worker said among what Ray wraps around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, FacegenderError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return FacegenderError(
        f"the cluster stopped ({type(error).__name__}: {reason}). What is written is kept; the "
        "same command goes on from there"
    )


def run_digest(digest: str, options: Mapping[str, Any]) -> str:
    """Digest what all answers of a run depend on but the pictures."""
    text = json.dumps([digest, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_output(location: OutputLocation, run_id: str, about: Mapping[str, Any]) -> None:
    """Take a folder for a run: a new one, or one in which the same run was begun.

    Args:
        place: the folder.
        binding: see :func:`run_digest`.
        about: what a person may want to know of the run.

    Raises:
        OutputError: it holds the answers of another network or other options, or other files.
    """
    location.create()
    known = location.read(RUN_FILE)
    if known is None:
        if any(map(_SHARD_FILE.fullmatch, location.names())):
            raise OutputError(
                f"{location.address} holds parts but no {RUN_FILE}: whose they are cannot be told. "
                "Name another folder"
            )
        begun = datetime.now().astimezone().isoformat(timespec="seconds")
        run = {"run_id": run_id, "begun": begun, "facegender": __version__, **about}
        location.write(RUN_FILE, _json(run))
        return
    try:
        earlier = json.loads(known)
        is_same = earlier["run_id"] == run_id
    except (ValueError, KeyError, TypeError):
        raise OutputError(
            f"{location.address} holds a {RUN_FILE} of something else. Name another folder"
        ) from None
    if not is_same:
        raise OutputError(
            f"{location.address} holds the answers of another model or of other options (model "
            f"{str(earlier.get('model'))[:16]}, options {earlier.get('options')}). Name another "
            "folder for these"
        )
    location.remove(MANIFEST_NAME)  # until all parts are there again


def write_manifest(
    location: OutputLocation, shards: Sequence[ShardResult], about: Mapping[str, Any]
) -> None:
    """Remove parts of files that have changed since, and write the manifest.

    Raises:
        OutputError: it cannot be written.
    """
    mine = {shard.name for shard in shards}
    for name in location.names():
        if _SHARD_FILE.fullmatch(name) and name not in mine:
            location.remove(name)
    counter = SummaryCounter()
    for shard in shards:
        counter.add_summary(shard.summary)
    run = json.loads(location.read(RUN_FILE) or b"{}")
    manifest = {
        **run,
        **about,
        "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
        "images": counter.summary().images,
        "rows": sum(shard.rows for shard in shards),
        "counts": counter.counts,
        "shards": [
            {
                "file": shard.name,
                "images": shard.summary.images,
                "rows": shard.rows,
                "counts": shard.summary.counts,
            }
            for shard in sorted(shards, key=lambda shard: shard.number)
        ],
    }
    location.write(MANIFEST_NAME, _json(manifest))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
