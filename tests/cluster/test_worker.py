from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made import build_model, encode, picture

fsspec = pytest.importorskip("fsspec", reason="the extra 'cluster' is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="the extra 'cluster' is not installed")

from pyarrow import parquet  # noqa: E402

from facegender.cluster.scheduler import MANIFEST, begin, finish  # noqa: E402
from facegender.cluster.shards import Part, plan  # noqa: E402
from facegender.cluster.storage import Place  # noqa: E402
from facegender.cluster.worker import Done, Task, Worker, items_of  # noqa: E402
from facegender.errors import FacegenderError, InputError, OutputError  # noqa: E402
from facegender.images.formats import LIMITS, Limits  # noqa: E402
from facegender.inference.classifier import Classifier  # noqa: E402
from facegender.inference.pipeline import predict_items  # noqa: E402
from facegender.results.details import DetailsWriter  # noqa: E402

Photos = Callable[..., Path]
GOOD = encode(picture("male", seed=1))
JPEG = encode(picture("female", size=(160, 120), seed=2), "JPEG")
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


def task_for(place: Place, model: bytes, **changes: Any) -> Task:
    begin(place, "a run", {"model": "mean", "options": {}})
    values: dict[str, Any] = {
        "output": place,
        "binding": "a run",
        "model": model,
        "digest": changes.pop("digest"),
        "faces": "whole",
        "unknown_below": 0.5,
        "limits": LIMITS,
        "seconds": 60.0,
        "cores": 1,
    }
    return Task(**(values | changes))


@pytest.fixture
def worker(tmp_path: Path, model_path: Path, classifier: Classifier) -> Iterator[Worker]:
    place = Place(str(tmp_path / "answers"))
    with Worker(task_for(place, model_path.read_bytes(), digest=classifier.digest)) as worker:
        yield worker


def table_of(place: Path, parts: list[Done]) -> Any:
    return pyarrow.concat_tables([parquet.read_table(place / part.name) for part in parts])


def local_table(inputs: Any, classifier: Classifier, place: Path) -> Any:
    with DetailsWriter(place) as details:
        for each in predict_items(inputs, classifier, faces="whole"):
            for row in each.rows:
                details.append(row)
    return parquet.read_table(place)


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


def test_parts_have_the_rows_of_one_machine(
    worker: Worker, classifier: Classifier, photos: Photos, tmp_path: Path
) -> None:
    from facegender.inputs.paths import gather

    folder = photos(FILES)
    done = [worker.do(part) for part in plan([str(folder)], part=3)]
    table = table_of(tmp_path / "answers", done)
    assert table.equals(local_table(gather([folder]), classifier, tmp_path / "local.parquet"))
    assert sum(part.rows for part in done) == table.num_rows == 9 - 1
    assert sum(part.counts["unreadable"] for part in done) == 3
    assert sum(part.counts["skipped"] for part in done) == 3
    reasons = {reason.partition(":")[0] for part in done for reason in part.reasons}
    assert reasons == {"cut.jpg", "empty.jpg", "text.png"}


@pytest.mark.parametrize("kind", ["folder", "list", "tar", "tar.gz", "zip"])
def test_a_store_gives_the_rows_of_a_disk(
    kind: str, worker: Worker, classifier: Classifier, photos: Photos, tmp_path: Path, store: Any
) -> None:
    from facegender.inputs.paths import gather

    folder = photos(FILES)
    (tmp_path / f"all.{kind}").write_bytes(b"" if kind in ("folder", "list") else packed(kind))
    for name, data in FILES.items():
        store.pipe_file(f"/bucket/photos/{name}", data)
    if kind == "folder":
        parts, local = plan(["memory://bucket/photos"], part=4), gather([folder])
    elif kind == "list":
        lines = "".join(f"memory://bucket/photos/{name}\n" for name in FILES)
        parts, local = plan(["-"], part=4, listed=lines.encode()), gather([folder])
    else:
        store.pipe_file(f"/bucket/all.{kind}", packed(kind))
        parts = plan([f"memory://bucket/all.{kind}"])
        local = gather([tmp_path / f"all.{kind}"])
    table = table_of(tmp_path / "answers", [worker.do(part) for part in parts])
    expected = local_table(local, classifier, tmp_path / "local.parquet")
    if kind == "list":
        keys = [f"memory://bucket/photos/{name}" for name in expected["file"].to_pylist()]
        expected = expected.set_column(0, "file", [pyarrow.array(keys)])
        table, expected = table.sort_by("file"), expected.sort_by("file")
    assert table.equals(expected)


def test_what_a_store_does_not_give(worker: Worker, tmp_path: Path, store: Any) -> None:
    store.pipe_file("/bucket/a.png", GOOD)
    (part,) = plan(["-"], listed=b"memory://bucket/a.png\nmemory://bucket/gone.jpg\n")
    done = worker.do(part)
    rows = parquet.read_table(tmp_path / "answers" / done.name).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "unreadable"]
    assert rows[1]["error"] == "is not there"


