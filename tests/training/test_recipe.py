"""Recipes: read strictly, written whole, and classic.toml is the user's own training."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
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


def test_toml_round_trip_of_awkward_values(tmp_path: Path) -> None:
    recipe = Recipe(
        name='a "b" \\ é中\n\t\x7f',
        train=TrainOptions(learning_rate=1e-7, seed=2**32 - 1, weight_decay=0.1 + 0.2),
        input=InputOptions(mean=(1e-9, 0.0, 1 / 3)),
    )
    assert read_recipe(written(tmp_path / "again.toml", write_toml(recipe))) == recipe


def test_name_comes_from_the_file_where_it_says_none(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path / "mine.toml", "")) == Recipe("mine")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[fit]\nlerning_rate = 1",
            "unknown key 'train.lerning_rate'; did you mean 'train.learning_r",
        ),
        ("epochs = 9", "unknown key 'epochs'; did you mean 'train.epochs'?"),
        ("[fit]\nflip = 0.5", "did you mean 'augment.flip'?"),
        ("[augment]\nturn_degree = 1", "did you mean 'augment.turn_degrees'?"),
        ("[inputs]\nheight = 1", "unknown key 'inputs'; did you mean 'input'?"),
        ("unknown_belov = 0.6", "did you mean 'min_confidence'?"),
        ("[network]\nqqqq = 1", r"unknown key 'network.qqqq' \(name, start, dropout\)"),
        ("fit = 3", r"'fit' is a section: write it as \[fit\]"),
        ('[fit]\nepochs = "5"', "'train.epochs' must be int, not '5'"),
        ("[fit]\nepochs = 5.0", "'train.epochs' must be int, not 5.0"),
        ("[fit]\nepochs = true", "'train.epochs' must be int, not True"),
        ("[fit]\nlearning_rate = true", "'train.learning_rate' must be float, not True"),
        ("[input]\ngrey = 1", "'input.grey' must be bool, not 1"),
        ('[input]\nmean = ["a", 1, 1]', "'input.mean' must be float, not 'a'"),
        ("[input]\nmean = 1", "'input.mean' must be tuple, not 1"),
        ("[input]\nmean = [0.5]", "three values each"),
        ("[input]\nstd = [1, 1, 0]", "std above 0"),
        ("[input]\nheight = 0", "not positive"),
        ('[input]\nfilter = "nearest"', "filter 'nearest'"),
        ("[fit]\nepochs = 0", "train.epochs must be 1 or more"),
        ('[fit]\noptimizer = "adam"', "train.optimizer is one of adamw, sgd, not 'adam'"),
        ("[fit]\nlearning_rate = nan", "train.learning_rate must be above 0"),
        ("[fit]\nseed = -1", "train.seed must be from 0"),
        ("[fit]\nema = 1.5", "train.ema is a share"),
        ("[network]\ndropout = -0.1", "network.dropout is a share"),
        ("[augment]\nzoom = 0.5", "augment.zoom is a factor of 1 or more"),
        ("[augment]\nflip = 2", "augment.flip is a share from 0 to 1"),
        ("min_confidence = 0.4", "min_confidence is a probability"),
        ("[fit\n", "is wrong"),
        ('name = "\\q"', "is wrong"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_recipe(written(tmp_path / "wrong.toml", text))
    assert "wrong.toml" in str(caught.value)


def test_whole_numbers_serve_as_floats(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path / "r.toml", "[augment]\nflip = 0\n[input]\nstd=[1,1,1]"))
    assert type(recipe.augment.hflip_prob) is float
    assert recipe.input.std == (1.0, 1.0, 1.0)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe 'clasic': use one of best, classic"):
        read_recipe("clasic")
    with pytest.raises(InputError, match="cannot read the recipe"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="cannot read the recipe"):
        read_recipe(tmp_path / "classic")


def test_a_folder_of_the_same_name_hides_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quick").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_recipe("quick").name == "quick"


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InputError, match="is wrong"):
        read_recipe(tmp_path / "r.toml")


def test_the_input_rule_is_the_model_files() -> None:
    options = InputOptions(96, 112, "lanczos", "pad")
    assert options.aligner.resize == Resize(96, 112, "lanczos", "pad", antialias=True)


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


def test_the_page_names_every_key_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text(encoding="utf-8")
    subsets = dict(re.findall(r"## `\[(\w+)\]`\n(.*?)(?=\n## |\Z)", text, re.DOTALL))
    sections = {"network": NetworkOptions, "input": InputOptions}
    sections |= {"augment": AugmentOptions, "fit": TrainOptions}
    assert subsets.keys() == sections.keys()
    for name, section in sections.items():
        told: dict[str, str] = {}
        for row in re.findall(r"^\| (`.*)$", subsets[name], re.MULTILINE):
            keys, defaults, *_ = row.split(" | ")
            values = defaults.split(", ")
            told |= zip(re.findall(r"`(\w+)`", keys), values, strict=True)
        known = {item.name: item.default for item in fields(section)}
        assert told.keys() == known.keys(), name
        for key, value in told.items():
            if key not in ("mean", "std"):  # in words
                assert json.loads(value.strip("`")) == known[key], key
