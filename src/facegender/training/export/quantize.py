"""Convert a model file to int8 or to OpenVINO, with a check of the accuracy loss.

The loss is measured on the validation images of the run. A conversion is refused if accuracy falls
by more than a tenth of a point, or if the fraction of ``unknown`` changes by more than a point.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facegender.errors import FacegenderError, MissingExtraError
from facegender.files import atomic_write
from facegender.images.pixels import Pixels
from facegender.inference.classifier import Classifier
from facegender.model.model_file import (
    DESCRIPTION_KEY,
    MODEL_NAME,
    ModelDescription,
    read_model_file,
)
from facegender.training.console import Console
from facegender.training.data.image_rows import read_rows
from facegender.training.dataset import load_images, split_images, subset_indices
from facegender.training.export.model_export import add_description
from facegender.training.run_folder import open_run

MAX_ACCURACY_LOSS = 0.1
"""Largest allowed loss of accuracy on the validation subset, in percentage points."""

MAX_UNKNOWN_CHANGE = 1.0
"""Largest allowed change of the fraction of ``unknown``, in percentage points."""

CALIBRATION_IMAGES = 512
"""Training images that the activation ranges of int8 are taken from."""

_LEAST_CONFIDENT = 0.05
_CALIBRATION_BATCH = 16
_PIXEL_CHANNELS = 3
TRAINED_PREFIX = "trained"
"""Of the trained network's names in an ensemble's graph."""

_QUANTIZED_OPERATORS = ["Conv", "Add", "Relu", "MaxPool", "AveragePool", "Pad"]


class QuantizationLossError(FacegenderError):
    """A conversion loses more accuracy than is allowed; nothing was written."""


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """Loss of a conversion on labeled images.

    Attributes:
        images: number of images.
        accuracy_before: in full precision, in percent.
        accuracy_after: after the conversion, in percent.
        unknown_before: answers below the minimum confidence, in percent.
        unknown_after: the same after the conversion.
        flipped: number of answers whose label changes.
        max_difference: largest difference of a probability.
    """

    images: int
    accuracy_before: float
    accuracy_after: float
    unknown_before: float
    unknown_after: float
    flipped: int
    max_difference: float

    @classmethod
    def between(
        cls,
        before: NDArray[np.floating],
        after: NDArray[np.floating],
        labels: NDArray[np.integer],
        min_confidence: float,
    ) -> QuantizationLoss:
        """Compare the probabilities before and after a conversion.

        Args:
            before: in full precision, ``float [N, 2]``.
            after: after the conversion, ``float [N, 2]``.
            labels: index into ``LABELS``, ``int [N]``.
            min_confidence: below it an answer is ``unknown``. If the model has none (0.5), the
                least confident twentieth of the answers in full precision counts as unknown.
        """
        if min_confidence <= 0.5:
            min_confidence = float(np.quantile(before.max(1), _LEAST_CONFIDENT))

        def percent(hits: NDArray[np.bool_]) -> float:
            return round(100.0 * float(hits.mean()), 3)

        return cls(
            len(labels),
            percent(before.argmax(1) == labels),
            percent(after.argmax(1) == labels),
            percent(before.max(1) < min_confidence),
            percent(after.max(1) < min_confidence),
            int((before.argmax(1) != after.argmax(1)).sum()),
            round(float(np.abs(before - after).max()), 4),
        )

    def check(self) -> None:
        """Raise if the loss is larger than allowed.

        Raises:
            QuantizationLossError: it is.
        """
        lost = self.accuracy_before - self.accuracy_after
        change = abs(self.unknown_before - self.unknown_after)
        if lost > MAX_ACCURACY_LOSS or change > MAX_UNKNOWN_CHANGE:
            raise QuantizationLossError(
                f"The conversion costs {lost:.2f} points of accuracy on {self.images:,} validation "
                f"images (allowed {MAX_ACCURACY_LOSS}) and changes the fraction of unknown by "
                f"{change:.2f} points (allowed {MAX_UNKNOWN_CHANGE:g}). No file was written"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give what the metrics of the converted file say."""
        return {
            "validation": {
                "images": self.images,
                "accuracy_before": self.accuracy_before,
                "accuracy_after": self.accuracy_after,
                "unknown_before": self.unknown_before,
                "unknown_after": self.unknown_after,
            }
        }


