"""predict_to_files as a library: outputs, resume, errors, and what it returns."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from made import build_model, encode, image

from facegender import (
    Classifier,
    InputError,
    ModelFileError,
    OutputError,
    PredictOptions,
    PredictOutputs,
    RunSummary,
    StoppedError,
    predict_folder,
    predict_to_files,
)
from facegender.inference.pipeline import FileResult

Photos = Callable[..., Path]
MALE, FEMALE = encode(image("male", seed=1)), encode(image("female", seed=2))
TWO = {"10.png": MALE, "2.png": FEMALE}
JOURNAL = ".facegender-results.json.journal"


@pytest.fixture
def predict(tmp_path: Path, model_path: Path) -> Callable[..., RunSummary]:
    """Runs with the small model, and results in the folder ``out``."""
    (tmp_path / "out").mkdir()

    def run(folder: Path, options: PredictOptions | None = None, **more: object) -> RunSummary:
        outputs = {
            name: more.pop(name) for name in PredictOutputs.__dataclass_fields__ if name in more
        }
        outputs = {"results": tmp_path / "out" / "results.json"} | outputs
        return predict_to_files(
            folder,
            PredictOutputs(**outputs),  # type: ignore[arg-type]
            options,
            model=model_path,
            **more,  # type: ignore[arg-type]
        )

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_results_and_their_summary(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path, classifier: Classifier
) -> None:
    folder = photos({**TWO, "in/é.png": MALE, "bad.jpg": b"text", "notes.txt": b"hello"})
    summary = predict(folder, PredictOptions(recursive=True))
    path = tmp_path / "out" / "results.json"
    assert path.read_text("utf-8") == (
        '{\n  "2.png": "female",\n  "10.png": "male",\n  "in/é.png": "male"\n}\n'
    )
    assert summary.counts == {
        "male": 2,
        "female": 1,
        "unknown": 0,
        "no_face": 0,
        "unreadable": 1,
        "unsupported": 0,
        "skipped": 1,
    }
    assert summary.skipped == {".txt": 1}
    assert summary.answers == tuple(
        f"{row.file}: {row.label} {100 * (row.probability or 0):.1f} %"
        for row in predict_folder(folder, recursive=True, classifier=classifier)
        if row.status == "ok"
    )
    assert (summary.images, summary.faces, summary.resumed) == (4, 3, 0)
    assert summary.errors == ("bad.jpg: not an image in a known format",)
    assert summary.outputs == (str(path),)
    assert summary.has_failures and summary.not_annotated == ()
    assert 0 < summary.seconds < 120


def test_inputs_of_every_form_and_the_default_output(
    photos: Photos, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a/1.png": MALE, "b/1.png": FEMALE})
    monkeypatch.chdir(tmp_path)
    for inputs, keys in (
        (folder / "a", ["1.png"]),
        (str(folder / "a"), ["1.png"]),
        ([folder / "a", str(folder / "b")], [f"{folder}/a/1.png", f"{folder}/b/1.png"]),
    ):
        summary = predict_to_files(inputs, model=model_path)
        assert summary.outputs == ("process_results.json",) and not summary.has_failures
        assert list(json.loads(Path("process_results.json").read_text("utf-8"))) == keys


def test_details_report_and_copies_together(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    folder = photos({**TWO, "bad.jpg": b"text"})
    out = tmp_path / "out"
    files = {"details": out / "d.csv", "report": out / "r.html", "annotate": out / "copies"}
    summary = predict(folder, **files, anonymize=True)
    assert summary.outputs == tuple(
        str(path) for path in (out / "results.json", out / "d.csv", out / "r.html", out / "copies")
    )
    assert (out / "d.csv").read_text("utf-8").count("\n") == 4
    assert names(out / "copies") == ["10.png.jpg", "2.png.jpg"]
    page = (out / "r.html").read_text("utf-8")
    assert all(name in page for name in ("10.png", "2.png", "bad.jpg"))
    assert names(out) == [JOURNAL, "copies", "d.csv", "r.html", "results.json"]


def test_the_report_states_license_and_terms_in_a_sentence_each(
    photos: Photos, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model({"license": "for tests only", "terms": "Drawn by code."}))
    outputs = PredictOutputs(tmp_path / "results.json", report=tmp_path / "r.html")
    predict_to_files(photos(TWO), model=model, outputs=outputs)
    page = outputs.report.read_text("utf-8")
    assert '"terms":"for tests only. Drawn by code."' in page


def test_the_format_of_the_details_may_be_named(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    predict(photos(TWO), details=tmp_path / "out" / "d.txt", details_format="json")
    rows = json.loads((tmp_path / "out" / "d.txt").read_text("utf-8"))
    assert [row["file"] for row in rows] == ["2.png", "10.png"]


@pytest.mark.parametrize(("write_unknown", "label"), [(False, "male"), (True, "unknown")])
def test_unknown_answers(
    write_unknown: bool,
    label: str,
    predict: Callable[..., RunSummary],
    photos: Photos,
    tmp_path: Path,
) -> None:
    options = PredictOptions(min_confidence=1.0)
    summary = predict(photos({"a.png": MALE}), options, write_unknown=write_unknown)
    assert summary.counts["unknown"] == 1 and summary.counts["male"] == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {"a.png": label}


SCRIPT = """
import os, signal, sys
from pathlib import Path
from facegender import PredictOutputs, StoppedError, predict_to_files

