"""The tools that put the shipped network together: what the one graph of all computes."""

from __future__ import annotations

import json
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made import build_model
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit
from torch.nn import functional

from facegender.training.data.image_cache import ImageCache

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(TOOLS))
    names = ("make_committee", "make_gate", "make_upright", "open_networks")
    return SimpleNamespace(**{name: import_module(name) for name in names})


def answers(model: onnx.ModelProto, **given: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]


def graph_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    given: list[int | str],
    told: list[int | str],
) -> onnx.ModelProto:
    """A graph from ``x`` to ``told``."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("told", TensorProto.FLOAT, told)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def red_is_male(strength: float) -> onnx.ModelProto:
    """A classifier of ``[N, 3, 32, 32]`` that asks for red alone."""
    weights = np.array([[0, 0, 0], [strength, 0, 0]], np.float32).T
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["told"], axis=1),
    ]
    constants = {"axes": np.array([2, 3]), "weights": weights}
    return graph_of(nodes, constants, ["N", 3, 32, 32], ["N", 2])


def blue_is_male(strength: float) -> onnx.ModelProto:
    """Log odds ``[N, 1]`` of ``[N, 3, 128, 128]``, by blue alone."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["told"]),
    ]
    weights = np.array([[0, 0, strength]], np.float32).T
    constants = {"axes": np.array([2, 3]), "weights": weights}
    return graph_of(nodes, constants, ["N", 3, 128, 128], ["N", 1])


