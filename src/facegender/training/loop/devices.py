"""What trains: devices, processes and precision, chosen once a run."""

from __future__ import annotations

import ctypes
import os
import sys
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from facegender.training.loop.precision import bf16_may_be_faster
from facegender.training.recipe import Recipe

_LONGEST_WAIT = timedelta(hours=12)


def make_fabric(recipe: Recipe, devices: int | None = None) -> Fabric:
    """Choose devices and precision: CUDA when there is one, bf16 where it is known to be stable.

    Args:
        recipe: its ``train.precision`` says ``auto``, ``32`` or ``bf16``.
        devices: how many devices; None takes what ``torchrun`` started, all CUDA devices, or the
            one CPU.
    """
    cuda = torch.cuda.is_available()
    precision = recipe.train.precision
    if precision == "auto":
        precision = "bf16" if bf16_may_be_faster(recipe) else "32"
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


def is_one_process(devices: int | None) -> bool:
    """Tell whether :func:`make_fabric` will train in this process alone."""
    is_started = "LOCAL_WORLD_SIZE" in os.environ or "LOCAL_RANK" in os.environ
    return not is_started and (devices or max(1, torch.cuda.device_count())) == 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory; giving each tensor back to the kernel costs a tenth of speed."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)
