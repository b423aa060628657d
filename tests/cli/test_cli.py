from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from made import build_model, encode, image

from facegender import cli
from facegender.errors import MissingExtraError
from facegender.inference.journal import Journal

Photos = Callable[..., Path]
MALE, FEMALE = encode(image("male", seed=1)), encode(image("female", seed=2))
COMMAND = (sys.executable, "-m", "facegender", "predict")
TWO = {"10.png": MALE, "2.png": FEMALE}


@pytest.fixture
def run(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in an empty folder; gives its exit code."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(*arguments: str | Path, model: Path = model_path) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, arguments), *(["--model", str(model)] if model else [])])
        return int(ended.value.code or 0)

    return call


def written() -> list[str]:
    return sorted(item.name for item in Path().iterdir())


def test_predict(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, "é中.png": MALE, "notes.txt": b"hello"})
    assert run("predict", folder) == 0
    text = Path("process_results.json").read_text("utf-8")
    assert text == '{\n  "2.png": "female",\n  "10.png": "male",\n  "é中.png": "male"\n}\n'
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    answers = [line.rsplit(" ", 2) for line in lines[:3]]
    assert [answer[0] for answer in answers] == [
        *("2.png: female", "10.png: male", "é中.png: male")
    ]
    assert all(50 <= float(number) <= 100 and unit == "%" for _, number, unit in answers)
    counts = dict(line.split(None, 1) for line in lines[3:10])
    names = ("male", "female", "unknown", "no_face", "unreadable", "unsupported", "skipped")
    assert counts == dict(zip(names, [*"210000", "1 (1 .txt)"], strict=True))
    assert "3 images in" in out and "results: process_results.json" in out
    assert written() == ["process_results.json"]


def test_unreadable_images(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, **{f"bad {n}[red].jpg": b"text" for n in range(7)}})
    assert run("predict", folder, "--details", "d.jsonl", "-o", "o.json") == 1
    assert list(json.loads(Path("o.json").read_text())) == ["2.png", "10.png"]
    rows = [json.loads(line) for line in Path("d.jsonl").read_text().splitlines()]
    assert list(rows[0]) == [
        *("file", "face_index", "status", "label", "probability"),
        *("box", "detection_score", "crop", "width", "height", "error"),
    ]
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["unreadable"] * 7
    out, err = capsys.readouterr()
    assert "bad 0[red].jpg: not an image in a known format" in out and "and 2 more" in out
    assert err == "" and "results: o.json, d.jsonl" in out
    assert "--retry-errors (it uses .facegender-o.json.journal; you may delete that file)" in out


def test_what_could_not_be_read_is_tried_again_when_asked_for(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, "bad.jpg": b"text", "gone.jpg": b"text"})
    mended = folder / "bad.jpg"
    assert run("predict", folder) == 1
    before = mended.stat()
    assert run("predict", folder) == 1
    assert "4 of them are from an earlier run" in capsys.readouterr().out
    mended.write_bytes(MALE[: before.st_size])
    os.utime(mended, ns=(before.st_atime_ns, before.st_mtime_ns))  # looks like the same file
    (folder / "gone.jpg").unlink()
    assert run("predict", folder, "--retry-errors") == 1
    assert "2 of them are from" in capsys.readouterr().out
    mended.write_bytes(MALE)  # another size: no longer the same file
    assert run("predict", folder) == 0
    assert json.loads(Path("process_results.json").read_text())["bad.jpg"] == "male"
    assert written() == ["process_results.json"]
    assert run("predict", folder) == 0
    assert "from an earlier run" not in capsys.readouterr().out.split("results")[-2]


def test_another_model_or_option_starts_over(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, "bad.jpg": b"text"})
    assert run("predict", folder) == 1
    assert run("predict", folder, "--min-confidence", "0.6") == 1
    out, err = capsys.readouterr()
    assert "Starting over" in err and "earlier run" not in out


