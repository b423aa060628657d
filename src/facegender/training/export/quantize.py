"""A model file -> the same network in int8, or for OpenVINO: less arithmetic, nearly its answers.

What a conversion gives up is measured on the run's validation pictures and refused where it is
more than a tenth of a point, or where the share of ``unknown`` moves by more than a point.
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
from facegender.training.export.model_export import add_description
from facegender.training.prepare import load_images, split_images, subset_indices
from facegender.training.run_folder import open_run

MAX_ACCURACY_LOSS = 0.1
"""Of accuracy on the validation part, in points."""

MAX_UNKNOWN_CHANGE = 1.0
"""Of the share of ``unknown``, in points."""

CALIBRATION_IMAGES = 512
_LEAST_SURE = 0.05
_CALIBRATION_BATCH = 16
_LINEAR = ["Conv", "Add", "Relu", "MaxPool", "AveragePool", "Pad"]


class QuantizationLossError(FacegenderError):
    """A conversion gives up more accuracy than is allowed; nothing was written."""


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """What a conversion gives up, on labelled pictures.

    Attributes:
        images: how many.
        accuracy_before: in full precision, in percent.
        accuracy_after: in percent.
        unknown_before: share of answers below the threshold, in percent.
        unknown_after: likewise.
        flipped: answers whose label is another one.
        largest: difference of a probability.
    """

    images: int
    accuracy_before: float
    accuracy_after: float
    unknown_before: float
    unknown_after: float
    flipped: int
    largest: float

    @classmethod
    def between(
        cls,
        before: NDArray[np.floating],
        after: NDArray[np.floating],
        labels: NDArray[np.integer],
        threshold: float,
    ) -> QuantizationLoss:
        """Compare two tables of probabilities ``[N, 2]`` of the same labelled pictures.

        Where the network has no threshold of its own (0.5), the one counts below which the least
        sure twentieth of the answers in full precision lies.
        """
        if threshold <= 0.5:
            threshold = float(np.quantile(before.max(1), _LEAST_SURE))

        def percent(hits: NDArray[np.bool_]) -> float:
            return round(100.0 * float(hits.mean()), 3)

        return cls(
            len(labels),
            percent(before.argmax(1) == labels),
            percent(after.argmax(1) == labels),
            percent(before.max(1) < threshold),
            percent(after.max(1) < threshold),
            int((before.argmax(1) != after.argmax(1)).sum()),
            round(float(np.abs(before - after).max()), 4),
        )

    def check(self) -> None:
        """Refuse a conversion that gives up too much.

        Raises:
            LossError: it does.
        """
        lost = self.accuracy_before - self.accuracy_after
        moved = abs(self.unknown_before - self.unknown_after)
        if lost > MAX_ACCURACY_LOSS or moved > MAX_UNKNOWN_CHANGE:
            raise QuantizationLossError(
                f"on {self.images:,} validation pictures it costs {lost:.2f} points of accuracy "
                f"(allowed {MAX_ACCURACY_LOSS}) and moves the share of unknown by {moved:.2f} "
                f"points (allowed {MAX_UNKNOWN_CHANGE:g}). No file was written"
            )


def convert_run(
    folder: Path,
    output: Path,
    to: str,
    *,
    license: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> QuantizationLoss:
    """Write a finished run's network in another form, measured on its own validation pictures.

    Args:
        folder: the run folder.
        output: where the file goes.
        to: ``onnx-int8`` or ``openvino``.
        license: what the file says of its licence; None keeps what the run said.
        terms: what the file says of its data's terms; None keeps what the run said.
        console: where progress is shown.

    Raises:
        InputError: the run is not finished, or its archives are no longer where they were.
        LossError: it gives up too much.
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
    held, learned = subset_indices(subsets, "validation"), subset_indices(subsets, "train")
    validation, labels = read_rows(cache.pixels, held), cache.labels[held]
    model = folder / MODEL_NAME
    output.parent.mkdir(parents=True, exist_ok=True)
    if to == "openvino":
        return to_openvino(model, validation, labels, output, description)
    some = np.random.default_rng(0).permutation(learned)[:CALIBRATION_IMAGES]
    calibration = read_rows(cache.pixels, np.sort(some))
    return quantize(model, calibration, validation, labels, output, description)


