"""Builds an ONNX graph node by node: what lies between the members of an ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from facegender.training.ensemble.crop_view import CropView, resampling_weights

OPSET = 18
IR_VERSION = 10


class GraphBuilder:
    """Collects nodes, in the order in which they run, and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic] | float) -> str:
        """Add a constant and return its name; a Python float becomes float32."""
        array = np.array(value, np.float32) if isinstance(value, float) else value
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def ramp(self, values: str, width: float, name: str) -> str:
        """Add nodes that rise from 0 to 1 while values rise from 0 to ``width``."""
        ramp = self.node("Div", [values, self.constant(f"{name}/width", width)], f"{name}/ramp")
        ends = [self.constant(f"{name}/ramp_from", 0.0), self.constant(f"{name}/ramp_to", 1.0)]
        return self.node("Clip", [ramp, *ends], f"{name}/fraction")

    def select_positive_rows(self, values: str, name: str) -> str:
        """Add nodes for the row numbers ``int64 [k]`` at which ``float32 [N, 1]`` is above 0.

        Where no row is above 0 they give row 0: ONNX Runtime for browsers cannot run a network on
        an empty batch.
        """
        mask = self.node(
            "Greater", [values, self.constant(f"{name}/limit", 0.0)], f"{name}/is_positive"
        )
        flat_shape = self.constant(f"{name}/flat_shape", np.array([-1]))
        zero = self.constant(f"{name}/zero", np.array([0]))
        flat = self.node("Reshape", [mask, flat_shape], f"{name}/mask")
        found = self.node("NonZero", [flat], f"{name}/found")
        rows = self.node("Reshape", [found, flat_shape], f"{name}/true_rows")
        count = self.node("Shape", [rows], f"{name}/count")
        is_empty = self.node("Equal", [count, zero], f"{name}/is_empty")
        end = self.node("Cast", [is_empty], f"{name}/end", to=TensorProto.INT64)
        first = self.node("Slice", [zero, zero, end], f"{name}/first")
        return self.node("Concat", [rows, first], f"{name}/rows", axis=0)

    def scatter_rows(self, data: str, rows: str, updates: str, name: str) -> str:
        """Write ``updates [k, ...]`` into rows ``int64 [k]`` of ``data [N, ...]``."""
        axis = self.constant(f"{name}/axis", np.array([1]))
        indices = self.node("Unsqueeze", [rows, axis], f"{name}/indices")
        return self.node("ScatterND", [data, indices, updates], name)

    def resample(self, view: CropView, crops: str, crop_size: int, name: str) -> str:
        """Resample crops ``[N, 3, crop_size, crop_size]`` to ``[N, 3, view.size, view.size]``."""
        vertical = resampling_weights(view, crop_size, view.center_y)
        horizontal = resampling_weights(view, crop_size, 0.0).T.copy()
        rows = self.constant(f"{name}/vertical", vertical)
        columns = self.constant(f"{name}/horizontal", horizontal)
        return self.node(
            "MatMul", [self.node("MatMul", [rows, crops], f"{name}/rows"), columns], f"{name}/view"
        )

    def add_member(
        self, model: onnx.ModelProto, prefix: str, inputs: str, *, drop_softmax: bool = False
    ) -> str:
        """Add the graph of a member, fed with the tensor ``inputs``; return its output's name.

        Args:
            model: with one input and one output; it is not changed.
            prefix: put before every name of its graph.
            inputs: name of the tensor that takes the place of the graph's input.
            drop_softmax: leave out a softmax at the graph's end, so that it gives logits.
        """
        graph = compose.add_prefix(model, f"{prefix}/").graph
        while drop_softmax and graph.node[-1].op_type == "Softmax":
            graph.node.pop()
        own = graph.input[0].name
        for node in graph.node:
            node.input[:] = [inputs if name == own else name for name in node.input]
        self.nodes += graph.node
        self.initializers += graph.initializer
        return str(graph.node[-1].output[0])

    def build(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Return everything added so far as one model."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
