"""Which arithmetic trains: bfloat16 where it is known to be stable, and measured to be faster."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import nn
from torch.nn import functional

from facegender.training.recipe import Recipe

# In bf16 on a CPU dlib_resnet ran for hours and resnet18 briefly; the other two have the same
# layers and are untried. A network of another kind crashed there: all others stay at fp32.
_BF16_ON_CPU = ("dlib_resnet", "resnet18", "resnet34", "resnet50")
_BATCH, _STEPS = 16, 3


def bf16_may_be_faster(recipe: Recipe) -> bool:
    """Tell whether this machine has bfloat16 arithmetic, and the network is known to stand it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return recipe.network.name in _BF16_ON_CPU and _cpu_has_bf16()


def measure_bf16_speedup(network: nn.Module, recipe: Recipe) -> float:
    """Time training steps of a copy of the network in bfloat16 against float32, on noise.

    Args:
        network: built; it stays as it is, and so do all random numbers after it.
        recipe: its input says how large pictures are.

    Returns:
        How many times as fast bfloat16 is; 0 where its loss or a gradient is no number.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        learner = copy.deepcopy(network).to(device).train()
        learner = learner.to(memory_format=torch.channels_last)
        x = torch.randn((_BATCH, 3, recipe.input.height, recipe.input.width), device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(_BATCH, device=device) % 2

        def seconds(is_half: bool) -> float:
            """Time one step; what is no number takes for ever."""
            learner.zero_grad()
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
                logits = learner(x)
            loss = functional.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [weight.grad for weight in learner.parameters() if weight.grad is not None]
            total = loss.detach() + torch.stack([some.norm() for some in gradients]).sum()
            is_finite = math.isfinite(float(total))  # and all that was asked for is done
            return time.perf_counter() - began if is_finite else math.inf

        # in turns, for the machine may be busy; in the first turn everything is set up
        turns = [(seconds(False), seconds(True)) for _ in range(1 + _STEPS)][1:]
    whole, half = (min(times) for times in zip(*turns, strict=True))
    return whole / half if math.isfinite(half) else 0.0


def _cpu_has_bf16() -> bool:
    """Tell whether the CPU has bf16 arithmetic (AVX-512 BF16 or AMX) that oneDNN uses."""
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
