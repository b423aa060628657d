"""``facegender predict --cluster``: the same answers from many machines, as Parquet parts."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from facegender.cli.progress import bar, show_summary
from facegender.errors import InputError, MissingExtraError, StoppedError
from facegender.results.summary import Summary

if TYPE_CHECKING:
    from facegender.cluster.worker import Done


def predict_on_cluster(
    cluster: str,
    inputs: Sequence[str],
    output: Path,
    *,
    refused: Mapping[str, object],
    faces: str,
    recursive: bool,
    model: Path | None,
    unknown_below: float | None,
    retry_errors: bool,
    max_pixels: int | None,
    max_bytes: int | None,
    time_limit: float,
    part: int | None,
    quiet: bool,
) -> int:
    """Answer on all machines of a cluster; the arguments are those of ``predict``.

    Returns:
        The exit code.

    Raises:
        FacegenderError: wrong use, no cluster, or what a machine found wrong.
    """
    try:
        import fsspec  # noqa: F401
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", str(error.name)) from None
    from facegender.cluster.scheduler import Cluster, begin, binding_of, finish
    from facegender.cluster.shards import PART, plan
    from facegender.cluster.storage import Place, as_path, is_address
    from facegender.cluster.worker import Task
    from facegender.images.formats import LIMITS, Limits
    from facegender.inference.classifier import Classifier
    from facegender.inference.preprocess import check_faces
    from facegender.model.model_file import read_model_file

    for option, value in refused.items():
        if value:
            raise InputError(f"{option} does not go with --cluster, which writes Parquet parts")
    named = re.sub(r"^(\w[\w+.-]+:)/(?!/)", r"\1//", str(output))  # a Path has lost one of them
    if named == "process_results.json":
        raise InputError("--cluster writes a folder of parts: name it with --output DIR")
    place = Place(named if is_address(named) else os.path.abspath(as_path(named)))  # noqa: PTH100
    started = time.perf_counter()
    limits = Limits(max_pixels or LIMITS.pixels, max_bytes or LIMITS.bytes)
    check_faces(faces)
    network = read_model_file(model)
    classifier = Classifier(network)
    options = {
        "faces": faces,
        "unknown_below": classifier.threshold(unknown_below),
        "limits": [limits.pixels, limits.bytes],
    }
    listed = sys.stdin.buffer.read() if "-" in inputs else None
    parts = plan(inputs, recursive=recursive, limits=limits, part=part or PART, listed=listed)
    if not parts:
        raise InputError(f"no pictures found in {', '.join(inputs)}")
    binding = binding_of(classifier.digest, options)
    task = Task(
        output=place,
        binding=binding,
        model=network.path.read_bytes(),
        digest=classifier.digest,
        faces=faces,
        unknown_below=classifier.threshold(unknown_below),
        limits=limits,
        seconds=time_limit,
        cores=1,
        retry_errors=retry_errors,
    )
    about = {"model": classifier.digest, "model_name": classifier.description.name}
    summary = Summary()
    done: list[Done] = []
    with Cluster(cluster) as machines, _heard() as check:
        begin(place, binding, {**about, "options": options})
        try:
            for each in _with_progress(machines.answer(parts, task), len(parts), quiet=quiet):
                check()
                done.append(each)
                for status, count in each.counts.items():
                    summary.counts[status] += count
                summary.faces += each.faces
                summary.kept += each.pictures if each.is_kept else 0
                summary.reasons = [*summary.reasons, *each.reasons][:5]
        except (KeyboardInterrupt, SystemExit) as stop:
            code = stop.code if isinstance(stop, SystemExit) else 130
            raise StoppedError(
                f"stopped after {len(done):,} of {len(parts):,} parts; what is written is kept, "
                "and the same command goes on from there",
                code if isinstance(code, int) else 130,
            ) from stop
        seconds = time.perf_counter() - started
        finish(place, done, {"inputs": list(inputs), "seconds": round(seconds, 3)})
    if not quiet:
        show_summary(summary, ", ".join(inputs), [place.address], seconds)
        if summary.counts["unreadable"]:
            typer.echo("the same command with --retry-errors does only the parts of these again")
    return 1 if summary.counts["unreadable"] else 0


@contextmanager
def _heard() -> Iterator[Callable[[], None]]:
    """Give what raises a stop again: one that meets a callback of Ray's is lost."""
    stops: list[BaseException] = []

    def note(number: int, frame: object) -> None:
        stops.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
        raise stops[-1]

    def check() -> None:
        if stops:
            raise stops[-1]

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, note)
    try:
        yield check
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _with_progress(done: Iterator[Done], total: int, *, quiet: bool) -> Iterator[Done]:
    """Hand parts on and show how far they are."""
    with bar("parts, {speed:,.1f} pictures/s", total, quiet=quiet) as step:
        started, pictures = time.monotonic(), 0
        for each in done:
            pictures += 0 if each.is_kept else each.pictures
            step(pictures / (time.monotonic() - started))
            yield each