def quantize(
    model: Path,
    calibration: Pixels,
    validation: Pixels,
    labels: NDArray[np.integer],
    output: Path,
    description: ModelDescription,
) -> QuantizationLoss:
    """Write a model file in int8: weights by channel, activations by the range that they have.

    Static quantization in ONNX's QDQ form, by ONNX Runtime's own tool, with ranges of real faces.
    The ends of the network (pixels in, probabilities out) stay float32.

    Args:
        model: a model file in full precision.
        calibration: training pictures at the network's size, ``uint8 [N, H, W, 3]``.
        validation: pictures to measure the loss on, likewise.
        labels: theirs, indices into ``LABELS``.
        output: where the file goes; written whole or not at all.
        description: what it says of itself; the loss is added to its figures.

    Raises:
        LossError: it gives up too much.
    """
    before = Classifier.load(model, runtime="onnxruntime").probabilities(validation)
    with tempfile.TemporaryDirectory() as folder:
        quantised = _quantized(model, calibration, Path(folder))
        candidate = Path(folder, "candidate.onnx")
        candidate.write_bytes(add_description(quantised, description))
        after = Classifier.load(candidate, runtime="onnxruntime").probabilities(validation)
    loss = QuantizationLoss.between(before, after, labels, description.min_confidence)
    loss.check()
    metrics = dict(description.metrics) | {"int8": _as_figures(loss)}
    graph = add_description(quantised, replace(description, metrics=metrics))
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
    """Write OpenVINO's two files, ``NAME.xml`` and ``NAME.bin``, for programs that read those.

    The description goes into the XML as ``rt_info``. ``predict`` does not need it: it runs a model
    file by OpenVINO itself. The loss is that of OpenVINO on this processor.

    Args:
        model: a model file.
        validation: pictures to measure the loss on, ``uint8 [N, H, W, 3]``.
        labels: theirs.
        output: where the ``.xml`` goes.
        description: what the file says of itself.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        LossError: it gives up too much.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino") from error
    before = Classifier.load(model, runtime="onnxruntime").probabilities(validation)
    after = Classifier.load(model, runtime="openvino").probabilities(validation)
    loss = QuantizationLoss.between(before, after, labels, description.min_confidence)
    loss.check()
    metrics = dict(description.metrics) | {"openvino": _as_figures(loss)}
    network = openvino.Core().read_model(model)
    text = replace(description, metrics=metrics).to_json()
    network.set_rt_info(text, [DESCRIPTION_KEY])
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder, "model.xml")
        openvino.save_model(network, made, compress_to_fp16=True)
        shutil.move(made.with_suffix(".bin"), output.with_suffix(".bin"))
        shutil.move(made, output)
    return loss


def _as_figures(loss: QuantizationLoss) -> dict[str, Any]:
    return {
        "validation": {
            "pictures": loss.images,
            "accuracy_before": loss.accuracy_before,
            "accuracy_after": loss.accuracy_after,
            "unknown_before": loss.unknown_before,
            "unknown_after": loss.unknown_after,
        }
    }


def _quantized(model: Path, calibration: Pixels, folder: Path) -> onnx.ModelProto:
    """Have ONNX Runtime's tool quantise a graph."""
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

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = batches()

        def get_next(self) -> dict[str, Pixels] | None:
            return next(self._batches, None)

    prepared, quantised = folder / "prepared.onnx", folder / "quantised.onnx"
    logging.getLogger().addFilter(_is_no_advice)  # the tool advises to prepare what is prepared
    try:
        quant_pre_process(model, prepared)
        quantize_static(
            prepared,
            quantised,
            Faces(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=_LINEAR,
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)
    return onnx.load(quantised)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
