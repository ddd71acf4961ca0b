"""Correction for an engine whose log-probs differ from the trainer's of the same policy."""

from __future__ import annotations

import torch

from masa.config import AlgorithmConfig
from masa.types import MicroBatch


def mismatch_ratio(
    logprobs: torch.Tensor, batch: MicroBatch, config: AlgorithmConfig
) -> torch.Tensor:
    """[B, T] probability of each token (seq_mask: of its sequence) for the trainer over that for
    the engine, both under the policy that sampled. Carries no gradient.

    Args:
        logprobs: [B, T] present log-probs, those of the old policy where the batch has no others.
        batch: behaviour log-probs and, where the policy has moved, old ones.
        config: the kind of correction.
    """
    old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    difference = old - batch.behaviour_logprobs
    if config.mismatch == "seq_mask":
        difference = sequence_sums(difference, batch)
    return torch.exp(difference)


def mismatch_weights(
    logprobs: torch.Tensor, batch: MicroBatch, config: AlgorithmConfig
) -> torch.Tensor:
    """[B, T] factor on the policy loss; arguments as of `mismatch_ratio`.

    tis (truncated importance sampling, https://fengyao.notion.site/off-policy-rl): the ratio cut to
    the bounds. icepop (arXiv 2510.18855) and seq_mask (masked importance sampling per sequence):
    the ratio, and 0 outside the bounds.
    """
    ratio = mismatch_ratio(logprobs, batch, config)
    if config.mismatch == "tis":
        return ratio.clamp(config.mismatch_low, config.mismatch_high)
    return torch.where(outside(ratio, config), 0.0, ratio)


def outside(ratio: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """Where the ratio leaves the bounds."""
    return (ratio < config.mismatch_low) | (ratio > config.mismatch_high)


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
