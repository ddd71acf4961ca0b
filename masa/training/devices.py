"""Whether this machine has the devices that a run asks for, and what a CPU needs to be one."""

from __future__ import annotations

import ctypes
import os
import platform

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from masa.config import StrategyConfig
from masa.errors import require

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""


def check_devices(strategy: StrategyConfig, accelerator: str) -> None:
    """Raise ConfigError where devices are missing, or a launcher started other processes.

    For the process that trains: whoever starts a sweep may stand on a machine without a GPU.
    """
    gpus = torch.cuda.device_count()
    mps = torch.backends.mps.is_available()
    there = {"gpu": bool(gpus) or mps, "cuda": bool(gpus), "mps": mps}
    require(
        there.get(accelerator, True),
        f"trainer.accelerator is {accelerator}, but PyTorch finds no such device here: use cpu or "
        "auto, or install PyTorch for it",
    )
    started = int(os.environ.get("WORLD_SIZE", strategy.world_size))
    by = "WORLD_SIZE"
    # torchrun may itself be started by SLURM
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        started, by = int(os.environ["SLURM_NTASKS"]), "SLURM_NTASKS"
    require(
        started == strategy.world_size,
        f"{started} processes were started ({by}), but strategy.devices x strategy.num_nodes is "
        f"{strategy.devices} x {strategy.num_nodes}: make them equal",
    )
    # a launcher may show each process its own device alone
    own = TorchElasticEnvironment.detect() and gpus == 1
    if accelerator in ("auto", "gpu", "cuda") and gpus and not own:
        require(
            strategy.devices <= gpus,
            f"strategy.devices is {strategy.devices}, but this machine shows {gpus} GPUs: lower it "
            "or set trainer.accelerator=cpu",
        )


def keep_freed_memory(accelerator: str) -> None:
    """Have a process that trains on a CPU take freed memory again instead of giving it back.

    Activations of every micro-batch have another size. Where glibc returns them to the system,
    most of the next ones are new pages, each of which costs a fault, ten times as many in a process
    that also generates. Elsewhere than on Linux with glibc nothing is done.

    Args:
        accelerator: `trainer.accelerator`. With a GPU the process gives back what it loaded.
    """
    on_cpu = accelerator == "cpu" or not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    )
    if on_cpu and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # one alone still gives back large blocks, or the end of the heap
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
