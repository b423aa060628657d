"""The same through S3's own protocol: a server on this machine, and the library that speaks it."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import encode, picture

boto3 = pytest.importorskip("boto3", reason="moto, boto3 and s3fs are not installed")
pytest.importorskip("s3fs", reason="moto, boto3 and s3fs are not installed")
server = pytest.importorskip("moto.server", reason="moto, boto3 and s3fs are not installed")

from pyarrow import parquet  # noqa: E402

from facegender.classifier import Classifier  # noqa: E402
from facegender.cluster.plan import plan  # noqa: E402
from facegender.cluster.spread import MANIFEST, begin, finish  # noqa: E402
from facegender.cluster.stores import Place, fetch  # noqa: E402
from facegender.cluster.work import Task, Worker  # noqa: E402
from facegender.images import LIMITS  # noqa: E402

# The libraries' own warnings are not ours to answer for
pytestmark = pytest.mark.filterwarnings("default")
GOOD = encode(picture("male", seed=1))
FILES = {"1.png": GOOD, "2.png": GOOD, "10.png": GOOD, "empty.png": b"", "é中.png": GOOD}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import fsspec

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    endpoint = "http://{}:{}".format(*running.get_host_and_port())
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="bucket")
    for name, data in FILES.items():
        client.put_object(Bucket="bucket", Key=f"photos/{name}", Body=data)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    client.put_object(Bucket="bucket", Key="packed/all.tar.gz", Body=file.getvalue())
    yield client
    running.stop()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize("named", ["s3://bucket/photos", "s3://bucket/packed/*.tar.gz", "list"])
def test_a_bucket(
    named: str, bucket: Any, model_path: Path, classifier: Classifier, tmp_path: Path
) -> None:
    place = Place("s3://bucket/answers")
    lines = "".join(f"s3://bucket/photos/{name}\n" for name in (*FILES, "gone.png"))
    parts = plan(["-" if named == "list" else named], part=2, listed=lines.encode())
    begin(place, "a run", {})
    task = Task(
        place, "a run", model_path.read_bytes(), classifier.digest, "whole", 0.5, LIMITS, 60.0, 1
    )
    with Worker(task) as worker:
        done = [worker.do(part) for part in parts]
        assert all(worker.do(part).is_kept for part in parts)
    finish(place, done, {})
    manifest = json.loads(place.read(MANIFEST) or b"")
    assert manifest["counts"]["male"] == 4
    assert manifest["counts"]["unreadable"] == (2 if named == "list" else 1)
    rows: dict[str, str] = {}
    for part in manifest["parts"]:
        (data,) = fetch([f"s3://bucket/answers/{part['file']}"])
        assert isinstance(data, bytes)
        for row in parquet.read_table(io.BytesIO(data)).to_pylist():
            rows[row["file"].rpartition("/")[2]] = row["status"]
    assert rows["é中.png"] == "ok" and rows["empty.png"] == "unreadable"
    if named == "list":
        assert rows["gone.png"] == "unreadable"
