"""Grad-CAM: which places of a picture an answer came from, as far as gradients tell.

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

_CELLS = 6
_STRENGTH = 0.5


def load_network(folder: Path) -> tuple[nn.Module, Recipe]:
    """Build a finished run's network, with its weights, on the CPU.

    Raises:
        InputError: the folder holds no finished run.
    """
    path = folder / SAVED_MODEL_NAME
    if not path.is_file() or not (folder / CONFIG_NAME).is_file():
        raise InputError(
            f"{folder} holds no finished run: Grad-CAM needs a run folder with {CONFIG_NAME} and "
            f"{SAVED_MODEL_NAME}; a model file alone has no gradients"
        )
    recipe = read_recipe(folder / CONFIG_NAME)
    network = build_network(recipe.network.name, dropout=recipe.network.dropout)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval(), recipe


def find_layer(network: nn.Module, options: InputOptions) -> nn.Module:
    """Find the deepest layer whose maps still have six rows and columns or more.

    The last convolution of a network for small inputs may see one cell: no map of anything.
    """
    deepest: list[nn.Module] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= _CELLS:
            deepest[:] = [module]

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            network(torch.zeros((1, 3, options.height, options.width)))
    finally:
        for hook in hooks:
            hook.remove()
    if not deepest:
        raise InputError("no layer of this network keeps the places of a picture: no Grad-CAM")
    return deepest[0]


def heat(network: nn.Module, pixels: Pixels, options: InputOptions) -> NDArray[np.float32]:
    """Compute how much each place speaks for the answer that the network gives.

    Args:
        network: in evaluation mode, on the CPU.
        pixels: ``uint8 [N, H, W, 3]``, at the network's size.
        options: the recipe's input.

    Returns:
        ``float32 [N, H, W]``, 0 to 1; each picture's strongest place is 1, unless nothing speaks
        for the answer: then all is 0.
    """
    layer = find_layer(network, options)
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, output: kept.append(output))
    try:
        x = normalize(to_float(torch.from_numpy(pixels), options.grayscale), options)
        with torch.enable_grad():
            logits = network(x.requires_grad_())
            best = logits.argmax(1, keepdim=True)
            lead = logits.gather(1, best) - logits.gather(1, 1 - best)
            (gradient,) = torch.autograd.grad(lead.sum(), kept[0])
    finally:
        hook.remove()
    maps = functional.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True))
    maps = maps.detach()
    maps = maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-12)
    size = (pixels.shape[1], pixels.shape[2])
    context_pixels = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return np.asarray(context_pixels.squeeze(1).numpy(), np.float32)


def overlay(pixels: Pixels, heats: NDArray[np.float32]) -> Pixels:
    """Lay heat over pictures: ``uint8 [N, H, W, 3]``, cold blue to hot red."""
    colors = matplotlib.colormaps["turbo"](heats)[..., :3] * 255.0
    mixed = (1.0 - _STRENGTH) * pixels + _STRENGTH * colors
    return np.asarray(np.rint(mixed), np.uint8)


def explain(network: nn.Module, recipe: Recipe, pixels: Pixels) -> Pixels:
    """Show over pictures ``uint8 [N, H, W, 3]`` where their answers came from, as many again."""
    return overlay(pixels, heat(network, pixels, recipe.input))
