"""Train the small network that says where in a crop the upright face is.

    python tools/make_upright.py runs/best -o build/upright.onnx

The detector's landmarks show about half of a turn and lie aside, so a face that stood at 45
degrees reaches the networks at twenty or more, and off the middle. This one sees the crop at 64 px
and gives the angle, size and shifts that would have been right; ``tools/make_committee.py`` takes
the crop anew by them before the others see it (a spatial transformer: M. Jaderberg et al.,
"Spatial transformer networks", 2015, here trained by itself). It learns from pictures alone, not
from labels: those of the run's training part, their crops taken wrongly. Three epochs, about three
minutes on two cores.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import small_networks
import torch
from numpy.typing import NDArray
from onnx import helper
from small_networks import SEED, command, fit
from torch import Tensor, nn
from torch.nn import functional

from facegender.training.console import Console
from facegender.training.data.augmentation import augment, random_numbers
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.recipe import AugmentOptions

SIZE, POOL = 128, 2  # pixels of a crop, and how many of them are one that the network sees
FARTHEST = 50.0  # degrees
SCALES = (15.0, 0.15, 0.2, 0.2)  # what an output of 1 stands for
WHOLE = 0.12  # share of pictures taken whole
WHOLE_FRAME = np.float32([[1, 0, 0], [0, 1, 0]])
LAST = np.float32([[0, 0, 1]])
BATCH, EPOCHS, RATE = 128, 3, 2e-3
VARIED = AugmentOptions(
    hflip_prob=0, rotation_prob=0, rotation_jitter_std=0, aspect_ratio_jitter=1.1, pad_edge_prob=0.35,
    pad_background_prob=0.5, downscale_prob=0.25, color_jitter=0.35, color_cast=0.25, grayscale_prob=0.15, gaussian_noise_std=0.03, random_erasing_prob=0.2,
)  # fmt: skip


def make_network() -> nn.Sequential:
    """The network: ``[N, 3, 64, 64]`` in 0..1 to a placing over ``SCALES``, ``[N, 4]``."""
    layers: list[nn.Module] = []
    widths = (3, 16, 32, 64, 96)
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        layers += [nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU()] if inputs > 3 else []
    layers += [nn.Flatten(), nn.Linear(96 * 16, 96), nn.ReLU(), nn.Linear(96, 4)]
    return nn.Sequential(*layers)


def matrices(placings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity of each placing ``[N, 4]`` (angle, log of size, shifts): ``[N, 3, 3]``."""
    angle, size, across, down = placings.T
    cos, sin = np.exp(size) * np.cos(np.deg2rad(angle)), np.exp(size) * np.sin(np.deg2rad(angle))
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    rows = [[cos, -sin, across], [sin, cos, down], [zero, zero, one]]
    return np.array(rows).transpose(2, 0, 1)


def placings(of: NDArray[np.float64]) -> NDArray[np.float64]:
    """The placing ``[N, 4]`` that comes nearest to each matrix ``[N, 3, 3]``."""
    cos, sin = (of[:, 0, 0] + of[:, 1, 1]) / 2, (of[:, 1, 0] - of[:, 0, 1]) / 2
    angle, size = np.rad2deg(np.arctan2(sin, cos)), np.log(np.hypot(cos, sin))
    return np.stack([angle, size, of[:, 0, 2], of[:, 1, 2]], 1)


def misplaced(crop_matrices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how each crop is to be taken wrongly: the placing by which to take it right, ``[N, 4]``.

    The farther a face is turned, the farther off are the detector's landmarks. Some pictures are
    turned as a whole, as where the detector finds no face.
    """
    count = len(crop_matrices)
    angle = np.where(
        rng.random(count) < 0.3, rng.normal(0, 3, count), rng.uniform(-FARTHEST, FARTHEST, count)
    )
    far = np.abs(angle) / FARTHEST
    size = rng.normal(0, 0.05 + 0.12 * far)
    across, down = rng.normal(0, 0.05 + 0.2 * far, (2, count))
    drawn = np.stack([angle, size, across, down], 1)
    turn = np.stack([angle, *np.zeros((3, count))], 1)
    whole = placings(
        matrices(turn) @ np.concatenate([crop_matrices, np.tile(LAST, (count, 1, 1))], 1)
    )
    taken_whole = (rng.random(count) < WHOLE) & np.isfinite(whole).all(1)
    return np.where(taken_whole[:, None], whole, drawn)


def wrong_batch(cache: ImageCache, rows: Indices, step: int) -> tuple[Tensor, Tensor]:
    """Give crops that were taken wrongly, and by which placing each would be right.

    Returns:
        ``float32 [N, 3, 64, 64]`` in 0..1 and ``float32 [N, 4]``.
    """
    rng = np.random.default_rng([SEED, step])
    count = len(rows)
    crop_matrices = np.array(cache.crop_matrices[rows])
    crop_matrices[np.isnan(crop_matrices).any((1, 2))] = WHOLE_FRAME
    right = misplaced(crop_matrices, rng)
    wrong = np.concatenate([crop_matrices, np.tile(LAST, (count, 1, 1))], 1) @ np.linalg.inv(
        matrices(right)
    )
    x = augment(
        torch.from_numpy(read_rows(cache.context_pixels, rows)),
        torch.from_numpy(random_numbers(SEED, step, range(count))),
        VARIED,
        crop_matrices=torch.from_numpy(wrong[:, :2].astype(np.float32)),
        size=(SIZE, SIZE),
    )
    mirrored = rng.random(count) < 0.5
    right[mirrored] *= (-1, 1, -1, 1)
    flip = torch.from_numpy(mirrored)[:, None, None, None]
    x = torch.where(flip, x.flip(3), x)
    return functional.avg_pool2d(x, POOL), torch.from_numpy(right.astype(np.float32))


def train(cache: ImageCache, rows: Indices, console: Console) -> nn.Sequential:
    """Fit the network to what was done to the crops."""
    torch.manual_seed(SEED)
    network = make_network().to(memory_format=torch.channels_last)

    def loss_of(some: Indices, step: int) -> Tensor:
        with torch.no_grad():
            x, right = wrong_batch(cache, some, step)
        told = network(x.contiguous(memory_format=torch.channels_last))
        return functional.smooth_l1_loss(told, right / torch.tensor(SCALES), beta=0.3)

    fit(network, rows, loss_of, console, batch=BATCH, epochs=EPOCHS, rate=RATE)
    return network.eval()


def to_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """The network as a graph: ``float32 [N, 3, 64, 64]`` in 0..1 to placings ``[N, 4]``."""
    last = helper.make_node("Mul", ["layers", "scale"], ["placing"])
    return small_networks.to_onnx(network, "small", SIZE // POOL, last, SCALES)


if __name__ == "__main__":
    command(__doc__, train, to_onnx)
