"""The alignment network: by which similarity a crop of a rotated face is still off.

The detector's landmarks show about half of a rotation and are displaced, so a face rotated by 45
degrees reaches the members at twenty or more, and off center. The alignment network sees the crop
at 64 px and predicts the residual rotation, scale and shift; the ensemble's graph resamples the
crop by them (a spatial transformer: M. Jaderberg et al., "Spatial transformer networks", 2015,
here trained on its own). It learns without labels, from training crops that are misaligned at
random. Three epochs take about three minutes on two cores.

A similarity is four parameters: degrees, logarithm of the scale, shift across, shift down; shifts
in coordinates from -1 to 1.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from facegender.training.console import Console
from facegender.training.data.augmentation import augment, random_numbers
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.ensemble.auxiliary_network import export_sequential, fit_auxiliary
from facegender.training.recipe import AugmentOptions

CROP_SIZE = 128
POOLING = 2
"""Pixels of a crop along each side of one that the network sees."""

MAX_DEGREES = 50.0
PARAMETER_SCALES = (15.0, 0.15, 0.2, 0.2)
"""What an output of 1 stands for, by parameter."""

FULL_IMAGE_PROB = 0.12
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
AUGMENTATION = AugmentOptions(
    hflip_prob=0,
    rotation_prob=0,
    rotation_jitter_std=0,
    aspect_ratio_jitter=1.1,
    pad_edge_prob=0.35,
    pad_background_prob=0.5,
    downscale_prob=0.25,
    color_jitter=0.35,
    color_cast=0.25,
    grayscale_prob=0.15,
    gaussian_noise_std=0.03,
    random_erasing_prob=0.2,
)

_FULL_IMAGE = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
_LAST_ROW = np.array([[0, 0, 1]], np.float32)


def build_alignment_network() -> nn.Sequential:
    """Build it, untrained: ``[N, 3, 64, 64]`` in 0..1 to parameters over their scales."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 16, 32, 64, 96)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        layers += [nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU()] if inputs > 3 else []
    layers += [nn.Flatten(), nn.Linear(96 * 16, 96), nn.ReLU(), nn.Linear(96, 4)]
    return nn.Sequential(*layers)


def train_alignment_network(
    cache: ImageCache, rows: Indices, console: Console, *, epochs: int, seed: int
) -> nn.Sequential:
    """Train the alignment network on misaligned crops of some rows of the image cache."""
    torch.manual_seed(seed)
    network = build_alignment_network().to(memory_format=torch.channels_last)
    scales = torch.tensor(PARAMETER_SCALES)

    def compute_loss(batch: Indices, step: int) -> Tensor:
        with torch.no_grad():
            x, target = misaligned_batch(cache, batch, seed, step)
        predicted = network(x.contiguous(memory_format=torch.channels_last))
        return functional.smooth_l1_loss(predicted, target / scales, beta=0.3)

    with console.counting("Training the alignment network", epochs * len(rows)) as count:
        fit_auxiliary(
            network,
            rows,
            compute_loss,
            count,
            batch_size=BATCH_SIZE,
            epochs=epochs,
            learning_rate=LEARNING_RATE,
            seed=seed,
        )
    return network.eval()


def export_alignment_network(network: nn.Sequential) -> onnx.ModelProto:
    """Write the network as a graph: ``float32 [N, 3, 64, 64]`` in 0..1 to parameters ``[N, 4]``."""
    rescale = helper.make_node("Mul", ["layers", "scale"], ["similarity"])
    size = CROP_SIZE // POOLING
    return export_sequential(network, "small_crop", size, rescale, PARAMETER_SCALES)


def misaligned_batch(
    cache: ImageCache, rows: Indices, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Misalign crops at random, and give the similarity that aligns each.

    Returns:
        Crops ``float32 [N, 3, 64, 64]`` in 0..1, and parameters ``float32 [N, 4]``.
    """
    rng = np.random.default_rng([seed, step])
    count = len(rows)
    crop_matrices = np.array(cache.crop_matrices[rows])
    crop_matrices[np.isnan(crop_matrices).any((1, 2))] = _FULL_IMAGE
    target = random_misalignment(crop_matrices, rng)
    misaligned = _square(crop_matrices) @ np.linalg.inv(similarity_matrices(target))
    x = augment(
        torch.from_numpy(read_rows(cache.context_pixels, rows)),
        torch.from_numpy(random_numbers(seed, step, range(count))),
        AUGMENTATION,
        crop_matrices=torch.from_numpy(misaligned[:, :2].astype(np.float32)),
        size=(CROP_SIZE, CROP_SIZE),
    )
    is_mirrored = rng.random(count) < 0.5
    target[is_mirrored] *= (-1, 1, -1, 1)
    flip = torch.from_numpy(is_mirrored)[:, None, None, None]
    x = torch.where(flip, x.flip(3), x)
    return functional.avg_pool2d(x, POOLING), torch.from_numpy(target.astype(np.float32))


def random_misalignment(
    crop_matrices: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw how each crop is misaligned: the parameters ``[N, 4]`` that align it again.

    The more a face is rotated, the farther off are the detector's landmarks. Some crops become the
    full image, rotated, as where the detector finds no face.
    """
    count = len(crop_matrices)
    degrees = np.where(
        rng.random(count) < 0.3,
        rng.normal(0, 3, count),
        rng.uniform(-MAX_DEGREES, MAX_DEGREES, count),
    )
    strength = np.abs(degrees) / MAX_DEGREES
    log_scale = rng.normal(0, 0.05 + 0.12 * strength)
    across, down = rng.normal(0, 0.05 + 0.2 * strength, (2, count))
    crop = np.stack([degrees, log_scale, across, down], 1)
    rotation = np.stack([degrees, *np.zeros((3, count))], 1)
    full_image = similarity_parameters(similarity_matrices(rotation) @ _square(crop_matrices))
    is_full_image = (rng.random(count) < FULL_IMAGE_PROB) & np.isfinite(full_image).all(1)
    return np.where(is_full_image[:, None], full_image, crop)


def similarity_matrices(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the matrix ``[N, 3, 3]`` of each similarity ``[N, 4]``."""
    degrees, log_scale, across, down = parameters.T
    cos = np.exp(log_scale) * np.cos(np.deg2rad(degrees))
    sin = np.exp(log_scale) * np.sin(np.deg2rad(degrees))
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    rows = [[cos, -sin, across], [sin, cos, down], [zero, zero, one]]
    return np.array(rows).transpose(2, 0, 1)


def similarity_parameters(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the similarity ``[N, 4]`` that is closest to each matrix ``[N, 3, 3]``."""
    cos = (matrices[:, 0, 0] + matrices[:, 1, 1]) / 2
    sin = (matrices[:, 1, 0] - matrices[:, 0, 1]) / 2
    degrees, log_scale = np.rad2deg(np.arctan2(sin, cos)), np.log(np.hypot(cos, sin))
    return np.stack([degrees, log_scale, matrices[:, 0, 2], matrices[:, 1, 2]], 1)


def _square(matrices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add the last row to affine matrices ``[N, 2, 3]``."""
    return np.concatenate([matrices, np.tile(_LAST_ROW, (len(matrices), 1, 1))], 1)
