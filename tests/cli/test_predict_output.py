"""What predict prints, and results on standard output and pipes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

Photos = Callable[..., Path]
MALE, FEMALE = encode(image("male", seed=1)), encode(image("female", seed=2))
TWO = {"10.png": MALE, "2.png": FEMALE}
LABELS = {"2.png": "female", "10.png": "male"}


@pytest.fixture
def shell(tmp_path: Path, model_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command line of bash in a folder of its own; P stands for predict."""
    (tmp_path / "here").mkdir()
    command = shlex.join([sys.executable, "-m", "facegender", "predict"])

    def run(line: str) -> subprocess.CompletedProcess[str]:
        text = f'P() {{ {command} "$@" --model {shlex.quote(str(model_path))}; }}; {line}'
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", text],
            cwd=tmp_path / "here",
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_results_on_standard_output(
    name: str, shell: Shell, photos: Photos, tmp_path: Path
) -> None:
    photos(TWO)
    done = shell(f"P ../photos -o {name}")
    assert done.returncode == 0 and json.loads(done.stdout) == LABELS
    assert "2 images in" in done.stderr and "2.png: female" in done.stderr
    shown = "standard output" if name == "-" else name
    assert f"results: {shown}\n" in done.stderr
    assert not list((tmp_path / "here").iterdir())  # no journal, no temporary file
    quiet = shell(f"P ../photos -o {name} -q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_details_on_standard_output(shell: Shell, photos: Photos, tmp_path: Path) -> None:
    photos({**TWO, "bad.jpg": b"text"})
    done = shell("P ../photos --details -")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == ["2.png", "10.png", "bad.jpg"]
    assert done.returncode == 1 and "--retry-errors" in done.stderr
    assert json.loads((tmp_path / "here" / "process_results.json").read_text()) == LABELS
    table = shell("P ../photos --details - --format csv -o o.json -q").stdout
    assert table.splitlines()[0].startswith("file,face_index,status,")
    assert shell("P ../photos --details - --format parquet -o o.json -q | head -c 4").stdout == (
        "PAR1"
    )


def test_results_in_pipes(shell: Shell, photos: Photos, tmp_path: Path) -> None:
    photos(TWO)
    done = shell(
        "P ../photos -o >(cat > a.json) --details >(wc -l > count) > log;"
        " while [ ! -s a.json ] || [ ! -s count ]; do sleep 0.01; done"
    )
    assert done.returncode == 0, done.stderr
    here = tmp_path / "here"
    assert json.loads((here / "a.json").read_text()) == LABELS
    assert (here / "count").read_text().strip() == "2"
    assert "2 images in" in (here / "log").read_text()
    done = shell("mkfifo pipe; cat pipe > b.json & P ../photos -o pipe && wait")
    assert done.returncode == 0 and json.loads((here / "b.json").read_text()) == LABELS
    assert (here / "pipe").is_fifo()  # not replaced
    assert sorted(path.name for path in here.iterdir()) == [
        *("a.json", "b.json", "count", "log", "pipe")
    ]


def test_standard_output_that_is_a_file(shell: Shell, photos: Photos, tmp_path: Path) -> None:
    photos(TWO)
    done = shell("echo first > o; P ../photos -o /dev/stdout >> o; P ../photos -o /dev/fd/5 5> p")
    assert done.returncode == 0, done.stderr
    first, rest = (tmp_path / "here" / "o").read_text().split("\n", 1)
    assert first == "first" and json.loads(rest) == LABELS
    assert json.loads((tmp_path / "here" / "p").read_text()) == LABELS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("P ../photos -o - > /dev/full", "Cannot write -: No space left on device"),
        ("P ../photos --details - > /dev/full", "No space left on device"),
        ("P ../photos -o - >&-", "Cannot write to standard output: it is closed"),
    ],
)
def test_standard_output_that_takes_nothing(
    line: str, message: str, shell: Shell, photos: Photos, tmp_path: Path
) -> None:
    photos(TWO)
    done = shell(line)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert not (tmp_path / "here" / "process_results.json").exists()


def test_a_reader_that_ends_early(shell: Shell, photos: Photos, tmp_path: Path) -> None:
    photos({f"{n}.png": MALE for n in range(600)})
    line = "P ../photos --details - --faces whole {} | head -n 1"
    done = shell(line.format("-o /dev/null"))
    assert json.loads(done.stdout)["file"] == "0.png"
    assert (done.returncode, done.stderr) == (141, "")  # as of other commands
    done = shell(line.format("-o o.json"))  # a file that is not written is an error
    assert json.loads(done.stdout)["file"] == "0.png"
    assert (
        done.returncode == 2 and done.stderr == "error: Cannot write -: its reader has closed it\n"
    )
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".facegender-o.json.journal"]


