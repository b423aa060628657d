"""What weights that never saw these labels make of every face: the features that an audit reads.

They are dlib's face network's, which learned to tell persons apart, from the crops of a store. A
picture and its mirror image have the same features.
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

PERSON = 256
"""How many features, the first of each picture, are the network's last ones: who it is."""

_VERSION = 1
_MAP_LAYER, _MAP_SIDE = 12, 3
_BATCH = 256
# dlib's own normalisation: minus its mean, over 256
_MEAN, _SCALE = (0.4815, 0.4588, 0.4090), 1.0039


def read_embeddings(
    cache: ImageCache, folder: Path, *, on_image: Callable[[int], None] | None = None
) -> NDArray[np.float16]:
    """Compute the features of every picture of a store, or open those that were computed before.

    Args:
        cache: its ``pixels`` are face crops by the rule ``aligned``.
        folder: where features are kept, by a fingerprint of the pictures; made when missing.
        on_image: called with the number of pictures done so far.

    Returns:
        ``float16 [N, 2560]``, memory-mapped: 256 of the last layer, and a map of 256 x 3 x 3 that
        says what is where.

    Raises:
        InputError: dlib's weights are not installed.
        OutputError: they cannot be written.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{_VERSION} {cache.pixels.shape}".encode())
    digest.update("".join(cache.digests).encode())
    place = folder / f"{digest.hexdigest()}.features"
    width = PERSON + PERSON * _MAP_SIDE**2
    shape = (len(cache.samples), width)
    if not place.exists():
        unfinished = place.with_name(f"{place.name}.{secrets.token_hex(6)}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                done = 0
                for block in _compute(cache):
                    file.write(block.tobytes())
                    done += len(block)
                    if on_image:
                        on_image(done)
            unfinished.replace(place)
        except OSError as error:
            raise OutputError(f"cannot write {place}: {error.strerror or error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    return np.memmap(place, np.float16, "r", shape=shape)


def _compute(cache: ImageCache) -> Iterator[NDArray[np.float16]]:
    """Compute features batch by batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = DlibResNet()
    load_pretrained(network, FACENET, "dlib")
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)

    def look(pixels: Tensor) -> Tensor:
        x = pixels.to(device).permute(0, 3, 1, 2).float()
        x = ((x / 255 - mean) / _SCALE).contiguous(memory_format=torch.channels_last)
        last, layout = _layers(network, x)
        last_2, layout_2 = _layers(network, x.flip(3).contiguous(memory_format=torch.channels_last))
        layout = (layout + layout_2.flip(3)) / 2
        return torch.cat([(last + last_2) / 2, layout.flatten(1)], 1).float().cpu()

    with torch.inference_mode():
        is_half = _half_is_faster(look, cache, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            for start in range(0, len(cache.pixels), _BATCH):
                rows = np.arange(start, min(start + _BATCH, len(cache.pixels)))
                block = torch.from_numpy(read_rows(cache.pixels, rows))
                yield look(block).numpy().astype(np.float16)


def _layers(network: DlibResNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give the pooled last layer ``[n, 256]`` and an earlier map ``[n, 256, 3, 3]``."""
    x = functional.max_pool2d(functional.relu(network.stem(x)), 3, 2)
    layout = x
    for number, block in enumerate(network.blocks):
        x = block(x)
        if number == _MAP_LAYER:
            layout = functional.adaptive_avg_pool2d(x, _MAP_SIDE)
    return x.mean((2, 3)), layout


def _half_is_faster(
    look: Callable[[Tensor], Tensor], cache: ImageCache, device: torch.device
) -> bool:
    """Time bfloat16 against float32 on a few pictures; too few of them are not worth it."""
    if len(cache.pixels) < 4 * _BATCH:
        return False
    some = torch.from_numpy(read_rows(cache.pixels, np.arange(_BATCH // 4)))
    seconds = []
    for is_half in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            look(some)
            began = time.perf_counter()
            look(some)
            seconds.append(time.perf_counter() - began)
    return seconds[1] < seconds[0]
