"""Where the policy's parameters lie: one device, or FSDP2 over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from masa.config import StrategyConfig


def build_strategy(config: StrategyConfig) -> Any:
    """Lightning's strategy for `config`."""
    if config.name == "single":
        return "auto"
    # its defaults would mean tensor parallelism
    return ModelParallelStrategy(
        data_parallel_size=config.devices * config.num_nodes, tensor_parallel_size=1
    )


def shard(model: torch.nn.Module, mesh: DeviceMesh) -> None:
    """FSDP2: each decoder layer gathers its parameters for itself, the rest with the root."""
    for layer in model.get_decoder().layers:  # type: ignore[operator, union-attr]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def full_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Named whole parameters, gathered one at a time; a collective call where they are sharded."""
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