def test_a_reader_that_reads_nothing(shell: Shell, photos: Photos) -> None:
    photos(TWO)
    done = shell("P ../photos -o - | true")
    assert done.returncode == 141 and "Exception ignored" not in done.stderr, done.stderr
    done = shell("mkfifo p; (exec 3< p; sleep 0.1) & P ../photos -o p")
    assert (done.returncode, done.stderr) == (141, "")
    done = shell("P ../photos | true")  # the summary; the results are in a file
    assert (done.returncode, done.stderr) == (0, "")


def test_lists_in_pipes(shell: Shell, photos: Photos) -> None:
    photos(TWO)
    for line in (
        "P --list <(find ../photos -name '1*.png') -o - -q",
        "find ../photos -name '1*.png' | P --list - -o - -q",
        "find ../photos -name '1*.png' -print0 | P - -o - -q",
        "mkfifo pipe; find ../photos -name '1*.png' > pipe & P --list pipe -o - -q",
    ):
        assert json.loads(shell(line).stdout) == {"../photos/10.png": "male"}, line


def test_names_that_are_no_unicode_on_standard_output(shell: Shell, photos: Photos) -> None:
    photos({os.fsdecode(b"caf\xe9.png"): MALE, "é中.png": MALE})
    done = shell("PYTHONIOENCODING=latin-1 P ../photos -o - -q")
    assert json.loads(done.stdout) == {"caf\udce9.png": "male", "é中.png": "male"}


def test_one_image(shell: Shell, photos: Photos) -> None:
    photos({**TWO, "bad.jpg": b"text"})
    lines = shell("P ../photos/2.png").stdout.splitlines()
    assert lines[0].startswith("../photos/2.png: female ") and lines[0].endswith(" %")
    assert lines[1].startswith("1 image in ") and "images/s" not in lines[1]
    assert lines[2:] == ["results: process_results.json"]
    lines = shell("P ../photos/2.png --min-confidence 1").stdout.splitlines()
    assert lines[0].startswith("../photos/2.png: unknown (female ")
    done = shell("P ../photos/bad.jpg -o new.json")
    assert done.returncode == 1
    assert done.stdout.startswith("unreadable: ../photos/bad.jpg: not an image in a known format\n")


def test_the_first_answers_of_a_folder(shell: Shell, photos: Photos) -> None:
    files = {f"{n}.png": MALE for n in range(8)} | {"1.png": b"text", "notes": b"x"}
    photos(files | {"a.PDF": b"x", "b.pdf": b"x", ".DS_Store": b"x"})
    lines = shell("P ../photos").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [
        *("0.png", "2.png", "3.png", "4.png", "5.png")
    ]
    assert lines[5] == "and 2 more"
    assert "skipped           3 (2 .pdf, 1 without suffix)" in lines


def test_nothing_that_could_be_read_leaves_earlier_results(
    shell: Shell, photos: Photos, tmp_path: Path
) -> None:
    folder = photos({"a.jpg": b"text", "b.mp4": b"\0\0\0\x20ftypisom" + bytes(40)})
    results = tmp_path / "here" / "process_results.json"
    results.write_text('{\n  "a.jpg": "male"\n}\n')
    done = shell("P ../photos --details d.csv")
    assert done.returncode == 1
    assert results.read_text() == '{\n  "a.jpg": "male"\n}\n'
    assert "No image could be read: process_results.json is left as it was" in done.stderr
    assert "results: d.csv\n" in done.stdout
    results.unlink()
    assert shell("P ../photos").returncode == 1 and results.read_text() == "{}\n"
    assert shell("P ../photos").stderr == ""  # there is nothing to lose
    (folder / "c.png").write_bytes(MALE)
    assert shell("P ../photos").returncode == 1
    assert json.loads(results.read_text()) == {"c.png": "male"}


def test_standard_output_that_the_caller_replaced(
    photos: Photos, model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io
    from contextlib import redirect_stdout

    from facegender import OutputError, PredictOutputs, predict_to_files

    folder = photos(TWO)
    with redirect_stdout(io.StringIO()) as text:  # as in a notebook
        predict_to_files(folder, PredictOutputs(Path("-")), model=model_path)
        assert json.loads(text.getvalue()) == LABELS
        outputs = PredictOutputs(Path("/dev/null"), Path("-"), "parquet")
        with pytest.raises(OutputError, match="takes only text"):
            predict_to_files(folder, outputs, model=model_path)
    assert capsys.readouterr().out == ""
    assert threading.active_count() < 20
