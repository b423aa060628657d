"""Tell from a picture of a face whether people would label it male or female.

Example:
    >>> from facegender import Classifier, predict_folder
    >>> classifier = Classifier.load()
    >>> classifier.predict("faces/eileen_collins.jpg").label
    'female'
    >>> rows = list(predict_folder("faces", classifier=classifier))
    >>> len([row for row in rows if row.label == "male"])
    5

The names are loaded when they are first used, so that ``import facegender`` costs nothing.
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
    "__version__",
    "predict_folder",
    "predict_to_files",
    "write_process_results",
]

_HOMES = {
    "inference.classifier": ("Classifier",),
    "errors": (
        "FacegenderError",
        "InputError",
        "MissingExtraError",
        "ModelFileError",
        "OutputError",
        "StoppedError",
        "UnreadableImageError",
    ),
    "faces.yunet": ("Face",),
    "model.model_file": ("ModelDescription",),
    "images.formats": ("ImageLimits",),
    "inference.outputs": ("PredictOutputs",),
    "inference.pipeline": ("PredictOptions",),
    "inference.predict": ("predict_folder", "predict_to_files"),
    "results.predictions": ("Box", "Prediction", "Status"),
    "results.process_results": ("write_process_results",),
    "results.summary": ("RunSummary",),
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name == "__version__":
        return _version()
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"facegender.{home}"), name)
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
    except PackageNotFoundError:  # run from the source, not installed
        return "0+source"
