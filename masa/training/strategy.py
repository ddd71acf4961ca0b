"""Lightning's strategy: one device, or modules that FSDP2 has placed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy

from masa.config import StrategyConfig


class _Fsdp2(ModelParallelStrategy):
    """Lightning's strategy around modules that FSDP2 has placed already.

    Lightning has a mesh of two dimensions and calls them data and tensor parallel; here they are
    replicas and shards, and no tensor parallelism takes place.
    """

    def __init__(self, config: StrategyConfig) -> None:
        super().__init__(
            data_parallel_size=config.world_size // config.shards,
            tensor_parallel_size=config.shards,
            # norms of gradients on the CPU are summed there
            process_group_backend="cpu:gloo,cuda:nccl" if config.cpu_offload else None,
        )

    def model_to_device(self) -> None:
        """Nothing: offloaded parameters stay on the CPU."""


def build_strategy(config: StrategyConfig) -> Any:
    """Lightning's strategy for `config`."""
    return "auto" if config.name == "single" else _Fsdp2(config)
