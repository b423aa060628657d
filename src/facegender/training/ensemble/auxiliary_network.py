"""Training loop and ONNX export of the two small networks inside the ensemble's graph.

Both learn from unlabeled crops: a crop is degraded on purpose, and the target is how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from facegender.training.data.sampler import Indices
from facegender.training.ensemble.graph_builder import IR_VERSION, OPSET

WEIGHT_DECAY = 0.01

_OP_TYPES = {nn.Conv2d: "Conv", nn.Linear: "Gemm", nn.Flatten: "Flatten", nn.ReLU: "Relu"}


def fit_auxiliary(
    network: nn.Module,
    rows: Indices,
    compute_loss: Callable[[Indices, int], Tensor],
    count: Callable[[int], None],
    *,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train a network in place: AdamW, one cycle of the learning rate, shuffled epochs.

    Args:
        network: on the CPU.
        rows: of the image cache; an incomplete last batch of an epoch is left out.
        compute_loss: the loss of a batch's rows at a step, counted from 0.
        count: called with the number of images done.
        batch_size: rows per step; fewer if there are fewer rows.
        epochs: passes over the rows.
        learning_rate: the highest one.
        seed: of the order.
    """
    batch_size = min(batch_size, len(rows))
    steps = [
        order[start : start + batch_size]
        for epoch in range(epochs)
        for order in [np.random.default_rng([seed, epoch]).permutation(rows)]
        for start in range(0, len(order) - batch_size + 1, batch_size)
    ]
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=len(steps))
    for step, batch in enumerate(steps):
        loss = compute_loss(batch, step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        count((step + 1) * batch_size)


def export_sequential(
    network: nn.Sequential,
    input_name: str,
    size: int,
    last: onnx.NodeProto,
    scale: tuple[float, ...] = (),
) -> onnx.ModelProto:
    """Write layers as a graph from ``float32 [N, 3, size, size]`` to ``[N, outputs]``.

    Args:
        network: 3x3 convolutions with a padding of 1, linear layers, ReLU and Flatten.
        input_name: of the graph.
        size: side of the input, in pixels.
        last: the node after the layers, from ``layers`` (and ``scale``) to the output.
        scale: a constant of that node.
    """
    nodes, initializers = [], []
    name, outputs = input_name, 0
    for number, layer in enumerate(network):
        parameters = {f"{number}.{key}": value for key, value in layer.named_parameters()}
        initializers += [
            numpy_helper.from_array(value.detach().contiguous().numpy(), key)
            for key, value in parameters.items()
        ]
        attributes: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            attributes = {"strides": list(layer.stride), "pads": [1, 1, 1, 1]}
        elif isinstance(layer, nn.Linear):
            attributes, outputs = {"transB": 1}, layer.out_features
        output = "layers" if number == len(network) - 1 else str(number)
        op_type = _OP_TYPES[type(layer)]
        nodes.append(helper.make_node(op_type, [name, *parameters], [output], **attributes))
        name = output
    if scale:
        initializers.append(numpy_helper.from_array(np.array(scale, np.float32), "scale"))
    shape: list[int | str] = ["batch", 3, size, size]
    graph = helper.make_graph(
        [*nodes, last],
        last.output[0],
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last.output[0], TensorProto.FLOAT, ["batch", outputs])],
        initializers,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
