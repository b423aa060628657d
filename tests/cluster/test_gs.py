"""The same through Google's protocol: a server on this machine, and the library that speaks it."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import encode, image

os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # what no emulator has
gcsfs = pytest.importorskip("gcsfs", reason="gcsfs and gcp-storage-emulator are not installed")
emulator = pytest.importorskip(
    "gcp_storage_emulator.server", reason="gcsfs and gcp-storage-emulator are not installed"
)

from facegender.cluster.scheduler import MANIFEST_NAME, claim_output, write_manifest  # noqa: E402
from facegender.cluster.shards import plan_shards  # noqa: E402
from facegender.cluster.storage import OutputLocation  # noqa: E402
from facegender.cluster.worker import Job, Worker  # noqa: E402
from facegender.inference.classifier import Classifier  # noqa: E402
from facegender.inference.pipeline import PredictOptions  # noqa: E402

# The libraries' own warnings are not ours to answer for
pytestmark = pytest.mark.filterwarnings("default")
GOOD = encode(image("male", seed=1))
FILES = {"1.png": GOOD, "2.png": GOOD, "10.png": GOOD, "empty.png": b"", "é中.png": GOOD}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket behind HTTP; fsspec's configuration says where it is."""
    from fsspec.config import conf

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    running.start()
    where = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "any"}
    with pytest.MonkeyPatch.context() as environment:
        for protocol in ("gs", "gcs"):
            environment.setitem(conf, protocol, where)
        store = gcsfs.GCSFileSystem(**where)
        for name, data in FILES.items():
            store.pipe_file(f"bucket/photos/{name}", data)
        yield store
    running.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_a_bucket(bucket: Any, model_path: Path, classifier: Classifier) -> None:
    location = OutputLocation("gs://bucket/answers")
    claim_output(location, "a run", {})
    job = Job(
        location,
        "a run",
        model_path.read_bytes(),
        classifier.digest,
        PredictOptions(faces="whole", min_confidence=0.5),
        cores=1,
    )
    shards = plan_shards(["gs://bucket/photos"], shard_size=2)
    with Worker(job) as worker:
        done = [worker.run(shard) for shard in shards]
        assert all(worker.run(shard).is_cached for shard in shards)
    write_manifest(location, done, {})
    manifest = json.loads(location.read(MANIFEST_NAME) or b"")
    assert (manifest["counts"]["male"], manifest["counts"]["unreadable"]) == (4, 1)
    assert [shard.names for shard in shards] == [
        ("1.png", "2.png"),
        ("10.png", "empty.png"),
        ("é中.png",),
    ]
    bucket.pipe_file("bucket/photos/2.png", encode(image("female", seed=2)))
    again = plan_shards(["gs://bucket/photos"], shard_size=2)
    same = [before.state == after.state for before, after in zip(shards, again, strict=True)]
    assert same == [False, True, True]
