"""The gating network: how much of the gender classifier's answer counts for a crop.

dlib's gender classifier learned from upright, sharp faces and is confidently wrong about rotated
and blurred ones. The gating network makes the two a mixture of experts (R. Jacobs, M. Jordan,
S. Nowlan and G. Hinton, "Adaptive mixtures of local experts", 1991): it sees the classifier's own
input and weights its answer. It learns without labels, from training crops that are left as they
are, rotated up to 45 degrees, blurred or downscaled, with the degradation as the target. Six epochs
take about three minutes on two cores.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from facegender.training.console import Console
from facegender.training.data.augmentation import augment, random_numbers
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.ensemble.auxiliary_network import export_sequential, fit_auxiliary
from facegender.training.ensemble.crop_view import resampling_weights
from facegender.training.ensemble.open_networks import (
    CLASSIFIER_MEAN,
    CLASSIFIER_SCALE,
    CLASSIFIER_VIEW,
)
from facegender.training.recipe import AugmentOptions

CROP_SIZE = 80
"""Pixels of a crop before it is resampled for the classifier."""

BATCH_SIZE = 256
LEARNING_RATE = 2e-3
AUGMENTATION = AugmentOptions(
    hflip_prob=0.5,
    rotation_prob=0,
    rotation_jitter_std=0,
    scale=1.2,
    translate=0.04,
    pad_edge_prob=0.35,
    pad_background_prob=0.5,
    color_jitter=0.3,
    color_cast=0.2,
    grayscale_prob=0.1,
    gaussian_noise_std=0.03,
    random_erasing_prob=0.15,
)

# Where half of the classifier's answer counts, and how fast that changes around it.
_HALF_ROTATION, _ROTATION_SLOPE = 14, 2.5  # degrees
_HALF_BLUR, _BLUR_SLOPE = 1.7, 0.27  # percent of the side
_HALF_DOWNSCALED = 25  # pixels


def build_gating_network() -> nn.Sequential:
    """Build it, untrained: the classifier's input ``[N, 3, 32, 32]`` to logits ``[N, 1]``."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
    )


def train_gating_network(
    cache: ImageCache, rows: Indices, console: Console, *, epochs: int, seed: int
) -> nn.Sequential:
    """Train the gating network on degraded crops of some rows of the image cache."""
    torch.manual_seed(seed)
    network = build_gating_network()

    def compute_loss(batch: Indices, step: int) -> Tensor:
        with torch.no_grad():
            x, target = degraded_batch(cache, batch, seed, step)
        return functional.binary_cross_entropy_with_logits(network(x).flatten(), target)

    with console.counting("Training the gating network", epochs * len(rows)) as count:
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


def export_gating_network(network: nn.Sequential) -> onnx.ModelProto:
    """Write it and a sigmoid as a graph: ``float32 [N, 3, 32, 32]`` to ``[N, 1]`` in 0..1."""
    sigmoid = helper.make_node("Sigmoid", ["layers"], ["classifier_weight"])
    return export_sequential(network, "classifier_input", CLASSIFIER_VIEW.size, sigmoid)


def degraded_batch(cache: ImageCache, rows: Indices, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Degrade crops at random, and compute how much of the classifier's answer should count.

    Half of the crops stay upright; a quarter is blurred and an eighth downscaled to 16 to 47
    pixels, with one strength per batch. Half of the answer counts at a rotation of 14 degrees, at
    a blur (standard deviation) of 1.7 % of the side, and at 25 pixels.

    Returns:
        The classifier's input ``float32 [N, 3, 32, 32]``, and targets ``float32 [N]`` in 0..1.
    """
    rng = np.random.default_rng([seed, step])
    count = len(rows)
    degrees = np.where(
        rng.random(count) < 0.5, rng.normal(0, 3, count), rng.uniform(-45, 45, count)
    )
    x = augment(
        torch.from_numpy(read_rows(cache.context_pixels, rows)),
        torch.from_numpy(random_numbers(seed, step, range(count))),
        AUGMENTATION,
        crop_matrices=torch.from_numpy(rotate_crops(cache.crop_matrices[rows], degrees)),
        size=(CROP_SIZE, CROP_SIZE),
    )
    choice, sigma, pixels = rng.random(count), rng.uniform(0.4, 3.5), int(rng.integers(16, 48))
    blurred, downscaled = np.flatnonzero(choice < 0.25), np.flatnonzero(choice > 0.88)
    blur = np.zeros(count)  # percent of the side
    if len(blurred):
        x[blurred] = gaussian_blur(x[blurred], 17, sigma / 100 * CROP_SIZE)
        blur[blurred] = sigma
    if len(downscaled):
        small = functional.interpolate(x[downscaled], size=(pixels, pixels), mode="area")
        x[downscaled] = functional.interpolate(small, size=x.shape[2:], mode="bilinear")
        blur[downscaled] = _HALF_BLUR + (_HALF_DOWNSCALED - pixels) / 15
    target = expit((_HALF_ROTATION - np.abs(degrees)) / _ROTATION_SLOPE)
    target = target * expit((_HALF_BLUR - blur) / _BLUR_SLOPE)
    return classifier_input(x), torch.from_numpy(target.astype(np.float32))


def rotate_crops(
    crop_matrices: NDArray[np.float32], degrees: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Rotate crops ``[N, 2, 3]`` in their images; without a face the crop is the full image."""
    full_image = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    has_no_face = np.isnan(crop_matrices).any((1, 2), keepdims=True)
    crop_matrices = np.where(has_no_face, full_image, crop_matrices)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rotation = np.array([[cos, -sin], [sin, cos]], np.float32).transpose(2, 0, 1)
    return np.concatenate([crop_matrices[:, :, :2] @ rotation, crop_matrices[:, :, 2:]], 2)


def classifier_input(crops: Tensor) -> Tensor:
    """Resample and normalize crops ``[N, 3, CROP_SIZE, CROP_SIZE]`` in 0..1 for the classifier."""
    vertical, horizontal = (
        torch.from_numpy(resampling_weights(CLASSIFIER_VIEW, CROP_SIZE, center))
        for center in (CLASSIFIER_VIEW.center_y, 0.0)
    )
    mean = torch.tensor(CLASSIFIER_MEAN).view(1, 3, 1, 1)
    return (vertical @ (crops * 255) @ horizontal.T - mean) / CLASSIFIER_SCALE
