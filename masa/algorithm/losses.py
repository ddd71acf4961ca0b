"""Policy losses and their sum with KL, entropy and cloning. Shapes: B rows, T tokens.

A loss says what a token costs (`surrogate`, on ratios of tokens or of whole sequences) and what the
costs are averaged over: each token has a weight, each sequence adds its share to the denominator:
loss = sum(weight * cost) / sum(share), over all sequences of all ranks. KL and entropy terms share
the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch

from masa.algorithm.mismatch import mismatch_weights, sequence_means
from masa.config import AlgorithmConfig
from masa.types import MicroBatch, Sample


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
        dual_clip: bound on the loss where the advantage is negative, in units of `|A|`.

    Returns:
        [B, T] loss per token, to be minimised.
    """
    ratio = torch.exp(logprobs - behaviour_logprobs)
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped)
    bounded = torch.minimum(loss, -advantages * dual_clip)
    return torch.where(advantages < 0, bounded, loss)


def clipped_is_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    eps_low: float,
    eps_high: float,
    dual_clip: float,
) -> torch.Tensor:
    """CISPO (arXiv 2506.13585): REINFORCE, weighted by the clipped and detached ratio.

    Every token keeps a gradient. Arguments and result as of `clipped_policy_loss`; `dual_clip` has
    nothing to bound.
    """
    ratio = torch.exp(logprobs.detach() - behaviour_logprobs).clamp(1 - eps_low, 1 + eps_high)
    return -ratio * advantages * logprobs


def k3_divergence(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """[B, T] k3 estimate of KL(policy || reference): non-negative, unbiased, low variance."""
    difference = reference_logprobs - logprobs
    return torch.exp(difference) - difference - 1


@dataclass(frozen=True)
class PolicyLoss:
    """One `algorithm.loss`."""

    surrogate: Callable[..., torch.Tensor]
    """Arguments and result of `clipped_policy_loss`."""
    sequence_ratio: bool
    """The ratio is the sequence's geometric mean (GSPO) instead of each token's own."""
    mean: Literal["tokens", "sequences", "limits"]
    """Over all tokens; over sequences, each the mean of its tokens; over sequences, each the sum of
    its tokens over the token limit."""


LOSSES = {
    # arXiv 2402.03300
    "grpo": PolicyLoss(clipped_policy_loss, sequence_ratio=False, mean="sequences"),
    # 2503.14476: long sequences weigh more
    "dapo": PolicyLoss(clipped_policy_loss, sequence_ratio=False, mean="tokens"),
    # 2503.20783: length cancels nowhere
    "dr_grpo": PolicyLoss(clipped_policy_loss, sequence_ratio=False, mean="limits"),
    # 2507.18071: one ratio per sequence, clipped as one
    "gspo": PolicyLoss(clipped_policy_loss, sequence_ratio=True, mean="sequences"),
    # 2506.13585
    "cispo": PolicyLoss(clipped_is_loss, sequence_ratio=False, mean="tokens"),
}


def with_loss_weights(sample: Sample, config: AlgorithmConfig) -> Sample:
    """A solution or meta sample with its weight and its share of the mean's denominator."""
    mean = LOSSES[config.loss].mean
    tokens = len(sample.token_ids)
    limit = config.meta.response_limit if sample.objective == "meta" else config.response_limit
    return replace(
        sample,
        weight=1 / tokens if mean == "sequences" else 1.0,
        own_denominator={"tokens": float(tokens), "sequences": 1.0, "limits": float(limit)}[mean],
    )


def compared_logprobs(
    logprobs: torch.Tensor, batch: MicroBatch, config: AlgorithmConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the loss takes the ratio of: log-probs [B, T] under the policy and the old policy.

    The old policy's are the engine's. Where their mismatch is corrected they are the trainer's: of
    the batch if the policy has moved since the rollout, else the present ones.
    """
    if config.mismatch == "none":
        old = batch.behaviour_logprobs
    else:
        old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    if LOSSES[config.loss].sequence_ratio:
        return sequence_means(logprobs, batch), sequence_means(old, batch)
    return logprobs, old


def total_loss(
    logprobs: torch.Tensor,
    batch: MicroBatch,
    config: AlgorithmConfig,
    reference_logprobs: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """J = solution + coef * meta + beta_bc * L_BC, as weighted token sums.

    The weights of a token hold its objective's coefficient over its objective's global denominator,
    so the sum over all micro-batches of all ranks is the objective itself.

    Args:
        logprobs: [B, T] log-probs of the tokens of `batch` under the policy.
        batch: tokens, advantages, behaviour log-probs and weights.
        config: loss, clip bounds, mismatch correction, KL and entropy weights.
        reference_logprobs: [B, T], needed where `config.kl_beta` > 0.
        entropy: [B, T] with gradient, needed where `config.entropy_coef` > 0.

    Returns:
        The scalar loss, and its detached part per objective.
    """
    new, old = compared_logprobs(logprobs, batch, config)
    policy = LOSSES[config.loss].surrogate(
        new, old, batch.advantages, config.eps_low, config.eps_high, config.dual_clip
    )
    if config.mismatch != "none":
        policy = policy * mismatch_weights(logprobs, batch, config)
    if config.kl_beta > 0:
        assert reference_logprobs is not None
        # where no policy token stands the two may differ by anything: 0 * inf would be NaN
        reference_logprobs = torch.where(batch.policy_tokens, reference_logprobs, logprobs.detach())
        policy = policy + config.kl_beta * k3_divergence(logprobs, reference_logprobs)
    if config.entropy_coef > 0:
        assert entropy is not None
        policy = policy - config.entropy_coef * entropy
    per_token = {"solution": policy, "meta": policy, "bc": -logprobs}
    parts = {name: (weight * per_token[name]).sum() for name, weight in batch.weights.items()}
    return torch.stack(list(parts.values())).sum(), {n: p.detach() for n, p in parts.items()}
