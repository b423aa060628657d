"""The models that ship: what they say of themselves, and their answers for faces/."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from facegender import Classifier, Status, predict_folder
from facegender.errors import ModelFileError
from facegender.images.decode import decode
from facegender.model.model_file import LABELS, SHIPPED_MODELS, find_model, shipped_model

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
ANSWERS = {
    "barack_obama.jpg": "male",
    "barack_obama_speaking.jpg": "male",
    "barack_obama_standing.jpg": "male",
    "eileen_collins.jpg": "female",
    "joe_biden.jpg": "male",
}  # grace_hopper.jpg, an old woman in a uniform cap, is classified as male: see MODEL_CARD.md


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier.load()


def test_it_says_what_it_is(shipped: Classifier) -> None:
    description = shipped.description
    assert description.labels == LABELS
    assert "non-commercial" in description.license
    assert "UTKFace" in description.terms and "CelebA" in description.terms
    assert description.data["test"] > 0, "a test subset was held out"
    accuracy = description.metrics["validation"]["accuracy"]
    assert accuracy["count"] == description.data["validation"]
    assert accuracy["value"] >= 0.96


@pytest.mark.parametrize(("name", "megabytes"), [("best", 12), ("fast", 6.5), ("open", 1.6)])
def test_each_is_small_and_names_no_place_of_the_machine_it_was_made_on(
    name: str, megabytes: float
) -> None:
    data = shipped_model(name).read_bytes()
    assert len(data) < megabytes * 1e6
    for trace in (b"/home/", b"/root/", b'.py"', b"site-packages"):
        assert trace not in data


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_each_is_loaded_by_its_name_and_answers(name: str) -> None:
    classifier = Classifier.load(name)
    assert classifier.description.name.startswith(name)
    rows = predict_folder(ROOT / "faces", classifier=classifier)
    labels = {row.file: row.label for row in rows if row.status == Status.OK}
    assert [labels[file] for file in ANSWERS] == list(ANSWERS.values())
    again = pickle.loads(pickle.dumps(classifier))
    assert again.digest == classifier.digest


def test_one_of_them_may_be_used_for_anything() -> None:
    description = Classifier.load("open").description
    assert description.license == "Apache-2.0"
    assert "public domain" in description.terms
    for source in ("UTKFace", "CelebA", "SCUT", "LFW", "adience"):
        assert source not in description.to_json()


def test_a_run_folder_with_the_name_of_a_model_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model(None) == shipped_model() == find_model(Path("best"))
    assert find_model(Path("open")) == shipped_model("open")
    Path("open").mkdir()
    assert find_model(Path("open")) == shipped_model("open"), "a folder without a model"
    Path("open", "model.onnx").write_bytes(b"")
    assert find_model(Path("open")) == Path("open")
    with pytest.raises(ModelFileError, match="that ship are best, fast, open"):
        Classifier.load("small")


def test_it_answers_for_the_portraits(shipped: Classifier) -> None:
    rows = {row.file: row for row in predict_folder(ROOT / "faces", classifier=shipped)}
    images = {name: row for name, row in rows.items() if row.status != Status.SKIPPED}
    assert set(ANSWERS) <= set(images)
    assert {name: rows[name].label for name in ANSWERS} == ANSWERS


def test_a_row_never_depends_on_its_neighbours(shipped: Classifier) -> None:
    portraits = [
        shipped.aligner(decode(path.read_bytes())).pixels
        for path in sorted((ROOT / "faces").glob("*.jpg"))
    ]
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, portraits[0].shape, np.uint8) for _ in range(27)]
    mixed = shipped.probabilities(np.stack(noise + portraits))[len(noise) :]
    for portrait, beside in zip(portraits, mixed, strict=True):
        alone = shipped.probabilities(portrait[None])[0]
        assert np.array_equal(alone.round(4), beside.round(4))


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here: no real faces to ask")
def test_it_is_the_network_that_was_measured(shipped: Classifier) -> None:
    """Not a measurement: training and validation images, to check that it is the right file."""
    from hashlib import sha256

    from facegender.training.data.samples import stream_samples
    from facegender.training.data.subsets import assign_subsets

    streamed = list(stream_samples([DATA / "faces-0.tar.gz"], DATA / "faces.csv"))[::10]
    samples = [sample for sample, _ in streamed]
    digests = [sha256(data).hexdigest() for _, data in streamed]
    subsets = [row.subset for row in assign_subsets(samples, digests, seed=0, test=0.2)]
    seen = [item for item, subset in zip(streamed, subsets, strict=True) if subset != "test"]
    truth = np.array([LABELS.index(sample.label) for sample, _ in seen])
    pixels = np.stack([shipped.aligner(decode(data)).pixels for _, data in seen])
    correct = shipped.probabilities(pixels).argmax(1) == truth
    assert len(correct) > 1000
    assert correct.mean() > 0.95, "far below the accuracy in its own description"
