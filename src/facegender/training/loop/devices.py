"""Devices, processes and precision: what a run trains on, and which process does what."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import ParamSpec

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from facegender.errors import InputError
from facegender.training.loop.precision import bf16_may_be_faster
from facegender.training.recipe import Recipe

P = ParamSpec("P")

_FRAMEWORK_LOGGERS = ("lightning_fabric", "lightning.fabric", "lightning_utilities")
_MAXIMUM_WAIT = timedelta(hours=12)


class Processes:
    """The processes that train together, one per device.

    The main process (rank 0) decodes, splits, writes and reports for all.
    """

    def __init__(self, fabric: Fabric) -> None:
        """Wrap a launched ``Fabric``."""
        self.fabric = fabric

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return bool(self.fabric.is_global_zero)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block in the main process, then in the others, which wait for it."""
        if not self.is_main:
            self.fabric.barrier()
        yield
        if self.is_main:
            self.fabric.barrier()

    def on_main(self, action: Callable[P, object]) -> Callable[P, None]:
        """Return a function that does ``action`` in the main process and nothing in the others."""

        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.is_main:
                action(*args, **kwargs)

        return run

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in any process."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum"))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.fabric.barrier()

    def end(self) -> None:
        """End the communication; its threads, left open, may crash the exit of the process."""
        if self.fabric.world_size > 1:
            torch.distributed.destroy_process_group()


def check_devices(devices: int | None) -> None:
    """Check that this machine has as many devices as a run asks for.

    Raises:
        InputError: it has fewer.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else None
    if devices is not None and found is not None and devices > found:
        raise InputError(
            f"--devices {devices}: this machine has {found} CUDA "
            f"{'device' if found == 1 else 'devices'}. Give a smaller number."
        )


def make_fabric(recipe: Recipe, devices: int | None = None) -> Fabric:
    """Choose devices and precision: CUDA if there is any, bf16 where it is known to be stable.

    Args:
        recipe: its ``train.precision`` is ``auto``, ``32`` or ``bf16``.
        devices: number of devices; None takes those that ``torchrun`` started, all CUDA devices,
            or one CPU.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32, where a run is not in bfloat16
    for name in _FRAMEWORK_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)  # notices such as the precision in use
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
        # the others wait while the main process decodes the images
        strategy=DDPStrategy(timeout=_MAXIMUM_WAIT) if is_many else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def is_main_process() -> bool:
    """Return whether this is the main process, before a ``Fabric`` is launched."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def is_one_process(devices: int | None) -> bool:
    """Return whether :func:`make_fabric` will train in this process alone."""
    is_started = "LOCAL_WORLD_SIZE" in os.environ or "LOCAL_RANK" in os.environ
    return not is_started and (devices or max(1, torch.cuda.device_count())) == 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: returning it to the kernel costs a tenth of the speed."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)
