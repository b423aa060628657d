"""Export a network as a model file; refused if the two disagree on real images."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from facegender.errors import FacegenderError
from facegender.files import atomic_write
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import (
    DESCRIPTION_KEY,
    DIGEST_KEY,
    MODEL_NAME,
    ModelDescription,
    read_model_file,
    seal,
)
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.recipe import InputOptions

TOLERANCE = 1e-3
"""Largest allowed difference of a probability, and of a flipped label's probability from 0.5."""

_OPSET = 18


class ParityError(FacegenderError):
    """The exported graph and the trained network disagree."""


class _Deployed(nn.Module):
    """A network with its pre- and postprocessing: pixels in, calibrated probabilities out."""

    def __init__(self, network: nn.Module, options: InputOptions, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.options = options
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``uint8 [N, H, W, 3]`` to probabilities ``float32 [N, 2]``."""
        x = normalize(to_float(pixels, self.options.grayscale), self.options)
        logits: Tensor = self.network(x)
        return (logits / self.temperature).softmax(1)


def export_model(
    network: nn.Module,
    options: InputOptions,
    description: ModelDescription,
    pixels: Pixels,
    path: Path,
) -> float:
    """Write a network as a model file, after comparing it with torch on real images.

    Weights are stored as float16 and used as float32, which halves the file; if that costs more
    than ``TOLERANCE``, they are stored as float32.

    Args:
        network: trained; left in evaluation mode on the CPU.
        options: the input options of the recipe.
        description: stored in the file; its temperature goes into the graph.
        pixels: real images to compare on, ``uint8 [N, H, W, 3]`` at the input size.
        path: where the file is written, atomically.

    Returns:
        The largest difference of a probability between torch and the file.

    Raises:
        ParityError: a probability differs by more than ``TOLERANCE``; a label that flips farther
            than that from 0.5 is one of these. Nothing is written.
    """
    deployed = _Deployed(network.cpu().eval(), options, description.temperature).eval()
    with torch.inference_mode():
        expected = torch.cat(
            [deployed(torch.from_numpy(batch)) for batch in _batches(pixels)]
        ).numpy()
    model = _to_onnx(deployed, options)
    try:
        graph = add_description(weights_to_float16(model), description)
        difference = check_parity(expected, _run_graph(graph, pixels))
    except ParityError:  # float16 is not precise enough for this network
        graph = add_description(model, description)
        difference = check_parity(expected, _run_graph(graph, pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.buffer.write(graph)
    return difference


def _run_graph(graph: bytes, pixels: Pixels) -> NDArray[np.float32]:
    """Run a model file before it is written to its path."""
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / MODEL_NAME
        candidate.write_bytes(graph)
        return Classifier.load(candidate, runtime="onnxruntime").probabilities(pixels)


def check_parity(expected: NDArray[np.floating], exported: NDArray[np.floating]) -> float:
    """Compare the probabilities of torch and of the exported graph for the same images.

    Args:
        expected: by torch, ``float [N, 2]``.
        exported: by the graph, ``float [N, 2]``.

    Returns:
        The largest difference.

    Raises:
        ParityError: as for :func:`export_model`.
    """
    difference = float(np.abs(expected - exported).max(initial=0.0))
    flipped = expected.argmax(1) != exported.argmax(1)
    decided = np.abs(expected[:, 1] - 0.5) > TOLERANCE
    if not difference <= TOLERANCE:  # NaN, too; and a flip differs by more
        raise ParityError(
            "The exported graph and the network disagree: probabilities differ by up to "
            f"{difference:.3g} (allowed {TOLERANCE:g}) and {int((flipped & decided).sum())} of "
            f"{len(expected)} labels flip. No model file was written"
        )
    return difference


def update_description(path: Path, description: ModelDescription) -> None:
    """Replace the description of a model file, such as after metrics were computed.

    Raises:
        ModelFileError: it is not a model file.
    """
    copy_model_file(path, path, description)


def copy_model_file(source: Path, path: Path, description: ModelDescription) -> None:
    """Write a model file again, with another description.

    Raises:
        ModelFileError: ``source`` is not a model file.
    """
    read_model_file(source)
    model = onnx.load(source)
    with atomic_write(path) as file:
        file.buffer.write(add_description(model, description))


def _batches(pixels: Pixels) -> list[Pixels]:
    """Split images into batches that fit into memory as floats."""
    return [np.ascontiguousarray(pixels[start : start + 64]) for start in range(0, len(pixels), 64)]


def _to_onnx(deployed: nn.Module, options: InputOptions) -> onnx.ModelProto:
    """Export the graph with a dynamic batch size."""
    example = torch.zeros((2, options.height, options.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter warns of deprecated functions that it uses itself
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def weights_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with large float32 weights stored as float16 and cast back to float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=np.int64) < 1024:
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    named: list[Any] = [value for value in graph.value_info if value.name != ""]
    del graph.value_info[:]
    graph.value_info.extend(named)
    return result


def add_description(model: onnx.ModelProto, description: ModelDescription) -> bytes:
    """Replace the metadata of a graph by a description, and seal the bytes with their digest.

    Returns:
        A model file.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name = "facegender"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]  # stack traces of the exporter, with local paths
    for values in (model.graph.value_info, model.graph.input, model.graph.output):
        for value in values:
            del value.metadata_props[:]
    del model.graph.metadata_props[:]
    helper.set_model_props(model, {DESCRIPTION_KEY: description.to_json(), DIGEST_KEY: "0" * 64})
    onnx.checker.check_model(model)
    return seal(model.SerializeToString())
