"""The tools that put the shipped network together: what the one graph of the three computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made import build_model
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit

from facegender.training.store import Store

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(TOOLS))
    import make_committee
    import make_gate

    return make_committee, make_gate


def answers(model: onnx.ModelProto, **given: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]


def red_is_male(strength: float) -> onnx.ModelProto:
    """A classifier of ``[N, 3, 32, 32]`` that asks for red alone."""
    weights = np.array([[0, 0, 0], [strength, 0, 0]], np.float32).T
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["told"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(weights, "weights"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    told = helper.make_tensor_value_info("told", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "red", [given], [told], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_the_gate_answers_in_the_file_as_in_torch(tools: tuple[ModuleType, ModuleType]) -> None:
    _, make_gate = tools
    torch.manual_seed(0)
    gate = make_gate.make_gate().eval()
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = gate(x).sigmoid().numpy()
    assert answers(make_gate.to_onnx(gate), look=x.numpy()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("strength", [3.0, 60.0])  # 60: log odds over the limit
def test_log_odds_are_added_as_far_as_the_gate_lets_them(
    strength: float, tools: tuple[ModuleType, ModuleType]
) -> None:
    make_committee, make_gate = tools
    torch.manual_seed(1)
    gate = make_gate.make_gate().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 1, 3), np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (6, 32, 32, 3)))  # plain: any look is it
    ours = onnx.load_from_string(build_model())
    model = make_committee.join(ours, red_is_male(strength), make_gate.to_onnx(gate), 2.0)
    look = (pixels[:, 0, 0] - np.array(make_committee.MEAN)) / make_committee.SCALE
    planes = np.broadcast_to(look[:, :, None, None], (6, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        heard = gate(torch.tensor(planes)).sigmoid().numpy()[:, 0]
    assert heard.std() > 0
    alone = answers(ours, pixels=pixels)
    own = np.clip(np.log(alone[:, 1] / alone[:, 0]), -9.2, 9.2)
    other = np.clip(strength * look[:, 0], -9.2, 9.2)
    together = answers(model, pixels=pixels)
    assert together[:, 1] == pytest.approx(expit((own + heard * other) / 2), abs=1e-4)
    assert together.sum(1) == pytest.approx(1)


def test_the_gate_learns_from_upright_and_from_spoilt_pictures(
    tools: tuple[ModuleType, ModuleType], store: Store
) -> None:
    _, make_gate = tools
    rows = np.arange(min(64, len(store.samples)))
    x, heard = make_gate.worsened(store, rows, 0)
    assert x.shape == (len(rows), 3, 32, 32) and x.isfinite().all()
    assert heard.min() < 0.1 and heard.max() > 0.9
    again, same = make_gate.worsened(store, rows, 0)
    assert torch.equal(x, again) and torch.equal(heard, same)
    assert not torch.equal(heard, make_gate.worsened(store, rows, 1)[1])
