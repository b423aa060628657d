"""A run on three archives: its files, its split, stopping and resuming, and its errors."""

from __future__ import annotations

import csv
import json
import signal
import tomllib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from PIL import Image

from facegender.errors import (
    FacegenderError,
    InputError,
    MissingExtraError,
    OutputError,
    StoppedError,
)
from facegender.faces.face_aligner import FaceAligner
from facegender.inference.classifier import Classifier
from facegender.model.model_file import read_model_file
from facegender.training.console import Console
from facegender.training.data import image_cache as cache
from facegender.training.data.image_cache import open_image_cache
from facegender.training.data.split import SUBSETS, Assignment, read_split
from facegender.training.evaluation.evaluate import evaluate
from facegender.training.export_run import export_run
from facegender.training.loop.history import StepProgress
from facegender.training.models.networks import build_network
from facegender.training.prepare import prepare
from facegender.training.recipe import InputOptions, Recipe, TrainOptions, read_recipe
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train

QUIET = Console(quiet=True)
FILES = [
    "best.safetensors",
    "checkpoint.safetensors",
    "config.toml",
    "history.csv",
    "metrics.json",
    "model.onnx",
    "predictions.csv",
    "report.html",
    "run.json",
    "saved_model",
    "split.csv",
]


class CtrlC(Console):
    """Sends an interrupt to this process after a number of steps, as Ctrl-C does."""

    def __init__(self, steps: int, quiet: bool = True) -> None:
        super().__init__(quiet=quiet)
        self.left = steps

    def step(self, at: StepProgress) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        super().step(at)


@pytest.fixture
def split(run_folder: Path) -> list[Assignment]:
    return read_split(run_folder / "split.csv")


@pytest.fixture
def short(run_folder: Path, recipe: Recipe) -> Recipe:
    return replace(recipe, train=TrainOptions(epochs=1, batch_size=64, precision="32"))


def beside(run_folder: Path, name: str) -> Path:
    """A run folder that parts the image cache."""
    return run_folder.parent / name


