"""Predict on a cluster: plan the shards, distribute them, write the manifest."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from facegender.cluster.scheduler import Cluster, claim_output, run_digest, write_manifest
from facegender.cluster.shards import SHARD_SIZE, plan_shards
from facegender.cluster.storage import OutputLocation, is_url, without_file_scheme
from facegender.cluster.worker import Job, ShardResult
from facegender.errors import InputError, StoppedError
from facegender.inference.classifier import Classifier
from facegender.inference.pipeline import PredictOptions
from facegender.model.model_file import read_model_file
from facegender.results.summary import RunSummary, SummaryCounter

ShardProgress: TypeAlias = Callable[[Iterator[ShardResult], int], Iterator[ShardResult]]
"""Wraps the stream of shard results, as tqdm does: takes it and the number of shards."""


def predict_to_shards(
    cluster: str,
    inputs: Sequence[str],
    output: str,
    options: PredictOptions,
    *,
    model: Path | None = None,
    shard_size: int | None = None,
    progress: ShardProgress | None = None,
) -> RunSummary:
    """Predict on all machines of a Ray cluster and write Parquet shards and a manifest.

    A run that was stopped resumes: call it again with the same arguments.

    Args:
        cluster: ``auto``, or ``HOST:PORT`` of the head.
        inputs: what to read; see :func:`facegender.cluster.shards.plan_shards`.
        output: a folder that all machines share, or a URL of an object store.
        options: how to predict.
        model: a model file or run folder; None takes the model that ships.
        shard_size: files per shard; None takes :data:`facegender.cluster.shards.SHARD_SIZE`.
        progress: wraps the stream of shard results, as tqdm does.

    Returns:
        Counts, first errors and the output.

    Raises:
        InputError: a missing input, an option that a cluster does not support, or no cluster.
        OutputError: the output belongs to another run, or cannot be written.
        StoppedError: Ctrl-C or SIGTERM; shards so far are kept.
        FacegenderError: the error of a machine.
    """
    started = time.perf_counter()
    if options.detector is not None:
        raise InputError("--detector does not go with --cluster: it is a file of this machine")
    if options.exclude:
        raise InputError("--exclude does not go with --cluster")
    location = _output_location(output)
    network = read_model_file(model)
    classifier = Classifier(network)
    stdin = sys.stdin.buffer.read() if "-" in inputs else None
    shards = plan_shards(
        inputs,
        recursive=options.recursive,
        limits=options.limits,
        shard_size=shard_size or SHARD_SIZE,
        stdin=stdin,
    )
    if not shards:
        raise InputError(f"No images found in {', '.join(inputs)}")
    depends_on = {
        "faces": options.faces,
        "min_confidence": classifier.threshold(options.min_confidence),
        "limits": [options.limits.pixels, options.limits.bytes],
    }
    run_id = run_digest(classifier.digest, depends_on)
    about = {"model": classifier.digest, "model_name": classifier.description.name}
    model_bytes = network.path.read_bytes()
    job = Job(location, run_id, model_bytes, classifier.digest, options, cores=1)
    done: list[ShardResult] = []
    with Cluster(cluster) as machines, _repeat_signals() as check_signals:
        claim_output(location, run_id, {**about, "options": depends_on})
        results = machines.predict(shards, job)
        try:
            for result in progress(results, len(shards)) if progress else results:
                check_signals()
                done.append(result)
        except (KeyboardInterrupt, SystemExit) as stop:
            code = stop.code if isinstance(stop, SystemExit) else 130
            raise StoppedError(
                f"Stopped after {len(done):,} of {len(shards):,} shards. To resume, run the same "
                "command",
                code if isinstance(code, int) else 130,
            ) from stop
        seconds = time.perf_counter() - started
        write_manifest(location, done, {"inputs": list(inputs), "seconds": round(seconds, 3)})
    return _sum_up(done, location, seconds)


def _output_location(output: str) -> OutputLocation:
    """Return where shards are written.

    Raises:
        InputError: it is the default output file of a run on one machine.
    """
    name = re.sub(r"^(\w[\w+.-]+:)/(?!/)", r"\1//", output)  # a Path has only one slash of two
    if name == "process_results.json":
        raise InputError("--cluster writes a folder of shards: give it with --output DIR")
    return OutputLocation(name if is_url(name) else os.path.abspath(without_file_scheme(name)))  # noqa: PTH100


def _sum_up(done: Sequence[ShardResult], location: OutputLocation, seconds: float) -> RunSummary:
    counter = SummaryCounter()
    for result in done:
        counter.add_summary(result.summary)
        counter.resumed += result.summary.images if result.is_cached else 0
    return counter.summary(outputs=[location.address], seconds=seconds)


@contextmanager
def _repeat_signals() -> Iterator[Callable[[], None]]:
    """Yield a function that raises an earlier stop again, which a callback of Ray can swallow."""
    stops: list[BaseException] = []

    def handle(number: int, frame: object) -> None:
        stops.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
        raise stops[-1]

    def check() -> None:
        if stops:
            raise stops[-1]

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: old for number, old in handlers.items() if old is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield check
    finally:
        for number, old in handlers.items():
            signal.signal(number, old)
