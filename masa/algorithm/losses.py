"""Per-token losses and their sum. Shapes: B sequences, T tokens."""

from __future__ import annotations

import torch

from masa.config import AlgorithmConfig
from masa.types import MicroBatch


def clipped_policy_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    eps_low: float,
    eps_high: float,
    dual_clip: float,
) -> torch.Tensor:
    """Clipped policy-gradient loss with clip-higher (DAPO) and dual clip (arXiv 1912.09729).

    Args:
        logprobs: [B, T] log-probs under the policy, with gradient.
        behaviour_logprobs: [B, T] log-probs under the policy that sampled.
        advantages: [B, T].
        eps_low, eps_high: the ratio is clipped to [1 - eps_low, 1 + eps_high].
        dual_clip: bound on the loss where the advantage is negative, in units of |A|.

    Returns:
        [B, T] loss per token, to be minimised.
    """
    ratio = torch.exp(logprobs - behaviour_logprobs)
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped)
    bounded = torch.minimum(loss, -advantages * dual_clip)
    return torch.where(advantages < 0, bounded, loss)


def k3_divergence(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """[B, T] k3 estimate of KL(policy || reference): non-negative, unbiased, low variance."""
    difference = reference_logprobs - logprobs
    return torch.exp(difference) - difference - 1


def total_loss(
    logprobs: torch.Tensor,
    batch: MicroBatch,
    config: AlgorithmConfig,
    reference_logprobs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """J = solution + coef * meta + beta_bc * L_BC, as weighted token sums.

    The weights of a token hold its objective's coefficient over that objective's global token
    count, so the sum over all micro-batches of all ranks is the objective itself.

    Args:
        logprobs: [B, T] log-probs of the tokens of `batch` under the policy.
        batch: tokens, advantages, behaviour log-probs and weights.
        config: clip bounds and KL weight.
        reference_logprobs: [B, T], needed where `config.kl_beta` > 0.

    Returns:
        The scalar loss, and its detached part per objective.
    """
    policy = clipped_policy_loss(
        logprobs,
        batch.behaviour_logprobs,
        batch.advantages,
        config.eps_low,
        config.eps_high,
        config.dual_clip,
    )
    if config.kl_beta > 0:
        assert reference_logprobs is not None
        # where no policy token stands the two may differ by anything: 0 * inf would be NaN
        counted = (batch.weights["solution"] + batch.weights["meta"]) > 0
        reference_logprobs = torch.where(counted, reference_logprobs, logprobs.detach())
        policy = policy + config.kl_beta * k3_divergence(logprobs, reference_logprobs)
    per_token = {"solution": policy, "meta": policy, "bc": -logprobs}
    parts = {name: (weight * per_token[name]).sum() for name, weight in batch.weights.items()}
    return torch.stack(list(parts.values())).sum(), {n: p.detach() for n, p in parts.items()}