def convert_run(
    folder: Path,
    output: Path,
    to: str,
    *,
    license: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> QuantizationLoss:
    """Convert the network of a finished run, with the loss measured on its validation images.

    Args:
        folder: the run folder.
        output: where the file is written.
        to: ``onnx-int8`` or ``openvino``.
        license: license in the file; None keeps that of the run.
        terms: terms of the data in the file; None keeps those of the run.
        console: where progress is shown.

    Raises:
        InputError: the run is not finished, or its archives are missing.
        QuantizationLossError: the loss is larger than allowed.
    """
    console = console or Console()
    request, recipe = open_run(None, None, folder, resume=True)
    description = read_model_file(folder, runtime="onnxruntime").description
    if license is not None:
        description = replace(description, license=license)
    if terms is not None:
        description = replace(description, terms=terms)
    cache = load_images(request, recipe, folder, console)
    assignments = split_images(request, recipe, cache, folder, console, resume=True)
    subsets = np.array([row.subset for row in assignments])
    rows = subset_indices(subsets, "validation")
    validation, labels = read_rows(cache.pixels, rows), cache.labels[rows]
    model = folder / MODEL_NAME
    output.parent.mkdir(parents=True, exist_ok=True)
    if to == "openvino":
        return to_openvino(model, validation, labels, output, description)
    training = subset_indices(subsets, "train")
    drawn = np.random.default_rng(0).permutation(training)[:CALIBRATION_IMAGES]
    calibration = read_rows(cache.pixels, np.sort(drawn))
    return quantize(model, calibration, validation, labels, output, description)


def quantize(
    model: Path,
    calibration: Pixels,
    validation: Pixels,
    labels: NDArray[np.integer],
    output: Path,
    description: ModelDescription,
) -> QuantizationLoss:
    """Write a model file in int8: weights per channel, activations by their range.

    Static quantization in the QDQ format of ONNX, by the tool of ONNX Runtime, with activation
    ranges from real faces. The convolutions that see pixels, the
    last layers and the small members of an ensemble stay float32.

    Args:
        model: a model file in full precision.
        calibration: training images at the input size, ``uint8 [N, H, W, 3]``.
        validation: images to measure the loss on, ``uint8 [M, H, W, 3]``.
        labels: of the validation images, index into ``LABELS``, ``int [M]``.
        output: where the file is written, atomically.
        description: stored in the file, with the loss added to its metrics.

    Raises:
        QuantizationLossError: the loss is larger than allowed.
    """
    before = Classifier.load(model, runtime="onnxruntime").probabilities(validation)
    with tempfile.TemporaryDirectory() as folder:
        quantized = _quantized(model, calibration, Path(folder))
        candidate = Path(folder, "candidate.onnx")
        candidate.write_bytes(add_description(quantized, description))
        after = Classifier.load(candidate, runtime="onnxruntime").probabilities(validation)
    loss = QuantizationLoss.between(before, after, labels, description.min_confidence)
    loss.check()
    metrics = dict(description.metrics) | {"int8": loss.to_dict()}
    graph = add_description(quantized, replace(description, metrics=metrics))
    with atomic_write(output) as file:
        file.buffer.write(graph)
    return loss


def to_openvino(
    model: Path,
    validation: Pixels,
    labels: NDArray[np.integer],
    output: Path,
    description: ModelDescription,
) -> QuantizationLoss:
    """Write the two files of OpenVINO, ``NAME.xml`` and ``NAME.bin``, for other programs.

    The description is stored in the XML as ``rt_info``. ``predict`` does not need these files: it
    runs a model file with OpenVINO directly. The loss is measured on the processor at hand.

    Args:
        model: a model file.
        validation: images to measure the loss on, ``uint8 [N, H, W, 3]``.
        labels: index into ``LABELS``, ``int [N]``.
        output: path of the ``.xml`` file.
        description: stored in the file, with the loss added to its metrics.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        QuantizationLossError: the loss is larger than allowed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino") from error
    before = Classifier.load(model, runtime="onnxruntime").probabilities(validation)
    after = Classifier.load(model, runtime="openvino").probabilities(validation)
    loss = QuantizationLoss.between(before, after, labels, description.min_confidence)
    loss.check()
    metrics = dict(description.metrics) | {"openvino": loss.to_dict()}
    network = openvino.Core().read_model(model)
    text = replace(description, metrics=metrics).to_json()
    network.set_rt_info(text, [DESCRIPTION_KEY])
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder, "model.xml")
        openvino.save_model(network, made, compress_to_fp16=True)
        shutil.move(made.with_suffix(".bin"), output.with_suffix(".bin"))
        shutil.move(made, output)
    return loss


def _quantized(model: Path, calibration: Pixels, folder: Path) -> onnx.ModelProto:
    """Quantize a graph with the tool of ONNX Runtime."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    def batches() -> Iterator[dict[str, Pixels]]:
        for start in range(0, len(calibration), _CALIBRATION_BATCH):
            yield {"pixels": np.ascontiguousarray(calibration[start:][:_CALIBRATION_BATCH])}

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = batches()

        def get_next(self) -> dict[str, Pixels] | None:
            return next(self._batches, None)

    prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
    logging.getLogger().addFilter(_is_relevant)  # the tool recommends a step that was done
    try:
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=_QUANTIZED_OPERATORS,
            nodes_to_exclude=_unquantized(onnx.load(prepared)),
        )
    finally:
        logging.getLogger().removeFilter(_is_relevant)
    return onnx.load(quantized)


def _unquantized(model: onnx.ModelProto) -> list[str]:
    """Name the nodes that stay float32: convolutions that see pixels, and an ensemble's others.

    Pixels are whole numbers: in int8 nearly all of them would be rounded at a half, up or down by
    the last bit of what comes before. Of an ensemble only the trained network is worth it: the
    other members are small, and what they measure of rotation and blur would be coarse.
    """
    weights = model.graph.initializer
    channels = {tensor.name: tensor.dims[1] for tensor in weights if tensor.dims[1:]}
    member = f"{TRAINED_PREFIX}/"
    is_ensemble = any(node.output[0].startswith(member) for node in model.graph.node)
    return [
        node.name
        for node in model.graph.node
        if (node.op_type == "Conv" and channels.get(node.input[1]) == _PIXEL_CHANNELS)
        or (is_ensemble and not node.output[0].startswith(member))
    ]


def _is_relevant(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
