"""Sums, maxima and lists over the ranks; the identity on one rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Element-wise sum, in float64."""
    return _reduce(values, dist.ReduceOp.SUM)


def max_over_ranks(value: float) -> float:
    """Largest value."""
    return _reduce([value], dist.ReduceOp.MAX)[0]


def interleave_over_ranks(items: Sequence[Any], ranks_per_engine: int = 1) -> list[Any]:
    """All items in the order they had before engine e of n took every n-th from e on."""
    if world_size() == 1:
        return list(items)
    parts: list[list[Any]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, list(items))
    parts = parts[::ranks_per_engine]  # the ranks of an engine hold the same items
    longest = max(len(part) for part in parts)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def _reduce(values: Sequence[float], operation: Any) -> list[float]:
    if world_size() == 1:
        return list(values)
    device = "cuda" if "nccl" in str(dist.get_backend_config()) else "cpu"
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(tensor, operation)
    return [float(value) for value in tensor]
