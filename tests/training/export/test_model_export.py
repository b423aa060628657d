"""The model file agrees with the trained network, on the pixels that training uses."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import facegender
from facegender.errors import ModelFileError
from facegender.faces.alignment import Crop
from facegender.faces.face_aligner import FaceAligner
from facegender.images.decode import decode
from facegender.images.pixels import Pixels, Resize, resize
from facegender.inference.classifier import Classifier
from facegender.model.model_file import DESCRIPTION_KEY, ModelDescription, read_model_file
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.data.image_cache import open_image_cache
from facegender.training.export.model_export import (
    ParityError,
    check_parity,
    export_model,
    update_description,
)
from facegender.training.loop.logits import compute_logits
from facegender.training.models.networks import build_network
from facegender.training.recipe import InputOptions

GRAYSCALE = InputOptions(
    height=16, width=20, grayscale=True, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)
)


class Layer(nn.Module):
    """One layer over all pixels, with more than 1,024 weights, which are stored as float16."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


def noise(count: int, height: int, width: int) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, ModelDescription]:
    """A grayscale, oblong network with a temperature, and its file."""
    torch.manual_seed(1)
    network = Layer(3 * 16 * 20)
    description = ModelDescription(
        "grayscale",
        GRAYSCALE.aligner.resize,
        grayscale=True,
        temperature=0.37,
        pretrained="random weights",
    )
    path = tmp_path_factory.mktemp("export") / "new folder" / "model.onnx"
    difference = export_model(network, GRAYSCALE, description, noise(70, 16, 20), path)
    assert 0 <= difference <= 1e-3
    return path, network, description


def test_file_is_a_model_file_with_its_description(
    exported: tuple[Path, nn.Module, ModelDescription],
) -> None:
    path, _, description = exported
    model = read_model_file(path)
    assert model.description == description
    assert [item.name for item in path.parent.iterdir()] == ["model.onnx"]


def test_probabilities_agree_with_the_formula(
    exported: tuple[Path, nn.Module, ModelDescription],
) -> None:
    path, network, _ = exported
    pixels = noise(33, 16, 20)
    with torch.inference_mode():
        x = normalize(to_float(torch.from_numpy(pixels), True), GRAYSCALE)
        expected = (network(x) / 0.37).softmax(1).numpy()
    assert np.ptp(expected[:, 1]) > 0.05  # there is something to agree on
    np.testing.assert_allclose(Classifier.load(path).probabilities(pixels), expected, atol=1e-3)


def test_weights_are_stored_as_float16(exported: tuple[Path, nn.Module, ModelDescription]) -> None:
    path, network, _ = exported
    weights = sum(p.numel() for p in network.parameters())
    assert path.stat().st_size < 2 * weights + 8000


def test_nothing_of_this_machine_is_in_the_file(
    exported: tuple[Path, nn.Module, ModelDescription], run_folder: Path, tmp_path: Path
) -> None:
    places = [
        str(Path(facegender.__file__).parent),
        str(Path.cwd()),
        str(Path.home()) + "/",
        str(tmp_path.parent),
        str(run_folder.parent),
        "site-packages",
        "network.py",
        "export.py",
        "module.py",
        "stack_trace",
    ]
    name = socket.gethostname()
    places += [name] if len(name) > 5 else []
    for path in (exported[0], run_folder / "model.onnx"):
        data = path.read_bytes()
        assert [place for place in places if place.encode() in data] == []


def test_a_new_description_keeps_the_graph(
    exported: tuple[Path, nn.Module, ModelDescription], tmp_path: Path
) -> None:
    path, _, description = exported
    copy = tmp_path / "model.onnx"
    copy.write_bytes(path.read_bytes())
    changed = replace(description, metrics={"validation": {"value": 0.5}}, terms="é中")
    update_description(copy, changed)
    assert read_model_file(copy).description == changed
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    before, after = onnx.load(path), onnx.load(copy)
    assert before.graph.SerializeToString() == after.graph.SerializeToString()
    assert {item.key for item in after.metadata_props} == {
        item.key for item in before.metadata_props
    }
    assert DESCRIPTION_KEY in {item.key for item in after.metadata_props}
    pixels = noise(5, 16, 20)
    np.testing.assert_array_equal(
        Classifier.load(copy).probabilities(pixels), Classifier.load(path).probabilities(pixels)
    )


def test_a_new_description_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        update_description(tmp_path / "model.onnx", ModelDescription("x", Resize(8, 8)))
    assert (tmp_path / "model.onnx").read_bytes() == b"no model"


@pytest.mark.parametrize(
    ("expected", "given", "refused"),
    [
        ([0.2, 0.9], [0.2, 0.9], False),
        ([0.2, 0.9], [0.2009, 0.8991], False),
        ([0.2, 0.9], [0.2, 0.8985], True),
        ([0.4995], [0.5004], False),  # flips, but within the band
        ([0.4], [0.6], True),
        ([0.4985], [0.5015], True),
        ([0.2, 0.9], [0.2, float("nan")], True),
    ],
)
def test_parity_by_hand(expected: list[float], given: list[float], refused: bool) -> None:
    one, two = (np.stack([1 - np.array(row), np.array(row)], 1) for row in (expected, given))
    if refused:
        with pytest.raises(ParityError, match="No model file was written"):
            check_parity(one, two)
    else:
        assert check_parity(one, two) == pytest.approx(np.abs(one - two).max())


