"""Classify faces in photos as male or female.

Example:
    >>> from facegender import Classifier, predict_folder
    >>> classifier = Classifier.load()
    >>> classifier.predict("faces/eileen_collins.jpg").label
    'female'
    >>> rows = list(predict_folder("faces", classifier=classifier))
    >>> len([row for row in rows if row.label == "male"])
    5

Names are imported on first use, so that ``import facegender`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facegender.errors import (
        FacegenderError,
        InputError,
        MissingExtraError,
        ModelFileError,
        OutputError,
        StoppedError,
        UnreadableImageError,
        UnsupportedImageError,
    )
    from facegender.faces.yunet import Face
    from facegender.images.formats import ImageLimits
    from facegender.inference.classifier import Classifier
    from facegender.inference.outputs import PredictOutputs
    from facegender.inference.pipeline import PredictOptions
    from facegender.inference.predict import predict_folder, predict_to_files
    from facegender.model.model_file import ModelDescription
    from facegender.results.predictions import Box, Prediction, Status
    from facegender.results.process_results import write_process_results
    from facegender.results.summary import RunSummary

    __version__: str

__all__ = [
    "Box",
    "Classifier",
    "Face",
    "FacegenderError",
    "ImageLimits",
    "InputError",
    "MissingExtraError",
    "ModelDescription",
    "ModelFileError",
    "OutputError",
    "PredictOptions",
    "PredictOutputs",
    "Prediction",
    "RunSummary",
    "Status",
    "StoppedError",
    "UnreadableImageError",
    "UnsupportedImageError",
    "__version__",
    "predict_folder",
    "predict_to_files",
    "write_process_results",
]

_MODULES = {
    "errors": (
        "FacegenderError",
        "InputError",
        "MissingExtraError",
        "ModelFileError",
        "OutputError",
        "StoppedError",
        "UnreadableImageError",
        "UnsupportedImageError",
    ),
    "faces.yunet": ("Face",),
    "images.formats": ("ImageLimits",),
    "inference.classifier": ("Classifier",),
    "inference.outputs": ("PredictOutputs",),
    "inference.pipeline": ("PredictOptions",),
    "inference.predict": ("predict_folder", "predict_to_files"),
    "model.model_file": ("ModelDescription",),
    "results.predictions": ("Box", "Prediction", "Status"),
    "results.process_results": ("write_process_results",),
    "results.summary": ("RunSummary",),
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name == "__version__":
        return _version()
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"facegender.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'facegender' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("facegender")
    except PackageNotFoundError:  # run from source, not installed
        return "0+source"
