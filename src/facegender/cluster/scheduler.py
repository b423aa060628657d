"""Distribute shards over a Ray cluster with Ray Data; the run file and the manifest."""

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
"""The file in an output folder that lists the shards: written last."""

CORES_PER_ACTOR = 2
"""A machine with more cores runs several actors."""

_CONNECT_SECONDS = 10.0
_SHARD_FILE = re.compile(r"shard-\d{8}-[0-9a-f]{16}\.parquet")


class Cluster(AbstractContextManager["Cluster"]):
    """A connection to a running Ray cluster."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: ``auto`` for the cluster of this machine, or ``HOST:PORT`` of its head.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: no cluster answers.
        """
        if address.startswith("ray://"):
            raise InputError(
                "--cluster takes no ray:// address. Run this command on a machine of the cluster, "
                "or submit it with  ray job submit"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ModuleNotFoundError as error:
            raise MissingExtraError("cluster", error.name or "ray") from error
        try:
            _check_reachable(address)
            with _keep_sigterm_handler():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"No Ray cluster answers at {address} ({error}). Start one with  ray start --head  "
                "and, on the other machines,  ray start --address=HOST:6379"
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._ray = ray

    def machines(self) -> list[int]:
        """Return the number of cores of each available machine."""
        alive = (node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"])
        return [int(cores) for cores in alive if cores >= 1]

    def predict(self, shards: Sequence[Shard], job: Job) -> Iterator[ShardResult]:
        """Predict shards, each in one actor; yield results in the order of completion.

        If an actor or machine dies, another one repeats its shard.

        Args:
            shards: the shards.
            job: what they have in common.

        Raises:
            InputError: no machine has a free core.
            FacegenderError: the error of a worker; shards that are written stay.
        """
        from ray.data import ActorPoolStrategy, DataContext

        machines = self.machines()
        if not machines:
            raise InputError("No machine of the cluster has a free core. Check it with  ray status")
        cores = min(CORES_PER_ACTOR, *machines)
        actors = min(len(shards), sum(have // cores for have in machines))
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        rows = [{"shard": pickle.dumps(shard)} for shard in shards]
        results = self._ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(self._ray.put(replace(job, cores=cores)),),
            num_cpus=cores,
            compute=ActorPoolStrategy(
                min_size=1,
                initial_size=actors,
                max_size=len(shards),  # also for machines that join later
                max_tasks_in_flight_per_actor=2,
            ),
        )
        try:
            for row in results.iter_rows():
                yield ShardResult.from_json(row["result"])
        except self._ray.exceptions.RayError as error:
            raise _find_cause(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect, which ends our actors."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        """Return the connection."""
        return self


class _Actor:
    """What Ray runs on every machine."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict one shard."""
        if self._worker is None:
            # Not in __init__: Ray restarts an actor that fails there, without its error
            import ray

            job = ray.get(self._job) if isinstance(self._job, ray.ObjectRef) else self._job
            self._worker = Worker(job)
        return {"result": self._worker.run(pickle.loads(row["shard"])).to_json()}


def _check_reachable(address: str) -> None:
    """Check in seconds whether the head answers; Ray itself tries for minutes.

    Raises:
        OSError, ValueError: it does not answer, or ``address`` is not ``HOST:PORT``.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS):
            pass


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler: Ray's own prints a traceback and exits with code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _find_cause(error: BaseException) -> FacegenderError:
    """Find the worker's error inside Ray's."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, FacegenderError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return FacegenderError(
        f"The cluster stopped ({type(error).__name__}: {reason}). Shards so far are kept. To "
        "resume, run the same command"
    )


def run_digest(digest: str, options: Mapping[str, Any]) -> str:
    """Return a digest of everything besides the images that the rows of a run depend on.

    Args:
        digest: SHA-256 of the model file.
        options: the options that change rows.
    """
    text = json.dumps([digest, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def claim_output(location: OutputLocation, run_id: str, about: Mapping[str, Any]) -> None:
    """Create the output folder of a run, or open it to resume the run.

    Args:
        location: the folder.
        run_id: see :func:`run_digest`.
        about: facts about the run, for the run file.

    Raises:
        OutputError: the folder belongs to a run with another model or other options, or cannot be
            written.
    """
    location.create()
    text = location.read(RUN_FILE)
    if text is None:
        if any(map(_SHARD_FILE.fullmatch, location.names())):
            raise OutputError(
                f"{location.address} has shards but no {RUN_FILE}, so their run is unknown. Use "
                "another folder"
            )
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        run = {"run_id": run_id, "started": started, "facegender": __version__, **about}
        location.write(RUN_FILE, _to_json(run))
        return
    try:
        earlier = json.loads(text)
        is_same = earlier["run_id"] == run_id
    except (ValueError, KeyError, TypeError):
        raise OutputError(
            f"{location.address} has a {RUN_FILE} of another program. Use another folder"
        ) from None
    if not is_same:
        raise OutputError(
            f"{location.address} has the results of another model or of other options (model "
            f"{str(earlier.get('model'))[:16]}, options {earlier.get('options')}). Use another "
            "folder"
        )
    location.remove(MANIFEST_NAME)  # until all shards are complete again


def write_manifest(
    location: OutputLocation, shards: Sequence[ShardResult], about: Mapping[str, Any]
) -> None:
    """Write the manifest, and remove shards of an earlier state of the inputs.

    Args:
        location: the output folder.
        shards: the results of all shards.
        about: facts about the run, besides those in the run file.

    Raises:
        OutputError: it cannot be written.
    """
    current = {shard.name for shard in shards}
    for name in location.names():
        if _SHARD_FILE.fullmatch(name) and name not in current:
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
    location.write(MANIFEST_NAME, _to_json(manifest))


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
