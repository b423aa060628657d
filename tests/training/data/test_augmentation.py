"""Augmentation: every transform, and the same result for an image in any batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceAligner
from facegender.images.pixels import Pixels, Resize, resize
from facegender.training.data.augmentation import (
    LUMA,
    RANDOM_COLUMNS,
    Draws,
    affine_grid,
    augment,
    denormalize,
    normalize,
    random_numbers,
    to_float,
)
from facegender.training.data.image_cache import to_crop_matrix
from facegender.training.recipe import AugmentOptions, InputOptions, read_recipe

COLUMNS = [item.name for item in fields(Draws)]
OFF = AugmentOptions(hflip_prob=0)
STRONG = AugmentOptions(
    hflip_prob=0.5,
    rotation_degrees=45,
    rotation_prob=0.5,
    rotation_jitter_std=10,
    scale=1.4,
    aspect_ratio_jitter=1.3,
    translate=0.1,
    zoom_out_prob=0.5,
    zoom_out_max=2.5,
    pad_edge_prob=0.3,
    pad_background_prob=0.5,
    downscale_prob=0.5,
    color_jitter=0.8,
    color_cast=0.4,
    grayscale_prob=0.3,
    channel_shuffle_prob=0.3,
    gaussian_noise_std=0.2,
    random_erasing_prob=0.5,
)


def images(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def drawn(seed: int, epoch: int, indices: NDArray[np.int64] | list[int]) -> torch.Tensor:
    return torch.from_numpy(random_numbers(seed, epoch, indices))


def test_random_numbers_of_a_row_do_not_depend_on_other_rows() -> None:
    whole = random_numbers(4, 2, range(50))
    assert whole.shape == (50, RANDOM_COLUMNS)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() < 1
    np.testing.assert_array_equal(random_numbers(4, 2, [31]), whole[31:32])
    np.testing.assert_array_equal(random_numbers(4, 2, [7, 49, 7]), whole[[7, 49, 7]])
    np.testing.assert_array_equal(random_numbers(4, 2, [3], 5), whole[3:4, :5])
    assert random_numbers(4, 2, []).shape == (0, RANDOM_COLUMNS)


def test_random_numbers_differ_by_seed_epoch_and_place() -> None:
    rows = {
        random_numbers(seed, epoch, [place]).tobytes()
        for seed in (0, 1, 2**32 - 1)
        for epoch in (0, 1, 300)
        for place in (0, 1, 5_000_000)
    }
    assert len(rows) == 27


def test_random_numbers_are_uniform() -> None:
    columns = random_numbers(0, 0, range(4000)).mean(0)
    assert np.abs(columns - 0.5).max() < 0.025  # five sigma


def test_without_transforms_images_are_unchanged() -> None:
    x = images(6)
    changed = augment(x, drawn(0, 0, range(6)), OFF)
    torch.testing.assert_close(changed, to_float(x, False), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(
        denormalize(normalize(changed, InputOptions()), InputOptions()), x.numpy()
    )


def test_input_pixels_are_not_changed() -> None:
    x = images(8)
    before = x.clone()
    augment(x, drawn(0, 0, range(8)), STRONG)
    assert torch.equal(x, before)


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("recipe", ["best", "classic", "quick", "strong"])
def test_same_result_in_any_batch(recipe: str, grayscale: bool) -> None:
    options = STRONG if recipe == "strong" else read_recipe(recipe).augment
    x = images(24)
    whole = augment(x, drawn(5, 1, range(24)), options, grayscale=grayscale)
    assert torch.equal(augment(x, drawn(5, 1, range(24)), options, grayscale=grayscale), whole)
    order = [20, 3, 11, 4, 23]
    some = augment(x[order], drawn(5, 1, order), options, grayscale=grayscale)
    torch.testing.assert_close(some, whole[order], rtol=0, atol=1e-6)
    for k in (0, 13):
        alone = augment(x[k : k + 1], drawn(5, 1, [k]), options, grayscale=grayscale)
        torch.testing.assert_close(alone, whole[k : k + 1], rtol=0, atol=1e-6)


def test_another_epoch_or_seed_differs() -> None:
    x = images(8)
    first = augment(x, drawn(5, 1, range(8)), STRONG)
    for seed, epoch in ((5, 2), (6, 1)):
        other = augment(x, drawn(seed, epoch, range(8)), STRONG)
        assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("grayscale", [False, True])
def test_values_stay_within_0_and_1(grayscale: bool) -> None:
    wild = replace(
        STRONG,
        color_jitter=3.0,
        color_cast=2.0,
        gaussian_noise_std=1.0,
        random_erasing_prob=1.0,
        pad_edge_prob=0.3,
    )
    x = augment(images(32), drawn(1, 1, range(32)), wild, grayscale=grayscale)
    assert x.dtype == torch.float32
    assert x.shape == (32, 3, 40, 40)
    assert torch.isfinite(x).all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_grayscale_gives_three_equal_channels_after_all_transforms() -> None:
    x = augment(images(32), drawn(1, 1, range(32)), STRONG, grayscale=True)
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])


def test_grayscale_is_luma() -> None:
    pixels = torch.tensor([[[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]], dtype=torch.uint8)
    np.testing.assert_allclose(to_float(pixels, True)[0, 1, 0], LUMA, atol=1e-6)


def test_channel_shuffle_gives_every_other_order_and_keeps_the_rest() -> None:
    options = AugmentOptions(hflip_prob=0, channel_shuffle_prob=0.5)
    pixels = torch.tensor([10, 100, 200], dtype=torch.uint8).expand(200, 8, 8, 3)
    x = augment(pixels, drawn(2, 0, range(200)), options)
    colors = (x[:, :, 4, 4] * 255).round().int().tolist()
    orders = Counter(map(tuple, colors))
    assert set(orders) == set(permutations([10, 100, 200]))
    assert orders[10, 100, 200] == pytest.approx(100, abs=25)
    assert all(count > 8 for count in orders.values())


def marked(side: int = 81) -> torch.Tensor:
    """White at the right of the center, on black."""
    pixels = torch.zeros((1, side, side, 3), dtype=torch.uint8)
    pixels[0, 38:43, 68:73] = 255
    return pixels


def place(x: torch.Tensor) -> tuple[float, float]:
    """Center of the white mark, from the center of the image, to the right and down."""
    light = x[0].mean(0)
    rows = torch.arange(light.shape[0]) - (light.shape[0] - 1) / 2
    columns = torch.arange(light.shape[1]) - (light.shape[1] - 1) / 2
    total = light.sum()
    right = float((light.sum(0) * columns).sum() / total)
    down = float((light.sum(1) * rows).sum() / total)
    return right, down


def numbers(**values: float) -> torch.Tensor:
    """A row of draws with some given values; all others are 0.5."""
    row = torch.full((1, RANDOM_COLUMNS), 0.5)
    for name, value in values.items():
        row[0, COLUMNS.index(name)] = value
    return row


@pytest.mark.parametrize(("number", "down"), [(1.0, -1), (0.0, 1)])
def test_a_rotation_of_45_degrees_rotates_by_45_degrees(number: float, down: int) -> None:
    options = AugmentOptions(hflip_prob=0, rotation_degrees=45)
    x = augment(marked(), numbers(rotation=number), options)
    assert place(x) == pytest.approx((30 * 0.5**0.5, down * 30 * 0.5**0.5), abs=0.2)
    assert float(x.sum()) == pytest.approx(75, rel=0.02)  # a rotation keeps the size


def test_rotations_are_uniform_up_to_their_maximum() -> None:
    options = AugmentOptions(hflip_prob=0, rotation_degrees=45)
    given = drawn(0, 0, range(300))
    rotated = augment(marked().expand(300, -1, -1, -1), given, options)
    angles = [np.degrees(np.arctan2(*place(x[None])[::-1])) for x in rotated]
    assert np.abs(angles).max() <= 45.5
    assert np.abs(angles).max() > 43
    np.testing.assert_allclose(np.quantile(angles, [0.25, 0.5, 0.75]), [-22.5, 0, 22.5], atol=8)


def test_a_rotation_keeps_angles_in_an_image_that_is_not_square() -> None:
    pixels = torch.zeros((1, 81, 161, 3), dtype=torch.uint8)
    pixels[0, 38:43, 108:113] = 255  # 30 to the right of the middle
    x = augment(pixels, numbers(rotation=1.0), AugmentOptions(hflip_prob=0, rotation_degrees=45))
    assert place(x) == pytest.approx((30 * 0.5**0.5, -30 * 0.5**0.5), abs=0.2)


def test_flip_mirrors() -> None:
    x = images(3)
    mirrored = augment(x, drawn(0, 0, range(3)), AugmentOptions(hflip_prob=1))
    torch.testing.assert_close(mirrored, to_float(x, False).flip(3), rtol=0, atol=2e-5)


def test_flip_probability() -> None:
    x = marked().expand(400, -1, -1, -1)
    changed = augment(x, drawn(0, 0, range(400)), AugmentOptions(hflip_prob=0.25))
    assert np.mean([place(row[None])[0] < 0 for row in changed]) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("options", "row", "expected"),
    [
        (AugmentOptions(hflip_prob=0, scale=2), numbers(scale=1.0), (15, 0)),
        (AugmentOptions(hflip_prob=0, translate=0.1), numbers(translate_x=1.0), (30 - 8.1, 0)),
        (AugmentOptions(hflip_prob=0, translate=0.1), numbers(translate_y=0.0), (30, 8.1)),
        (AugmentOptions(hflip_prob=0, aspect_ratio_jitter=4), numbers(aspect_ratio=1.0), (15, 0)),
    ],
    ids=["scale", "translate left", "translate down", "aspect ratio"],
)
def test_affine_transforms(
    options: AugmentOptions, row: torch.Tensor, expected: tuple[float, float]
) -> None:
    assert place(augment(marked(), row, options)) == pytest.approx(expected, abs=0.3)


def test_padding_is_black_one_color_or_the_edge() -> None:
    white = torch.full((1, 40, 40, 3), 255, dtype=torch.uint8)
    rotated = AugmentOptions(hflip_prob=0, rotation_degrees=45)

    def corner(options: AugmentOptions, row: torch.Tensor) -> list[float]:
        return augment(white, row, options)[0, :, 0, 0].tolist()

    assert corner(rotated, numbers(rotation=1.0)) == [0, 0, 0]
    assert corner(replace(rotated, pad_edge_prob=1), numbers(rotation=1.0)) == pytest.approx(
        [1, 1, 1], abs=1e-5
    )
    shaded = replace(rotated, pad_edge_prob=0.1)  # one gray if the recipe does not change colors
    given = numbers(rotation=1.0, pad_edge=0.9, pad_red=0.1, pad_green=0.2, pad_blue=0.6)
    assert corner(shaded, given) == pytest.approx([0.3] * 3, abs=1e-5)


def test_a_zoomed_out_image_is_smaller_and_lies_inside_of_the_result() -> None:
    options = replace(OFF, zoom_out_prob=1.0, zoom_out_max=2.0)
    white = torch.full((200, 64, 64, 3), 255, dtype=torch.uint8)
    shown = augment(white, drawn(0, 0, range(200)), options)[:, 0] > 0.5  # the rest is black
    sides = shown.any(2).sum(1)
    assert 31 <= sides.min() <= 36 and 60 <= sides.max() <= 64  # from half the side to all of it
    assert (shown.any(1).sum(1) - sides).abs().max() <= 1  # still square, so nothing is cut off


def test_padding_with_background_is_an_enlarged_quarter() -> None:
    options = replace(OFF, zoom_out_prob=1.0, zoom_out_max=2.0, pad_background_prob=1.0)
    quarters = torch.zeros((100, 64, 64, 3), dtype=torch.uint8)
    for k, (rows, columns) in enumerate([(0, 0), (0, 32), (32, 0), (32, 32)]):
        quarters[:, rows : rows + 32, columns : columns + 32] = 50 * (k + 1)
    u = drawn(0, 0, range(100))
    u[:, COLUMNS.index("zoom_out")] = 1.0  # all at half the side
    shown = (augment(quarters, u, options)[:, 0] * 255).round()
    # at half the size, the image covers a quarter of the result; the rest is one of its quarters,
    # enlarged, except at the borders, where pixels mix
    commonest = shown.flatten(1).mode(1).values
    assert set(commonest.tolist()) == {50, 100, 150, 200}
    assert ((shown == commonest.view(-1, 1, 1)).float().mean((1, 2)) > 0.7).all()
    assert all(set(image.unique().tolist()) >= {50, 100, 150, 200} for image in shown)


def test_random_erasing_hides_a_box() -> None:
    white = torch.full((1, 100, 100, 3), 255, dtype=torch.uint8)
    row = numbers(
        erase_chosen=0.0,
        erase_height=0.0,
        erase_width=0.0,
        erase_top=0.0,
        erase_left=0.0,
        erase_red=0.0,
        erase_green=0.0,
    )
    x = augment(white, row, AugmentOptions(hflip_prob=0, random_erasing_prob=1))
    assert float((x < 0.5).float().mean()) == pytest.approx(0.12 * 0.2, abs=1e-3)
    assert float(x[0, :, 11, 19].max()) < 1e-5
    assert float(x[0, :, 12, 20].min()) > 0.999


def test_downscaling_removes_detail_and_keeps_the_mean() -> None:
    x = images(1, 128, 128)
    coarse = augment(
        x,
        numbers(downscale_chosen=0.0, downscale_size=0.0),
        AugmentOptions(hflip_prob=0, downscale_prob=1),
    )
    fine = to_float(x, False)
    assert float(coarse.std()) < 0.5 * float(fine.std())
    assert float(coarse.mean()) == pytest.approx(float(fine.mean()), abs=0.01)


def test_normalize_and_denormalize() -> None:
    options = read_recipe("best").input
    x = images(4)
    normal = normalize(to_float(x, False), options)
    expected = (x[0, 0, 0].double() / 255 - torch.tensor(options.mean)) / torch.tensor(options.std)
    torch.testing.assert_close(normal[0, :, 0, 0].double(), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(denormalize(normal, options), x.numpy())


def test_a_crop_is_the_one_of_prediction(astronaut: Pixels) -> None:
    """Without randomness, a crop of the context pixels is the crop of the aligner."""
    aligner = FaceAligner(ALIGNED_CROP, Resize(128, 128))
    crop = aligner(astronaut)
    context_pixels = torch.from_numpy(resize(astronaut, Resize(512, 512)).copy())[None]
    assert crop.face is not None
    matrix = torch.from_numpy(to_crop_matrix(crop.face.landmarks, aligner.crop, astronaut.shape))
    options = AugmentOptions(hflip_prob=0)
    row = torch.full((1, RANDOM_COLUMNS), 0.5)
    cropped = augment(context_pixels, row, options, crop_matrices=matrix[None], size=(128, 128))
    shown = (cropped[0].permute(1, 2, 0) * 255).numpy()
    assert np.abs(shown - crop.pixels).mean() < 2
    taken = augment(
        context_pixels,
        row,
        replace(options, full_image_prob=1.0),
        crop_matrices=matrix[None],
        size=(512, 512),
    )
    torch.testing.assert_close(taken, to_float(context_pixels, False), rtol=0, atol=2e-5)


def test_an_image_without_a_face_is_taken_in_full() -> None:
    x = images(2)
    crop_matrices = torch.full((2, 2, 3), torch.nan)
    shown = augment(x, drawn(0, 0, range(2)), OFF, crop_matrices=crop_matrices)
    torch.testing.assert_close(shown, to_float(x, False), rtol=0, atol=2e-5)


def test_the_grid_is_that_of_torch() -> None:
    theta = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32))
    expected = functional.affine_grid(theta, [5, 3, 20, 32], align_corners=False)
    assert torch.allclose(affine_grid(theta, (20, 32)), expected, atol=1e-5)
