"""The same through S3's own protocol: a server on this machine, and the library that speaks it."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, image
from PIL import Image
from ray_nodes import (
    SECONDS,
    Nodes,
    command,
    facegender,
    needs_ray,
    rows_of,
    rows_of_one_machine,
)

boto3 = pytest.importorskip("boto3", reason="moto, boto3 and s3fs are not installed")
pytest.importorskip("s3fs", reason="moto, boto3 and s3fs are not installed")
server = pytest.importorskip("moto.server", reason="moto, boto3 and s3fs are not installed")

from pyarrow import parquet  # noqa: E402

from facegender.cluster.scheduler import MANIFEST_NAME, claim_output, write_manifest  # noqa: E402
from facegender.cluster.shards import plan_shards  # noqa: E402
from facegender.cluster.storage import OutputLocation, fetch  # noqa: E402
from facegender.cluster.worker import Job, Worker  # noqa: E402
from facegender.inference.classifier import Classifier  # noqa: E402
from facegender.inference.pipeline import PredictOptions  # noqa: E402

# The libraries' own warnings are not ours to answer for
pytestmark = pytest.mark.filterwarnings("default")
GOOD = encode(image("male", seed=1))
FILES = {"1.png": GOOD, "2.png": GOOD, "10.png": GOOD, "empty.png": b"", "é中.png": GOOD}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket behind HTTP; the environment says where it is, as on a machine of a cluster."""
    import fsspec

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    endpoint = "http://{}:{}".format(*running.get_host_and_port())
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="bucket")
        for name, data in FILES.items():
            client.put_object(Bucket="bucket", Key=f"photos/{name}", Body=data)
        client.put_object(Bucket="bucket", Key="packed/all.tar.gz", Body=file.getvalue())
        yield client
    running.stop()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def nodes(bucket: Any) -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.end()


@pytest.mark.parametrize("named", ["s3://bucket/photos", "s3://bucket/packed/*.tar.gz", "list"])
def test_a_bucket(
    named: str, bucket: Any, model_path: Path, classifier: Classifier, tmp_path: Path
) -> None:
    location = OutputLocation(f"s3://bucket/answers of {named.rpartition('/')[2]}")
    lines = "".join(f"s3://bucket/photos/{name}\n" for name in (*FILES, "gone.png"))
    shards = plan_shards(["-" if named == "list" else named], shard_size=2, stdin=lines.encode())
    claim_output(location, "a run", {})
    job = Job(
        location,
        "a run",
        model_path.read_bytes(),
        classifier.digest,
        PredictOptions(faces="whole", min_confidence=0.5),
        cores=1,
    )
    with Worker(job) as worker:
        done = [worker.run(shard) for shard in shards]
        assert all(worker.run(shard).is_cached for shard in shards)
    write_manifest(location, done, {})
    manifest = json.loads(location.read(MANIFEST_NAME) or b"")
    assert manifest["counts"]["male"] == 4
    assert manifest["counts"]["unreadable"] == (2 if named == "list" else 1)
    rows: dict[str, str] = {}
    for shard in manifest["shards"]:
        (data,) = fetch([f"{location.address}/{shard['file']}"])
        assert isinstance(data, bytes)
        for row in parquet.read_table(io.BytesIO(data)).to_pylist():
            rows[row["file"].rpartition("/")[2]] = row["status"]
    assert rows["é中.png"] == "ok" and rows["empty.png"] == "unreadable"
    if named == "list":
        assert rows["gone.png"] == "unreadable"


@needs_ray
def test_ray_reads_a_bucket_and_writes_into_one_also_when_a_worker_is_killed(
    bucket: Any, nodes: Nodes, tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    slow = encode(Image.fromarray(noise), "WEBP", lossless=True, quality=0)
    for number in range(32):
        (photos / f"{number} é中.webp").write_bytes(slow)
    (photos / "cut.webp").write_bytes(slow[:1000])
    for path in photos.iterdir():
        bucket.put_object(Bucket="bucket", Key=f"slow/{path.name}", Body=path.read_bytes())
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)  # whatever other cluster runs here
    common = ("--faces", "whole", "--model", model_path)
    options = ("--cluster", "auto", "--shard-size", "2", "--output", "s3://bucket/killed/answers")
    line = command("s3://bucket/slow", *common, *options)

    def shards() -> int:
        found = bucket.list_objects_v2(Bucket="bucket", Prefix="killed/answers/shard-")
        return int(found["KeyCount"])

    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        until = time.monotonic() + SECONDS
        while shards() < 3 or not nodes.actors_of_other():
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until, "no shard is written"
            time.sleep(0.05)
        assert shards() < 17, "too late to kill anything"
        os.kill(nodes.actors_of_other()[0], signal.SIGKILL)
        said, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 1, errors.decode()
    assert b"33 images" in said and b"unreadable        1" in said
    expected = rows_of_one_machine(tmp_path, photos, *common)
    assert rows_of("s3://bucket/killed/answers").equals(expected)

    again = facegender("s3://bucket/slow", *common, *options)
    assert again.returncode == 1 and "33 of them are from an earlier run" in again.stdout


@needs_ray
def test_ray_reads_an_archive_in_a_bucket(
    bucket: Any, nodes: Nodes, tmp_path: Path, model_path: Path
) -> None:
    common = ("--faces", "whole", "--model", model_path)
    options = ("--cluster", nodes.address, "--output", tmp_path / "answers")
    ended = facegender("s3://bucket/packed/*.tar.gz", *common, *options)
    assert ended.returncode == 1, ended.stderr  # one is empty
    (tmp_path / "all.tar.gz").write_bytes(
        bucket.get_object(Bucket="bucket", Key="packed/all.tar.gz")["Body"].read()
    )
    expected = rows_of_one_machine(tmp_path, tmp_path / "all.tar.gz", *common)
    assert rows_of(tmp_path / "answers").equals(expected)
