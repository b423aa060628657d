from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made import build_model, encode, picture

from facegender import cli
from facegender.errors import MissingExtraError
from facegender.results import Prediction

Photos = Callable[..., Path]
MALE, FEMALE = encode(picture("male", seed=1)), encode(picture("female", seed=2))
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
    counts = dict(line.split() for line in out.splitlines()[:5])
    assert counts == {"male": "2", "female": "1", "unknown": "0", "unreadable": "0", "skipped": "1"}
    assert "3 pictures in" in out and "results: process_results.json" in out
    assert written() == ["process_results.json"]


def test_unreadable_pictures(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({**TWO, **{f"bad {n}[red].jpg": b"text" for n in range(7)}})
    assert run("predict", folder, "--details", "d.jsonl", "-o", "o.json") == 1
    assert list(json.loads(Path("o.json").read_text())) == ["2.png", "10.png"]
    rows = [json.loads(line) for line in Path("d.jsonl").read_text().splitlines()]
    assert list(rows[0]) == [
        *("file", "face", "status", "label", "probability"),
        *("box", "width", "height", "error"),
    ]
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["unreadable"] * 7
    out, err = capsys.readouterr()
    assert "bad 0[red].jpg: the content is not a picture" in out and "and 2 more" in out
    assert err == "" and "results: o.json, d.jsonl" in out


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
def test_no_pictures(
    files: dict[str, bytes],
    run: Callable[..., int],
    photos: Photos,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("predict", photos(files)) == 0
    assert Path("process_results.json").read_text() == "{}\n"
    assert "no pictures found in" in capsys.readouterr().out


def test_options(
    run: Callable[..., int], photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"b/1.png": MALE})
    assert run("predict", folder, "--recursive", "--quiet") == 0
    assert json.loads(Path("process_results.json").read_text()) == {"b/1.png": "male"}
    assert capsys.readouterr() == ("", "")
    assert run("predict", folder, "--recursive", "--unknown-below", "1") == 0
    assert json.loads(Path("process_results.json").read_text()) == {}


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
    "no folder": (["predict"], "Missing argument"),
    "missing folder": (["predict", "nowhere"], "the folder nowhere is not there"),
    "a file": (["predict", "photos/2.png"], "is not a folder"),
    "output folder": (["predict", "photos", "-o", "no/out.json"], "folder no is not there"),
    "details folder": (["predict", "photos", "--details", "no/d"], "folder no is not there"),
    "not writable": (["predict", "photos", "-o", "/proc/out.json"], "cannot write /proc/out.json"),
    "parent is a file": (["predict", "photos", "-o", "photos/2.png/o"], "is not there"),
    "output is a folder": (["predict", "photos", "-o", "photos"], "it is a folder"),
    "over a picture": (["predict", "photos", "-o", "photos/2.png"], "is a picture"),
    "same file": (["predict", "photos", "-o", "a", "--details", "./a"], "are the same file"),
    "threshold": (["predict", "photos", "--unknown-below", "0.3"], "0.5"),
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
    def stop(self: object, row: Prediction) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("facegender.progress.Summary.add", stop)
    assert run("predict", photos(TWO), "--details", "d.jsonl") == 130
    assert written() == []


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs, whose children would inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, b"stopped\n"), (signal.SIGTERM, 143, b"")]
)
def test_a_real_stop(
    number: signal.Signals,
    code: int,
    said: bytes,
    photos: Photos,
    model_path: Path,
    tmp_path: Path,
) -> None:
    data = encode(picture(size=(1200, 900), seed=1))
    folder = photos({f"{n}.png": data for n in range(150)})
    command = [sys.executable, "-m", "facegender", "predict", str(folder)]
    process = subprocess.Popen(
        [*command, "--model", str(model_path), "-o", str(tmp_path / "o.json")],
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".facegender-*")):  # until the work has begun
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, said)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["photos"]


def test_progress_on_a_terminal(
    run: Callable[..., int],
    photos: Photos,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert run("predict", photos(TWO)) == 0
    assert "pictures/s" in capsys.readouterr().err


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
    assert "pip install 'facegender[train]'" in capsys.readouterr().err


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
