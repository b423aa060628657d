"""``facegender predict --cluster``: predict on many machines, to Parquet shards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from facegender.cli.progress import progress_bar, show_summary
from facegender.errors import MissingExtraError

if TYPE_CHECKING:
    from facegender.cluster.worker import ShardResult
    from facegender.inference.pipeline import PredictOptions


def predict_on_cluster(
    cluster: str,
    inputs: Sequence[str],
    output: Path,
    options: PredictOptions,
    model: Path | None,
    shard_size: int | None,
    *,
    quiet: bool,
) -> int:
    """Predict on all machines of a cluster, show progress and print the summary.

    Args:
        cluster: ``auto``, or ``HOST:PORT`` of the head.
        inputs: as the user named them.
        output: folder or URL for the shards.
        options: how to predict.
        model: a model file or run folder; None takes the model that ships.
        shard_size: files per shard; None takes the default.
        quiet: print nothing.

    Returns:
        The exit code.

    Raises:
        FacegenderError: wrong use, no cluster, or the error of a machine.
    """
    try:
        import fsspec  # noqa: F401
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", str(error.name)) from None
    from facegender.cluster.driver import predict_to_shards

    summary = predict_to_shards(
        cluster,
        inputs,
        str(output),
        options,
        model=model,
        shard_size=shard_size,
        progress=None if quiet else _with_shard_progress,
    )
    if not quiet:
        show_summary(summary, ", ".join(inputs))
        if summary.counts["unreadable"] or summary.counts["unsupported"]:
            typer.echo(
                "To retry only the shards of images that were not read, run it again with "
                "--retry-errors"
            )
    return 1 if summary.has_failures else 0


def _with_shard_progress(results: Iterator[ShardResult], total: int) -> Iterator[ShardResult]:
    """Yield shards and show their number."""
    with progress_bar("shards, {speed:,.1f} images/s", total) as step:
        started, images = time.monotonic(), 0
        for result in results:
            images += 0 if result.is_cached else result.summary.images
            step(images / (time.monotonic() - started))
            yield result
