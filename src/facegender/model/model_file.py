"""The model file: an ONNX graph over ``uint8`` pixels that carries its own description.

Nothing about a network is stored anywhere else. The description is a JSON text in the metadata of
the graph; beside it is the SHA-256 of the file, so that a damaged file is refused before it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from facegender.errors import ModelFileError
from facegender.faces.alignment import Crop
from facegender.images.pixels import Resize
from facegender.model.runtime import Network, load_network

LABELS = ("female", "male")
"""The label order of every network's two outputs."""

FORMAT = 3
"""Version of the description; a file with another one is refused."""

RENAMED_KEYS = {
    "figures": "metrics",
    "grey": "grayscale",
    "licence": "license",
    "start": "pretrained",
    "unknown_below": "min_confidence",
    "crop.points": "crop.template",
    "resize.aspect": "resize.resize_mode",
    "resize.filter": "resize.interpolation",
}
"""Keys of format 2 and their names now."""

DESCRIPTION_KEY = "facegender"
"""Metadata key of the description."""

DIGEST_KEY = "facegender.sha256"
"""Metadata key of the SHA-256."""

MODEL_NAME = "model.onnx"
"""Name of the model file in a run folder."""

SHIPPED_MODELS = ("best", "fast", "open")
"""Names of the models that ship; the first is the default."""

