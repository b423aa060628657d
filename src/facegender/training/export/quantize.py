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
from facegender.files import replacing
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
from facegender.training.export.model_export import describe
from facegender.training.prepare import open_pictures, rows_of, split_pictures
from facegender.training.run_folder import open_run

MOST_POINTS_LOST = 0.1
"""Of accuracy on the validation part, in points."""

MOST_UNKNOWN_MOVED = 1.0
"""Of the share of ``unknown``, in points."""

CALIBRATION_PICTURES = 512
_LEAST_SURE = 0.05
_CALIBRATION_BATCH = 16
_LINEAR = ["Conv", "Add", "Relu", "MaxPool", "AveragePool", "Pad"]


class LossError(FacegenderError):
    """A conversion gives up more accuracy than is allowed; nothing was written."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a conversion gives up, on labelled pictures.

    Attributes:
        pictures: how many.
        accuracy_before: in full precision, in percent.
        accuracy_after: in percent.
        unknown_before: share of answers below the threshold, in percent.
        unknown_after: likewise.
        flipped: answers whose label is another one.
        largest: difference of a probability.
    """

    pictures: int
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
    ) -> Loss:
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
        if lost > MOST_POINTS_LOST or moved > MOST_UNKNOWN_MOVED:
            raise LossError(
                f"on {self.pictures:,} validation pictures it costs {lost:.2f} points of accuracy "
                f"(allowed {MOST_POINTS_LOST}) and moves the share of unknown by {moved:.2f} "
                f"points (allowed {MOST_UNKNOWN_MOVED:g}). No file was written"
            )


def convert_run(
    folder: Path,
    output: Path,
    to: str,
    *,
    licence: str | None = None,
    terms: str | None = None,
    console: Console | None = None,
) -> Loss:
    """Write a finished run's network in another form, measured on its own validation pictures.

    Args:
        folder: the run folder.
        output: where the file goes.
        to: ``onnx-int8`` or ``openvino``.
        licence: what the file says of its licence; None keeps what the run said.
        terms: what the file says of its data's terms; None keeps what the run said.
        console: where progress is shown.

    Raises:
        InputError: the run is not finished, or its archives are no longer where they were.
        LossError: it gives up too much.
    """
    console = console or Console()
    request, recipe = open_run(None, None, folder, resume=True)
    description = read_model_file(folder, runtime="onnxruntime").description
    if licence is not None:
        description = replace(description, licence=licence)
    if terms is not None:
        description = replace(description, terms=terms)
    store = open_pictures(request, recipe, folder, console)
    assignments = split_pictures(request, recipe, store, folder, console, resume=True)
    parts = np.array([row.part for row in assignments])
    held, learned = rows_of(parts, "validation"), rows_of(parts, "train")
    validation, labels = read_rows(store.pixels, held), store.labels[held]
    model = folder / MODEL_NAME
    output.parent.mkdir(parents=True, exist_ok=True)
    if to == "openvino":
        return to_openvino(model, validation, labels, output, description)
    some = np.random.default_rng(0).permutation(learned)[:CALIBRATION_PICTURES]
    calibration = read_rows(store.pixels, np.sort(some))
    return quantise(model, calibration, validation, labels, output, description)


def quantise(
    model: Path,
    calibration: Pixels,
    validation: Pixels,
    labels: NDArray[np.integer],
    output: Path,
    description: ModelDescription,
) -> Loss:
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
        quantised = _quantised(model, calibration, Path(folder))
        candidate = Path(folder, "candidate.onnx")
        candidate.write_bytes(describe(quantised, description))
        after = Classifier.load(candidate, runtime="onnxruntime").probabilities(validation)
    loss = Loss.between(before, after, labels, description.unknown_below)
    loss.check()
    figures = dict(description.figures) | {"int8": _as_figures(loss)}
    graph = describe(quantised, replace(description, figures=figures))
    with replacing(output) as file:
        file.buffer.write(graph)
    return loss


def to_openvino(
    model: Path,
    validation: Pixels,
    labels: NDArray[np.integer],
    output: Path,
    description: ModelDescription,
) -> Loss:
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
    loss = Loss.between(before, after, labels, description.unknown_below)
    loss.check()
    figures = dict(description.figures) | {"openvino": _as_figures(loss)}
    network = openvino.Core().read_model(model)
    text = replace(description, figures=figures).to_json()
    network.set_rt_info(text, [DESCRIPTION_KEY])
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder, "model.xml")
        openvino.save_model(network, made, compress_to_fp16=True)
        shutil.move(made.with_suffix(".bin"), output.with_suffix(".bin"))
        shutil.move(made, output)
    return loss


def _as_figures(loss: Loss) -> dict[str, Any]:
    return {
        "validation": {
            "pictures": loss.pictures,
            "accuracy_before": loss.accuracy_before,
            "accuracy_after": loss.accuracy_after,
            "unknown_before": loss.unknown_before,
            "unknown_after": loss.unknown_after,
        }
    }


def _quantised(model: Path, calibration: Pixels, folder: Path) -> onnx.ModelProto:
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
