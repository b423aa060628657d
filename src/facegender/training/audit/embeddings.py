"""Embeddings of face crops by a network that was not trained on the audited labels.

The network is dlib's face recognition network. An image and its mirror image have the same
embedding.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facegender.errors import OutputError
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows
from facegender.training.models.networks import FACENET, DlibResNet, load_pretrained

IDENTITY_SIZE = 256
"""Number of features, the first of each embedding, from the last layer: they identify a person."""

_VERSION = 1
_MAP_LAYER, _MAP_SIDE = 12, 3
_BATCH_SIZE = 256
# normalization of dlib: minus its mean, over 256
_MEAN, _SCALE = (0.4815, 0.4588, 0.4090), 1.0039


def read_embeddings(
    cache: ImageCache, folder: Path, *, on_image: Callable[[int], None] | None = None
) -> NDArray[np.float16]:
    """Compute the embeddings of all images of a cache, or open those that were computed before.

    Args:
        cache: its ``pixels`` are aligned face crops.
        folder: where embeddings are stored under a fingerprint of the images; created if missing.
        on_image: called with the number of images done.

    Returns:
        ``float16 [N, 2560]``, memory-mapped: 256 features of the last layer, then a spatial map of
        256 x 3 x 3 from an earlier layer.

    Raises:
        InputError: the weights of dlib are not installed.
        OutputError: the file cannot be written.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{_VERSION} {cache.pixels.shape}".encode())
    digest.update("".join(cache.digests).encode())
    path = folder / f"{digest.hexdigest()}.embeddings"
    width = IDENTITY_SIZE + IDENTITY_SIZE * _MAP_SIDE**2
    shape = (len(cache.samples), width)
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(6)}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                done = 0
                for block in _compute(cache):
                    file.write(block.tobytes())
                    done += len(block)
                    if on_image:
                        on_image(done)
            unfinished.replace(path)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    return np.memmap(path, np.float16, "r", shape=shape)


def _compute(cache: ImageCache) -> Iterator[NDArray[np.float16]]:
    """Compute embeddings, batch by batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = DlibResNet()
    load_pretrained(network, FACENET, "dlib")
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)

    def embed(pixels: Tensor) -> Tensor:
        x = pixels.to(device).permute(0, 3, 1, 2).float()
        x = ((x / 255 - mean) / _SCALE).contiguous(memory_format=torch.channels_last)
        last, spatial = _layers(network, x)
        mirrored = x.flip(3).contiguous(memory_format=torch.channels_last)
        last_2, spatial_2 = _layers(network, mirrored)
        spatial = (spatial + spatial_2.flip(3)) / 2
        return torch.cat([(last + last_2) / 2, spatial.flatten(1)], 1).float().cpu()

    with torch.inference_mode():
        use_bfloat16 = _is_bfloat16_faster(embed, cache, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
            for start in range(0, len(cache.pixels), _BATCH_SIZE):
                rows = np.arange(start, min(start + _BATCH_SIZE, len(cache.pixels)))
                block = torch.from_numpy(read_rows(cache.pixels, rows))
                yield embed(block).numpy().astype(np.float16)


def _layers(network: DlibResNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give the pooled last layer ``[n, 256]`` and an earlier spatial map ``[n, 256, 3, 3]``."""
    x = functional.max_pool2d(functional.relu(network.stem(x)), 3, 2)
    spatial = x
    for number, block in enumerate(network.blocks):
        x = block(x)
        if number == _MAP_LAYER:
            spatial = functional.adaptive_avg_pool2d(x, _MAP_SIDE)
    return x.mean((2, 3)), spatial


def _is_bfloat16_faster(
    embed: Callable[[Tensor], Tensor], cache: ImageCache, device: torch.device
) -> bool:
    """Time bfloat16 against float32 on a few images, if there are enough for it to matter."""
    if len(cache.pixels) < 4 * _BATCH_SIZE:
        return False
    some = torch.from_numpy(read_rows(cache.pixels, np.arange(_BATCH_SIZE // 4)))
    seconds = []
    for enabled in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            embed(some)
            start = time.perf_counter()
            embed(some)
            seconds.append(time.perf_counter() - start)
    return seconds[1] < seconds[0]
