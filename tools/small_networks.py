"""What the small networks beside the shipped one share: their loop, their graph, their command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from facegender.files import atomic_write
from facegender.training.console import Console
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.sampler import Indices
from facegender.training.prepare import load_images, split_images, subset_indices
from facegender.training.run_folder import open_run

SEED = 0


def fit(
    network: nn.Module,
    rows: Indices,
    loss_of: Callable[[Indices, int], Tensor],
    console: Console,
    *,
    batch: int,
    epochs: int,
    rate: float,
) -> None:
    """Train a network in place: AdamW, one cycle, all rows in a random order so many times.

    Args:
        network: on the CPU.
        rows: of a store; what is left over of a batch is passed by.
        loss_of: the loss of some rows at a step, from 0.
        console: where progress is shown.
        batch: rows of a step.
        epochs: how often each row is shown.
        rate: the largest learning rate.
    """
    steps = [
        order[at : at + batch]
        for epoch in range(epochs)
        for order in [np.random.default_rng([SEED, epoch]).permutation(rows)]
        for at in range(0, len(order) - batch + 1, batch)
    ]
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(steps))
    with console.counting("training", len(steps) * batch) as count:
        for step, some in enumerate(steps):
            loss = loss_of(some, step)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            count((step + 1) * batch)


def to_onnx(
    network: nn.Sequential,
    given: str,
    side: int,
    last: onnx.NodeProto,
    scale: tuple[float, ...] = (),
) -> onnx.ModelProto:
    """Write layers down as a graph from ``float32 [N, 3, side, side]`` to ``[N, outputs]``.

    Args:
        network: convolutions of 3x3 with a border of 1, dense layers, ReLU and Flatten.
        given: the input's name.
        side: of what it is given, in pixels.
        last: the step behind the layers, from ``layers`` (and ``scale``) to the output.
        scale: a constant of that step.
    """
    kinds = {nn.Conv2d: "Conv", nn.Linear: "Gemm", nn.Flatten: "Flatten", nn.ReLU: "Relu"}
    nodes, weights = [], []
    name, outputs = given, 0
    for number, layer in enumerate(network):
        named = {f"{number}.{key}": value for key, value in layer.named_parameters()}
        weights += [
            numpy_helper.from_array(value.detach().contiguous().numpy(), key)
            for key, value in named.items()
        ]
        options: dict[str, object] = {}
        if isinstance(layer, nn.Conv2d):
            options = {"strides": list(layer.stride), "pads": [1, 1, 1, 1]}
        elif isinstance(layer, nn.Linear):
            options, outputs = {"transB": 1}, layer.out_features
        output = "layers" if number == len(network) - 1 else str(number)
        nodes.append(helper.make_node(kinds[type(layer)], [name, *named], [output], **options))
        name = output
    if scale:
        weights.append(numpy_helper.from_array(np.float32(scale), "scale"))
    shape = ["batch", 3, side, side]
    graph = helper.make_graph(
        [*nodes, last],
        last.output[0],
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last.output[0], TensorProto.FLOAT, ["batch", outputs])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def command(
    text: str,
    train: Callable[[ImageCache, Indices, Console], nn.Sequential],
    graph_of: Callable[[nn.Sequential], onnx.ModelProto],
) -> None:
    """Open a run's pictures, train on its training part, write the graph."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished run, whose training part is used")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.onnx")
    given = parser.parse_args()
    console = Console()
    request, recipe = open_run(None, None, given.run, resume=True)
    cache = load_images(request, recipe, given.run, console)
    split = split_images(request, recipe, cache, given.run, console, resume=True)
    network = train(
        cache, subset_indices(np.array([row.subset for row in split]), "train"), console
    )
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(given.output) as file:
        file.buffer.write(graph_of(network).SerializeToString())