def test_a_network_that_needs_float32_keeps_it(tmp_path: Path) -> None:
    options = InputOptions(height=24, width=24, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = Layer(3 * 24 * 24)
    count = 3 * 24 * 24
    with torch.no_grad():  # a sum of many weights that float16 all rounds the same way
        network.layer.weight.copy_(torch.tensor([[0.0], [1 + 2**-12]]).expand(2, count))
        network.layer.bias.copy_(torch.tensor([0.0, -count * (1 + 2**-12)]))
    white = np.full((3, 24, 24, 3), 255, np.uint8)
    path = tmp_path / "model.onnx"
    difference = export_model(
        network, options, ModelDescription("b", options.aligner.resize), white, path
    )
    assert difference < 1e-4
    assert path.stat().st_size > 4 * 2 * count


class Random(nn.Module):
    """A network that no graph can agree with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(x.mean((2, 3))[:, :2]) * 4


def test_a_graph_that_disagrees_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    options = InputOptions(height=24, width=24)
    pixels = np.zeros((3, 24, 24, 3), np.uint8)
    description = ModelDescription("bad", options.aligner.resize)
    path = tmp_path / "model.onnx"
    with pytest.raises(ParityError, match="exported graph and the network disagree"):
        export_model(Random(), options, description, pixels, path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"an older file")
    with pytest.raises(ParityError):
        export_model(Random(), options, description, pixels, path)
    assert path.read_bytes() == b"an older file"


# Training and predict use the same pixels


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Image.Image]) -> Path:
    root = tmp_path_factory.mktemp("awkward")
    for label in ("male", "female"):
        (root / label).mkdir()
        for n, size in enumerate([(31, 57), (200, 33), (7, 7), (32, 32), (1, 1), (64, 64)]):
            draw(label, n, size).save(root / label / f"odd {n}.png")
        face = draw(label, 20, (61, 47))
        face.save(root / label / "face.jpg", quality=60)
        face.convert("L").save(root / label / "grayscale.jpg")
        face.convert("P").save(root / label / "palette.gif")
        face.convert("CMYK").save(root / label / "cmyk.jpg")
        for turn in range(2, 9):
            exif = Image.Exif()
            exif[0x0112] = turn
            face.save(root / label / f"turned {turn}.jpg", exif=exif)
        transparent = face.copy()
        transparent.putalpha(Image.linear_gradient("L").resize(face.size))
        transparent.save(root / label / "transparent.png")
        transparent.save(root / label / "transparent.webp")
        deep = np.asarray(face.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(root / label / "sixteen.png")
    return root


@pytest.mark.parametrize(
    "size",
    [
        Resize(32, 32),
        Resize(45, 33, "bicubic"),
        Resize(32, 32, "lanczos", "letterbox"),
        Resize(24, 31, "box", "center_crop"),
    ],
    ids=lambda size: f"{size.interpolation}-{size.resize_mode}",
)
def test_training_and_predict_see_the_same_pixels(
    awkward: Path, tmp_path: Path, size: Resize
) -> None:
    cache = open_image_cache([awkward], None, FaceAligner(Crop(), size), tmp_path)
    assert len(cache.samples) == 40
    assert set(cache.errors) == {""}
    for sample, pixels in zip(cache.samples, cache.pixels, strict=True):
        data = (awkward / sample.file).read_bytes()
        np.testing.assert_array_equal(pixels, resize(decode(data), size), err_msg=sample.file)


def test_from_file_to_answer_torch_and_predict_agree(
    awkward: Path, run_folder: Path, tmp_path: Path
) -> None:
    classifier = Classifier.load(run_folder)
    description = classifier.description
    options = InputOptions(
        **{**description.recipe["input"], "mean": tuple(description.recipe["input"]["mean"])}
    )
    network = build_network(description.recipe["network"]["name"])
    network.load_state_dict(torch.load(run_folder / "saved_model", weights_only=True))
    cache = open_image_cache(
        [awkward], None, FaceAligner(description.crop, description.resize), tmp_path
    )
    logits = compute_logits(network, cache, np.arange(len(cache.samples)), options)
    expected = (logits / description.temperature).softmax(1).numpy()
    paths = [awkward / sample.file for sample in cache.samples]
    for path, answer, pair in zip(paths, classifier.predict(paths), expected, strict=True):
        assert answer.probability is not None, path
        assert answer.probability == pytest.approx(float(pair.max()), abs=1e-3), path
        if abs(pair[1] - 0.5) > 1e-3:
            assert answer.label == ("female", "male")[pair.argmax()], path
