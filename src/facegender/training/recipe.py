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
from facegender.faces.alignment import ALIGNED, Crop
from facegender.faces.face_aligner import Framer
from facegender.images.pixels import Resize


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Which network, and what it starts from (see ``network.load_start``; "" is random)."""

    name: str = "dlib_resnet"
    start: str = ""
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class InputOptions:
    """What the network is fed: its size in pixels, how pictures get there, and normalisation.

    ``crop``: ``whole``, or ``aligned`` for faces found, turned upright and cut out.
    ``mean`` and ``std`` are of pixels scaled to 0..1, one for each of R, G, B.
    """

    height: int = 128
    width: int = 128
    filter: str = "bilinear"
    aspect: str = "stretch"
    grey: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: str = "whole"

    @property
    def framer(self) -> Framer:
        """The crop and resize rules as the model file stores them."""
        crop = ALIGNED if self.crop == ALIGNED.rule else Crop(self.crop)
        return Framer(crop, Resize(self.height, self.width, self.filter, self.aspect))


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """What is done at random to every training picture; 0 switches a thing off.

    ``whole``: share taken whole where the input's crop is ``aligned``; the others are cut out.
    ``flip``: share mirrored. ``turn_degrees``: largest turn; ``turn_share`` of the pictures get
    one, evenly within it; ``tilt_degrees``: spread (one sigma) of the small turn that the others
    get. ``zoom``: largest factor closer or farther. ``far``: share of the whole pictures seen from
    farther still, up to ``farthest``, anywhere in the frame. ``stretch``: largest factor by which
    width and height part. ``shift``: largest shift, as a share of the side. ``edge``: share whose
    uncovered parts repeat the edge; ``surround``: share of the others where they show an enlarged
    quarter of the picture; the rest get one colour, black when ``edge`` is 0.
    ``low_resolution``: share brought down to 20 to 96 px and up again. ``light``: strength of
    brightness, contrast and saturation changes; ``cast``: of colour casts. ``grey``: share made
    grey. ``noise``: largest sigma, of a range of 1. ``cover``: share partly hidden by a bar or box.
    """

    whole: float = 0.0
    flip: float = 0.5
    turn_degrees: float = 0.0
    turn_share: float = 1.0
    tilt_degrees: float = 0.0
    zoom: float = 1.0
    far: float = 0.0
    farthest: float = 1.0
    stretch: float = 1.0
    shift: float = 0.0
    edge: float = 0.0
    surround: float = 0.0
    low_resolution: float = 0.0
    light: float = 0.0
    cast: float = 0.0
    grey: float = 0.0
    noise: float = 0.0
    cover: float = 0.0


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How the loop runs.

    ``least_steps``: a small archive is gone through more than ``epochs`` times until there are so
    many steps (0: never). ``warmup``: share of all steps over which the rate rises.
    ``schedule``: ``cosine`` or ``constant``. ``ema``: decay a step of the averaged weights (0:
    none). ``gradient_clip``: largest norm (0: none). ``balance``: how far sources and labels are
    evened out, 0 not at all, 1 wholly. ``distill``: share of the loss that asks for a teacher's
    answer instead of the label, where a teacher's scores are given. ``patience``: so many epochs
    in a row without a better validation accuracy end the run (0: never; a cosine gains most in its
    last epochs).
    ``precision``: ``auto``, ``32`` or ``bf16``.
    """

    epochs: int = 5
    least_steps: int = 0
    batch: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.0
    schedule: str = "constant"
    label_smoothing: float = 0.0
    ema: float = 0.0
    gradient_clip: float = 0.0
    balance: float = 0.0
    distill: float = 0.0
    patience: int = 0
    precision: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe; ``unknown_below`` goes into the model file as it stands (0.5: never)."""

    name: str
    network: NetworkOptions = field(default_factory=NetworkOptions)
    input: InputOptions = field(default_factory=InputOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    unknown_below: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that no run could follow.

        Raises:
            ValueError: with the key that is wrong.
        """
        self.input.framer  # noqa: B018  (checks crop, size, filter and aspect)
        _one_of("fit.optimizer", self.fit.optimizer, ("adamw", "sgd"))
        _one_of("fit.schedule", self.fit.schedule, ("cosine", "constant"))
        _one_of("fit.precision", self.fit.precision, ("auto", "32", "bf16"))
        for name in ("epochs", "batch"):
            if getattr(self.fit, name) < 1:
                raise ValueError(f"fit.{name} must be 1 or more")
        for name in ("zoom", "farthest", "stretch"):
            if getattr(self.augment, name) < 1:
                raise ValueError(f"augment.{name} is a factor of 1 or more")
        for name in (
            "whole",
            "flip",
            "turn_share",
            "far",
            "edge",
            "surround",
            "low_resolution",
            "grey",
            "cover",
        ):
            _share(f"augment.{name}", getattr(self.augment, name))
        for name in ("turn_degrees", "tilt_degrees", "shift", "light", "cast", "noise"):
            if getattr(self.augment, name) < 0:
                raise ValueError(f"augment.{name} must not be below 0")
        for name in ("momentum", "weight_decay", "gradient_clip", "least_steps", "patience"):
            if getattr(self.fit, name) < 0:
                raise ValueError(f"fit.{name} must not be below 0")
        for name in ("warmup", "label_smoothing", "ema", "balance", "distill"):
            _share(f"fit.{name}", getattr(self.fit, name))
        _share("network.dropout", self.network.dropout)
        if not 0 < self.fit.learning_rate < math.inf:
            raise ValueError("fit.learning_rate must be above 0")
        if not 0 <= self.fit.seed < 2**32:
            raise ValueError("fit.seed must be from 0 to 4294967295")
        if len(self.input.mean) != 3 or len(self.input.std) != 3 or min(self.input.std) <= 0:
            raise ValueError("input.mean and input.std need three values each, std above 0")
        if not 0.5 <= self.unknown_below <= 1:
            raise ValueError("unknown_below is a probability from 0.5 to 1")


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
    fit = recipe.fit
    if epochs is not None:
        fit = replace(fit, epochs=epochs, least_steps=0)
    if seed is not None:
        fit = replace(fit, seed=seed)
    return replace(recipe, fit=fit)


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
            # right in another section (as section.key), or nearly right in this one
            moved = [
                f"{name}.{key}"
                for name, section in get_type_hints(Recipe).items()
                if is_dataclass(section) and key in get_type_hints(section)
            ]
            near = moved or [
                prefix + name for name in difflib.get_close_matches(key, hints, 1, 0.5)
            ]
            hint = f"; did you mean '{near[0]}'?" if near else f" ({', '.join(hints)})"
            raise ValueError(f"unknown key '{prefix}{key}'{hint}")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in raw.items()}
    return kind(**values)


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


def _share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is a share from 0 to 1, not {value!r}")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is one of {', '.join(allowed)}, not {value!r}")