def test_a_second_run_into_the_same_output_stops(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(Path("process_results.json"), {}):
        assert run("predict", photos(TWO)) == 2
        assert "Another run is writing process_results.json" in capsys.readouterr().err
    assert run("predict", photos(TWO)) == 0


def test_unknown_is_a_guess_unless_asked_for(run: Callable[..., int], photos: Photos) -> None:
    folder = photos(TWO)
    for options, labels in (((), ["female", "male"]), (("--unknown",), ["unknown"] * 2)):
        assert run("predict", folder, "--min-confidence", "1", *options) == 0
        assert list(json.loads(Path("process_results.json").read_text()).values()) == labels


def test_several_inputs(run: Callable[..., int], photos: Photos) -> None:
    photos({"a/1.png": MALE, "b/1.png": FEMALE})
    Path("in").symlink_to(photos({}))
    assert run("predict", "in/a", "in/b", "in/a/1.png", "--details", "d.csv") == 0
    assert json.loads(Path("process_results.json").read_text()) == {
        **{"in/a/1.png": "male", "in/b/1.png": "female"}
    }


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
def test_no_images(
    files: dict[str, bytes],
    run: Callable[..., int],
    photos: Photos,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("process_results.json").write_text("earlier")
    Path("d.jsonl").write_text("earlier")
    assert run("predict", photos(files), "--details", "d.jsonl") == 2
    assert Path("process_results.json").read_text() == Path("d.jsonl").read_text() == "earlier"
    assert written() == ["d.jsonl", "process_results.json"]
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: No images found in")
    assert ("(skipped 1: 1 .txt)" in err) == bool(files)
    assert "--recursive" not in err and "--exclude" not in err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.png": MALE}, "There is 1 image in subfolders; --recursive includes them"),
        ({"a/1.png": MALE, "a/b/2.png": MALE}, "There are 2 images in subfolders; --recursive"),
        ({"a/1.png": MALE, "notes.txt": b"x"}, "(skipped 1: 1 .txt). There is 1 image"),
        ({"excluded.png": MALE}, ". --exclude may leave them out"),
    ],
)
def test_images_elsewhere_only(
    files: dict[str, bytes],
    message: str,
    run: Callable[..., int],
    photos: Photos,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("process_results.json").write_text("earlier")
    assert run("predict", photos(files), "--exclude", "excluded*", "--report", "r.html") == 2
    assert Path("process_results.json").read_text() == "earlier"
    assert written() == ["process_results.json"]
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_images_in_subfolders_are_left_out_aloud(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, "a/1.png": MALE, "a/b/2.png": MALE, "a/notes.txt": b"x"})
    note = "Left out: there are 2 images in subfolders; --recursive includes them\n"
    assert run("predict", folder) == 0
    assert note in capsys.readouterr().out
    assert len(json.loads(Path("process_results.json").read_text())) == 2
    assert run("predict", folder, "--exclude", "b") == 0
    assert "Left out: there is 1 image in" in capsys.readouterr().out
    assert run("predict", folder, "--recursive") == 0
    assert "Left out" not in capsys.readouterr().out
    assert len(json.loads(Path("process_results.json").read_text())) == 4


def test_lists_and_patterns_of_what_is_left_out(run: Callable[..., int], photos: Photos) -> None:
    folder = photos({**TWO, "2_edited.png": MALE, "private/1.png": MALE})
    options = ("--recursive", "--exclude", "*_edited.*", "--exclude", "private/")
    assert run("predict", folder, *options) == 0
    assert list(json.loads(Path("process_results.json").read_text())) == ["2.png", "10.png"]
    Path("names").write_text(f"{folder}/10.png\n{folder}/private/1.png\n")
    Path("more.csv").write_text(f"{folder}/2.png\n")
    assert run("predict", "--list", "names", "--list", "more.csv", "--exclude", "private") == 0
    keys = [f"{folder}/2.png", f"{folder}/10.png"]
    assert list(json.loads(Path("process_results.json").read_text())) == keys
    assert run("predict", "--list", "names", "-o", "names") == 2  # it is an input
    assert len(Path("names").read_text().splitlines()) == 2


