"""Recipes: all settings of a training, read from one TOML file and checked."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from facegender.errors import InputError
from facegender.faces.alignment import ALIGNED_CROP, Crop
from facegender.faces.face_aligner import FaceAligner
from facegender.images.pixels import Resize
from facegender.training.ensemble.options import EnsembleOptions
from facegender.training.renamed import find_renamed_keys


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The architecture and its initial weights.

    Attributes:
        name: ``dlib_resnet``, or the name of a timm network.
        pretrained: ``dlib``, ``timm``, ``shipped``, a weight or model file, or "" for random
            weights.
        dropout: probability of dropping a feature before the last layer.
    """

    name: str = "dlib_resnet"
    pretrained: str = ""
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The network's input and the preprocessing of images.

    Attributes:
        height: in pixels.
        width: in pixels.
        interpolation: ``box``, ``bilinear``, ``bicubic`` or ``lanczos``.
        resize_mode: ``stretch``, ``letterbox`` or ``center_crop``.
        grayscale: three equal channels of luma instead of R, G and B.
        mean: subtracted from pixels in 0..1, one value for each of R, G, B.
        std: divisor after that, one value for each channel.
        crop: ``none`` takes the full image, ``aligned`` detects and aligns the face.
    """

    height: int = 128
    width: int = 128
    interpolation: str = "bilinear"
    resize_mode: str = "stretch"
    grayscale: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: str = "none"

    @property
    def aligner(self) -> FaceAligner:
        """The crop and resize rules as the model file stores them."""
        crop = ALIGNED_CROP if self.crop == ALIGNED_CROP.rule else Crop(self.crop)
        resize = Resize(self.height, self.width, self.interpolation, self.resize_mode)
        return FaceAligner(crop, resize)


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """Augmentation of training images; 0 (or 1 for a factor) turns a transform off.

    Every ``_prob`` is the probability, from 0 to 1, that a transform is applied to an image.

    Attributes:
        full_image_prob: of the full image instead of the face, if the input's crop is ``aligned``.
        hflip_prob: of a horizontal flip.
        rotation_degrees: maximum of a uniform rotation, in either direction.
        rotation_prob: of that rotation; all other images get the jitter below.
        rotation_jitter_std: standard deviation of a normally distributed rotation, in degrees.
        scale: maximum factor of zooming in or out.
        zoom_out_prob: of zooming a full image out further, to any position in the result.
        zoom_out_max: maximum factor of zooming out further.
        aspect_ratio_jitter: maximum factor between width and height.
        translate: maximum shift, as a fraction of the side.
        pad_edge_prob: of repeating the edge where the result lies outside of the image.
        pad_background_prob: of showing an enlarged quarter of the image there, if the edge is not
            repeated; the remaining images are padded with one color (black if ``pad_edge_prob``
            is 0).
        downscale_prob: of downscaling to 20 to 96 pixels and upscaling again.
        color_jitter: strength of brightness, contrast and saturation jitter.
        color_cast: strength of random channel gains, as a natural logarithm.
        grayscale_prob: of grayscale.
        channel_shuffle_prob: of another order of R, G and B.
        gaussian_noise_std: maximum standard deviation of noise, for pixels in 0..1.
        random_erasing_prob: of hiding a box behind one color.
    """

    full_image_prob: float = 0.0
    hflip_prob: float = 0.5
    rotation_degrees: float = 0.0
    rotation_prob: float = 1.0
    rotation_jitter_std: float = 0.0
    scale: float = 1.0
    zoom_out_prob: float = 0.0
    zoom_out_max: float = 1.0
    aspect_ratio_jitter: float = 1.0
    translate: float = 0.0
    pad_edge_prob: float = 0.0
    pad_background_prob: float = 0.0
    downscale_prob: float = 0.0
    color_jitter: float = 0.0
    color_cast: float = 0.0
    grayscale_prob: float = 0.0
    channel_shuffle_prob: float = 0.0
    gaussian_noise_std: float = 0.0
    random_erasing_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Optimizer, learning rate schedule, loss and training loop.

    Attributes:
        epochs: passes over the training images.
        min_steps: minimum number of steps; a small dataset is trained for more than ``epochs``
            to reach it (0: no minimum).
        batch_size: images per step, over all devices.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: maximum of the schedule.
        momentum: of ``sgd``.
        weight_decay: of weights; biases and normalization layers have none.
        warmup_fraction: fraction of all steps over which the learning rate rises.
        lr_schedule: ``cosine`` or ``constant``.
        label_smoothing: of the cross-entropy.
        ema_decay: per step, of the exponential moving average of the weights (0: no average).
        max_grad_norm: maximum norm of the gradients (0: no clipping).
        sampling_balance: balances groups of images: 0 samples every image equally often, 1 every
            group equally often.
        sampling_groups: what tells groups apart: ``source``, ``label``, and ``over_60`` for
            people aged 60 or more.
        distillation_weight: weight of a teacher's predictions in the targets, from 0 to 1.
        patience: epochs without a better validation accuracy after which training ends (0: never;
            with a cosine schedule the last epochs improve the most).
        precision: ``auto``, ``32`` or ``bf16``.
        seed: of split, order, augmentation and random weights.
    """

    epochs: int = 5
    min_steps: int = 0
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_fraction: float = 0.0
    lr_schedule: str = "constant"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    max_grad_norm: float = 0.0
    sampling_balance: float = 0.0
    sampling_groups: tuple[str, ...] = ("source", "label")
    distillation_weight: float = 0.0
    patience: int = 0
    precision: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of a training.

    Attributes:
        name: of the network, stored in the model file.
        network: architecture and initial weights.
        input: input size and preprocessing.
        augment: augmentation of training images.
        train: optimizer, schedule, loss and loop.
        min_confidence: stored in the model file: predictions with a lower probability are
            ``unknown`` (0.5: none are).
        ensemble: a published network beside the trained one; None: the network alone.
    """

    name: str
    network: NetworkOptions = field(default_factory=NetworkOptions)
    input: InputOptions = field(default_factory=InputOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    min_confidence: float = 0.5
    ensemble: EnsembleOptions | None = None

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: a value is out of range; the message names its key.
        """
        self.input.aligner  # noqa: B018  (checks crop, size, interpolation and resize mode)
        _one_of("train.optimizer", self.train.optimizer, ("adamw", "sgd"))
        _one_of("train.lr_schedule", self.train.lr_schedule, ("cosine", "constant"))
        _one_of("train.precision", self.train.precision, ("auto", "32", "bf16"))
        for name in ("epochs", "batch_size"):
            if getattr(self.train, name) < 1:
                raise ValueError(f"train.{name} must be 1 or more")
        for name in ("scale", "zoom_out_max", "aspect_ratio_jitter"):
            if getattr(self.augment, name) < 1:
                raise ValueError(f"augment.{name} is a factor of 1 or more")
        for item in fields(self.augment):
            if item.name.endswith("_prob"):
                _fraction(f"augment.{item.name}", getattr(self.augment, item.name))
            elif getattr(self.augment, item.name) < 0:
                raise ValueError(f"augment.{item.name} must not be below 0")
        for name in ("momentum", "weight_decay", "max_grad_norm", "min_steps", "patience"):
            if getattr(self.train, name) < 0:
                raise ValueError(f"train.{name} must not be below 0")
        for name in (
            "warmup_fraction",
            "label_smoothing",
            "ema_decay",
            "sampling_balance",
            "distillation_weight",
        ):
            _fraction(f"train.{name}", getattr(self.train, name))
        for group in self.train.sampling_groups:
            _one_of("train.sampling_groups", group, ("source", "label", "over_60"))
        _fraction("network.dropout", self.network.dropout)
        if not 0 < self.train.learning_rate < math.inf:
            raise ValueError("train.learning_rate must be above 0")
        if not 0 <= self.train.seed < 2**32:
            raise ValueError("train.seed must be from 0 to 4294967295")
        if len(self.input.mean) != 3 or len(self.input.std) != 3 or min(self.input.std) <= 0:
            raise ValueError("input.mean and input.std need three values each, std above 0")
        if not 0.5 <= self.min_confidence <= 1:
            raise ValueError("min_confidence is a probability from 0.5 to 1")
        if self.ensemble and self.input.height != self.input.width:
            raise ValueError("[ensemble] needs a square input: input.height equal to input.width")