def test_limits_hold_in_a_store(store: Any) -> None:
    store.pipe_file("/bucket/photos/a.png", GOOD)
    (listed,) = plan(["-"], listed=b"memory://bucket/photos/a.png")
    for part in (*plan(["memory://bucket/photos"]), listed):
        (item,) = items_of(part, Limits(bytes=10))
        assert "over the limit of 10" in item.problem and not item.data
    store.pipe_file("/bucket/all.tar", packed("tar"))
    found = items_of(plan(["memory://bucket/all.tar"])[0], Limits(bytes=10))
    assert any("over the limit of 10" in item.problem for item in found)


def test_a_damaged_archive_of_a_store_says_so(worker: Worker, tmp_path: Path, store: Any) -> None:
    store.pipe_file("/bucket/all.tar.gz", packed("tar.gz")[:-40])
    done = worker.do(plan(["memory://bucket/all.tar.gz"])[0])
    assert done.counts["unreadable"] >= 1
    assert any("damaged" in reason for reason in done.reasons)


def test_a_finished_part_is_not_done_again(
    worker: Worker, photos: Photos, tmp_path: Path, model_path: Path, classifier: Classifier
) -> None:
    folder = photos(FILES)
    parts = plan([str(folder)], part=4)
    first = [worker.do(part) for part in parts]
    again = [worker.do(part) for part in parts]
    assert all(part.is_kept for part in again) and not any(part.is_kept for part in first)
    assert [(part.name, part.rows, part.counts) for part in again] == [
        (part.name, part.rows, part.counts) for part in first
    ]
    # a part that was cut off by something else than us is done again
    broken = tmp_path / "answers" / first[0].name
    broken.write_bytes(broken.read_bytes()[:-20])
    assert not worker.do(parts[0]).is_kept and worker.do(parts[0]).is_kept
    task = task_for(
        Place(str(tmp_path / "answers")),
        model_path.read_bytes(),
        digest=classifier.digest,
        retry_errors=True,
    )
    with Worker(task) as retrying:
        kept = [retrying.do(part).is_kept for part in parts]
    assert kept == [not part.counts["unreadable"] for part in first]
    assert True in kept and False in kept


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "answers"))
    begin(place, "a run", {"model": "mean", "options": {"faces": "auto"}})
    begin(place, "a run", {})
    with pytest.raises(OutputError, match="another model or of other options"):
        begin(place, "another run", {})
    (tmp_path / "answers" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="of something else"):
        begin(place, "a run", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into"):
        begin(Place(str(tmp_path / "file" / "answers")), "a run", {})


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
    place = Place(address.format(tmp=tmp_path))
    with Worker(task_for(place, model_path.read_bytes(), digest=classifier.digest)) as worker:
        done = [worker.do(part) for part in plan([str(folder)], part=4)]
        assert place.read(MANIFEST) is None
        finish(place, done, {"inputs": [str(folder)]})
        manifest = json.loads(place.read(MANIFEST) or b"")
        assert manifest["pictures"] == sum(part.pictures for part in done) == 8
        assert [part["file"] for part in manifest["parts"]] == [part.name for part in done]
        begin(place, "a run", {})
        assert place.read(MANIFEST) is None
        # a picture more: parts of what was there before go when the new ones are all there
        (folder / "0.png").write_bytes(GOOD)
        more = [worker.do(part) for part in plan([str(folder)], part=4)]
        finish(place, more, {})
    names = [name for name in place.names() if name.startswith("part-")]
    assert sorted(names) == [part.name for part in more]
    assert not [name for name in place.names() if name.endswith(".tmp")]


def test_a_machine_that_is_not_like_the_others(
    tmp_path: Path, model_path: Path, classifier: Classifier
) -> None:
    place = Place(str(tmp_path / "answers"))
    model = model_path.read_bytes()
    task = task_for(place, model, digest=classifier.digest, version="9.9")
    with pytest.raises(FacegenderError, match="same version"):
        Worker(task)
    with pytest.raises(FacegenderError, match="damaged"):
        Worker(task_for(place, build_model({"name": "other"}), digest=classifier.digest))
    (tmp_path / "answers" / "run.json").unlink()
    with pytest.raises(OutputError, match="does not see the folder"):
        Worker(Task(**{**_values(task), "version": Task.__dataclass_fields__["version"].default}))


def _values(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__}


def test_a_machine_that_does_not_see_the_pictures(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not see"):
        worker.do(Part(0, str(tmp_path / "elsewhere"), names=("a.jpg",)))
