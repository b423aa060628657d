"""The report: self-contained, with all metrics and images, and safe for any file name."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegender.cli import main
from facegender.training.data.samples import Sample
from facegender.training.evaluation.evaluation_report import (
    EvaluationReport,
    write_evaluation_report,
)
from facegender.training.evaluation.gallery import Gallery
from facegender.training.evaluation.metrics import table_metrics
from facegender.training.evaluation.predictions_table import PredictionsTable, read_predictions
from facegender.training.evaluation.robustness import (
    CORRUPTIONS,
    Robustness,
    RobustnessCurve,
    RobustnessPoint,
)
from facegender.training.loop.history import EpochMetrics
from facegender.training.run_folder import TrainRequest

VOID = {"meta", "img", "br", "use", "path"}


class Page(HTMLParser):
    """Parses a page, and checks that every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def table(count: int, name: str = "{}.png") -> PredictionsTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    samples = [
        Sample("a.tar", name.format(i), ("female", "male")[k], "", ("web", "film")[i % 2], str(i))
        for i, k in enumerate(labels)
    ]
    return PredictionsTable(
        samples, ["new"] * count, (0.4 * labels + 0.6 * rng.random(count)).round(6)
    )


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    return text, page


def test_metrics_plots_and_images_are_on_it_and_nothing_is_fetched(tmp_path: Path) -> None:
    predictions = table(200)
    metrics = table_metrics(predictions)
    gallery = Gallery(count=3)
    gallery.add(
        predictions, np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3)).astype(np.uint8)
    )
    heatmaps = {kind: [np.zeros((16, 16, 3), np.uint8)] * 3 for kind in gallery.kinds}
    accuracy = metrics.accuracy
    corrupted = Robustness(
        accuracy,
        tuple(
            RobustnessCurve(
                one.name, one.unit, tuple(RobustnessPoint(at, accuracy) for at in one.steps)
            )
            for one in CORRUPTIONS
        ),
    )
    history = [EpochMetrics(i, 0.5, 0.8, 0.4, 0.85, 200, 1e-3, 90.0) for i in range(3)]
    report = EvaluationReport(
        "a title",
        {"new": metrics},
        {"fact": "value & more"},
        {"new": gallery},
        {"new": heatmaps},
        corrupted,
        history,
    )
    write_evaluation_report(tmp_path / "page.html", report)
    text, page = read(tmp_path / "page.html")
    for said in (
        f"{100 * accuracy.value:.2f}%",
        f"{accuracy.correct} of 200",
        f"{metrics.ranking.roc_auc:.4f}",
        f"{metrics.brier:.4f}",
        f"{100 * metrics.disparities['sources'].value:.2f} points",
        "{:.2f} to {:.2f}".format(
            *(100 * end for end in metrics.groups["sources"]["film"].bootstrap["accuracy"])
        ),
        "value & more",
        "film",
        "21-60",
    ):
        assert said in page.text, said
    # learning 2, curves 4, groups 3 (label, source, age), robustness 4
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 13
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "var(--first)" in plot and "var(--ink)" in plot
        assert not re.search(r"#0[1-4]0[1-4]0[1-4]", plot)
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 2 * 9
    assert all(value.startswith("data:image/webp;base64,") for value in images)
    first = base64.b64decode(images[0].partition(",")[2])
    assert Image.open(io.BytesIO(first)).size == (16, 16)
    outside = [
        value
        for tag, name, value in page.attributes
        if name in ("src", "href", "xlink:href") and not value.startswith(("data:", "#"))
    ]
    assert not outside and "<script" not in text and "@import" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    predictions = table(6, name="<script>alert({})</script>\udcff\"'.png")
    gallery = Gallery(count=2)
    gallery.add(predictions, np.zeros((6, 8, 8, 3), np.uint8))
    metrics = {"new": table_metrics(predictions)}
    report = EvaluationReport("<b>t</b>", metrics, {"f": "<i>"}, {"new": gallery})
    write_evaluation_report(tmp_path / "page.html", report)
    text, page = read(tmp_path / "page.html")
    assert "<script" not in text and "<script>alert" in page.text
    assert page.text.count("<b>t</b>") == 2


@pytest.mark.parametrize("source", ["$x_^{$", "亚洲", "a\udcffb", "<&>", "-" * 300])
def test_groups_of_any_name_are_plotted(tmp_path: Path, source: str) -> None:
    predictions = table(8)
    samples = [replace(one, source=source) for one in predictions.samples]
    metrics = {"new": table_metrics(replace(predictions, samples=samples))}
    write_evaluation_report(tmp_path / "page.html", EvaluationReport("odd", metrics))
    _, page = read(tmp_path / "page.html")
    shown = source.replace("\udcff", "?")
    assert shown in page.text  # in the table, whole
    assert page.text.count(shown[:10]) >= 2  # and in the plot


