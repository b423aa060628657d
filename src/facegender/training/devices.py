"""What trains: devices, processes and precision, chosen once a run."""

from __future__ import annotations

import ctypes
import os
import sys
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from facegender.training.recipe import Recipe

# In bf16 on a CPU dlib_resnet ran for hours and resnet18 briefly; the other two have the same
# layers and are untried. A network of another kind crashed there: all others stay at fp32.
_BF16_ON_CPU = ("dlib_resnet", "resnet18", "resnet34", "resnet50")
_LONGEST_WAIT = timedelta(hours=12)


def make_fabric(recipe: Recipe, devices: int | None = None) -> Fabric:
    """Choose devices and precision: CUDA when there is one, bf16 where it is fast and stable.

    Args:
        recipe: its ``fit.precision`` says ``auto``, ``32`` or ``bf16``.
        devices: how many devices; None takes what ``torchrun`` started, all CUDA devices, or the
            one CPU.
    """
    cuda = torch.cuda.is_available()
    precision = recipe.fit.precision
    if precision == "auto":
        if cuda:
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = recipe.network.name in _BF16_ON_CPU and _cpu_has_bf16()
        precision = "bf16" if fast else "32"
    started = os.environ.get("LOCAL_WORLD_SIZE")  # by torchrun: processes on this machine
    count: int | str = devices or (int(started) if started else "auto" if cuda else 1)
    machines = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    is_many = machines > 1 or count not in (1, "auto")
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=count,
        num_nodes=machines,
        # the others wait while the first process decodes the pictures
        strategy=DDPStrategy(timeout=_LONGEST_WAIT) if is_many else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed memory; giving each tensor back to the kernel costs a tenth of speed."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def _cpu_has_bf16() -> bool:
    """Tell whether the CPU has bf16 arithmetic (AVX-512 BF16 or AMX) that oneDNN uses."""
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
