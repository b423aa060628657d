"""A recipe: everything that decides how a network is trained, read from one TOML file."""

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


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The architecture and the weights that training starts from.

    Attributes:
        name: ``dlib_resnet``, or the name of a timm network.
        pretrained: ``dlib``, ``timm``, a weight file, or "" for random weights.
        dropout: probability before the last layer.
    """

    name: str = "dlib_resnet"
    pretrained: str = ""
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class InputOptions:
    """What the network takes, and how an image is brought to it.

    Attributes:
        height: in pixels.
        width: in pixels.
        interpolation: ``box``, ``bilinear``, ``bicubic`` or ``lanczos``.
        resize_mode: ``stretch``, ``letterbox`` or ``center_crop``.
        grayscale: three equal channels instead of colors.
        mean: subtracted from pixels in 0..1, one value for each of R, G, B.
        std: divided by after that.
        crop: ``none`` takes the full image, ``aligned`` the face, found and aligned.
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
    """Augmentation of training images; 0, or a factor of 1, switches a transform off.

    Probabilities are fractions of the images, from 0 to 1.

    Attributes:
        full_image_prob: takes the full image where the input's crop is ``aligned``.
        hflip_prob: mirrors.
        rotation_degrees: largest rotation, uniform within it.
        rotation_prob: of that rotation; the other images get the jitter.
        rotation_jitter_std: standard deviation of a normal rotation, in degrees.
        scale: largest factor by which an image is zoomed in or out.
        zoom_out_prob: zooms a full image out further, anywhere in the frame.
        zoom_out_max: largest factor of that.
        aspect_ratio_jitter: largest factor between width and height.
        translate: largest shift, as a fraction of the side.
        pad_edge_prob: repeats the edge where the image does not reach.
        pad_background_prob: of the other images, shows an enlarged quarter of the image there;
            the rest is filled with one color (black if ``pad_edge_prob`` is 0).
        downscale_prob: downscales to 20 to 96 pixels and upscales again.
        color_jitter: strength of brightness, contrast and saturation jitter.
        color_cast: strength of channel gains, as a natural logarithm.
        grayscale_prob: makes gray.
        gaussian_noise_std: largest standard deviation of noise, of pixels in 0..1.
        random_erasing_prob: hides a box behind one color.
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
    gaussian_noise_std: float = 0.0
    random_erasing_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Optimizer, schedule, loss and loop.

    Attributes:
        epochs: passes over the training images.
        min_steps: repeats a small dataset for more than ``epochs`` until there are so many steps
            (0: never).
        batch_size: images per step, over all devices.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: the highest one.
        momentum: of ``sgd``.
        weight_decay: of weights; biases and norms do not decay.
        warmup_fraction: of all steps, over which the learning rate rises.
        lr_schedule: ``cosine`` or ``constant``.
        label_smoothing: of the cross-entropy.
        ema_decay: per step, of the averaged weights (0: none).
        max_grad_norm: clips gradients (0: never).
        sampling_balance: evens out sources and labels, 0 not at all, 1 wholly.
        distillation_weight: of a teacher's answers in the targets, where there are any.
        patience: epochs without a better validation accuracy that end training (0: never; a
            cosine schedule gains most in its last epochs).
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
    distillation_weight: float = 0.0
    patience: int = 0
    precision: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: of the network in the model file.
        network: architecture and starting weights.
        input: what the network takes.
        augment: augmentation of training images.
        train: optimizer, schedule, loss and loop.
        min_confidence: goes into the model file: answers below it are ``unknown`` (0.5: never).
    """

    name: str
    network: NetworkOptions = field(default_factory=NetworkOptions)
    input: InputOptions = field(default_factory=InputOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: with the key that is wrong.
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
        _fraction("network.dropout", self.network.dropout)
        if not 0 < self.train.learning_rate < math.inf:
            raise ValueError("train.learning_rate must be above 0")
        if not 0 <= self.train.seed < 2**32:
            raise ValueError("train.seed must be from 0 to 4294967295")
        if len(self.input.mean) != 3 or len(self.input.std) != 3 or min(self.input.std) <= 0:
            raise ValueError("input.mean and input.std need three values each, std above 0")
        if not 0.5 <= self.min_confidence <= 1:
            raise ValueError("min_confidence is a probability from 0.5 to 1")


RENAMED_KEYS = {
    "unknown_below": "min_confidence",
    "fit": "train",
    "network.start": "network.pretrained",
    "input.filter": "input.interpolation",
    "input.aspect": "input.resize_mode",
    "input.grey": "input.grayscale",
    "augment.whole": "augment.full_image_prob",
    "augment.flip": "augment.hflip_prob",
    "augment.turn_degrees": "augment.rotation_degrees",
    "augment.turn_share": "augment.rotation_prob",
    "augment.tilt_degrees": "augment.rotation_jitter_std",
    "augment.zoom": "augment.scale",
    "augment.far": "augment.zoom_out_prob",
    "augment.farthest": "augment.zoom_out_max",
    "augment.stretch": "augment.aspect_ratio_jitter",
    "augment.shift": "augment.translate",
    "augment.edge": "augment.pad_edge_prob",
    "augment.surround": "augment.pad_background_prob",
    "augment.low_resolution": "augment.downscale_prob",
    "augment.light": "augment.color_jitter",
    "augment.cast": "augment.color_cast",
    "augment.grey": "augment.grayscale_prob",
    "augment.noise": "augment.gaussian_noise_std",
    "augment.cover": "augment.random_erasing_prob",
    "train.batch": "train.batch_size",
    "train.least_steps": "train.min_steps",
    "train.warmup": "train.warmup_fraction",
    "train.schedule": "train.lr_schedule",
    "train.ema": "train.ema_decay",
    "train.max_grad_norm": "train.max_grad_norm",
    "train.balance": "train.sampling_balance",
    "train.distillation_weight": "train.distillation_weight",
}
"""Keys of recipes written before they were renamed, and their names now."""


def read_recipe(recipe: Path | str) -> Recipe:
    """Read a recipe from a TOML file, or one of those that come with the package by its name.

    Raises:
        InputError: no such recipe, not TOML, an unknown key (the nearest right one is named), or a
            value of the wrong kind.
    """
    path = Path(recipe)
    if not path.suffix and path.name == str(recipe) and not path.is_file():
        name = path.name
        path = _shipped() / f"{name}.toml"
        if not path.is_file():
            names = ", ".join(sorted(item.stem for item in _shipped().glob("*.toml")))
            raise InputError(f"there is no recipe {name!r}: use one of {names}, or a TOML file")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return recipe_from(raw, default_name=path.stem)
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:  # TOML's and UTF-8's errors are ValueErrors too
        raise InputError(f"the recipe {path} is wrong: {error}") from error


def recipe_from(raw: Mapping[str, Any], *, default_name: str = "recipe") -> Recipe:
    """Build a recipe out of plain values (from TOML, or from a run's stored recipe).

    Raises:
        ValueError: an unknown key or a wrong value.
    """
    recipe: Recipe = _build(Recipe, {"name": default_name, **raw}, "")
    return recipe


def with_changes(recipe: Recipe, *, epochs: int | None, seed: int | None) -> Recipe:
    """Give the recipe with exactly so many epochs, or another seed, where they are not None."""
    fit = recipe.train
    if epochs is not None:
        fit = replace(fit, epochs=epochs, min_steps=0)
    if seed is not None:
        fit = replace(fit, seed=seed)
    return replace(recipe, train=fit)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe as plain values that :func:`recipe_from` reads back."""
    return asdict(recipe)


def write_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, every value spelled out."""
    lines = [f"{key} = {_toml(value)}" for key, value in _scalars(recipe)]
    for item in fields(recipe):
        section = getattr(recipe, item.name)
        if is_dataclass(section):
            lines += ["", f"[{item.name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in _scalars(section)]
    return "\n".join(lines) + "\n"


def _shipped() -> Path:
    """Folder of the recipes: inside an installed package, at the root of a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def _scalars(section: Any) -> list[tuple[str, Any]]:
    values = [(item.name, getattr(section, item.name)) for item in fields(section)]
    return [(key, value) for key, value in values if not is_dataclass(value)]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _build(kind: type[Any], raw: Mapping[str, Any], prefix: str) -> Any:
    """Build a dataclass from a mapping; sections are dataclasses themselves."""
    hints = get_type_hints(kind)
    for key in raw:
        if key not in hints:
            raise ValueError(f"unknown key '{prefix}{key}'{_hint(key, hints, prefix)}")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in raw.items()}
    return kind(**values)


def _hint(key: str, known: Mapping[str, Any], prefix: str) -> str:
    """Say what an unknown key is called now, or the nearest known one."""
    if now := RENAMED_KEYS.get(prefix + key):
        return f": it is now called '{now}'"
    # right in another section (as section.key), or nearly right in this one
    moved = [
        f"{name}.{key}"
        for name, section in get_type_hints(Recipe).items()
        if is_dataclass(section) and key in get_type_hints(section)
    ]
    near = moved or [prefix + name for name in difflib.get_close_matches(key, known, 1, 0.5)]
    return f"; did you mean '{near[0]}'?" if near else f" ({', '.join(known)})"


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Bring one value to the type that its field asks for."""
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"'{key}' is a section: write it as [{key}]")
        return _build(hint, value, f"{key}.")  # type: ignore[arg-type]
    if isinstance(hint, UnionType):
        hint = get_args(hint)[0]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_args(hint) == (float, ...) and isinstance(value, list | tuple):
        return tuple(_convert(float, item, key) for item in value)
    if type(value) is not hint:
        raise ValueError(f"'{key}' must be {getattr(hint, '__name__', hint)}, not {value!r}")
    return value


def _fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is a fraction from 0 to 1, not {value!r}")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is one of {', '.join(allowed)}, not {value!r}")
