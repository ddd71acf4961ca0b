"""The check of a run's devices, and the memory setting for training on a CPU."""

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


def check_devices(strategy: StrategyConfig, accelerator: str, uses_engine: bool = True) -> None:
    """Raise ConfigError where devices are missing, or the number of processes does not fit.

    For the process that trains: a sweep may be started on a machine without a GPU.
    """
    gpus = torch.cuda.device_count()
    mps = torch.backends.mps.is_available()
    available = {"gpu": bool(gpus) or mps, "cuda": bool(gpus), "mps": mps}
    require(
        available.get(accelerator, True),
        f"trainer.accelerator is {accelerator}, but PyTorch finds no such device here: use cpu or "
        "auto, or install PyTorch for it",
    )
    require(
        accelerator != "cpu" or not gpus or not uses_engine,
        "trainer.accelerator=cpu keeps the policy off the GPUs here, but not the engine: set "
        "CUDA_VISIBLE_DEVICES= as well, and engine=hf where vLLM is built for CUDA",
    )
    require(
        not strategy.cpu_offload or (bool(gpus) and accelerator != "cpu"),
        "strategy.cpu_offload moves weights off a GPU, and this run has none: set it to false",
    )
    started = int(os.environ.get("WORLD_SIZE", strategy.world_size))
    env = "WORLD_SIZE"
    # torchrun may itself be started by SLURM
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        started, env = int(os.environ["SLURM_NTASKS"]), "SLURM_NTASKS"
    require(
        started == strategy.world_size,
        f"{started} processes were started ({env}), but strategy.devices x strategy.num_nodes is "
        f"{strategy.devices} x {strategy.num_nodes}: make them equal",
    )
    if accelerator in ("auto", "gpu", "cuda") and gpus:
        require(
            strategy.devices <= gpus,
            f"strategy.devices is {strategy.devices}, but this machine shows {gpus} GPUs: lower "
            "it, or let every process see all of them (CUDA_VISIBLE_DEVICES)",
        )


def keep_freed_memory(accelerator: str) -> None:
    """Let a process that trains on a CPU reuse freed memory instead of returning it to the system.

    Activations of every micro-batch have another size. Where glibc returns them to the system,
    most of the next ones are new pages. Each page costs a fault, ten times as many in a process
    that also generates. Memory of many sizes that is never returned falls into pieces, up to
    several times what is in use. Nothing is done without glibc, or where the environment says how
    glibc is to do it: `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_` (bytes).

    Args:
        accelerator: `trainer.accelerator`; with a GPU nothing is done.
    """
    on_cpu = accelerator == "cpu" or not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    )
    is_set = any(f"MALLOC_{name}_THRESHOLD_" in os.environ for name in ("MMAP", "TRIM"))
    if on_cpu and not is_set and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # one setting alone still returns large blocks, or the end of the heap
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
