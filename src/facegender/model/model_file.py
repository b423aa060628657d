"""The model file: an ONNX graph over ``uint8`` pixels that carries its whole description.

Nothing about a network lives anywhere else. The description is one JSON text in the graph's
metadata; beside it stands the SHA-256 of the file, so that a damaged file is told from a good one
before it is run.
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

DESCRIPTION_KEY = "facegender"
DIGEST_KEY = "facegender.sha256"
MODEL_NAME = "model.onnx"
"""What the model file is called in a run folder."""

_DIGEST_MARK = DIGEST_KEY.encode() + b"\x12\x40"  # protobuf: key, then a 64-byte value
_DESCRIPTION_MARK = bytes((10, len(DESCRIPTION_KEY))) + DESCRIPTION_KEY.encode() + b"\x12"
_BLANK = b"0" * 64


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Everything about a network but its weights.

    Example:
        >>> description = Classifier.load().description
        >>> description.labels, description.crop.rule
        (('female', 'male'), 'aligned')

    Attributes:
        name: of the network.
        resize: the size in pixels at which it sees a face, and the filter that brings it there.
        labels: in the order of its two outputs.
        crop: the rule by which a face is cut out.
        grayscale: whether it sees no colours.
        min_confidence: answers with a probability below it get the status ``unknown`` (0.5: none).
        temperature: what the logits were divided by; already inside the graph.
        metrics: what was measured, by part and source, with counts.
        data: what it learned from: counts, fingerprint.
        recipe: how it was trained.
        pretrained: the weights that training started from.
        license: of the model file.
        terms: what the data allows.
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
        """Write the description as the JSON text that goes into the metadata."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelDescription:
        """Read a description, strictly.

        Raises:
            ValueError: not JSON, keys missing or unknown, other labels, another format.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("the description is not a JSON object")
        if raw.get("format") != FORMAT:
            raise ValueError(
                f"its format is {raw.get('format')!r}, this facegender reads {FORMAT}; the version "
                "that wrote it, older or newer, reads it, or the network is trained anew"
            )
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
            points = tuple(tuple(point) for point in raw["crop"].pop("template"))
            raw["crop"] = Crop(template=points, **raw["crop"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"its resize or crop rule cannot be read: {error}") from error
        if not 0.5 <= raw["min_confidence"] <= 1.0:
            raise ValueError(f"its min_confidence {raw['min_confidence']!r} is not within 0.5 to 1")
        return cls(**(raw | {"labels": labels}))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was read and verified, ready to run; ``digest`` is its SHA-256 in hex."""

    path: Path
    description: ModelDescription
    network: Network
    digest: str


def shipped_model() -> Path:
    """Path of the model file that comes with the package."""
    return Path(__file__).parent / "weights" / "best.onnx"


def read_model_file(
    path: Path | None = None, *, runtime: str = "auto", threads: int = 1
) -> ModelFile:
    """Read and verify a model file, or the one in a run folder, or the shipped one.

    Args:
        path: a model file, a run folder that holds ``model.onnx``, or None for the shipped one.
        runtime: what runs it, one of :data:`facegender.model.runtime.RUNTIMES`.
        threads: how many runs of the network may go on side by side.

    Raises:
        InputError: another word for ``runtime``, or one that is not installed.
        ModelFileError: missing, not a facegender model file, damaged, or with a description
            (labels, format, rules) that this version does not follow.
    """
    path = shipped_model() if path is None else Path(path)
    try:
        if path.is_dir():
            path = path / MODEL_NAME
            if not path.is_file():
                raise ModelFileError(
                    f"{path.parent} holds no {MODEL_NAME}: is it a run folder whose training has "
                    "ended? Finish it with:  facegender train --resume --output "
                    f"{path.parent}"
                )
        graph = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror}") from error
    recorded = recorded_digest(graph)
    if recorded is None:
        raise ModelFileError(
            f"{path} is not a facegender model file. Such a file comes out of "
            "'facegender train' or 'facegender export'."
        )
    if compute_digest(graph) != recorded:
        raise ModelFileError(
            f"{path} is damaged: its content does not match its own SHA-256. "
            "Copy or export it again."
        )
    try:
        description = ModelDescription.from_json(_recorded_description(graph))
        network = load_network(graph, runtime, threads)
        _check_ends(network, description)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"the model file {path} cannot be used: {error}") from error
    return ModelFile(path, description, network, recorded)


def recorded_digest(graph: bytes) -> str | None:
    """SHA-256 that a model file states of itself, 64 hex digits, or None where there is none."""
    at = graph.rfind(_DIGEST_MARK)
    value = graph[at + len(_DIGEST_MARK) :][:64]
    return value.decode("ascii", "replace") if at >= 0 and len(value) == 64 else None


def compute_digest(graph: bytes) -> str:
    """SHA-256 of a model file with the 64 digits of its own digest taken as zeros."""
    at = graph.rfind(_DIGEST_MARK) + len(_DIGEST_MARK)
    view = memoryview(graph)
    digest = hashlib.sha256(view[:at])
    digest.update(_BLANK)
    digest.update(view[at + 64 :])
    return digest.hexdigest()


def seal(graph: bytes) -> bytes:
    """Return a model file with its digest filled in; its metadata must hold a blank one.

    Raises:
        ValueError: there is no digest entry to fill.
    """
    if recorded_digest(graph) is None:
        raise ValueError(f"the graph's metadata has no {DIGEST_KEY} entry of 64 digits")
    at = graph.rfind(_DIGEST_MARK) + len(_DIGEST_MARK)
    return graph[:at] + compute_digest(graph).encode() + graph[at + 64 :]


def _recorded_description(graph: bytes) -> str:
    """Take the description out of the metadata, without a second load of the whole graph for it.

    Raises:
        ValueError: there is none.
    """
    at = graph.rfind(_DESCRIPTION_MARK) + len(_DESCRIPTION_MARK)
    if at < len(_DESCRIPTION_MARK):
        raise ValueError("it has no description")
    length = shift = 0  # as protobuf writes it: seven bits a byte, the lowest first
    while graph[at] & 0x80:
        length |= (graph[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    length |= graph[at] << shift
    return graph[at + 1 :][:length].decode()


def _check_ends(network: Network, description: ModelDescription) -> None:
    """Hold the description against what the graph takes and gives.

    Raises:
        ValueError: they differ.
    """
    frame = f"[{description.resize.height}, {description.resize.width}, 3]"
    if network.input_spec != f"uint8 {frame}":
        raise ValueError(f"its graph does not take uint8 pixels {frame}, but {network.input_spec}")
    if network.output_spec != "float32 [2]":
        raise ValueError(
            f"its graph does not give float32 probabilities [2], but {network.output_spec}"
        )