_WEIGHTS = Path(__file__).parent / "weights"
_DIGEST_MARK = DIGEST_KEY.encode() + b"\x12\x40"  # protobuf: key, then a 64-byte value
_DESCRIPTION_MARK = bytes((10, len(DESCRIPTION_KEY))) + DESCRIPTION_KEY.encode() + b"\x12"
_BLANK_DIGEST = b"0" * 64


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Everything about a network except its weights.

    Example:
        >>> description = Classifier.load().description
        >>> description.labels, description.crop.rule
        (('female', 'male'), 'aligned')

    Attributes:
        name: of the network.
        resize: input size and how a face is resized to it.
        labels: in the order of the two outputs.
        crop: how a face is cropped.
        grayscale: whether the network ignores colors.
        min_confidence: answers with a lower probability get the status ``unknown`` (0.5: none).
        temperature: the logits are divided by it; already part of the graph.
        metrics: measured results by subset and source, with counts.
        data: what it was trained on: counts, fingerprint.
        recipe: how it was trained.
        pretrained: the weights that training started from.
        license: of the model file.
        terms: what the licenses of the training data allow.
        created: when, as ISO 8601.
        format: version of this description.
    """

    name: str
    resize: Resize
    labels: tuple[str, ...] = LABELS
    crop: Crop = field(default_factory=Crop)
    grayscale: bool = False
    min_confidence: float = 0.5
    temperature: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    license: str = ""
    terms: str = ""
    created: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the JSON text for the metadata of the graph."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelDescription:
        """Read a description, strictly.

        Args:
            text: JSON, as :meth:`to_json` returns it.

        Raises:
            ValueError: not JSON, missing or unknown keys, other labels, or another format.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("its description is not a JSON object")
        if raw.get("format") != FORMAT:
            raise ValueError(_describe_format_mismatch(raw.get("format")))
        known = {item.name for item in fields(cls)}
        if missing := known - raw.keys():
            raise ValueError(f"its description lacks {', '.join(sorted(missing))}")
        if unknown := raw.keys() - known:
            raise ValueError(f"its description has unknown keys {', '.join(sorted(unknown))}")
        labels = tuple(raw["labels"])
        if labels != LABELS:
            raise ValueError(f"its labels are {labels}, not {LABELS}")
        try:
            raw["resize"] = Resize(**raw["resize"])
            template = tuple(tuple(point) for point in raw["crop"].pop("template"))
            raw["crop"] = Crop(template=template, **raw["crop"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"its resize or crop rule cannot be read: {error}") from error
        if not 0.5 <= raw["min_confidence"] <= 1.0:
            raise ValueError(f"its min_confidence {raw['min_confidence']!r} is not within 0.5 to 1")
        return cls(**(raw | {"labels": labels}))


def _describe_format_mismatch(found: object) -> str:
    renamed = ""
    if found == 2:
        pairs = ", ".join(f"{old} is now {new}" for old, new in RENAMED_KEYS.items())
        renamed = (
            f" ({pairs}; the crop rule whole is now none, the resize modes pad and crop are now "
            "letterbox and center_crop)"
        )
    return (
        f"its description has format {found!r}, and this version reads format {FORMAT}{renamed}. "
        "Use the version of facegender that wrote the file, or train the network again"
    )


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was read and verified, ready to run.

    Attributes:
        path: the file.
        description: what it says about the network.
        network: what runs it.
        digest: its SHA-256 in hex.
    """

    path: Path
    description: ModelDescription
    network: Network
    digest: str


def shipped_model(name: str = SHIPPED_MODELS[0]) -> Path:
    """Return the path of a model file that ships with the package.

    Args:
        name: one of :data:`SHIPPED_MODELS`.
    """
    return _WEIGHTS / f"{name}.onnx"


def shipped_name(path: Path) -> str | None:
    """Return the name of a model file if it is one that ships, else None."""
    is_shipped = path.parent == _WEIGHTS and path.stem in SHIPPED_MODELS
    return path.stem if is_shipped else None


def find_model(path: Path | None) -> Path:
    """Return the path of a model that is given by name or path.

    Args:
        path: a name of :data:`SHIPPED_MODELS`, or a path; None is the default model. A file or run
            folder of that name comes first.
    """
    if path is None:
        return shipped_model()
    if str(path) in SHIPPED_MODELS and not (path.is_file() or (path / MODEL_NAME).exists()):
        return shipped_model(str(path))
    return path


def read_model_file(
    path: Path | None = None, *, runtime: str = "auto", threads: int = 1
) -> ModelFile:
    """Read and verify a model file.

    Args:
        path: a model file, a run folder with ``model.onnx``, a name of :data:`SHIPPED_MODELS`, or
            None for the default model.
        runtime: one of :data:`facegender.model.runtime.RUNTIMES`.
        threads: number of concurrent runs of the network.

    Raises:
        InputError: an unknown runtime, or one that is not installed.
        ModelFileError: the file is missing, no facegender model file, damaged, or has a
            description (labels, format, rules) that this version does not support.
    """
    path = find_model(path)
    try:
        if path.is_dir():
            path = path / MODEL_NAME
            if not path.is_file():
                raise ModelFileError(
                    f"{path.parent} has no {MODEL_NAME}. If it is a run folder whose training has "
                    f"not ended, run  facegender train --resume --output {path.parent}"
                )
        graph = path.read_bytes()
    except OSError as error:
        names = ", ".join(SHIPPED_MODELS)
        hint = "" if path.suffix else f". The models that ship are {names}"
        raise ModelFileError(
            f"Cannot read the model file {path}: {error.strerror}{hint}"
        ) from error
    recorded = recorded_digest(graph)
    if recorded is None:
        raise ModelFileError(
            f"{path} is not a facegender model file. 'facegender train' and 'facegender export' "
            "write such files"
        )
    if compute_digest(graph) != recorded:
        raise ModelFileError(
            f"{path} is damaged: its content does not match its SHA-256. Copy or export it again"
        )
    try:
        description = ModelDescription.from_json(_read_description(graph))
        network = load_network(graph, runtime, threads)
        _check_input_and_output(network, description)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"Cannot use the model file {path}: {error}") from error
    return ModelFile(path, description, network, recorded)


def recorded_digest(graph: bytes) -> str | None:
    """Return the SHA-256 in a model file's metadata, 64 hex digits, or None if there is none."""
    start = graph.rfind(_DIGEST_MARK)
    value = graph[start + len(_DIGEST_MARK) :][:64]
    return value.decode("ascii", "replace") if start >= 0 and len(value) == 64 else None


def compute_digest(graph: bytes) -> str:
    """Compute the SHA-256 of a model file with the 64 digits of its own digest set to zeros."""
    start = graph.rfind(_DIGEST_MARK) + len(_DIGEST_MARK)
    view = memoryview(graph)
    digest = hashlib.sha256(view[:start])
    digest.update(_BLANK_DIGEST)
    digest.update(view[start + 64 :])
    return digest.hexdigest()


def seal(graph: bytes) -> bytes:
    """Return a model file with its digest filled in.

    Args:
        graph: a model file whose metadata has a digest entry of 64 digits.

    Raises:
        ValueError: there is no such entry.
    """
    if recorded_digest(graph) is None:
        raise ValueError(f"The metadata of the graph has no {DIGEST_KEY} entry of 64 digits")
    start = graph.rfind(_DIGEST_MARK) + len(_DIGEST_MARK)
    return graph[:start] + compute_digest(graph).encode() + graph[start + 64 :]


def _read_description(graph: bytes) -> str:
    """Find the description in the bytes of a graph, without loading the graph a second time.

    Raises:
        ValueError: there is none.
    """
    start = graph.rfind(_DESCRIPTION_MARK) + len(_DESCRIPTION_MARK)
    if start < len(_DESCRIPTION_MARK):
        raise ValueError("it has no description")
    length = shift = 0  # a protobuf varint: seven bits per byte, the lowest first
    while graph[start] & 0x80:
        length |= (graph[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
    length |= graph[start] << shift
    return graph[start + 1 :][:length].decode()


def _check_input_and_output(network: Network, description: ModelDescription) -> None:
    """Check that the graph's input and output match its description.

    Raises:
        ValueError: they differ.
    """
    shape = f"[{description.resize.height}, {description.resize.width}, 3]"
    if network.input_spec != f"uint8 {shape}":
        raise ValueError(f"its input is {network.input_spec}, not uint8 pixels {shape}")
    if network.output_spec != "float32 [2]":
        raise ValueError(f"its output is {network.output_spec}, not float32 probabilities [2]")
