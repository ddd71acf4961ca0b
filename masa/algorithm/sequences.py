"""Sums over the trained tokens of each sequence, wherever in a micro-batch the sequence lies."""

from __future__ import annotations

import torch

from masa.types import MicroBatch


def sequence_sums(values: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    """[B, T] sum of `values` [B, T] over the policy tokens of a token's sequence."""
    ids = batch.sequence_ids.flatten()
    counted = torch.where(batch.policy_tokens, values, 0.0).flatten()
    sums = counted.new_zeros(counted.shape).index_add(0, ids, counted)
    return sums[ids].view(values.shape)


def sequence_means(values: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    """[B, T] their mean; 0 for a sequence without policy tokens."""
    counts = sequence_sums(torch.ones_like(values), batch)
    return sequence_sums(values, batch) / counts.clamp(min=1)
