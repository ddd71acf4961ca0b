"""Whether this machine has the devices that a run asks for."""

from __future__ import annotations

import os

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from masa.checks import require
from masa.config import StrategyConfig


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
