"""Graphs of a few nodes that stand in for the members of an ensemble."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def build_graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    input_shape: list[int | str],
    output_shape: list[int | str],
) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def red_is_male(strength: float) -> onnx.ModelProto:
    """Probabilities ``[N, 2]`` of ``[N, 3, 32, 32]``, by red alone."""
    weights = np.array([[0, 0, 0], [strength, 0, 0]], np.float32).T
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    constants = {"axes": np.array([2, 3]), "weights": weights}
    return build_graph(nodes, constants, ["N", 3, 32, 32], ["N", 2])


def rotated_by(degrees: float) -> onnx.ModelProto:
    """A similarity that is the same for every crop of 16 px: a rotation, no shift, scale 1."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "zeros"], ["none"]),
        helper.make_node("Add", ["none", "similarity"], ["y"]),
    ]
    similarity = np.array([[degrees, 0, 0, 0]], np.float32)
    constants = {"axes": np.array([2, 3]), "zeros": np.zeros((3, 4), np.float32)}
    return build_graph(nodes, constants | {"similarity": similarity}, ["N", 3, 16, 16], ["N", 4])
