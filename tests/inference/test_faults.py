"""A fault at any stage costs the row of the file that has it; the others keep theirs."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made import encode, image

from facegender import OutputError, PredictOptions, PredictOutputs, RunSummary, predict_to_files
from facegender.inference import annotated_copies, pipeline
from facegender.inference.annotated_copies import _annotate
from facegender.inference.batched_network import BatchedNetwork
from facegender.inference.classifier import Classifier
from facegender.inference.journal import Journal
from facegender.inference.pipeline import FileResult
from facegender.inference.worker_pool import WorkerPool
from facegender.inputs.sources import InputFile
from facegender.results import report
from facegender.results.details import DetailsWriter
from facegender.results.predictions import Prediction, Status
from facegender.results.process_results import ProcessResultsWriter
from facegender.results.report import ReportWriter

Photos = Callable[..., Path]
Patch = pytest.MonkeyPatch
NAMES = [f"{n}.png" for n in range(1, 6)]
FAULTY = "3.png"
MALE = encode(image("male", seed=1))


class OddError(Exception):
    """What nobody thought of; it does not survive pickling."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} {number}")


def is_faulty(value: object) -> bool:
    if isinstance(value, (Prediction, InputFile)):
        return FAULTY in (getattr(value, "file", None), getattr(value, "key", None))
    if isinstance(value, FileResult):
        return value.file.key == FAULTY
    if isinstance(value, report.ReportImage):
        return value.rows[0]["file"] == FAULTY
    return value == FAULTY or (isinstance(value, Path) and value.name == FAULTY)


def fail_for(owner: Any, name: str) -> Callable[[Patch], None]:
    """Make a function fail whenever the file with the fault is among its arguments."""

    def patch(monkeypatch: Patch) -> None:
        really = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            if any(map(is_faulty, args)):
                raise OddError(7, "a fault")
            return really(*args, **kwargs)

        monkeypatch.setattr(owner, name, run)

    return patch


def fail_at_third(owner: Any, name: str) -> Callable[[Patch], None]:
    """Make a function fail at its third call, which is that of the third file."""

    def patch(monkeypatch: Patch) -> None:
        really, calls = getattr(owner, name), []

        def run(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise OddError(7, "a fault")
            return really(*args, **kwargs)

        monkeypatch.setattr(owner, name, run)

    return patch


def fail_in_worker(source: Path, options: Any) -> Any:
    if is_faulty(source):
        raise OddError(7, "a fault")
    return pipeline.preprocess_file(source, options)


def fail_to_annotate(source: Path, *args: Any) -> bool:
    if is_faulty(source):
        raise OddError(7, "a fault")
    return _annotate(source, *args)


def fail_in_process(owner: Any, name: str, function: Any) -> Callable[[Patch], None]:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, function)


def lose_group(monkeypatch: Patch) -> None:
    """The files of one round trip to a process are lost on the way."""
    monkeypatch.setattr(pipeline, "TASK_FILES", 1)
    really = WorkerPool.submit_group

    def submit(pool: WorkerPool, function: Any, tasks: Any, *args: Any) -> Any:
        group = really(pool, function, tasks, *args)
        if any(map(is_faulty, tasks)):
            group.result()
            group = type(group)()
            group.set_exception(OddError(7, "a fault"))
        return group

    monkeypatch.setattr(WorkerPool, "submit_group", submit)


COSTS_NOTHING = {
    "find in the journal": fail_for(Journal, "find"),
    "add to the journal": fail_for(Journal, "add"),
}
COSTS_A_COPY = {
    "annotate": fail_in_process(annotated_copies, "_annotate", fail_to_annotate),
}
COSTS_A_ROW = {
    "preprocess": fail_in_process(pipeline, "preprocess_file", fail_in_worker),
    "send to a process": lose_group,
    "queue for the network": fail_at_third(BatchedNetwork, "add"),
    "wait for the network": fail_at_third(BatchedNetwork, "wait_for"),
    "make rows": fail_for(Classifier, "rows"),
    "write details": fail_for(DetailsWriter, "append"),
    "write results": fail_for(ProcessResultsWriter, "append"),
    "write the report": fail_for(ReportWriter, "append"),
    "link in the report": fail_for(report, "relative_url"),
}


@pytest.fixture
def predict(photos: Photos, model_path: Path, tmp_path: Path) -> Callable[..., RunSummary]:
    folder = photos(dict.fromkeys(NAMES, MALE))
    (tmp_path / "out").mkdir()

    def run(suffix: str = "jsonl") -> RunSummary:
        out = tmp_path / "out"
        files = PredictOutputs(
            out / "o.json", out / f"d.{suffix}", report=out / "r.html", annotate=out / "copies"
        )
        return predict_to_files(folder, files, model=model_path)

    return run


def check_others(out: Path, copies: list[str] = NAMES) -> list[str]:
    """Check the files without a fault in every output; return the names in the results."""
    labels = json.loads((out / "o.json").read_text())
    others = [name for name in NAMES if name != FAULTY]
    assert {name: labels.get(name) for name in others} == dict.fromkeys(others, "male")
    rows = [json.loads(line) for line in (out / "d.jsonl").read_text().splitlines()]
    assert [
        row["file"] for row in rows if row["status"] == "ok" and row["file"] != FAULTY
    ] == others
    page = (out / "r.html").read_text("utf-8")
    assert all(f'"file":"{name}"' in page for name in others)
    assert sorted(path.name for path in (out / "copies").iterdir()) == [f"{n}.jpg" for n in copies]
    return list(labels)