def read_recipe(recipe: Path | str) -> Recipe:
    """Read a recipe from a TOML file, or a recipe of the package by its name.

    Args:
        recipe: a TOML file, or a name such as ``best``.

    Raises:
        InputError: no such recipe, invalid TOML, an unknown or renamed key, or a wrong value.
    """
    path = Path(recipe)
    if not path.suffix and path.name == str(recipe) and not path.is_file():
        name = path.name
        path = _shipped() / f"{name}.toml"
        if not path.is_file():
            names = ", ".join(sorted(item.stem for item in _shipped().glob("*.toml")))
            raise InputError(f"No recipe {name!r}. Use one of {names}, or a TOML file.")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return recipe_from(raw, default_name=path.stem)
    except OSError as error:
        raise InputError(f"Cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:  # TOML's and UTF-8's errors are ValueErrors too
        raise InputError(f"{path} is not a valid recipe: {error}") from error


def recipe_from(raw: Mapping[str, Any], *, default_name: str = "recipe") -> Recipe:
    """Build a recipe from plain values (of a TOML file, or of a stored recipe).

    Args:
        raw: sections and keys.
        default_name: the recipe's name if ``raw`` has none.

    Raises:
        ValueError: a renamed or unknown key, or a wrong value.
    """
    if renamed := find_renamed_keys(raw):
        raise ValueError(f"these were renamed: {', '.join(renamed)}")
    recipe: Recipe = _build(Recipe, {"name": default_name, **raw}, "")
    return recipe


def with_changes(recipe: Recipe, *, epochs: int | None, seed: int | None) -> Recipe:
    """Return the recipe with exactly this number of epochs and this seed; None changes nothing."""
    options = recipe.train
    if epochs is not None:
        options = replace(options, epochs=epochs, min_steps=0)
    if seed is not None:
        options = replace(options, seed=seed)
    return replace(recipe, train=options)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values that :func:`recipe_from` reads back."""
    return asdict(recipe)


def write_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML with every key, also those that have their default."""
    lines = [f"{key} = {_toml(value)}" for key, value in _scalars(recipe)]
    for item in fields(recipe):
        section = getattr(recipe, item.name)
        if is_dataclass(section):
            lines += ["", f"[{item.name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in _scalars(section)]
    return "\n".join(lines) + "\n"


def _shipped() -> Path:
    """Return the folder of the recipes: in an installed package, or at the root of a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def _scalars(section: Any) -> list[tuple[str, Any]]:
    values = [(item.name, getattr(section, item.name)) for item in fields(section)]
    return [(key, value) for key, value in values if value is not None and not is_dataclass(value)]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _build(kind: type[Any], raw: Mapping[str, Any], prefix: str) -> Any:
    """Build a dataclass from a mapping; its sections are dataclasses too."""
    hints = get_type_hints(kind)
    for key in raw:
        if key not in hints:
            raise ValueError(f"unknown key '{prefix}{key}'{_hint(key, hints, prefix)}")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in raw.items()}
    return kind(**values)


def _hint(key: str, known: Mapping[str, Any], prefix: str) -> str:
    """Name the key that was probably meant by an unknown one, or all known keys."""
    # a key of another section, or one of this section that is spelled alike
    moved = [
        f"{name}.{key}"
        for name, section in get_type_hints(Recipe).items()
        if is_dataclass(section) and key in get_type_hints(section)
    ]
    near = moved or [prefix + name for name in difflib.get_close_matches(key, known, 1, 0.5)]
    return f"; did you mean '{near[0]}'?" if near else f" ({', '.join(known)})"


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Convert a value to the type of its field."""
    if isinstance(hint, UnionType):  # with None, as in a stored recipe
        if value is None:
            return None
        hint = get_args(hint)[0]
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"'{key}' is a section; write it as [{key}]")
        return _build(hint, value, f"{key}.")  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_args(hint)[1:] == (...,) and isinstance(value, list | tuple):
        return tuple(_convert(get_args(hint)[0], item, key) for item in value)
    if type(value) is not hint:
        raise ValueError(f"'{key}' must be {getattr(hint, '__name__', hint)}, not {value!r}")
    return value


def _fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is a fraction from 0 to 1, not {value!r}")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is one of {', '.join(allowed)}, not {value!r}")