def turned_by(degrees: float) -> onnx.ModelProto:
    """A placing that is the same for every crop of 16 px: turned, neither moved nor sized."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "placing"], ["told"]),
    ]
    placing = np.array([[degrees, 0, 0, 0]], np.float32)
    constants = {"axes": np.array([2, 3]), "nothing": np.zeros((3, 4), np.float32)}
    return graph_of(nodes, constants | {"placing": placing}, ["N", 3, 16, 16], ["N", 4])


def test_the_gate_answers_in_the_file_as_in_torch(tools: SimpleNamespace) -> None:
    torch.manual_seed(0)
    gate = tools.make_gate.make_gate().eval()
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = gate(x).sigmoid().numpy()
    assert answers(tools.make_gate.to_onnx(gate), look=x.numpy()) == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("strength", [3.0, 60.0])  # 60: log odds over the limit
def test_log_odds_are_added_as_far_as_the_gate_lets_them(
    strength: float, tools: SimpleNamespace
) -> None:
    make = tools.make_committee
    torch.manual_seed(1)
    gate = tools.make_gate.make_gate().eval()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 1, 3), np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (40, 32, 32, 3)))  # plain: any look is it
    ours = onnx.load_from_string(build_model())
    members = make.Members(
        ours,
        red_is_male(strength),
        tools.make_gate.to_onnx(gate),
        blue_is_male(0.1),
        turned_by(30.0),  # of a plain picture nothing is seen
    )
    look = (pixels[:, 0, 0] - np.array(make.MEAN)) / make.SCALE
    planes = np.broadcast_to(look[:, :, None, None], (40, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        heard = gate(torch.tensor(planes)).sigmoid().numpy()[:, 0]
    assert heard.std() > 0
    alone = answers(ours, pixels=pixels)
    own = np.clip(np.log(alone[:, 1] / alone[:, 0]), -9.2, 9.2)
    other = np.clip(strength * look[:, 0], -9.2, 9.2)
    two = 0.7 * own + heard * other
    third = np.clip(0.1 * (pixels[:, 0, 0, 2] - tools.open_networks.FACE_RES_MEAN[2]), -9.2, 9.2)
    asked = np.clip((6 - abs(two)) / 2, 0, 1)
    assert asked.min() < 1 and asked.max() > 0, "some are asked about, some are not"
    total = two + asked * third + (1 - asked) * 7.4 * np.sign(two)
    together = answers(make.join(members, 2.0), pixels=pixels)
    assert together[:, 1] == pytest.approx(expit(total / 2), abs=1e-4)
    assert together.sum(1) == pytest.approx(1)


@pytest.mark.parametrize(("degrees", "quarters"), [(90.0, 1), (-90.0, -1), (180.0, 2), (5.0, 0)])
def test_a_turned_crop_is_taken_anew_and_a_nearly_upright_one_as_it_is(
    degrees: float, quarters: int, tools: SimpleNamespace
) -> None:
    make = tools.make_committee
    wiring = make.Wiring()
    upright = make.take(turned_by(degrees), "upright/")
    planes = make.taken_upright(wiring, "crop", 32, upright)
    shape = ["N", 3, 32, 32]
    graph = helper.make_graph(
        wiring.nodes,
        "turn",
        [helper.make_tensor_value_info("crop", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(planes, TensorProto.FLOAT, shape)],
        wiring.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    crops = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 32)).astype(np.float32)
    expected = np.rot90(crops, quarters, axes=(2, 3))
    assert answers(model, crop=crops) == pytest.approx(expected, abs=1e-2)


def test_the_placing_answers_in_the_file_as_in_torch(tools: SimpleNamespace) -> None:
    make = tools.make_upright
    torch.manual_seed(0)
    network = make.make_network().eval()
    x = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        expected = network(x).numpy() * np.array(make.SCALES)
    assert answers(make.to_onnx(network), small=x.numpy()) == pytest.approx(expected, abs=1e-4)


def test_a_placing_is_read_off_its_matrix(tools: SimpleNamespace) -> None:
    placings = np.array([[0, 0, 0, 0], [45, 0.2, 0.1, -0.3], [-170, -0.4, 0, 1]], np.float64)
    again = tools.make_upright.placings(tools.make_upright.matrices(placings))
    assert again == pytest.approx(placings)


def test_crops_taken_wrongly_say_how_they_would_be_right(
    tools: SimpleNamespace, cache: ImageCache
) -> None:
    make = tools.make_upright
    rows = np.arange(min(64, len(cache.samples)))
    x, right = make.wrong_batch(cache, rows, 0)
    assert x.shape == (len(rows), 3, 64, 64) and x.isfinite().all()
    assert right.shape == (len(rows), 4) and right[:, 0].abs().max() > 20
    again, same = make.wrong_batch(cache, rows, 0)
    assert torch.equal(x, again) and torch.equal(right, same)
    assert not torch.equal(right, make.wrong_batch(cache, rows, 1)[1])


def test_face_res_is_read_as_it_was_published(tools: SimpleNamespace, tmp_path: Path) -> None:
    """A file of random weights in the published form, against the same layers in torch."""
    rng = np.random.default_rng(0)
    widths = [32, 64, 128, 128, 256, 256, 512, *[512] * 5, 1024, 1024]
    shapes = {
        "conv1/convolution/merged_input": (3, 3, 3, 32),
        "conv1_bn/batchnorm_1/sub": (32,),
        "feats/kernel": (1024, 256),
        "feats/bias": (256,),
        "gender_pred/kernel": (256, 1),
        "gender_pred/bias": (1,),
    }
    for block, (inputs, outputs) in enumerate(pairwise(widths), 1):
        shapes[f"conv_dw_{block}/depthwise_kernel"] = (3, 3, inputs, 1)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/mul"] = (inputs,)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/sub"] = (inputs,)
        shapes[f"conv_pw_{block}/convolution/merged_input"] = (1, 1, inputs, outputs)
        shapes[f"conv_pw_{block}_bn/batchnorm_1/sub"] = (outputs,)
    values = {
        name: (rng.normal(0, 1.5 / np.sqrt(np.prod(shape[:3])), shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name in values:
        if name.endswith("/mul"):
            values[name] = np.ones_like(values[name]) * 2
    entries = [
        {"name": name, "shape": list(value.shape), "dtype": "float32"}
        for name, value in values.items()
    ]
    (tmp_path / "faceres-deep.json").write_text(
        json.dumps({"weightsManifest": [{"weights": entries, "paths": ["faceres-deep.bin"]}]})
    )
    shard = b"".join(value.tobytes() for value in values.values())
    (tmp_path / "faceres-deep.bin").write_bytes(shard)
    x = torch.from_numpy(rng.normal(0, 60, (2, 3, 128, 128)).astype(np.float32))

    def convolve(x: torch.Tensor, kernel: np.ndarray, name: str, **options: int) -> torch.Tensor:
        bias = torch.from_numpy(values[f"{name}_bn/batchnorm_1/sub"])
        weight = torch.from_numpy(kernel.copy())
        return functional.relu6(functional.conv2d(x, weight, bias, **options))

    def padded(x: torch.Tensor, stride: int) -> torch.Tensor:
        return functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))

    kernel = values["conv1/convolution/merged_input"].transpose(3, 2, 0, 1)
    y = convolve(padded(x.flip(1), 2), kernel, "conv1", stride=2)  # published for B, G, R
    for block, inputs in enumerate(widths[:-1], 1):
        stride = 2 if block in (2, 4, 6, 12) else 1
        deep = 2 * values[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1)
        y = convolve(padded(y, stride), deep, f"conv_dw_{block}", stride=stride, groups=inputs)
        point = values[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1)
        y = convolve(y, point, f"conv_pw_{block}")
    features = y.mean((2, 3)) @ torch.from_numpy(values["feats/kernel"])
    features = functional.relu(features + torch.from_numpy(values["feats/bias"]))
    expected = features @ torch.from_numpy(values["gender_pred/kernel"])
    expected = (expected + torch.from_numpy(values["gender_pred/bias"])).numpy()
    model = tools.open_networks.face_res(tmp_path)
    assert answers(model, centred=x.numpy()) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    (tmp_path / "faceres-deep.bin").write_bytes(shard + b"more")
    with pytest.raises(SystemExit, match="another version"):
        tools.open_networks.face_res(tmp_path)


def test_the_gate_learns_from_upright_and_from_spoilt_images(
    tools: SimpleNamespace, cache: ImageCache
) -> None:
    make_gate = tools.make_gate
    rows = np.arange(min(64, len(cache.samples)))
    x, heard = make_gate.worsened(cache, rows, 0)
    assert x.shape == (len(rows), 3, 32, 32) and x.isfinite().all()
    assert heard.min() < 0.1 and heard.max() > 0.9
    again, same = make_gate.worsened(cache, rows, 0)
    assert torch.equal(x, again) and torch.equal(heard, same)
    assert not torch.equal(heard, make_gate.worsened(cache, rows, 1)[1])