@pytest.mark.parametrize("count", [1, 2])
def test_a_handful_of_images_make_a_page(tmp_path: Path, count: int) -> None:
    write_evaluation_report(
        tmp_path / "page.html", EvaluationReport("few", {"new": table_metrics(table(count))})
    )
    read(tmp_path / "page.html")


def test_a_run_leaves_its_report(run_folder: Path) -> None:
    _, page = read(run_folder / "report.html")
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    accuracy = metrics["validation"]["accuracy"]
    assert f"{accuracy['correct']} of {accuracy['count']}" in page.text
    assert "Learning curves" in page.text and "made by code" in page.text
    split = (run_folder / "split.csv").read_text(encoding="utf-8").splitlines()
    tested = {line.split(",")[1] for line in split if ",test," in line}
    names = {value for tag, name, value in page.attributes if name == "title"}
    assert names and not {name.partition("/")[2] for name in names} & tested


def element(text: str, tag: str) -> str:
    """The content of the first element of a kind."""
    found = re.search(f"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
    assert found, tag
    return found[1].strip()


def test_the_report_of_a_run_begins_with_the_run_and_folds_its_training(run_folder: Path) -> None:
    text, _ = read(run_folder / "report.html")
    assert element(text, "h1") == element(text, "title") == "first: recipe tiny"
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", element(text, "dl")))
    assert re.fullmatch(r"\d:\d\d:\d\d", facts["total time"])
    assert facts["model size"] == f"{(run_folder / 'model.onnx').stat().st_size / 1e6:.1f} MB"
    assert facts["images"].startswith("validation ")
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[0] == "Subset: validation" and headings[-1] == "Training"
    training = text[text.index("<h2>Training</h2>") :]
    assert re.search(r"<details><summary>Learning curves and settings</summary>", training)
    settings = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", training))
    assert "name test_resnet" in settings["network"]
    assert "batch_size 16" in settings["train"] and "rotation_degrees 20" in settings["augment"]


def test_the_errors_of_a_run_point_to_its_audit(run_folder: Path) -> None:
    """Labels are wrong in one image of eight, so that there are errors."""
    text, _ = read(run_folder / "report.html")
    sheets = re.findall(r"<summary>(.*?) \(\d+\)</summary>(.*?)</details>", text, re.DOTALL)
    assert sheets[0][0] == "Most confident errors"
    hints = {name: "Review them" in content for name, content in sheets}
    assert hints == {name: name == "Most confident errors" for name, _ in sheets}
    hint = element(sheets[0][1], "p")
    assert "facegender audit ARCHIVE -o FOLDER" in hint and "train with --corrections" in hint


def test_evaluate_writes_a_folder_that_agrees_with_itself(
    run_folder: Path,
    request_of_run: TrainRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_folder = tmp_path / "report_folder"
    common = ["evaluate", str(run_folder), *request_of_run.inputs]
    common += ["--metadata", str(request_of_run.metadata), "--subset", "validation"]
    with pytest.raises(SystemExit) as done:
        main([*common, "--report", str(report_folder), "--robustness", "4", "--grad-cam"])
    out = capsys.readouterr().out
    assert done.value.code == 0, out
    assert "4 images without corruption" in out
    assert sorted(path.name for path in report_folder.iterdir()) == [
        "metrics.json",
        "predictions.csv",
        "report.html",
    ]
    metrics = json.loads((report_folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["validation"] == table_metrics(read_predictions(report_folder)).to_dict()
    assert (report_folder / "predictions.csv").read_bytes() == (
        run_folder / "predictions.csv"
    ).read_bytes()
    assert metrics["robustness"]["clean"]["count"] == 4
    _, page = read(report_folder / "report.html")
    assert "Grad-CAM" in page.text and "Robustness" in page.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--report", "RUN"), "is a run folder"),
        (("--grad-cam",), "add --report"),
        (("--report", "absent/deep"), "Cannot create the folder"),
        (("--report", "absent/page.html"), "folder not found: absent"),
        (("--report", "a.html", "--output", "a.html"), "same file"),
    ],
)
def test_wrong_use(
    run_folder: Path,
    request_of_run: TrainRequest,
    tmp_path: Path,
    options: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in run_folder.iterdir()}
    given = [option.replace("RUN", str(run_folder)) for option in options]
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(run_folder), request_of_run.inputs[2], *given])
    assert done.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == before


def test_grad_cam_of_a_model_file_alone(
    run_folder: Path,
    request_of_run: TrainRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes((run_folder / "model.onnx").read_bytes())
    page = str(tmp_path / "page.html")
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(model), request_of_run.inputs[2], "--report", page, "--grad-cam"])
    assert done.value.code == 2 and "needs a run folder" in capsys.readouterr().err
