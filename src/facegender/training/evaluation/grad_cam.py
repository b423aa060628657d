"""Grad-CAM: heatmaps of the image regions that contributed most to an answer.

Source: R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from facegender.errors import InputError
from facegender.images.pixels import Pixels
from facegender.training.data.augmentation import normalize, to_float
from facegender.training.models.networks import build_network
from facegender.training.recipe import InputOptions, Recipe, read_recipe
from facegender.training.run_folder import CONFIG_NAME, SAVED_MODEL_NAME

_MIN_CELLS = 6
_OPACITY = 0.5


def load_network(folder: Path) -> tuple[nn.Module, Recipe]:
    """Build the network of a finished run with its weights, on the CPU in evaluation mode.

    Raises:
        InputError: the folder holds no finished run.
    """
    path = folder / SAVED_MODEL_NAME
    if not path.is_file() or not (folder / CONFIG_NAME).is_file():
        raise InputError(
            f"{folder} is not a finished run: Grad-CAM needs a run folder with {CONFIG_NAME} and "
            f"{SAVED_MODEL_NAME}; a model file alone has no gradients"
        )
    recipe = read_recipe(folder / CONFIG_NAME)
    network = build_network(recipe.network.name, dropout=recipe.network.dropout)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval(), recipe


def find_layer(network: nn.Module, options: InputOptions) -> nn.Module:
    """Find the deepest layer whose feature map has at least six rows and columns.

    The last convolution of a network for small inputs may have a single cell, which gives no map.

    Raises:
        InputError: there is no such layer.
    """
    deepest: list[nn.Module] = []

    def inspect(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= _MIN_CELLS:
            deepest[:] = [module]

    hooks = [module.register_forward_hook(inspect) for module in network.modules()]
    try:
        with torch.no_grad():
            network(torch.zeros((1, 3, options.height, options.width)))
    finally:
        for hook in hooks:
            hook.remove()
    if not deepest:
        raise InputError("This network has no layer with a feature map: Grad-CAM is not possible")
    return deepest[0]


def compute_heatmaps(
    network: nn.Module, pixels: Pixels, options: InputOptions
) -> NDArray[np.float32]:
    """Compute how much each region contributes to the answer of the network.

    Args:
        network: in evaluation mode, on the CPU.
        pixels: ``uint8 [N, H, W, 3]``, at the input size of the network.
        options: the input options of the recipe.

    Returns:
        ``float32 [N, H, W]``, scaled to a maximum of 1 per image; all 0 where no region
        contributes to the answer.
    """
    layer = find_layer(network, options)
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        x = normalize(to_float(torch.from_numpy(pixels), options.grayscale), options)
        with torch.enable_grad():
            logits = network(x.requires_grad_())
            answer = logits.argmax(1, keepdim=True)
            margin = logits.gather(1, answer) - logits.gather(1, 1 - answer)
            (gradient,) = torch.autograd.grad(margin.sum(), outputs[0])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    maps = functional.relu((weights * outputs[0]).sum(1, keepdim=True)).detach()
    maps = maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-12)
    size = (pixels.shape[1], pixels.shape[2])
    resized = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return np.asarray(resized.squeeze(1).numpy(), np.float32)


def overlay(pixels: Pixels, heatmaps: NDArray[np.float32]) -> Pixels:
    """Blend heatmaps over images ``uint8 [N, H, W, 3]``, from blue (0) to red (1)."""
    colors = matplotlib.colormaps["turbo"](heatmaps)[..., :3] * 255.0
    mixed = (1.0 - _OPACITY) * pixels + _OPACITY * colors
    return np.asarray(np.rint(mixed), np.uint8)


def explain(network: nn.Module, recipe: Recipe, pixels: Pixels) -> Pixels:
    """Draw Grad-CAM heatmaps over images ``uint8 [N, H, W, 3]``; returns as many images."""
    return overlay(pixels, compute_heatmaps(network, pixels, recipe.input))
