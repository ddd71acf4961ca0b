"""Sums, maxima, lists and work over the ranks; the identity on one rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from masa.training.balance import balanced


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
    """All items in their order before engine e of n took every n-th item, starting at e."""
    if world_size() == 1:
        return list(items)
    parts = _of_engines(list(items), ranks_per_engine)
    longest = max(len(part) for part in parts)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def share_work(
    items: Sequence[Any],
    loads: Sequence[float],
    work: Callable[[Sequence[Any]], Sequence[Any]],
    ranks_per_engine: int = 1,
) -> list[Any]:
    """Results of `work` for this rank's items, in their order; all engines work about as long.

    The items of all ranks are split over the engines by their loads.

    Args:
        items: of this rank; those of an engine's ranks are the same.
        loads: one per item.
        work: items of any rank -> a result per item; a collective call of an engine's ranks.
        ranks_per_engine: consecutive ranks that share an engine.
    """
    if world_size() == ranks_per_engine:
        return list(work(items))
    of_engines = _of_engines(list(zip(items, loads, strict=True)), ranks_per_engine)
    all_pairs = [pair for part in of_engines for pair in part]
    shares = balanced([load for _, load in all_pairs], len(of_engines))
    engine = dist.get_rank() // ranks_per_engine
    results_here = work([all_pairs[i][0] for i in shares[engine]])
    results: list[Any] = [None] * len(all_pairs)
    for share, part in zip(shares, _of_engines(list(results_here), ranks_per_engine), strict=True):
        for i, result in zip(share, part, strict=True):
            results[i] = result
    first = sum(len(part) for part in of_engines[:engine])
    return results[first : first + len(items)]


def _of_engines(items: list[Any], ranks_per_engine: int) -> list[list[Any]]:
    """The items of every engine; all ranks of an engine have the same items."""
    parts: list[list[Any]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, items)
    return parts[::ranks_per_engine]


def _reduce(values: Sequence[float], operation: Any) -> list[float]:
    if world_size() == 1:
        return list(values)
    device = "cuda" if "nccl" in str(dist.get_backend_config()) else "cpu"
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(tensor, operation)
    return [float(value) for value in tensor]
