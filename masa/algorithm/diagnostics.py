"""What one micro-batch says of the update, for logs."""

from __future__ import annotations

import torch

from masa.algorithm.losses import compared_logprobs, k3_divergence
from masa.algorithm.mismatch import mismatch_ratio, outside
from masa.config import AlgorithmConfig
from masa.types import MicroBatch


@torch.no_grad()
def policy_statistics(
    logprobs: torch.Tensor,
    entropy: torch.Tensor,
    batch: MicroBatch,
    config: AlgorithmConfig,
    reference_logprobs: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Sums over the sampled tokens, their number `tokens`, and extremes named `*/min` and `*/max`.

    `sampling/*` compares present and engine log-probs before any clipping: the mismatch of engine
    and trainer as long as the policy has not moved since the rollout.
    """
    sampled = batch.policy_tokens
    difference = (logprobs - batch.behaviour_logprobs)[sampled]
    raw = difference.exp()
    advantages = batch.advantages[sampled]
    new, old = compared_logprobs(logprobs, batch, config)
    ratio = (new - old)[sampled].exp()
    low = (ratio < 1 - config.eps_low) & (advantages < 0)
    high = (ratio > 1 + config.eps_high) & (advantages > 0)
    measured = {
        "tokens": sampled.sum(),
        "entropy": entropy[sampled].sum(),
        "clip_ratio/low_mean": low.sum(),
        "clip_ratio/high_mean": high.sum(),
        "sampling/sampling_logp_difference/mean": difference.abs().sum(),
        "sampling/importance_sampling_ratio/mean": raw.sum(),
        # k3 of KL(engine || policy)
        "sampling/kl": (difference.expm1() - difference).sum(),
    }
    if len(difference):
        measured |= {
            "sampling/sampling_logp_difference/max": difference.abs().max(),
            "sampling/importance_sampling_ratio/min": raw.min(),
            "sampling/importance_sampling_ratio/max": raw.max(),
        }
    if config.mismatch != "none":
        beyond = outside(mismatch_ratio(logprobs, batch, config), config)
        measured["sampling/importance_sampling_ratio/frac_masked"] = beyond[sampled].sum()
    if reference_logprobs is not None:
        measured["kl"] = k3_divergence(logprobs, reference_logprobs)[sampled].sum()
    return measured