def test_all_files_are_there_and_none_unfinished(run_folder: Path, recipe: Recipe) -> None:
    assert sorted(path.name for path in run_folder.iterdir()) == FILES
    assert read_recipe(run_folder / "config.toml") == recipe
    assert tomllib.loads((run_folder / "config.toml").read_text())["train"]["epochs"] == 3
    with (run_folder / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_split_keeps_persons_and_copies_together(split: list[Assignment]) -> None:
    assert len(split) == 122
    assert [row.sample.file for row in split if row.error] == ["deep/male/empty.png"]
    subsets_of_person = defaultdict(set)
    subsets_of_copy = defaultdict(set)
    for row in split:
        if row.subset:
            subsets_of_copy[row.sha256].add(row.subset)
        if row.subset and row.sample.person:
            subsets_of_person[row.sample.person].add(row.subset)
    assert len(subsets_of_person) == 30
    assert {len(subsets) for subsets in subsets_of_person.values()} == {1}
    assert {len(subsets) for subsets in subsets_of_copy.values()} == {1}
    assert {row.subset for row in split if row.subset} == {"train", "validation", "test"}


def test_counts_fit_the_split(run_folder: Path, split: list[Assignment]) -> None:
    sizes = {
        subset: sum(row.subset == subset for row in split)
        for subset in ("train", "validation", "test")
    }
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    validation = metrics["validation"]
    assert validation["accuracy"]["count"] == sizes["validation"]
    assert sum(subset["count"] for subset in validation["recall"].values()) == sizes["validation"]
    with_source = sum(bool(row.sample.source) for row in split if row.subset == "validation")
    sources = validation["sources"]
    assert sum(subset["accuracy"]["count"] for subset in sources.values()) == with_source
    assert metrics["pretrained"] == "random weights"
    description = read_model_file(run_folder).description
    assert {name: description.data[name] for name in sizes} == sizes
    with (run_folder / "history.csv").open() as file:
        assert {row["validation_count"] for row in csv.DictReader(file)} == {
            str(sizes["validation"])
        }


def test_no_test_image_is_trained_on_or_predicted(
    run_folder: Path, split: list[Assignment]
) -> None:
    with (run_folder / "predictions.csv").open(encoding="utf-8") as file:
        scored = {(row["archive"], row["file"]) for row in csv.DictReader(file)}
    validation = {(r.sample.archive, r.sample.file) for r in split if r.subset == "validation"}
    assert scored == validation
    trained_on = sorted(row.sha256 for row in split if row.subset == "train")
    assert not set(trained_on) & {row.sha256 for row in split if row.subset != "train"}
    description = read_model_file(run_folder).description
    assert description.data["fingerprint"] == sha256("".join(trained_on).encode()).hexdigest()[:16]


def test_metrics_are_computed_from_the_predictions(run_folder: Path) -> None:
    with (run_folder / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = sum((row["label"] == "male") == (float(row["p_male"]) > 0.5) for row in rows)
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["validation"]["accuracy"]["correct"] == right


def test_the_network_was_trained(run_folder: Path, draw: Callable[..., Image.Image]) -> None:
    classifier = Classifier.load(run_folder)
    answers = classifier.predict([draw(label, 999) for label in ("male", "female")])
    assert [answer.label for answer in answers] == ["male", "female"]


def test_description_of_the_model_file(
    run_folder: Path, request_of_run: TrainRequest, recipe: Recipe
) -> None:
    description = read_model_file(run_folder).description
    assert description.name == "tiny"
    assert description.resize == recipe.input.aligner.resize
    assert (description.license, description.terms) == ("none", "made by code")
    assert description.pretrained == "random weights"
    assert description.recipe["train"]["epochs"] == 3
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert description.metrics["validation"]["accuracy"] == metrics["validation"]["accuracy"]


def test_saved_model_is_a_state_dict(run_folder: Path) -> None:
    state = torch.load(run_folder / "saved_model", weights_only=True)
    assert all(value.device.type == "cpu" for value in state.values())
    build_network("test_resnet").load_state_dict(state, strict=True)


def test_inputs_are_unchanged(run_folder: Path, request_of_run: TrainRequest) -> None:
    folder = Path(request_of_run.inputs[0]).parent
    assert sorted(path.name for path in folder.iterdir()) == ["a.tar.gz", "b.zip", "c", "table.csv"]
    assert len(list((folder / "c").rglob("*.png"))) == 41


def test_a_run_is_not_overwritten(
    run_folder: Path, request_of_run: TrainRequest, recipe: Recipe
) -> None:
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    with pytest.raises(InputError, match=r"already contains a run.*--resume"):
        train(request_of_run, recipe, run_folder, console=QUIET)
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == before


def test_ctrl_c_then_resume_ends_as_the_uninterrupted_run(
    run_folder: Path, request_of_run: TrainRequest, recipe: Recipe
) -> None:
    folder = beside(run_folder, "stopped")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="--resume"):
        train(request_of_run, recipe, folder, console=CtrlC(7))
    assert signal.getsignal(signal.SIGINT) is handler
    left = sorted(path.name for path in folder.iterdir())
    assert set(left) < set(FILES)
    assert "history.csv" in left  # written epoch by epoch
    assert "checkpoint.safetensors" in left
    assert "model.onnx" not in left
    metrics = train(None, None, folder, resume=True, console=QUIET)
    assert metrics and metrics.to_dict() == json.loads(
        (run_folder / "metrics.json").read_text(encoding="utf-8")
    )
    for name in ("split.csv", "best.safetensors", "predictions.csv", "config.toml"):
        assert (folder / name).read_bytes() == (run_folder / name).read_bytes()
    one, two = (torch.load(f / "saved_model", weights_only=True) for f in (folder, run_folder))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_training_on_encoded_images_gives_the_same(
    run_folder: Path,
    request_of_run: TrainRequest,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cache, "_write", partial(cache._write, is_encoded=True))
    train(request_of_run, recipe, tmp_path / "run", console=Console())
    assert "Cache of encoded images (the disk has no room for pixels)" in " ".join(
        capfd.readouterr().err.split()
    )
    for name in ("best.safetensors", "predictions.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (run_folder / name).read_bytes()


def test_split_of_another_run_is_used_unchanged(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe
) -> None:
    folder = beside(run_folder, "same split")
    again = replace(request_of_run, split=str(run_folder / "split.csv"), test=0.0, validation=0.5)
    with pytest.raises(StoppedError):
        train(again, replace(short, train=replace(short.train, seed=5)), folder, console=CtrlC(1))
    assert (folder / "split.csv").read_bytes() == (run_folder / "split.csv").read_bytes()


def test_corrections_change_training_and_validation_but_not_test(
    run_folder: Path,
    request_of_run: TrainRequest,
    short: Recipe,
    split: list[Assignment],
    tmp_path: Path,
) -> None:
    single = [row for row in split if sum(row.sha256 == other.sha256 for other in split) == 1]
    by_subset = {subset: [row for row in single if row.subset == subset] for subset in SUBSETS}
    changed, left_out = by_subset["train"][:2]
    validated, untouched = by_subset["validation"][0], by_subset["test"][0]

    def other(row: Assignment) -> str:
        return "male" if row.sample.label == "female" else "female"

    path = tmp_path / "corrections.csv"
    lines = [f"{row.sha256},{other(row)}" for row in (changed, validated, untouched)]
    path.write_text("\n".join(["sha256,label", *lines, f"{left_out.sha256},"]))
    folder = beside(run_folder, "corrected")
    train(replace(request_of_run, corrections=str(path)), short, folder, console=QUIET)
    assert (folder / "split.csv").read_bytes() == (run_folder / "split.csv").read_bytes()
    description, before = (read_model_file(f).description for f in (folder, run_folder))
    assert description.data["train"] == before.data["train"] - 1
    assert description.data["validation"] == before.data["validation"]
    assert description.data["fingerprint"] != before.data["fingerprint"]
    with (folder / "predictions.csv").open(newline="") as file:
        scored = {row["file"]: row["label"] for row in csv.DictReader(file)}
    assert scored[validated.sample.file] == other(validated)
    result = evaluate(folder, [Path(i) for i in request_of_run.inputs], subset="test")
    labels = {sample.file: sample.label for sample in result.predictions.samples}
    assert labels[untouched.sample.file] == untouched.sample.label
    corrected = evaluate(
        folder, [Path(i) for i in request_of_run.inputs], subset="test", corrections=path
    )
    labels = {sample.file: sample.label for sample in corrected.predictions.samples}
    assert labels[untouched.sample.file] == other(untouched)


def test_corrections_that_nobody_reviewed_apply_to_training_only(
    run_folder: Path,
    request_of_run: TrainRequest,
    short: Recipe,
    split: list[Assignment],
    tmp_path: Path,
) -> None:
    single = [row for row in split if sum(row.sha256 == other.sha256 for other in split) == 1]
    by_subset = {subset: [row for row in single if row.subset == subset] for subset in SUBSETS}
    other = {"male": "female", "female": "male"}
    path = tmp_path / "corrections.csv"
    proposed = [by_subset[subset][0] for subset in SUBSETS]
    reviewed = by_subset["validation"][1]
    lines = [f"{row.sha256},{other[row.sample.label]}," for row in proposed]
    lines += [f"{by_subset['train'][1].sha256},,", f"{by_subset['validation'][2].sha256},,"]
    lines += [f"{reviewed.sha256},{other[reviewed.sample.label]},yes"]
    path.write_text("\n".join(["sha256,label,reviewed", *lines]))
    request = replace(request_of_run, corrections=str(path))
    folder = tmp_path / "run"
    run = prepare(request, short, folder, resume=False, sanity_check=False, console=QUIET)
    assert [row.subset for row in split] == list(run.subsets)  # nothing is left out
    changed = {
        sample.file: run.subsets[row]
        for row, sample in enumerate(run.cache.samples)
        if sample != split[row].sample
    }
    assert changed == {proposed[0].sample.file: "train", reviewed.sample.file: "validation"}
    result = evaluate(
        run_folder, [Path(i) for i in request.inputs], subset="test", corrections=path
    )
    labels = {sample.file: sample.label for sample in result.predictions.samples}
    assert labels[proposed[2].sample.file] == proposed[2].sample.label


def test_distillation_from_a_teacher(
    run_folder: Path, request_of_run: TrainRequest, recipe: Recipe, tmp_path: Path
) -> None:
    """This one predicts the wrong label everywhere, and so does its student."""
    path = tmp_path / "teacher.csv"
    lines = ["archive,file,label,p_male"] + [
        f"{row.sample.archive},{row.sample.file},{row.sample.label},"
        f"{0.01 if row.sample.label == 'male' else 0.99}"
        for row in read_split(run_folder / "split.csv")
        if row.subset == "train"
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    taught = replace(recipe, train=replace(recipe.train, distillation_weight=1.0))
    folder = beside(run_folder, "pupil")
    metrics = train(replace(request_of_run, teacher=str(path)), taught, folder, console=QUIET)
    honest = json.loads((run_folder / "metrics.json").read_text())["validation"]["accuracy"]
    assert honest["value"] > 0.9
    assert metrics and metrics.validation.accuracy.value < 0.1


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_a_teacher_and_a_recipe_that_do_not_match_are_refused(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe, tmp_path: Path, distill: float
) -> None:
    path = tmp_path / "teacher.csv"
    path.write_text("archive,file,label,p_male\nx.zip,a.png,male,0.9", encoding="utf-8")
    asked = replace(short, train=replace(short.train, distillation_weight=distill))
    folder = beside(run_folder, f"refused {distill}")
    teacher = None if distill else str(path)
    with pytest.raises(InputError, match="--teacher"):
        train(replace(request_of_run, teacher=teacher), asked, folder, console=QUIET)
    if distill:
        with pytest.raises(InputError, match="none of the images"):
            train(replace(request_of_run, teacher=str(path)), asked, folder, console=QUIET)


def test_another_seed_makes_another_split_with_the_same_test_subset(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe, split: list[Assignment]
) -> None:
    folder = beside(run_folder, "other seed")
    with pytest.raises(StoppedError):
        train(
            request_of_run,
            replace(short, train=replace(short.train, seed=5)),
            folder,
            console=CtrlC(1),
        )
    other = read_split(folder / "split.csv")
    subsets = [[(row.sample.file, row.subset) for row in rows] for rows in (split, other)]
    assert subsets[0] != subsets[1]
    tests = [{row.sha256 for row in rows if row.subset == "test"} for rows in (split, other)]
    assert tests[0] == tests[1]


def test_a_split_that_lacks_an_image_is_refused(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe, tmp_path: Path
) -> None:
    lines = (run_folder / "split.csv").read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("b.zip,female/b0.png"))
    given = tmp_path / "split.csv"
    given.write_text("\n".join(lines[:place] + lines[place + 1 :]), encoding="utf-8")
    with pytest.raises(InputError, match=r"female/b0\.png"):
        train(
            replace(request_of_run, split=str(given)),
            short,
            beside(run_folder, "lacking"),
            console=QUIET,
        )


def test_a_split_of_other_images_is_refused(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe, tmp_path: Path
) -> None:
    text = (run_folder / "split.csv").read_text(encoding="utf-8")
    row = next(r for r in read_split(run_folder / "split.csv") if r.sample.file == "male/c3.png")
    given = tmp_path / "split.csv"
    given.write_text(text.replace(row.sha256, "0" * 64), encoding="utf-8")
    with pytest.raises(InputError, match=r"male/c3\.png"):
        train(
            replace(request_of_run, split=str(given)),
            short,
            beside(run_folder, "others"),
            console=QUIET,
        )


def only(label: str, folder: Path, draw: Callable[..., Image.Image]) -> TrainRequest:
    (folder / "data" / label).mkdir(parents=True)
    for number in range(6):
        draw(label, number).save(folder / "data" / label / f"{number}.png")
    return TrainRequest((str(folder / "data"),), audit="")


def test_one_label_alone_is_refused(
    tmp_path: Path, short: Recipe, draw: Callable[..., Image.Image]
) -> None:
    request = only("male", tmp_path, draw)
    with pytest.raises(InputError, match="No image is labeled female"):
        train(replace(request, audit=None), short, tmp_path / "run", console=QUIET)
    assert not list((tmp_path / ".store").glob("*.audit*"))  # refused before the audit
    blank = tmp_path / "corrections.csv"
    blank.write_text("sha256,label\n")
    with pytest.raises(InputError, match="No training image is labeled female"):
        train(replace(request, corrections=str(blank)), short, tmp_path / "run", console=QUIET)
    # the same folder can be used once the mistake is corrected
    (tmp_path / "data" / "female").mkdir()
    for number in range(6):
        draw("female", number).save(tmp_path / "data" / "female" / f"{number}.png")
    with pytest.raises(StoppedError):
        train(request, short, tmp_path / "run", console=CtrlC(1))
    assert len(read_split(tmp_path / "run" / "split.csv")) == 12


def test_the_sanity_check_comes_first_and_changes_nothing(
    tmp_path: Path, run_folder: Path, request_of_run: TrainRequest, recipe: Recipe
) -> None:
    alike = tmp_path / "alike"
    for label in ("male", "female"):
        (alike / label).mkdir(parents=True)
        for number in range(8):  # other bytes, the same pixels
            image = Image.new("RGB", (36, 40), (90, 90, 90))
            image.save(alike / label / f"{number}.png", compress_level=number)
            with (alike / label / f"{number}.png").open("ab") as file:
                file.write(f"{label}{number}".encode())
    with pytest.raises(FacegenderError, match="could not overfit"):
        train(TrainRequest((str(alike),), audit=""), recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run" / "run.json").exists()  # the folder is free to be used again
    with pytest.raises(StoppedError):
        train(
            *(TrainRequest((str(alike),), audit=""), recipe, tmp_path / "run"),
            sanity_check=False,
            console=CtrlC(1),
        )
    unchecked = beside(run_folder, "unchecked")
    train(request_of_run, recipe, unchecked, sanity_check=False, console=QUIET)
    best = (unchecked / "best.safetensors").read_bytes()
    assert best == (run_folder / "best.safetensors").read_bytes()


def test_one_validation_label_alone_is_a_warning(
    tmp_path: Path,
    run_folder: Path,
    request_of_run: TrainRequest,
    short: Recipe,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Corrections that leave no validation image labeled female."""
    rows = read_split(run_folder / "split.csv")
    path = tmp_path / "corrections.csv"
    lines = {
        f"{row.sha256},male" for row in rows if row.subset == "validation" and row.sample.label
    }
    path.write_text("\n".join(["sha256,label", *sorted(lines)]))
    folder = beside(run_folder, "one label")
    with pytest.raises(StoppedError):
        train(
            replace(request_of_run, corrections=str(path)),
            short,
            folder,
            console=CtrlC(1, quiet=False),
        )
    said = " ".join(capfd.readouterr().err.split())
    assert "all validation images are labeled male" in said
    assert "overfit 16 images" in said


def test_tensorboard_is_written_if_asked_for(
    run_folder: Path, request_of_run: TrainRequest, short: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(request_of_run, tensorboard=True)
    folder = beside(run_folder, "board")
    with monkeypatch.context() as patch:
        patch.setattr("facegender.training.prepare.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"'\.\[tensorboard\]'"):
            train(asked, short, folder, console=QUIET)
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install '.[tensorboard]'")
    train(asked, short, folder, console=QUIET)
    (events,) = (folder / "tensorboard").iterdir()
    assert events.stat().st_size > 200


def test_an_empty_validation_subset_is_refused(
    tmp_path: Path, request_of_run: TrainRequest, run_folder: Path, short: Recipe
) -> None:
    with pytest.raises(InputError, match="validation subset is empty"):
        train(
            replace(request_of_run, validation=0.0),
            short,
            beside(run_folder, "no validation"),
            console=QUIET,
        )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inputs": ("absent.zip",)}, "absent.zip"),
        ({"inputs": ()}, "Name at least one"),
        ({"metadata": "absent.csv"}, "absent.csv"),
        ({"split": "absent.csv"}, "absent.csv"),
        ({"pretrained": "absent.safetensors"}, "absent.safetensors"),
        ({"pretrained": "timm"}, "--pretrained"),
    ],
)
def test_wrong_requests_leave_the_folder_free(
    run_folder: Path,
    request_of_run: TrainRequest,
    short: Recipe,
    change: dict[str, object],
    expected: str,
) -> None:
    folder = beside(run_folder, f"wrong {expected}")
    with pytest.raises(InputError, match=expected):
        train(replace(request_of_run, **change), short, folder, console=QUIET)  # type: ignore[arg-type]
    assert not (folder / "run.json").exists()


def test_an_input_size_that_the_network_does_not_accept_is_refused_first(
    tmp_path: Path, request_of_run: TrainRequest
) -> None:
    recipe = Recipe("small", input=InputOptions(height=40, width=40))
    with pytest.raises(InputError, match="does not accept 40x40"):
        train(request_of_run, recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / ".store").exists()


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"inputs": [], "colour": 3}'])
def test_resume_without_a_run(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="contains no run to resume"):
        train(None, None, tmp_path, resume=True, console=QUIET)


def test_a_run_of_an_earlier_version_is_refused_with_the_present_names(tmp_path: Path) -> None:
    old = {"inputs": ["a.zip"], "table": None, "start": "dlib", "licence": "none", "terms": ""}
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(InputError) as caught:
        train(None, None, tmp_path, resume=True, console=QUIET)
    assert str(caught.value).startswith(
        f"{tmp_path / 'run.json'} was written by an earlier version"
    )
    assert "table -> metadata, start -> pretrained, licence -> license" in str(caught.value)


def test_nothing_to_train_on(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(InputError, match="at least one archive"):
        train(None, recipe, tmp_path / "run", console=QUIET)


def test_output_that_cannot_be_made(
    tmp_path: Path, request_of_run: TrainRequest, recipe: Recipe
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Cannot write to"):
        train(request_of_run, recipe, tmp_path / "file" / "run", console=QUIET)


def test_export_again_gives_the_same_predictions(run_folder: Path, tmp_path: Path) -> None:
    described = export_run(run_folder, tmp_path / "other.onnx", terms="changed", console=QUIET)
    again = read_model_file(tmp_path / "other.onnx")
    assert again.description == described
    assert described == replace(read_model_file(run_folder).description, terms="changed")
    cache = open_image_cache(
        [_folder(run_folder)],
        None,
        FaceAligner(described.crop, described.resize),
        tmp_path / "cache",
    )
    one, two = (Classifier.load(path) for path in (run_folder, tmp_path / "other.onnx"))
    assert (one.probabilities(cache.pixels) == two.probabilities(cache.pixels)).all()


def _folder(run_folder: Path) -> Path:
    return Path(json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["inputs"][2])
