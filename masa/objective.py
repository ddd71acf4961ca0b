"""Settings of what the policy is trained on: they stand under `algorithm` with the others."""

from __future__ import annotations

from dataclasses import dataclass

from masa.checks import one_of, require


@dataclass
class ObjectiveConfig:
    """Advantages, policy loss and what goes into it."""

    advantage: str = "grpo"
    """grpo, dr_grpo (no division by the standard deviation) or rloo (mean of the others)."""
    loss: str = "dapo"
    """grpo, dapo, dr_grpo, gspo or cispo: see masa/algorithm/losses.py."""
    eps_low: float = 0.2
    eps_high: float = 0.28
    """The probability ratio is clipped to [1 - eps_low, 1 + eps_high]; eps_low = 1 is no bound."""
    dual_clip: float = 10.0
    """Bound on the loss of a token with negative advantage, in units of |A|."""
    kl_beta: float = 0.0
    """Weight of the k3 estimate of KL(policy || initial policy); 0 keeps no reference model."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus on policy tokens; 0 computes no gradient of the entropy."""
    token_mean: str = "separate"
    """What the loss averages over (tokens or sequences). separate: each objective over its own;
    joint: solution and meta over all of theirs."""
    mask_overlong: bool = False
    """Completions that a token limit cut give no gradient; they still count in group and mean."""
    overlong_buffer: float = 0.0
    """Soft overlong penalty (DAPO): share of response_limit, at its end, over which the penalty on
    a solution rises linearly; 0 is off. The paper's 4096 of 20480 tokens are 0.2."""
    overlong_penalty: float = 0.5
    """The penalty at response_limit. DAPO's 1 on rewards of -1 and 1 is 0.5 on 0 and 1."""
    dynamic_sampling: int = 0
    """DAPO's dynamic sampling: solutions are trained on in groups of mixed verdicts alone, and up
    to this many further batches of prompts are rolled out until there are
    trainer.prompts_per_rollout such groups; 0 is off."""
    mismatch: str = "none"
    """Correction for engine log-probs that differ from the trainer's, by their ratio. none; tis:
    ratio truncated to the bounds, per token; icepop: ratio, 0 outside the bounds, per token;
    seq_mask: the same with the ratio of the whole sequence."""
    mismatch_low: float = 0.0
    mismatch_high: float = 2.0
    """Bounds of that ratio; mismatch_low = 0 is none. IcePop proposes 0.5 and 5."""

    def __post_init__(self) -> None:
        one_of("algorithm.advantage", self.advantage, ("grpo", "dr_grpo", "rloo"))
        one_of("algorithm.loss", self.loss, ("grpo", "dapo", "dr_grpo", "gspo", "cispo"))
        require(0 <= self.eps_low <= 1, "algorithm.eps_low must lie in [0, 1]")
        require(self.eps_high >= 0, "algorithm.eps_high must be >= 0")
        require(self.dual_clip > 1, "algorithm.dual_clip must be > 1")
        require(self.kl_beta >= 0, "algorithm.kl_beta must be >= 0")
        require(self.entropy_coef >= 0, "algorithm.entropy_coef must be >= 0")
        require(
            0 <= self.overlong_buffer <= 1,
            f"algorithm.overlong_buffer is {self.overlong_buffer}, it is a share of response_limit "
            "and must lie in [0, 1]",
        )
        require(self.overlong_penalty >= 0, "algorithm.overlong_penalty must be >= 0")
        require(self.dynamic_sampling >= 0, "algorithm.dynamic_sampling must be >= 0")
        one_of("algorithm.mismatch", self.mismatch, ("none", "tis", "icepop", "seq_mask"))
        require(
            0 <= self.mismatch_low <= 1 <= self.mismatch_high,
            f"algorithm.mismatch_low is {self.mismatch_low} and mismatch_high is "
            f"{self.mismatch_high}, they must enclose 1",
        )
        one_of("algorithm.token_mean", self.token_mean, ("separate", "joint"))
