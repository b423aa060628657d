from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made import build_model, encode, image

fsspec = pytest.importorskip("fsspec", reason="the extra 'cluster' is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="the extra 'cluster' is not installed")

from pyarrow import parquet  # noqa: E402

from facegender.cluster.scheduler import MANIFEST_NAME, claim_output, write_manifest  # noqa: E402
from facegender.cluster.shards import Shard, plan_shards  # noqa: E402
from facegender.cluster.storage import OutputLocation  # noqa: E402
from facegender.cluster.worker import Job, ShardResult, Worker, shard_files  # noqa: E402
from facegender.errors import FacegenderError, InputError, OutputError  # noqa: E402
from facegender.images.formats import ImageLimits  # noqa: E402
from facegender.inference.classifier import Classifier  # noqa: E402
from facegender.inference.pipeline import PredictOptions, predict_files  # noqa: E402
from facegender.results.details import DetailsWriter  # noqa: E402

Photos = Callable[..., Path]
GOOD = encode(image("male", seed=1))
JPEG = encode(image("female", size=(160, 120), seed=2), "JPEG")
FILES: dict[str, bytes] = {
    "1.png": GOOD,
    "2.jpg": JPEG,
    "10.jpg": JPEG,
    "é中.jpg": JPEG,
    "no suffix": GOOD,
    "notes.txt": b"hello",
    "._photo.jpg": b"\x00\x05\x16\x07" + bytes(60),
    "empty.jpg": b"",
    "empty": b"",
    "cut.jpg": JPEG[: len(JPEG) // 2],
    "text.png": b"only text",
}


@pytest.fixture
def store() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


def job_for(location: OutputLocation, model: bytes, **changes: Any) -> Job:
    claim_output(location, "a run", {"model": "mean", "options": {}})
    values: dict[str, Any] = {
        "output": location,
        "run_id": "a run",
        "model": model,
        "digest": changes.pop("digest"),
        "options": PredictOptions(faces="whole", min_confidence=0.5),
        "cores": 1,
    }
    return Job(**(values | changes))


@pytest.fixture
def worker(tmp_path: Path, model_path: Path, classifier: Classifier) -> Iterator[Worker]:
    location = OutputLocation(str(tmp_path / "answers"))
    with Worker(job_for(location, model_path.read_bytes(), digest=classifier.digest)) as worker:
        yield worker


def table_of(location: Path, shards: list[ShardResult]) -> Any:
    return pyarrow.concat_tables([parquet.read_table(location / shard.name) for shard in shards])


def local_table(inputs: Any, classifier: Classifier, location: Path) -> Any:
    with DetailsWriter(location) as details:
        for each in predict_files(inputs, classifier, PredictOptions(faces="whole")):
            for row in each.rows:
                details.append(row)
    return parquet.read_table(location)


def packed(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_shards_have_the_rows_of_one_machine(
    worker: Worker, classifier: Classifier, photos: Photos, tmp_path: Path
) -> None:
    from facegender.inputs.paths import collect_inputs

    folder = photos(FILES)
    done = [worker.run(shard) for shard in plan_shards([str(folder)], shard_size=3)]
    table = table_of(tmp_path / "answers", done)
    assert table.equals(
        local_table(collect_inputs([folder]), classifier, tmp_path / "local.parquet")
    )
    assert sum(shard.rows for shard in done) == table.num_rows == 9 - 1
    assert sum(shard.summary.counts["unreadable"] for shard in done) == 3
    assert sum(shard.summary.counts["skipped"] for shard in done) == 2
    reasons = {reason.partition(":")[0] for shard in done for reason in shard.summary.errors}
    assert reasons == {"cut.jpg", "empty.jpg", "text.png"}


@pytest.mark.parametrize("kind", ["folder", "list", "tar", "tar.gz", "zip"])
def test_a_store_gives_the_rows_of_a_disk(
    kind: str, worker: Worker, classifier: Classifier, photos: Photos, tmp_path: Path, store: Any
) -> None:
    from facegender.inputs.paths import collect_inputs

    folder = photos(FILES)
    (tmp_path / f"all.{kind}").write_bytes(b"" if kind in ("folder", "list") else packed(kind))
    for name, data in FILES.items():
        store.pipe_file(f"/bucket/photos/{name}", data)
    if kind == "folder":
        shards, local = (
            plan_shards(["memory://bucket/photos"], shard_size=4),
            collect_inputs([folder]),
        )
    elif kind == "list":
        lines = "".join(f"memory://bucket/photos/{name}\n" for name in FILES)
        shards, local = (
            plan_shards(["-"], shard_size=4, stdin=lines.encode()),
            collect_inputs([folder]),
        )
    else:
        store.pipe_file(f"/bucket/all.{kind}", packed(kind))
        shards = plan_shards([f"memory://bucket/all.{kind}"])
        local = collect_inputs([tmp_path / f"all.{kind}"])
    table = table_of(tmp_path / "answers", [worker.run(shard) for shard in shards])
    expected = local_table(local, classifier, tmp_path / "local.parquet")
    if kind == "list":
        keys = [f"memory://bucket/photos/{name}" for name in expected["file"].to_pylist()]
        expected = expected.set_column(0, "file", [pyarrow.array(keys)])
        table, expected = table.sort_by("file"), expected.sort_by("file")
    assert table.equals(expected)


def test_what_a_store_does_not_give(worker: Worker, tmp_path: Path, store: Any) -> None:
    store.pipe_file("/bucket/a.png", GOOD)
    (shard,) = plan_shards(["-"], stdin=b"memory://bucket/a.png\nmemory://bucket/gone.jpg\n")
    done = worker.run(shard)
    rows = parquet.read_table(tmp_path / "answers" / done.name).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "unreadable"]
    assert rows[1]["error"] == "file not found"


def test_limits_hold_in_a_store(store: Any) -> None:
    store.pipe_file("/bucket/photos/a.png", GOOD)
    (listed,) = plan_shards(["-"], stdin=b"memory://bucket/photos/a.png")
    for shard in (*plan_shards(["memory://bucket/photos"]), listed):
        (item,) = shard_files(shard, ImageLimits(bytes=10))
        assert "over the limit of 10" in item.problem and not item.data
    store.pipe_file("/bucket/all.tar", packed("tar"))
    found = shard_files(plan_shards(["memory://bucket/all.tar"])[0], ImageLimits(bytes=10))
    assert any("over the limit of 10" in item.problem for item in found)


def test_a_damaged_archive_of_a_store_says_so(worker: Worker, tmp_path: Path, store: Any) -> None:
    store.pipe_file("/bucket/all.tar.gz", packed("tar.gz")[:-40])
    done = worker.run(plan_shards(["memory://bucket/all.tar.gz"])[0])
    assert done.summary.counts["unreadable"] >= 1
    assert any("damaged" in reason for reason in done.summary.errors)


def test_a_finished_shard_is_not_done_again(
    worker: Worker, photos: Photos, tmp_path: Path, model_path: Path, classifier: Classifier
) -> None:
    folder = photos(FILES)
    shards = plan_shards([str(folder)], shard_size=3)
    first = [worker.run(shard) for shard in shards]
    again = [worker.run(shard) for shard in shards]
    assert all(shard.is_cached for shard in again) and not any(shard.is_cached for shard in first)
    assert [(shard.name, shard.rows, shard.summary.counts) for shard in again] == [
        (shard.name, shard.rows, shard.summary.counts) for shard in first
    ]
    # a truncated shard is predicted again
    broken = tmp_path / "answers" / first[0].name
    broken.write_bytes(broken.read_bytes()[:-20])
    assert not worker.run(shards[0]).is_cached and worker.run(shards[0]).is_cached
    job = job_for(
        OutputLocation(str(tmp_path / "answers")),
        model_path.read_bytes(),
        digest=classifier.digest,
        options=PredictOptions(faces="whole", min_confidence=0.5, retry_errors=True),
    )
    with Worker(job) as retrying:
        cached = [retrying.run(shard).is_cached for shard in shards]
    assert cached == [not shard.summary.counts["unreadable"] for shard in first]
    assert True in cached and False in cached


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    location = OutputLocation(str(tmp_path / "answers"))
    claim_output(location, "a run", {"model": "mean", "options": {"faces": "auto"}})
    claim_output(location, "a run", {})
    with pytest.raises(OutputError, match="another model or of other options"):
        claim_output(location, "another run", {})
    (tmp_path / "answers" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="of another program"):
        claim_output(location, "a run", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write into"):
        claim_output(OutputLocation(str(tmp_path / "file" / "answers")), "a run", {})


@pytest.mark.parametrize("address", ["memory://bucket/answers", "{tmp}/answers"])
def test_the_manifest_is_there_only_when_all_is(
    address: str,
    model_path: Path,
    classifier: Classifier,
    photos: Photos,
    tmp_path: Path,
    store: Any,
) -> None:
    folder = photos(FILES)
    location = OutputLocation(address.format(tmp=tmp_path))
    with Worker(job_for(location, model_path.read_bytes(), digest=classifier.digest)) as worker:
        done = [worker.run(shard) for shard in plan_shards([str(folder)], shard_size=4)]
        assert location.read(MANIFEST_NAME) is None
        write_manifest(location, done, {"inputs": [str(folder)]})
        manifest = json.loads(location.read(MANIFEST_NAME) or b"")
        assert manifest["images"] == sum(shard.summary.images for shard in done) == 8
        assert [shard["file"] for shard in manifest["shards"]] == [shard.name for shard in done]
        claim_output(location, "a run", {})
        assert location.read(MANIFEST_NAME) is None
        # one more image: shards of the earlier state are removed when the new ones are complete
        (folder / "0.png").write_bytes(GOOD)
        more = [worker.run(shard) for shard in plan_shards([str(folder)], shard_size=4)]
        write_manifest(location, more, {})
    names = [name for name in location.names() if name.startswith("shard-")]
    assert sorted(names) == [shard.name for shard in more]
    assert not [name for name in location.names() if name.endswith(".tmp")]


def test_a_machine_that_is_not_like_the_others(
    tmp_path: Path, model_path: Path, classifier: Classifier
) -> None:
    location = OutputLocation(str(tmp_path / "answers"))
    model = model_path.read_bytes()
    job = job_for(location, model, digest=classifier.digest, version="9.9")
    with pytest.raises(FacegenderError, match="same version"):
        Worker(job)
    with pytest.raises(FacegenderError, match="damaged"):
        Worker(job_for(location, build_model({"name": "other"}), digest=classifier.digest))
    (tmp_path / "answers" / "run.json").unlink()
    with pytest.raises(OutputError, match="does not see the output folder"):
        Worker(Job(**{**_values(job), "version": Job.__dataclass_fields__["version"].default}))


def _values(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def test_a_machine_that_does_not_see_the_images(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not see"):
        worker.run(Shard(0, str(tmp_path / "elsewhere"), names=("a.jpg",)))
