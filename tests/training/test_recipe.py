"""Recipes: reading, writing, and classic.toml, which is the user's own training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from facegender.errors import InputError
from facegender.images.pixels import Resize
from facegender.training.recipe import (
    AugmentOptions,
    InputOptions,
    NetworkOptions,
    Recipe,
    TrainOptions,
    read_recipe,
    recipe_from,
    recipe_values,
    with_changes,
    write_toml,
)
from facegender.training.renamed import RECIPE_KEYS

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_recipes_that_ship() -> None:
    assert [path.stem for path in SHIPPED] == ["best", "classic", "fast", "quick"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_read_by_path_and_by_name(path: Path) -> None:
    assert read_recipe(path).name == path.stem
    assert read_recipe(path.stem) == read_recipe(path)


def test_classic_is_the_users_own_training() -> None:
    assert read_recipe("classic") == Recipe(
        name="classic",
        network=NetworkOptions("resnet18", pretrained="timm", dropout=0.0),
        input=InputOptions(
            224, 224, "bilinear", "stretch", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        ),
        augment=AugmentOptions(hflip_prob=0.0, rotation_degrees=45.0, rotation_prob=1.0),
        train=TrainOptions(
            epochs=5,
            min_steps=0,
            batch_size=64,
            optimizer="sgd",
            learning_rate=0.001,
            momentum=0.9,
            weight_decay=0.0,
            warmup_fraction=0.0,
            lr_schedule="constant",
            label_smoothing=0.0,
            ema_decay=0.0,
            max_grad_norm=0.0,
            sampling_balance=0.0,
        ),
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_toml_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    assert read_recipe(written(tmp_path / "again.toml", write_toml(recipe))) == recipe
    assert recipe_from(recipe_values(recipe)) == recipe


def test_toml_round_trip_of_special_values(tmp_path: Path) -> None:
    recipe = Recipe(
        name='a "b" \\ é中\n\t\x7f',
        train=TrainOptions(learning_rate=1e-7, seed=2**32 - 1, weight_decay=0.1 + 0.2),
        input=InputOptions(mean=(1e-9, 0.0, 1 / 3)),
    )
    assert read_recipe(written(tmp_path / "again.toml", write_toml(recipe))) == recipe


def test_default_name_is_the_file_name(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path / "mine.toml", "")) == Recipe("mine")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[train]\nlerning_rate = 1",
            "unknown key 'train.lerning_rate'; did you mean 'train.learning_r",
        ),
        ("epochs = 9", "unknown key 'epochs'; did you mean 'train.epochs'?"),
        ("[train]\nhflip_prob = 0.5", "did you mean 'augment.hflip_prob'?"),
        ("[augment]\nrotation_degree = 1", "did you mean 'augment.rotation_degrees'?"),
        ("[inputs]\nheight = 1", "unknown key 'inputs'; did you mean 'input'?"),
        ("min_confidenze = 0.6", "did you mean 'min_confidence'?"),
        ("[network]\nqqqq = 1", r"unknown key 'network.qqqq' \(name, pretrained, dropout\)"),
        ("train = 3", r"'train' is a section; write it as \[train\]"),
        ('[train]\nepochs = "5"', "'train.epochs' must be int, not '5'"),
        ("[train]\nepochs = 5.0", "'train.epochs' must be int, not 5.0"),
        ("[train]\nepochs = true", "'train.epochs' must be int, not True"),
        ("[train]\nlearning_rate = true", "'train.learning_rate' must be float, not True"),
        ("[input]\ngrayscale = 1", "'input.grayscale' must be bool, not 1"),
        ('[input]\nmean = ["a", 1, 1]', "'input.mean' must be float, not 'a'"),
        ("[input]\nmean = 1", "'input.mean' must be tuple, not 1"),
        ("[input]\nmean = [0.5]", "three values each"),
        ("[input]\nstd = [1, 1, 0]", "std above 0"),
        ("[input]\nheight = 0", "not positive"),
        ('[input]\ninterpolation = "nearest"', "interpolation 'nearest'"),
        ("[train]\nepochs = 0", "train.epochs must be 1 or more"),
        ('[train]\noptimizer = "adam"', "train.optimizer is one of adamw, sgd, not 'adam'"),
        ("[train]\nlearning_rate = nan", "train.learning_rate must be above 0"),
        ("[train]\nseed = -1", "train.seed must be from 0"),
        ("[train]\nema_decay = 1.5", "train.ema_decay is a fraction"),
        ("[network]\ndropout = -0.1", "network.dropout is a fraction"),
        ("[augment]\nscale = 0.5", "augment.scale is a factor of 1 or more"),
        ("[augment]\nhflip_prob = 2", "augment.hflip_prob is a fraction from 0 to 1"),
        ("min_confidence = 0.4", "min_confidence is a probability"),
        ("[train\n", "is not a valid recipe"),
        ('name = "\\q"', "is not a valid recipe"),
    ],
)
def test_an_invalid_recipe_is_refused_with_its_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_recipe(written(tmp_path / "wrong.toml", text))
    assert "wrong.toml" in str(caught.value)


def test_former_names_are_refused_with_the_present_ones(tmp_path: Path) -> None:
    text = (
        'unknown_below = 0.7\n[network]\nstart = "dlib"\n[input]\ncrop = "whole"\naspect = "pad"\n'
        "[augment]\nturn_degrees = 45\n[fit]\nbatch = 64\nepochs = 3"
    )
    with pytest.raises(InputError) as caught:
        read_recipe(written(tmp_path / "old.toml", text))
    assert str(caught.value).endswith(
        "these were renamed: unknown_below -> min_confidence, network.start -> network.pretrained, "
        "input.crop = 'whole' -> 'none', input.aspect -> input.resize_mode, "
        "input.resize_mode = 'pad' -> 'letterbox', "
        "augment.turn_degrees -> augment.rotation_degrees, fit -> train, "
        "fit.batch -> train.batch_size"
    )


def test_every_present_name_of_a_former_one_is_a_key() -> None:
    values = recipe_values(Recipe("r"))
    known = {*values} | {
        f"{section}.{key}"
        for section, keys in values.items()
        if isinstance(keys, dict)
        for key in keys
    }
    assert set(RECIPE_KEYS.values()) <= known
    assert not set(RECIPE_KEYS) & known


def test_integers_are_accepted_as_floats(tmp_path: Path) -> None:
    recipe = read_recipe(
        written(tmp_path / "r.toml", "[augment]\nhflip_prob = 0\n[input]\nstd=[1,1,1]")
    )
    assert type(recipe.augment.hflip_prob) is float
    assert recipe.input.std == (1.0, 1.0, 1.0)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No recipe 'clasic'\. Use one of best, classic"):
        read_recipe("clasic")
    with pytest.raises(InputError, match="Cannot read the recipe"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="Cannot read the recipe"):
        read_recipe(tmp_path / "classic")


def test_a_folder_of_the_same_name_does_not_hide_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quick").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_recipe("quick").name == "quick"


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InputError, match="is not a valid recipe"):
        read_recipe(tmp_path / "r.toml")


def test_the_input_options_make_the_resize_of_the_model_file() -> None:
    options = InputOptions(96, 112, "lanczos", "letterbox")
    assert options.aligner.resize == Resize(96, 112, "lanczos", "letterbox", antialias=True)


def test_with_changes_changes_only_what_is_given() -> None:
    recipe = read_recipe("quick")
    assert with_changes(recipe, epochs=None, seed=None) == recipe
    changed = with_changes(recipe, epochs=9, seed=7)
    assert changed == replace(recipe, train=replace(recipe.train, epochs=9, min_steps=0, seed=7))
    with pytest.raises(ValueError, match="epochs"):
        with_changes(recipe, epochs=0, seed=None)


def test_infinite_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        Recipe("r", train=TrainOptions(learning_rate=math.inf))
