"""Precision: bfloat16 where it is known to be stable and measured to be faster than float32."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import nn
from torch.nn import functional

from facegender.training.recipe import Recipe

# In bf16 on a CPU, dlib_resnet was trained for hours and resnet18 briefly; the other two have the
# same layers and were not tried. A network with depthwise convolutions crashed: others stay fp32.
_BF16_ON_CPU = ("dlib_resnet", "resnet18", "resnet34", "resnet50")
_BATCH_SIZE, _STEPS = 16, 3


def bf16_may_be_faster(recipe: Recipe) -> bool:
    """Return whether this machine has bfloat16 arithmetic and the network is stable in it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return recipe.network.name in _BF16_ON_CPU and _cpu_has_bf16()


def measure_bf16_speedup(network: nn.Module, recipe: Recipe) -> float:
    """Measure the speed of training steps in bfloat16 relative to float32, on noise.

    Args:
        network: a copy of it is trained; neither it nor the random state changes.
        recipe: its input size is used.

    Returns:
        The ratio of speeds, above 1 if bfloat16 is faster; 0 if its loss or a gradient is NaN or
        infinite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        copied = copy.deepcopy(network).to(device).train()
        copied = copied.to(memory_format=torch.channels_last)
        x = torch.randn((_BATCH_SIZE, 3, recipe.input.height, recipe.input.width), device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(_BATCH_SIZE, device=device) % 2

        def step_seconds(is_bf16: bool) -> float:
            """Time one step; infinite if the loss or a gradient is not finite."""
            copied.zero_grad()
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                logits = copied(x)
            loss = functional.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad for p in copied.parameters() if p.grad is not None]
            total = loss.detach() + torch.stack([gradient.norm() for gradient in gradients]).sum()
            is_finite = math.isfinite(float(total))  # also waits for the device
            return time.perf_counter() - started if is_finite else math.inf

        # alternately, as the machine may be busy; the first pair only warms up
        pairs = [(step_seconds(False), step_seconds(True)) for _ in range(1 + _STEPS)][1:]
    fp32, bf16 = (min(times) for times in zip(*pairs, strict=True))
    return fp32 / bf16 if math.isfinite(bf16) else 0.0


def _cpu_has_bf16() -> bool:
    """Return whether the CPU has bf16 arithmetic (AVX-512 BF16 or AMX) that oneDNN uses."""
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
