"""Lightning's strategy: one device, or modules that FSDP2 has placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor, distribute_tensor

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

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Weights and optimizers of a folder of shards, or of one file of one device.

        Lightning reads no file without the frozen weights beside an adapter, and none whose
        optimizer has made no step yet.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            return super().load_checkpoint(path, weights_only)
        saved: dict[str, Any] = torch.load(
            path, map_location="cpu", mmap=True, weights_only=weights_only
        )
        assert self.model is not None
        weights = saved.pop("state_dict")
        with torch.no_grad():
            for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
                if name in weights:
                    tensor.copy_(_placed_as(tensor, weights[name]))
        for optimizer, state in zip(self.optimizers, saved["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            moments = {
                i: {key: _placed_as(parameters[i], value) for key, value in of_one.items()}
                for i, of_one in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": moments})
        return saved


def _placed_as(placed: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """This rank's part of a whole tensor; a number, as AdamW's count of steps, as it is."""
    if not isinstance(placed, DTensor) or whole.shape != placed.shape:
        return whole
    # every rank has the file, so nothing is sent
    part = distribute_tensor(whole, placed.device_mesh, placed.placements, src_data_rank=None)
    return part.to(placed.device)


def build_strategy(config: StrategyConfig) -> Any:
    """Lightning's strategy for `config`."""
    return "auto" if config.name == "single" else _Fsdp2(config)
