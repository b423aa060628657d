"""The audit as a user runs it: an archive with known faults, and a training that uses it."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegender.cli import main
from facegender.errors import InputError
from facegender.images.pixels import Pixels
from facegender.model.model_file import LABELS, read_model_file
from facegender.training.audit.label_issues import describe_issues
from facegender.training.console import Console
from facegender.training.data.duplicate_groups import (
    DUPLICATE_GROUPS_NAME,
    read_duplicate_groups,
    write_duplicate_groups,
)
from facegender.training.data.samples import Sample
from facegender.training.data.split import read_split
from facegender.training.data.subsets import assign_subsets
from facegender.training.dataset import run_audit
from facegender.training.recipe import InputOptions, Recipe, with_changes
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT
DUPLICATES = {"female/face.jpg", "male/mirrored.png", "female/small.jpg"}


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, astronaut: Pixels) -> Path:
    """An archive with one face three times, exact duplicates, and broken, flat and tiny images."""
    folder = tmp_path_factory.mktemp("audit")
    face = Image.fromarray(astronaut[20:220, 140:310])
    rng = np.random.default_rng(0)

    def noise(label: str, side: int = 40) -> Image.Image:
        pixels = rng.integers(0, 120, (side, side, 3), np.uint8)
        pixels[..., 0 if label == "male" else 2] += 120
        return Image.fromarray(pixels)

    files = {
        f"{label}/{n}.png": encoded(noise(label), "PNG")
        for n in range(20)
        for label in ("male", "female")
    }
    files |= {
        "female/face.jpg": encoded(face, "JPEG"),
        "male/mirrored.png": encoded(face.transpose(MIRROR), "PNG"),
        "female/small.jpg": encoded(face.resize((85, 100)), "JPEG"),
        "male/again.png": files["male/3.png"],
        "male/as_bmp.bmp": encoded(Image.open(io.BytesIO(files["male/4.png"])), "BMP"),
        "male/empty.jpg": b"",
        "female/empty.jpg": b"",
        "female/cut.jpg": encoded(face, "JPEG")[:2000],
        "female/<b>flat.png": encoded(Image.new("RGB", (50, 50), (9, 9, 9)), "PNG"),
        "female/tiny.png": encoded(noise("female", 16), "PNG"),
        "neither.png": encoded(noise("male"), "PNG"),
    }
    pack(folder / "faces.tar.gz", files)
    other = {f"male/other{n}.png": encoded(noise("male"), "PNG") for n in range(3)}
    pack(folder / "test.tar.gz", other | {"female/leak.jpg": encoded(face.convert("L"), "JPEG")})
    return folder


def audit(place: Path, *options: str) -> tuple[int, Path]:
    folder = place / "runs" / "audit"
    with pytest.raises(SystemExit) as done:
        main(["audit", str(place / "faces.tar.gz"), "-o", str(folder), "-q", *options])
    assert isinstance(done.value.code, int)
    return done.value.code, folder


def test_every_fault_is_named_and_the_archive_untouched(place: Path) -> None:
    before = (place / "faces.tar.gz").read_bytes()
    code, folder = audit(place, "--against", str(place / "test.tar.gz"))
    assert code == 1  # three images are unreadable
    found = json.loads((folder / "audit.json").read_text())
    assert {frozenset(group) for group in found["duplicate_groups"]} == {
        frozenset(DUPLICATES),
        frozenset({"male/3.png", "male/again.png"}),
        frozenset({"male/4.png", "male/as_bmp.bmp"}),
    }
    assert found["counts"]["duplicate_pairs"] == {"bytes": 1, "pixels": 1, "near": 3}
    (mixed,) = found["duplicate_groups_with_both_labels"]
    assert {entry["file"] for entry in mixed} == DUPLICATES
    reasons = {entry["file"]: entry["reason"] for entry in found["unreadable"]}
    assert reasons.keys() == {"male/empty.jpg", "female/empty.jpg", "female/cut.jpg"}
    assert "empty" in reasons["male/empty.jpg"]
    assert [entry["file"] for entry in found["skipped"]] == ["faces.tar.gz/neither.png"]
    assert found["single_color"] == ["female/<b>flat.png"]
    assert [entry["file"] for entry in found["tiny"]] == ["female/tiny.png"]
    assert "male/0.png" in found["no_face"] and not DUPLICATES & set(found["no_face"])
    assert {leak["against"] for leak in found["leaks"]} == {"female/leak.jpg"}
    for entry in found["label_issues"]:
        assert entry.keys() == {"file", "label", "suggested", "p_wrong", "flagged"}
        other = {"male": "female", "female": "male"}[entry["label"]]
        assert entry["suggested"] == (other if entry["p_wrong"] >= 0.5 else "")
    ranked = [entry["p_wrong"] for entry in found["label_issues"]]
    assert ranked == sorted(ranked, reverse=True)
    assert (place / "faces.tar.gz").read_bytes() == before


def test_the_page_is_whole_and_loads_nothing(place: Path) -> None:
    _, folder = audit(place)
    page = (folder / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= len(DUPLICATES)
    for title, name, size in (
        ("Tiny: 1", "female/tiny.png", "16 x 16"),
        ("Single color: 1", "female/&lt;b&gt;flat.png", "50 x 50"),
    ):
        subset = page[page.index(title) :]
        subset = subset[: subset.index("</details>")]
        assert subset.count("data:image/jpeg;base64,") == 1 and name in subset and size in subset
    subset = page[page.index("Unreadable: 3") :]
    assert subset.index("female/cut.jpg: ") < subset.index("</details>")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<b>flat" not in page and "&lt;b&gt;flat" in page


def test_the_page_shows_a_slice_with_its_confident_errors_and_p_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def tinted(channel: int) -> bytes:
        pixels = rng.integers(0, 120, (48, 48, 3), np.uint8)
        pixels[..., channel] += 120
        return encoded(Image.fromarray(pixels), "PNG")

    files = {f"male/{n}.png": tinted(0) for n in range(180)}
    files |= {f"female/{n}.png": tinted(2) for n in range(180)}
    files |= {f"male/wed_<b>{n}.png": tinted(2) for n in range(12)}
    pack(tmp_path / "faces.tar.gz", files)
    with pytest.raises(SystemExit) as ended:
        main(["audit", str(tmp_path / "faces.tar.gz"), "-o", str(tmp_path / "found")])
    assert ended.value.code == 0
    found, *_ = json.loads((tmp_path / "found/audit.json").read_text())["slices"]
    assert found["label"] == "male"
    confident, disagreeing = found["confidently_disagreeing"], found["disagreeing"]
    assert 1 <= confident <= disagreeing >= 10
    page = (tmp_path / "found/audit.html").read_text()
    assert f"{disagreeing} of {found['images']} labels disagree with the scores" in page
    assert f"{confident} confidently; p = {found['p_value']:.2g}<" in page
    assert "<b>0.png" not in page


def test_a_person_under_both_labels_is_named_with_the_rarer_label_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def noise() -> bytes:
        return encoded(Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)), "PNG")

    persons = {"male/a.png": "<b>one", "male/b.png": "<b>one", "female/c.png": "<b>one"}
    persons |= {"male/d.png": "two", "female/e.png": "three", "female/f.png": ""}
    pack(tmp_path / "faces.tar.gz", {name: noise() for name in persons})
    table = tmp_path / "table.csv"
    table.write_text("file,person\n" + "".join(f"{file},{who}\n" for file, who in persons.items()))
    with pytest.raises(SystemExit):
        options = ["--metadata", str(table), "-o", str(tmp_path / "found"), "-q"]
        main(["audit", str(tmp_path / "faces.tar.gz"), *options])
    facts = json.loads((tmp_path / "found/audit.json").read_text())
    (mixed,) = facts["persons_with_both_labels"]
    assert mixed["person"] == "<b>one" and facts["counts"]["persons_with_both_labels"] == 1
    files = [(one["file"], one["label"]) for one in mixed["files"]]
    assert files[0] == ("female/c.png", "female")
    assert set(files[1:]) == {("male/a.png", "male"), ("male/b.png", "male")}
    page = (tmp_path / "found/audit.html").read_text()
    subset = page[page.index('id="persons"') : page.index('id="slices"')]
    assert "&lt;b&gt;one" in subset and subset.count("<figure>") == 3
    assert subset.index("female/c.png") < subset.index("male/a.png")


def test_of_a_large_group_under_both_labels_both_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)

    def noise() -> bytes:
        return encoded(Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)), "PNG")

    same = noise()
    files = {f"male/same{n}.png": same for n in range(12)} | {"female/same.png": same}
    pack(tmp_path / "faces.tar.gz", files | {f"female/{n}.png": noise() for n in range(3)})
    with pytest.raises(SystemExit):
        main(["audit", str(tmp_path / "faces.tar.gz"), "-o", str(tmp_path / "found")])
    page = (tmp_path / "found/audit.html").read_text()
    duplicates = page[page.index('id="duplicates"') :]
    assert "both labels" in duplicates and "and 5 more" in duplicates
    shown = duplicates[: duplicates.index("and 5 more")]
    assert "<b>female</b><br><span translate='no'>female/same.png" in shown


def test_label_issues_csv_is_a_list_of_corrections(place: Path) -> None:
    from facegender.training.data.corrections import read_corrections

    _, folder = audit(place)
    flagged = [
        entry
        for entry in json.loads((folder / "audit.json").read_text())["label_issues"]
        if entry["flagged"]
    ]
    corrections = read_corrections(folder / "label_issues.csv")
    with (folder / "label_issues.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert flagged and {row["file"] for row in rows} <= {entry["file"] for entry in flagged}
    assert corrections.unreviewed == len(rows) and not corrections.reviewed
    assert {row["reviewed"] for row in rows} == {""}
    proposals = {row["sha256"][:16]: row["label"] for row in rows if row["label"]}
    assert corrections.proposed == proposals
    assert {bool(row["label"]) for row in rows if float(row["p_wrong"]) < 0.5} <= {False}
    assert all(row["label"] != row["given"] for row in rows)


def test_it_says_how_many_labels_to_review_and_how_many_are_wrong(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe_issues(31, 17.6) == "31 labels to review, about 18 wrong"
    assert describe_issues(1, 0.6) == "1 label to review, about 1 wrong"
    assert describe_issues(0, 0.0) == "no labels to review"
    folder = place / "runs" / "said"
    with pytest.raises(SystemExit):
        main(["audit", str(place / "faces.tar.gz"), "-o", str(folder)])
    found = json.loads((folder / "audit.json").read_text())
    flagged = [entry["p_wrong"] for entry in found["label_issues"] if entry["flagged"]]
    assert found["counts"]["label_issues_wrong"] == pytest.approx(sum(flagged), abs=0.06)
    said = describe_issues(len(flagged), found["counts"]["label_issues_wrong"])
    assert f"{said}. Open the report" in capsys.readouterr().out


def test_of_duplicates_the_largest_stays_and_a_split_keeps_them_together(place: Path) -> None:
    _, folder = audit(place, "--drop-duplicates")
    grouping = read_duplicate_groups(folder)
    dropped = {file for _, file, _ in grouping.left_out}
    assert len(DUPLICATES & dropped) == 2 and "female/small.jpg" in dropped
    assert len({"male/3.png", "male/again.png"} & dropped) == 1
    samples = [
        Sample("faces.tar.gz", file, file.split("/")[0])
        for file in (*sorted(DUPLICATES), *(f"male/{n}.png" for n in range(20)))
    ]
    with tarfile.open(place / "faces.tar.gz") as archive:
        files = [archive.extractfile(sample.file) for sample in samples]
        digests = [sha256(file.read()).hexdigest() for file in files if file]
    together = grouping.of(samples, digests)
    for seed in range(8):
        rows = assign_subsets(
            samples, digests, seed=seed, validation=0.5, duplicate_groups=together
        )
        assert len({row.group for row in rows[:3]}) == len({row.subset for row in rows[:3]}) == 1
    apart = [assign_subsets(samples, digests, seed=seed, validation=0.5) for seed in range(8)]
    assert any(len({row.subset for row in rows[:3]}) == 2 for rows in apart)
    assert sum(grouping.keeps(samples[:3], digests[:3])) == 1
    changed = digests[::-1]  # the same names, other images
    assert not grouping.is_of(samples, changed) and all(grouping.keeps(samples, changed))


def test_label_issues_are_dropped_when_asked_for(place: Path) -> None:
    _, folder = audit(place, "--drop-label-issues", "0.5")
    found = json.loads((folder / "audit.json").read_text())
    expected = {entry["file"] for entry in found["label_issues"] if entry["p_wrong"] >= 0.5}
    assert expected and {file for _, file, _ in read_duplicate_groups(folder).left_out} == expected


@pytest.mark.parametrize("probability", ["0", "1.5", "-1"])
def test_a_wrong_probability_is_refused(place: Path, probability: str) -> None:
    folder = place / "runs" / "refused"
    with pytest.raises(SystemExit) as done:
        main(
            [
                "audit",
                str(place / "faces.tar.gz"),
                "-o",
                str(folder),
                "--drop-label-issues",
                probability,
            ]
        )
    assert done.value.code == 2 and not folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("gone.tar", "-o", "new"), "gone.tar does not exist"),
        (("faces.tar.gz", "--against", "gone.tar", "-o", "new"), "gone.tar does not exist"),
        (("faces.tar.gz", "--metadata", "new/duplicate_groups.csv", "-o", "new"), "same file"),
    ],
)
def test_wrong_use_writes_nothing(
    place: Path,
    options: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as done:
        main(["audit", *options])
    assert done.value.code == 2 and not (place / "new").exists()
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_training_uses_the_audit(
    request_of_run: TrainRequest, recipe: Recipe, tmp_path: Path
) -> None:
    """Duplicates are in one group of the split, and what is left out is in no subset."""
    names = [f"{LABELS[n % 2]}/c{n}.png" for n in range(40)]
    samples = [Sample("c", name, name.split("/")[0]) for name in names]
    groups = dict.fromkeys(range(12), "same")
    digests = [
        sha256((Path(request_of_run.inputs[2]) / name).read_bytes()).hexdigest() for name in names
    ]
    write_duplicate_groups(
        tmp_path / DUPLICATE_GROUPS_NAME,
        samples,
        digests,
        groups,
        {30: "duplicate", 31: "label_issue"},
    )
    counts = []
    for number, folder in enumerate(("", str(tmp_path))):
        request = replace(request_of_run, audit=folder, test=0.0)
        run = tmp_path / f"run{number}"
        train(request, with_changes(recipe, epochs=1, seed=None), run, console=Console(quiet=True))
        described = read_model_file(run).description.data
        counts.append(described["train"] + described["validation"])
    assert counts[1] == counts[0] - 2
    rows = {row.sample.file: row for row in read_split(run / "split.csv")}
    assert len({rows[name].group for name in names[:12]}) == 1
    with pytest.raises(InputError, match="contains no audit"):
        train(replace(request_of_run, audit=str(run)), recipe, tmp_path / "no")
    other = replace(request_of_run, audit=str(tmp_path), inputs=request_of_run.inputs[:1])
    with pytest.raises(InputError, match="of other images"):
        train(other, recipe, tmp_path / "other", console=Console(quiet=True))


def test_a_training_audits_first_whatever_its_recipe(
    request_of_run: TrainRequest, recipe: Recipe, tmp_path: Path
) -> None:
    """It keeps duplicates together, is reused by the next run, and can be skipped."""
    recipe = with_changes(recipe, epochs=1, seed=None)
    asked = {"inputs": request_of_run.inputs[2:], "metadata": None, "test": 0.0, "audit": None}
    request = replace(request_of_run, **asked)
    console = Console(quiet=True)
    runs = [tmp_path / name for name in ("first", "again")]
    train(request, recipe, runs[0], sanity_check=False, console=console)
    folder = runs[0] / "audit"
    assert (folder / "audit.html").is_file() and (folder / "label_issues.csv").is_file()
    groups = read_duplicate_groups(folder).groups
    by_file = {file: group for (_, file, _), group in groups.items()}
    assert by_file["male/copy.png"] == by_file["male/c1.png"]
    rows = {
        (row.sample.archive, row.sample.file, row.sha256): row
        for row in read_split(runs[0] / "split.csv")
    }
    for name in {*groups.values()}:
        assert len({rows[key].group for key in groups if groups[key] == name}) == 1
    assert json.loads((runs[0] / "run.json").read_text())["audit"] == str(folder)
    (kept,) = (tmp_path / ".store").glob("*.audit*")
    (kept / "audit.html").write_text("reused", encoding="utf-8")
    runs[1].mkdir()
    aligned = replace(recipe, input=InputOptions(128, 128, crop="aligned"))
    again = run_audit(request, aligned, runs[1], console)
    assert again == replace(request, audit=str(runs[1] / "audit"))
    assert (runs[1] / "audit" / "audit.html").read_text() == "reused"
    split = replace(request, split=str(runs[0] / "split.csv"))
    for asked_for in (split, replace(request, audit=""), replace(request, audit=str(folder))):
        assert run_audit(asked_for, recipe, tmp_path / "no", console) == asked_for
    assert not (tmp_path / "no").exists()


def test_a_folder_without_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no audit"):
        read_duplicate_groups(tmp_path)