def test_options(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"b/1.png": MALE})
    assert run("predict", folder, "--recursive", "--quiet") == 0
    assert json.loads(Path("process_results.json").read_text()) == {"b/1.png": "male"}
    assert capsys.readouterr() == ("", "")


def test_results_in_the_folder_itself(run: Callable[..., int], photos: Photos) -> None:
    folder = photos(TWO)
    for _ in range(2):
        assert run("predict", folder, "-o", folder / "process_results.json") == 0
        assert len(json.loads((folder / "process_results.json").read_text())) == 2


def test_names_that_are_no_unicode(run: Callable[..., int], photos: Photos) -> None:
    folder = photos({os.fsdecode(b"caf\xe9.png"): MALE, os.fsdecode(b"\xff\x1b[1m.jpg"): b""})
    assert run("predict", folder, "--details", "d.jsonl") == 1
    assert json.loads(Path("process_results.json").read_text()) == {"caf\udce9.png": "male"}


WRONG_USE: dict[str, tuple[list[str], str]] = {
    "no folder": (["predict"], "Missing argument INPUT"),
    "no list": (["predict", "--list", "gone"], "Cannot read the list gone: No such file"),
    "brackets": (["predict", "photo[s]/*.tiff"], "write [[] for [: photo[[]s]/*.tiff"),
    "cluster, list": (["predict", "--list", "gone", "--cluster", "auto"], "--list does not go"),
    "cluster, exclude": (
        ["predict", "photos", "--exclude", "x", "--cluster", "auto"],
        "--exclude does not go",
    ),
    "missing folder": (["predict", "nowhere"], "Folder not found: nowhere"),
    "a pattern": (["predict", "photos/*.tiff"], "No file matches the pattern"),
    "faces": (["predict", "photos", "--faces", "some"], "not one of auto, detect, whole"),
    "format": (["predict", "photos", "--details", "d", "--format", "xml"], "'xml' is not one of"),
    "suffix": (["predict", "photos", "--details", "d.xlsx"], ".json, .jsonl, .csv, .parquet"),
    "two on standard output": (["predict", "photos", "-o", "-", "--details", "-"], "the same file"),
    "both names of it": (["predict", "photos", "-o", "-", "--report", "/dev/stdout"], "same file"),
    "no details": (["predict", "photos", "--format", "csv"], "--details"),
    "output folder": (["predict", "photos", "-o", "no/out.json"], "folder not found: no"),
    "details folder": (["predict", "photos", "--details", "no/d"], "folder not found: no"),
    "not writable": (["predict", "photos", "-o", "/proc/out.json"], "Cannot write /proc/out.json"),
    "parent is a file": (["predict", "photos", "-o", "photos/2.png/o"], "folder not found"),
    "output is a folder": (["predict", "photos", "-o", "photos"], "it is a folder"),
    "over an image": (["predict", "photos", "-o", "photos/2.png"], "is an image"),
    "same file": (["predict", "photos", "-o", "a", "--details", "./a"], "are the same file"),
    "threshold": (["predict", "photos", "--min-confidence", "0.3"], "0.5"),
    "unknown verb": (["predikt", "photos"], "predict"),
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use(
    case: str, run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(TWO)
    Path("photos").symlink_to(folder)
    arguments, message = WRONG_USE[case]
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in " ".join(err.split()) and "Traceback" not in err
    assert written() == ["photos"]
    assert sorted(item.name for item in folder.iterdir()) == sorted(TWO)


@pytest.mark.parametrize("data", [None, b"text", build_model({"labels": ["male", "female"]})])
def test_wrong_model(
    data: bytes | None,
    run: Callable[..., int],
    photos: Photos,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "other.onnx"
    if data is not None:
        model.write_bytes(data)
    Path("process_results.json").write_text("old")
    assert run("predict", photos(TWO), model=model) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert Path("process_results.json").read_text() == "old" and len(written()) == 1


def test_output_over_the_model(run: Callable[..., int], photos: Photos, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    for named in (model, tmp_path):  # the file, or its run folder
        assert run("predict", photos(TWO), "-o", model, model=named) == 2
    assert model.read_bytes() == build_model()


def test_ctrl_c_writes_nothing(
    run: Callable[..., int], photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object, rows: object, *, is_cached: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("facegender.results.summary.SummaryCounter.add", stop)
    assert run("predict", photos(TWO), "--details", "d.jsonl") == 130
    assert [name for name in written() if not name.endswith(".journal")] == []


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs, whose children would inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def rows_in(journal: Path) -> int:
    """How many rows are safe on disk in the journal of a run that goes on."""
    try:
        with tempfile.TemporaryDirectory() as folder:  # as it would be found after a power cut
            for file in (journal, journal.with_name(f"{journal.name}-wal")):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder, journal.name))) as base:
                return int(base.execute("SELECT count(*) FROM result").fetchone()[0])
    except (sqlite3.Error, OSError):
        return 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_resumes_and_ends_like_an_unbroken_one(
    number: signal.Signals, code: int, photos: Photos, model_path: Path, tmp_path: Path
) -> None:
    names = {f"{n}.png": encode(image("male" if n % 3 else "female", seed=n)) for n in range(60)}
    large = encode(image(size=(1600, 1200), seed=1))
    folder = photos(names | {"x0.png": large, "9.jpg": b"x"})
    for n in range(1, 100):  # one file by many names: 5 MB on the disk, not 500
        (folder / f"x{n}.png").hardlink_to(folder / "x0.png")

    def start(out: Path) -> subprocess.Popen[bytes]:
        out.mkdir(exist_ok=True)
        files = ("-o", str(out / "o.json"), "--details", str(out / "d.jsonl"), "--faces", "whole")
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "facegender",
                "predict",
                str(folder),
                "--model",
                str(model_path),
                *files,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed_interrupts,
        )

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = start(broken)
    deadline = time.monotonic() + 120
    counts: set[int] = set()
    while len(counts) < 3:  # none, some, and more: then the first are surely on disk
        counts.add(rows_in(broken / ".facegender-o.json.journal"))
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert number == signal.SIGKILL or b"To resume, run the same command" in err
    if number != signal.SIGKILL:
        assert [file.name for file in broken.iterdir()] == [".facegender-o.json.journal"]

    again, unbroken = start(broken), start(whole)
    assert b"are from an earlier run" in again.communicate(timeout=120)[0]
    assert b"earlier run" not in unbroken.communicate(timeout=120)[0]
    assert again.returncode == unbroken.returncode == 1
    for name in ("o.json", "d.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_progress_on_a_terminal(
    run: Callable[..., int],
    photos: Photos,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert run("predict", photos(TWO)) == 0
    assert "images/s" in capsys.readouterr().err


def test_a_missing_extra_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))

    @cli.verb(examples=["facegender learn"])
    def learn() -> int:
        """Needs torch."""
        raise MissingExtraError("train", "torch")

    with pytest.raises(SystemExit) as ended:
        cli.main(["learn"])
    assert ended.value.code == 2
    assert "pip install -c constraints.txt '.[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--help"], "predict"), (["predict", "--help"], "facegender predict faces")],
)
def test_help(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0 and text in capsys.readouterr().out


def test_version_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys; from facegender.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*{'numpy', 'onnxruntime', 'PIL', 'torch'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, heavy = out.stdout.split("\n")[:2]
    assert version.startswith("facegender ") and heavy == ""


def test_a_report_and_copies(run: Callable[..., int], photos: Photos) -> None:
    folder = photos({**TWO, "in/é #1.png": MALE, "bad.jpg": b"text"})
    options = ("--recursive", "--report", "r.html", "--annotate", "copies", "--anonymize")
    assert run("predict", folder, *options) == 1
    copies = Path("copies")
    assert sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.jpg")) == [
        *("10.png.jpg", "2.png.jpg", "in/é #1.png.jpg")
    ]
    page = Path("r.html").read_text("utf-8")
    assert "bad.jpg" in page and quote("é #1.png") in page
    small = page.split('class="thumbnails">')[1].split("</script>")[0].split("\n")
    assert [len(line) > 99 for line in small] == [True, True, False, True]
    assert written() == [
        *(".facegender-process_results.json.journal", "copies", "process_results.json", "r.html")
    ]
    before = Path("r.html").read_text("utf-8")
    assert run("predict", folder, *options) == 1
    assert Path("r.html").read_text("utf-8") == before  # byte for byte, the date too
    (folder / "bad.jpg").unlink()
    assert run("predict", folder, *options) == 0  # the thumbnails are in the journal, too
    again = Path("r.html").read_text("utf-8").split('class="thumbnails">')[1]
    assert again.split("</script>")[0].split("\n") == [line for line in small if len(line) > 99]


def test_copies_never_go_into_the_input(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(TWO)
    assert run("predict", folder, "--annotate", folder) == 2
    assert run("predict", folder, "--annotate", folder / "inside", "--recursive") == 2
    assert "is part of the input" in capsys.readouterr().err
    assert sorted(item.name for item in folder.iterdir()) == sorted(TWO)


def test_another_folder_never_gets_the_answers_of_the_one_before(
    run: Callable[..., int], photos: Photos
) -> None:
    """The same names, sizes and times, and a journal that stays: only the places differ."""
    labels = ["male", "female"]
    for folder, order in (("one", labels), ("two", labels[::-1])):
        files = {
            f"{at + 1}.bmp": encode(image(label, seed=3), "BMP") for at, label in enumerate(order)
        }
        made = photos(files | {"bad.jpg": b"text"}, name=folder)
        for path in made.iterdir():
            os.utime(path, (1, 1))
        with tarfile.open(f"{folder}.tar", "w") as tar:
            tar.add(made, arcname=".")
        os.utime(f"{folder}.tar", (1, 1))
        for source in (made, f"{folder}.tar"):
            assert run("predict", source) == 1
            found = json.loads(Path("process_results.json").read_text())
            assert list(found.values()) == order, source


def test_wrong_use_takes_nothing_from_a_stopped_run(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, "bad.jpg": b"text"})
    assert run("predict", folder) == 1
    assert run("predict", folder, "--faces", "typo") == 2
    assert run("predict", "nowhere", "--min-confidence", "0.9") == 2
    capsys.readouterr()
    assert run("predict", folder) == 1
    assert "3 of them are from an earlier run" in capsys.readouterr().out


def test_a_list_is_an_input_that_is_never_written_over(
    run: Callable[..., int], photos: Photos
) -> None:
    folder = photos(TWO)
    Path("list.txt").write_text(f"{folder / '2.png'}\n")
    for option in ("--details", "-o", "--report", "--annotate"):
        assert run("predict", "list.txt", option, "list.txt") == 2
    assert run("predict", "list.txt", "--annotate", folder) == 2
    assert Path("list.txt").read_text() == f"{folder / '2.png'}\n" and len(written()) == 1


def test_what_a_killed_run_left_goes_with_the_next(run: Callable[..., int], photos: Photos) -> None:
    Path(".facegender-process_results.json-0123456789ab.tmp").write_text("half")
    Path(".facegender-other.json-0123456789ab.tmp").write_text("another run's")
    assert run("predict", photos(TWO)) == 0
    assert written() == [".facegender-other.json-0123456789ab.tmp", "process_results.json"]


def test_one_output_is_locked_by_all_of_its_names(run: Callable[..., int], photos: Photos) -> None:
    folder = photos(TWO)
    Path("link.json").symlink_to("real.json")
    with Journal(Path("real.json"), {}):
        assert run("predict", folder, "-o", "link.json") == 2
        assert run("predict", folder, "--details", "real.json") == 2
    assert run("predict", folder, "-o", "link.json") == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "| true", ">&- 2>&- <&-"])
def test_closed_streams(closed: str, photos: Photos, model_path: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(photos(TWO)), "--model", str(model_path), "-o", "o.json"]
    shell = ["bash", "-c", f"set -o pipefail; {shlex.join(command)} {closed}"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert list(json.loads((tmp_path / "o.json").read_text())) == ["2.png", "10.png"]
