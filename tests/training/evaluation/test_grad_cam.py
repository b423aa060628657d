"""Grad-CAM finds the place that an answer was made from, in a network that is known through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facegender.errors import InputError
from facegender.training.evaluation.grad_cam import (
    compute_heatmaps,
    explain,
    find_layer,
    load_network,
    overlay,
)
from facegender.training.models.networks import build_network
from facegender.training.recipe import InputOptions

PLAIN = InputOptions(height=64, width=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class RedIsMale(nn.Module):
    """Answers male for red, female for blue, anywhere; its last map is one cell only."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.colors.weight.copy_(torch.tensor([[0.0, 0, 1], [1, 0, 0]]).view(2, 3, 1, 1))
        self.small = nn.AvgPool2d(8)
        self.one = nn.AvgPool2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(self.small(self.colors(x))).flatten(1)


def images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A red square at the top left with a smaller blue one elsewhere, and the other way round."""
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    pixels[0, 8:24, 8:24, 0] = 255
    pixels[0, 40:48, 40:48, 2] = 255
    pixels[1, 40:56, 8:24, 2] = 255
    pixels[1, 8:16, 40:48, 0] = 255
    return pixels


def test_heat_lies_where_the_answer_is_from() -> None:
    found = compute_heatmaps(RedIsMale().eval(), images(), PLAIN)
    assert found.shape == (2, 64, 64) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    for one, (top, left) in zip(found, ((8, 8), (40, 8)), strict=True):
        inside = one[top : top + 16, left : left + 16].sum() / one.sum()
        assert inside > 0.6  # a sixteenth of the image; the map is 8 cells wide
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert top <= row < top + 16 and left <= column < left + 16
    assert found[0, 40:48, 40:48].max() < 0.2  # blue speaks against red


def test_the_deepest_layer_that_still_has_places() -> None:
    network = RedIsMale()
    assert find_layer(network, PLAIN) is network.small
    shapes = []
    for name, side in (("dlib_resnet", 128), ("dlib_resnet", 92), ("resnet18", 224)):
        built = build_network(name).eval()
        layer = find_layer(built, InputOptions(side, side))
        layer.register_forward_hook(lambda module, given, output: shapes.append(output.shape[2:]))
        with torch.no_grad():
            built(torch.zeros((1, 3, side, side)))
    assert [tuple(shape) for shape in shapes] == [(7, 7), (10, 10), (7, 7)]


def test_a_network_without_places() -> None:
    with pytest.raises(InputError, match="Grad-CAM is not possible"):
        find_layer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)), PLAIN)


def test_overlay_is_red_where_hot_and_blue_where_cold() -> None:
    hot = np.zeros((1, 4, 4), np.float32)
    hot[0, 0, 0] = 0.9
    shown = overlay(np.full((1, 4, 4, 3), 128, np.uint8), hot)
    assert shown[0, 0, 0, 0] > shown[0, 0, 0, 2]
    assert shown[0, 3, 3, 2] > shown[0, 3, 3, 0]


def test_a_run_is_explained_and_the_network_left_as_it_was(run_folder: Path) -> None:
    network, recipe = load_network(run_folder)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    shown = explain(network, recipe, pixels)
    assert shown.shape == pixels.shape and shown.dtype == np.uint8
    assert (shown != explain(network, recipe, pixels[:, ::-1].copy())).any()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a run folder"):
        load_network(tmp_path)
