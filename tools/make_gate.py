"""Train the small network that says when the classifier beside ours is not to be heard.

    python tools/make_gate.py runs/best -o build/gate.onnx

dlib's gender classifier (tools/make_committee.py) learned from upright, sharp faces and is wrong
about turned and blurred ones without a doubt of its own. The gate (R. Jacobs, M. Jordan, S. Nowlan
and G. Hinton, "Adaptive mixtures of local experts", 1991) sees what the classifier sees, 32 px, and
gives the share of its answer that counts. It learns from pictures alone, not from labels: those of
the run's training part as they are, turned by up to 45 degrees, blurred, and brought down to few
pixels, with what was done to each as the target. Six epochs, about three minutes on two cores.
"""

from __future__ import annotations

import numpy as np
import onnx
import small_networks
import torch
from make_committee import LOOK, SCALE, resampling
from numpy.typing import NDArray
from onnx import helper
from open_networks import MEAN
from scipy.special import expit
from small_networks import SEED, command, fit
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from facegender.training.console import Console
from facegender.training.data.augmentation import augment, random_numbers
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.recipe import AugmentOptions

SIZE = 80  # pixels of a crop before the classifier's look
BATCH, EPOCHS, RATE = 256, 6, 2e-3
VARIED = AugmentOptions(
    hflip_prob=0.5, rotation_prob=0, rotation_jitter_std=0, scale=1.2, translate=0.04, pad_edge_prob=0.35, pad_background_prob=0.5,
    color_jitter=0.3, color_cast=0.2, grayscale_prob=0.1, gaussian_noise_std=0.03, random_erasing_prob=0.15,
)  # fmt: skip


def make_gate() -> nn.Sequential:
    """The gate: the classifier's input ``[N, 3, 32, 32]`` to a logit ``[N, 1]``."""
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


def look(x: Tensor) -> Tensor:
    """What the classifier is given of crops ``[N, 3, SIZE, SIZE]`` in 0..1."""
    rows, columns = (torch.from_numpy(resampling(LOOK, SIZE, at)) for at in (LOOK.middle, 0.0))
    return (rows @ (x * 255) @ columns.T - torch.tensor(MEAN).view(1, 3, 1, 1)) / SCALE


def turned(crop_matrices: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn crops in their pictures; a picture without a face is taken whole."""
    whole = np.float32([[1, 0, 0], [0, 1, 0]])
    crop_matrices = np.where(
        np.isnan(crop_matrices).any((1, 2), keepdims=True), whole, crop_matrices
    )
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cos, -sin], [sin, cos]], np.float32).transpose(2, 0, 1)
    return np.concatenate([crop_matrices[:, :, :2] @ turn, crop_matrices[:, :, 2:]], 2)


def worsened(cache: ImageCache, rows: Indices, step: int) -> tuple[Tensor, Tensor]:
    """Give a batch as the classifier would see it, and how much of its answer should count.

    Half of the pictures stay upright; a quarter is blurred and an eighth brought down to 16 to 47
    pixels, each batch by one strength. Half of the answer counts at a turn of 14 degrees, at a
    blur of 1.7 % of the side, and at 25 pixels.

    Returns:
        ``float32 [N, 3, 32, 32]`` and ``float32 [N]`` in 0..1.
    """
    rng = np.random.default_rng([SEED, step])
    count = len(rows)
    degrees = np.where(
        rng.random(count) < 0.5, rng.normal(0, 3, count), rng.uniform(-45, 45, count)
    )
    x = augment(
        torch.from_numpy(read_rows(cache.context_pixels, rows)),
        torch.from_numpy(random_numbers(SEED, step, range(count))),
        VARIED,
        crop_matrices=torch.from_numpy(turned(cache.crop_matrices[rows], degrees)),
        size=(SIZE, SIZE),
    )
    draw, sigma, few = rng.random(count), rng.uniform(0.4, 3.5), int(rng.integers(16, 48))
    blurred, coarse = np.flatnonzero(draw < 0.25), np.flatnonzero(draw > 0.88)
    blur = np.zeros(count)  # percent of the side
    if len(blurred):
        x[blurred] = gaussian_blur(x[blurred], 17, sigma / 100 * SIZE)
        blur[blurred] = sigma
    if len(coarse):
        small = functional.interpolate(x[coarse], size=(few, few), mode="area")
        x[coarse] = functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear")
        blur[coarse] = 1.7 + (25 - few) / 15
    heard = expit((14 - np.abs(degrees)) / 2.5) * expit((1.7 - blur) / 0.27)
    return look(x), torch.from_numpy(heard.astype(np.float32))


def train(cache: ImageCache, rows: Indices, console: Console) -> nn.Sequential:
    """Fit the gate to what was done to the pictures."""
    torch.manual_seed(SEED)
    gate = make_gate()

    def loss_of(some: Indices, step: int) -> Tensor:
        with torch.no_grad():
            x, heard = worsened(cache, some, step)
        return functional.binary_cross_entropy_with_logits(gate(x).flatten(), heard)

    fit(gate, rows, loss_of, console, batch=BATCH, epochs=EPOCHS, rate=RATE)
    return gate.eval()


def to_onnx(gate: nn.Sequential) -> onnx.ModelProto:
    """The gate with a sigmoid at its end: ``float32 [N, 3, 32, 32]`` to ``[N, 1]`` in 0..1."""
    return small_networks.to_onnx(
        gate, "look", LOOK.side, helper.make_node("Sigmoid", ["layers"], ["heard"])
    )


if __name__ == "__main__":
    command(__doc__, train, to_onnx)