folder, out, model, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def end(number, frame):
    raise SystemExit(128 + number)

def stop_at_thirty(results, total):
    for count, result in enumerate(results):
        if count == 30:
            os.kill(os.getpid(), number)
        yield result

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, end)
outputs = PredictOutputs(out / "results.json", out / "d.jsonl", report=out / "r.html")
try:
    predict_to_files(folder, outputs, model=model, progress=stop_at_thirty)
except StoppedError as error:
    print(error)
    sys.exit(error.code)
"""


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143), (9, -9)])
def test_a_stopped_run_resumes_and_ends_like_an_unbroken_one(
    number: int,
    code: int,
    predict: Callable[..., RunSummary],
    photos: Photos,
    model_path: Path,
    tmp_path: Path,
) -> None:
    files = {f"{n}.png": encode(image("male" if n % 3 else "female", seed=n)) for n in range(60)}
    folder = photos(files | {"bad.jpg": b"text"})
    out, unbroken = tmp_path / "out", tmp_path / "unbroken"
    unbroken.mkdir()
    arguments = [str(folder), str(out), str(model_path), str(number)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    if code > 0:
        assert done.stdout.startswith("Stopped after 3") and "To resume" in done.stdout
        assert names(out) == [JOURNAL]

    resumed = predict(folder, details=out / "d.jsonl", report=out / "r.html")
    if code > 0:
        assert 30 <= resumed.resumed < 61
    whole = predict(
        folder,
        results=unbroken / "results.json",
        details=unbroken / "d.jsonl",
        report=unbroken / "r.html",
    )
    assert (whole.resumed, whole.counts) == (0, resumed.counts)
    for name in ("results.json", "d.jsonl"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes()


def test_only_unreadable_images_are_read_again(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    folder = photos({**TWO, "bad.png": bytes(len(MALE))})
    first = predict(folder)
    assert (first.counts["unreadable"], first.resumed) == (1, 0)
    mended = folder / "bad.png"
    before = mended.stat()
    mended.write_bytes(MALE)
    os.utime(mended, ns=(before.st_atime_ns, before.st_mtime_ns))  # looks like the same file
    again = predict(folder)
    assert (again.counts["unreadable"], again.resumed) == (1, 3)
    retried = predict(folder, PredictOptions(retry_errors=True))
    assert (retried.counts["unreadable"], retried.resumed) == (0, 2)
    assert not retried.has_failures
    assert names(tmp_path / "out") == ["results.json"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["bad.png"] == "male"


def test_an_earlier_run_with_other_options_is_not_used(
    predict: Callable[..., RunSummary], photos: Photos
) -> None:
    folder = photos({**TWO, "bad.jpg": b"text"})
    messages: list[str] = []
    assert predict(folder, on_message=messages.append).resumed == 0
    assert messages == []
    assert predict(folder, on_message=messages.append).resumed == 3
    assert messages == []
    options = PredictOptions(min_confidence=0.6)
    assert predict(folder, options, on_message=messages.append).resumed == 0
    assert messages == ["Starting over: the earlier run used another model or other options"]
    assert predict(folder, options, on_message=messages.append).resumed == 3
    assert len(messages) == 1


@pytest.mark.parametrize("text", ["", "CREATE TABLE run (options TEXT, begun TEXT); "])
def test_a_journal_of_another_kind_is_replaced(
    text: str, predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(b"no database" * 99)
    if text:
        journal.unlink()
        with closing(sqlite3.connect(journal)) as database:
            database.executescript(f"{text}CREATE TABLE picture (key TEXT PRIMARY KEY)")
    folder = photos({**TWO, "bad.jpg": b"text"})
    assert predict(folder).resumed == 0
    assert predict(folder).resumed == 3


class OddError(Exception):
    """What nobody thought of."""


def test_an_error_in_the_middle_leaves_no_half_written_file(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    folder = photos({f"{n}.png": MALE for n in range(40)})
    out = tmp_path / "out"
    earlier = {name: out / name for name in ("results.json", "d.jsonl", "r.html")}
    for path in earlier.values():
        path.write_text("earlier")

    def fail(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
        assert total == 40
        for count, result in enumerate(results):
            if count == 20:
                raise OddError
            yield result

    outputs = {"details": out / "d.jsonl", "report": out / "r.html", "annotate": out / "copies"}
    with pytest.raises(OddError):
        predict(folder, **outputs, progress=fail)
    assert all(path.read_text() == "earlier" for path in earlier.values())
    assert names(out) == [JOURNAL, "copies", *sorted(earlier)]
    assert not [name for name in names(out / "copies") if not name.endswith(".png.jpg")]
    assert predict(folder, **outputs).resumed >= 20


def test_a_copy_that_cannot_be_written_costs_only_itself(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    folder = photos({"in/1.png": MALE, "2.png": MALE})
    copies = tmp_path / "out" / "copies"
    copies.mkdir()
    (copies / "in").write_text("a file where the folder should be")
    summary = predict(folder, PredictOptions(recursive=True), annotate=copies)
    assert summary.not_annotated == ("in/1.png",) and summary.has_failures
    assert names(copies) == ["2.png.jpg", "in"]
    assert names(tmp_path / "out") == ["copies", "results.json"]


def test_no_copy_at_all_stops_the_run(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    copies = tmp_path / "out" / "copies"

    def take_its_place(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
        copies.write_text("a file where the folder should be")
        yield from results

    with pytest.raises(OutputError, match="Cannot write"):
        predict(photos(TWO), annotate=copies, progress=take_its_place)
    assert names(tmp_path / "out") == [JOURNAL, "copies"]


def test_an_image_that_vanishes_before_its_copy_is_drawn(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    def remove_first(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
        for result in results:
            if result.file.key == "2.png":
                assert result.file.path is not None
                result.file.path.unlink()
            yield result

    summary = predict(photos(TWO), annotate=tmp_path / "copies", progress=remove_first)
    assert summary.not_annotated == ("2.png",) and summary.has_failures
    assert summary.counts["unreadable"] == 0
    assert names(tmp_path / "copies") == ["10.png.jpg"]


def test_ctrl_c_is_a_stop_that_says_how_to_resume(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path
) -> None:
    def stop(results: Iterator[FileResult], total: int | None) -> Iterator[FileResult]:
        yield next(results)
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match=r"^Stopped after 1 image\. To resume") as stopped:
        predict(photos(TWO), progress=stop)
    assert stopped.value.code == 130
    assert names(tmp_path / "out") == [JOURNAL]


def test_what_cannot_be_done_is_said_before_anything_is_written(
    predict: Callable[..., RunSummary], photos: Photos, tmp_path: Path, model_path: Path
) -> None:
    folder, out = photos(TWO), tmp_path / "out"
    (out / "file").write_text("")
    cases: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"details_format": "csv"}, InputError, "--details"),
        ({"anonymize": True}, InputError, "--annotate"),
        ({"details": out / "d", "details_format": "xml"}, InputError, "'xml' is not one of"),
        ({"details": out / "results.json"}, OutputError, "same file"),
        ({"report": folder / "2.png"}, OutputError, "is an image"),
        ({"report": tmp_path / "no" / "r.html"}, OutputError, "folder not found"),
        ({"annotate": out / "file"}, OutputError, "not a folder"),
        ({"annotate": folder / "copies"}, InputError, "part of the input"),
        ({"runtime": "abacus"}, InputError, "is not one of"),
        ({"options": PredictOptions(min_confidence=0.2)}, ValueError, "within 0.5 to 1"),
        ({"options": PredictOptions(detector=out / "no.onnx")}, ModelFileError, "Cannot read"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            predict(folder, **options)
        assert names(out) == ["file"] and names(folder) == ["10.png", "2.png"]
    with pytest.raises(InputError, match="Folder not found"):
        predict(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not one of auto, detect, whole"):
        PredictOptions(faces="all")


def test_the_model_is_never_overwritten(photos: Photos, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(build_model())
    for model in (tmp_path, tmp_path / "model.onnx"):
        with pytest.raises(OutputError, match="same file"):
            predict_to_files(photos(TWO), PredictOutputs(tmp_path / "model.onnx"), model=model)
    assert (tmp_path / "model.onnx").read_bytes() == build_model()
