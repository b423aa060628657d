"""Logits of a network on images of a cache, without augmentation, and their accuracy."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facegender.training.data.augmentation import normalize, to_float
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.data.sampler import Indices
from facegender.training.recipe import InputOptions

_BATCH_SIZE = 256


def compute_logits(
    network: nn.Module,
    cache: ImageCache,
    indices: Indices,
    options: InputOptions,
    *,
    fabric: Fabric | None = None,
) -> Tensor:
    """Run a network on images of a cache, without augmentation.

    Args:
        network: on the device of ``fabric``, or on the CPU; stays in its mode.
        cache: decoded images.
        indices: rows of the cache, ``int64 [N]``.
        options: how images are normalized.
        fabric: device and precision; each of several processes computes a part, and all of them
            get the whole result. None runs on the CPU.

    Returns:
        ``float32 [N, 2]`` on the CPU, in the order of ``indices``.
    """
    rank, world_size = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    device = fabric.device if fabric else torch.device("cpu")
    logits = torch.zeros((len(indices), 2))
    own = np.arange(rank, len(indices), world_size)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(own), _BATCH_SIZE):
            batch = own[start : start + _BATCH_SIZE]
            pixels = torch.from_numpy(read_rows(cache.pixels, indices[batch]))
            x = normalize(to_float(pixels.to(device), options.grayscale), options)
            x = x.contiguous(memory_format=torch.channels_last)
            if fabric:
                with fabric.autocast():
                    result = network(x)
            else:
                result = network(x)
            logits[torch.from_numpy(batch)] = result.float().cpu()
    network.train(was_training)
    if fabric and world_size > 1:
        summed = fabric.all_reduce(logits.to(device), reduce_op="sum")
        logits = torch.as_tensor(summed).cpu()
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose larger logit, of ``[N, 2]``, is their label, ``[N]``."""
    return int((logits.argmax(1) == labels).sum()) / max(len(labels), 1)
