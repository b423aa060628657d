"""The image of a batch: what the network is given in training, with labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegender.cli import main
from facegender.training.recipe import AugmentOptions, Recipe, write_toml
from facegender.training.run_folder import TrainRequest
from facegender.training.show_batch import show_batch

SIDE, STEP = 32, 38


def cells(sheet: Image.Image, count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Crop the images of a sheet."""
    pixels = np.asarray(sheet)
    down = (pixels.shape[0] - 6) // -(-count // 8)
    places = [(6 + i // 8 * down, 6 + i % 8 * STEP) for i in range(count)]
    return [pixels[top : top + SIDE, left : left + SIDE] for top, left in places]


def test_images_are_unchanged_without_augmentation(
    request_of_run: TrainRequest, recipe: Recipe
) -> None:
    folder = Path(request_of_run.inputs[2])
    still = replace(recipe, augment=AugmentOptions(hflip_prob=0.0))
    sheet = show_batch(still, [folder], count=100)
    found = {cell.tobytes() for cell in cells(sheet, 41)}
    expected = set()
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            shown = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        expected.add(np.asarray(shown).tobytes())
    assert len(found & expected) == len(expected) == 40  # 41 files, of which one is a copy


def test_seed_and_augmentation_change_the_sheet(
    request_of_run: TrainRequest, recipe: Recipe
) -> None:
    inputs = [Path(item) for item in request_of_run.inputs]
    one, again, other = (
        np.asarray(show_batch(recipe, inputs, count=12, seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    still = replace(recipe, augment=AugmentOptions(hflip_prob=0.0))
    assert not np.array_equal(one, np.asarray(show_batch(still, inputs, count=12, seed=1)))


def test_all_archives_are_read(request_of_run: TrainRequest, recipe: Recipe) -> None:
    inputs = [Path(item) for item in request_of_run.inputs]
    reported: list[int] = []
    show_batch(recipe, inputs, count=4, on_image=reported.append)
    assert reported == [100]  # of 122


def test_the_command(
    request_of_run: TrainRequest,
    recipe: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "tiny.toml").write_text(write_toml(recipe))
    command = ["show-batch", str(tmp_path / "tiny.toml"), request_of_run.inputs[2]]
    with pytest.raises(SystemExit) as done:
        main([*command, "-o", str(tmp_path / "batch.png"), "-n", "9"])
    assert done.value.code == 0, capsys.readouterr().err
    with Image.open(tmp_path / "batch.png") as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 8 * STEP + 6)
    before = (tmp_path / "batch.png").read_bytes()
    for output, said in (("batch.png", "is an image"), ("batch.jpg", "name a .png file")):
        with pytest.raises(SystemExit) as done:
            main([*command, "-o", str(tmp_path / output)])
        assert done.value.code == 2 and said in capsys.readouterr().err
    assert (tmp_path / "batch.png").read_bytes() == before
