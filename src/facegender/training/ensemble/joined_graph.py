"""Joins the graphs of an ensemble's members into one: uint8 pixels in, probabilities out.

All members see the same crop, which is resampled first if its face is rotated
(``alignment_network.py``). Each gives its log odds of ``male``, clipped. The trained network's are
multiplied by a constant weight, the gender classifier's by the output of the gating network
(``gating_network.py``), and both are added to a constant. The probability is the sigmoid of the sum
over a temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from facegender.training.ensemble.crop_view import CropView
from facegender.training.ensemble.graph_builder import GraphBuilder
from facegender.training.ensemble.open_networks import (
    CLASSIFIER_MEAN,
    CLASSIFIER_SCALE,
    CLASSIFIER_VIEW,
)
from facegender.training.ensemble.options import EnsembleOptions
from facegender.training.export.quantize import TRAINED_PREFIX


@dataclass(frozen=True, slots=True)
class Members:
    """The graphs of an ensemble.

    Attributes:
        crop_size: side of the crop that all see, in pixels.
        trained: a model file's: ``uint8 [N, crop_size, crop_size, 3]`` to probabilities ``[N, 2]``;
            None: the classifier answers alone.
        gender_classifier: ``float32 [N, 3, 32, 32]`` to probabilities ``[N, 2]``.
        gating: the same input to the weight of the classifier's answer, ``[N, 1]`` in 0..1.
        alignment: ``float32 [N, 3, size, size]`` in 0..1 to similarities ``[N, 4]``.
    """

    crop_size: int
    trained: onnx.ModelProto | None
    gender_classifier: onnx.ModelProto
    gating: onnx.ModelProto
    alignment: onnx.ModelProto


def join_members(members: Members, options: EnsembleOptions, temperature: float) -> onnx.ModelProto:
    """Make one graph of all members: ``pixels uint8 [N, S, S, 3]`` to ``probabilities [N, 2]``.

    Args:
        members: their graphs; they are not changed.
        options: weights and thresholds.
        temperature: divides the sum of the log odds.
    """
    size = members.crop_size
    shape: list[int | str] = ["batch", size, size, 3]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
    builder = GraphBuilder()
    builder.constant("min_log_odds", -options.max_log_odds)
    builder.constant("max_log_odds", options.max_log_odds)
    floats = builder.node("Cast", [pixels.name], "floats", to=TensorProto.FLOAT)
    crops = builder.node("Transpose", [floats], "crops", perm=[0, 3, 1, 2])
    aligned = add_aligned_crops(builder, crops, size, members.alignment, options.align_degrees)
    log_odds = _add_log_odds(builder, members, options, aligned, size)
    half = builder.node("Div", [log_odds, builder.constant("temperature", 2 * temperature)], "half")
    logits = builder.node("Concat", [builder.node("Neg", [half], "minus"), half], "logits", axis=1)
    builder.node("Softmax", [logits], "probabilities", axis=1)
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    return builder.build("ensemble", [pixels], [output])


def _add_log_odds(
    builder: GraphBuilder, members: Members, options: EnsembleOptions, crops: str, size: int
) -> str:
    """Add the trained network and the gated gender classifier; return the sum ``[N, 1]``."""
    constant, node = builder.constant, builder.node
    terms = [constant("log_odds_bias", options.log_odds_bias)]
    if members.trained is not None:
        pixels = node("Transpose", [crops], "aligned_pixels", perm=[0, 2, 3, 1])
        logits = builder.add_member(members.trained, TRAINED_PREFIX, pixels, drop_softmax=True)
        weight = constant("trained_weight", options.trained_weight)
        trained = _log_odds(builder, logits, "trained")
        terms.append(node("Mul", [trained, weight], "trained/weighted"))
    mean = constant("mean", np.array(CLASSIFIER_MEAN, np.float32).reshape(1, 3, 1, 1))
    view = builder.resample(CLASSIFIER_VIEW, crops, size, "classifier_view")
    centered = node("Sub", [view, mean], "classifier_view/centered")
    x = node("Div", [centered, constant("scale", float(CLASSIFIER_SCALE))], "classifier_input")
    logits = builder.add_member(members.gender_classifier, "classifier", x, drop_softmax=True)
    gate = builder.add_member(members.gating, "gating", x)
    terms.append(node("Mul", [_log_odds(builder, logits, "classifier"), gate], "classifier/gated"))
    return node("Sum", terms, "log_odds")


def add_aligned_crops(
    builder: GraphBuilder,
    crops: str,
    size: int,
    alignment: onnx.ModelProto,
    thresholds: tuple[float, ...],
) -> str:
    """Add nodes that resample a crop where its face is rotated.

    The predicted similarity (``alignment_network.py``) is applied in full from the second threshold
    on, not at all up to the first, and in between in part, along a smooth step.

    Args:
        builder: takes the nodes.
        crops: name of ``float32 [N, 3, size, size]`` in 0..255.
        size: in pixels.
        alignment: the alignment network's graph.
        thresholds: two rotations, in degrees.

    Returns:
        The name of the aligned crops, of the same shape.
    """
    constant, node = builder.constant, builder.node
    input_size = alignment.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    small = builder.resample(CropView(0.0, 1.0, input_size, 2), crops, size, "small_crops")
    x = node("Div", [small, constant("white", 255.0)], "small_crops/floats")
    similarity = builder.add_member(alignment, "alignment", x)
    degrees = node(
        "Gather",
        [similarity, constant("rotation/index", np.array([0]))],
        "rotation/degrees",
        axis=1,
    )
    low, high = thresholds
    rotation = node("Abs", [degrees], "rotation")
    beyond = node("Sub", [rotation, constant("rotation/low", low)], "beyond")
    rows = builder.select_positive_rows(beyond, "rotated")
    t = builder.ramp(beyond, high - low, "rotation")
    # smoothstep: t * t * (3 - 2 * t)
    twice = node("Mul", [t, constant("two", 2.0)], "rotation/twice")
    falling = node("Sub", [constant("three", 3.0), twice], "rotation/falling")
    step = node("Mul", [node("Mul", [t, t], "rotation/square"), falling], "rotation/step")
    applied = node("Mul", [similarity, step], "similarity/applied")
    chosen = node("Gather", [applied, rows], "similarity/chosen")
    grid = _add_sampling_grid(builder, chosen, size)
    chosen_crops = node("Gather", [crops, rows], "rotated/crops")
    resampled = node(
        "GridSample",
        [chosen_crops, grid],
        "rotated/resampled",
        mode="bilinear",
        padding_mode="border",
        align_corners=0,
    )
    # Row 0 may be chosen without being rotated: to the last bit it stays as it is in any other row
    axes = constant("rotated/axes", np.array([2, 3]))
    is_rotated = node("Gather", ["rotated/is_positive", rows], "rotated/is_chosen")
    is_rotated = node("Unsqueeze", [is_rotated, axes], "rotated/condition")
    kept = node("Where", [is_rotated, resampled, chosen_crops], "rotated/kept")
    return builder.scatter_rows(crops, rows, kept, "aligned_crops")


def _add_sampling_grid(builder: GraphBuilder, similarity: str, size: int) -> str:
    """Add the grid ``[k, size, size, 2]`` at which ``GridSample`` reads, for ``[k, 4]``."""
    constant, node = builder.constant, builder.node
    axes = constant("grid/axes", np.array([2]))

    def parameter(column: int, name: str) -> str:
        """One parameter as ``[k, 1, 1]``."""
        index = constant(f"{name}/column", np.array([column]))
        values = node("Gather", [similarity, index], f"{name}/values", axis=1)
        return node("Unsqueeze", [values, axes], name)

    degrees, log_scale = parameter(0, "degrees"), parameter(1, "log_scale")
    across, down = parameter(2, "across"), parameter(3, "down")
    radians = node("Mul", [degrees, constant("degree", float(np.pi / 180))], "radians")
    scale = node("Exp", [log_scale], "similarity/scale")
    cos = node("Mul", [node("Cos", [radians], "cos"), scale], "cos/scaled")
    sin = node("Mul", [node("Sin", [radians], "sin"), scale], "sin/scaled")
    # Coordinates from -1 to 1, each axis on its own: ``[1, size, size]``
    line = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x = constant("x", np.broadcast_to(line, (1, size, size)).copy())
    y = constant("y", np.broadcast_to(line[:, None], (1, size, size)).copy())
    last_axis = constant("grid/last_axis", np.array([3]))

    def coordinate(op_type: str, of_x: str, of_y: str, shift: str, name: str) -> str:
        """One coordinate of all points: ``of_x * x`` and ``of_y * y``, combined and shifted."""
        left = node("Mul", [of_x, x], f"{name}/of_x")
        right = node("Mul", [of_y, y], f"{name}/of_y")
        rotated = node(op_type, [left, right], f"{name}/rotated")
        shifted = node("Add", [rotated, shift], f"{name}/shifted")
        return node("Unsqueeze", [shifted, last_axis], name)

    points = [
        coordinate("Sub", cos, sin, across, "grid_x"),
        coordinate("Add", sin, cos, down, "grid_y"),
    ]
    return node("Concat", points, "grid", axis=3)


def _log_odds(builder: GraphBuilder, logits: str, name: str) -> str:
    """Add the clipped log odds of ``male`` ``[N, 1]`` of logits ``[N, 2]``."""
    female, male = (
        builder.node(
            "Gather",
            [logits, builder.constant(f"{name}/{column}", np.array([column]))],
            f"{name}/logit_{column}",
            axis=1,
        )
        for column in (0, 1)
    )
    return _clip(builder, builder.node("Sub", [male, female], f"{name}/log_odds"), name)


def _clip(builder: GraphBuilder, log_odds: str, name: str) -> str:
    return builder.node("Clip", [log_odds, "min_log_odds", "max_log_odds"], f"{name}/clipped")