@pytest.mark.parametrize("stage", COSTS_A_ROW)
def test_a_fault_costs_a_row(
    stage: str, predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    COSTS_A_ROW[stage](monkeypatch)
    summary = predict()
    assert (summary.counts["male"], summary.counts["unreadable"]) == (4, 1)
    (error,) = summary.errors
    assert error.startswith(f"{FAULTY}: ") and error.endswith("OddError: a fault 7")
    assert summary.has_failures
    monkeypatch.undo()
    check_others(tmp_path / "out", [name for name in NAMES if name != FAULTY])
    again = predict()  # the fault is gone, and nothing of it is left
    assert (again.counts["male"], again.errors) in ((5, ()), (4, summary.errors))


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_a_fault_in_details_of_any_format(
    suffix: str, predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    from facegender.results import details

    name = "_flat" if suffix in ("csv", "parquet") else "to_dict"
    owner = details if name == "_flat" else Prediction
    fail_for(owner, name)(monkeypatch)
    summary = predict(suffix)
    assert summary.errors == (f"{FAULTY}: OddError: a fault 7",)
    assert summary.counts["male"] == 4
    assert list(json.loads((tmp_path / "out" / "o.json").read_text())) == [
        name for name in NAMES if name != FAULTY
    ]


@pytest.mark.parametrize("stage", COSTS_NOTHING)
def test_a_fault_of_the_journal_costs_nothing(
    stage: str,
    predict: Callable[..., RunSummary],
    photos: Photos,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    photos({"bad.jpg": b"text"})  # so that the journal stays
    COSTS_NOTHING[stage](monkeypatch)
    for resumed in (0, 5):
        summary = predict()
        assert (summary.counts["male"], summary.resumed) == (5, resumed)
        assert check_others(tmp_path / "out") == NAMES


def test_a_fault_in_a_copy_costs_the_copy(
    predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    COSTS_A_COPY["annotate"](monkeypatch)
    summary = predict()
    assert (summary.counts["male"], summary.not_annotated) == (5, (FAULTY,))
    assert check_others(tmp_path / "out", [name for name in NAMES if name != FAULTY]) == NAMES


def test_a_row_that_no_output_takes_is_in_the_summary(
    predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    for owner in (DetailsWriter, ProcessResultsWriter, ReportWriter):
        fail_for(owner, "append")(monkeypatch)
    assert predict().errors == (f"{FAULTY}: OddError: a fault 7",)
    check_others(tmp_path / "out", [name for name in NAMES if name != FAULTY])
    assert FAULTY not in (tmp_path / "out" / "d.jsonl").read_text()


def raise_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("owner", [DetailsWriter, ProcessResultsWriter, ReportWriter])
def test_a_full_disk_ends_the_run(
    owner: type, predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(owner, "append", raise_full)
    with pytest.raises(OutputError, match="No space left on device"):
        predict()
    assert not (tmp_path / "out" / "o.json").exists()


def test_a_full_disk_under_the_journal_ends_the_run(
    predict: Callable[..., RunSummary], tmp_path: Path, monkeypatch: Patch
) -> None:
    class Full:
        """A database whose disk is full."""

        def __init__(self, database: sqlite3.Connection) -> None:
            self._database = database

        def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
            if text.startswith("INSERT OR REPLACE INTO result"):
                raise sqlite3.OperationalError("database or disk is full")
            return self._database.execute(text, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._database, name)

    really = Journal._lock
    monkeypatch.setattr(Journal, "_lock", lambda journal: Full(really(journal)))
    with pytest.raises(OutputError, match="disk is full"):
        predict()
    assert not (tmp_path / "out" / "o.json").exists()


TIMES = {
    "zero NTFS date": -11_644_473_600,
    "before 1677": -9_300_000_000,
    "after 2262": 9_300_000_000,
    "year 31,000": 916_102_000_000,
}


@pytest.mark.parametrize("case", TIMES)
def test_any_date_of_a_file(case: str, photos: Photos, model_path: Path, tmp_path: Path) -> None:
    """On the disk as far as the file system takes it; in an archive as its header says it."""
    folder = photos({"a.png": MALE, "bad.jpg": b"text"})
    os.utime(folder / "a.png", ns=(0, TIMES[case] * 10**9))
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for path in folder.iterdir():
            member = tar.gettarinfo(path, path.name)
            member.mtime = TIMES[case]
            member.pax_headers = {"mtime": str(TIMES[case])}
            with path.open("rb") as file:
                tar.addfile(member, file)
    for source in (folder, tmp_path / "a.tar"):
        for resumed in (0, 2):
            output = PredictOutputs(tmp_path / f"{source.name}.json")
            summary = predict_to_files(source, output, PredictOptions(), model=model_path)
            assert (summary.counts["male"], summary.resumed) == (1, resumed)


def test_whatever_a_file_system_says_can_be_stored(tmp_path: Path) -> None:
    rows = (Prediction("a", Status.NO_FACE, width=1, height=1),)
    surrogate, nul = os.fsdecode(b"caf\xe9"), "a\0b"
    states = (0, -1, 2**63, -(2**63) - 1, 10**40)
    files = [
        InputFile("a", identity, size=size, state=state)
        for identity in ("/a", surrogate, nul, "\ud83d", "x" * 100_000)
        for size in (0, 2**63, 2**70)
        for state in states
    ]
    with Journal(tmp_path / "o.json", {}) as journal:
        for file in files:
            journal.add(file, rows)
            journal.earlier = 1
            found = journal.find(file)
            assert found is not None and found.rows == rows
        other = InputFile("a", "/a", size=0, state=1)
        assert journal.find(other) is None
