"""Losses of TRL on fixed numbers. `python tests/helpers/trl_numbers.py` prints them, with trl;
tests/unit/algorithm/test_loss_variants.py keeps what it printed."""

import random
from collections import defaultdict
from types import SimpleNamespace

import torch

PROMPT, LENGTHS, LIMIT, TOKENS = 2, (6, 3, 1, 8), 16, 8
BASE = {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": 3.0}
CASES = {
    "grpo": {"loss": "grpo"},
    "dapo": {"loss": "dapo"},
    "dr_grpo": {"loss": "dr_grpo"},
    "gspo": {"loss": "gspo", "eps_low": 0.02, "eps_high": 0.05},
    "cispo": {"loss": "cispo", "eps_low": 1.0, "eps_high": 0.5},
    "grpo, kl": {"loss": "grpo", "kl_beta": 0.3},
    "cispo, kl": {"loss": "cispo", "eps_low": 1.0, "eps_high": 0.5, "kl_beta": 0.3},
    "dapo, entropy": {"loss": "dapo", "entropy_coef": 0.2},
    "dapo, tis": {"loss": "dapo", "mismatch": "tis", "mismatch_high": 1.2},
    "dr_grpo, icepop": {
        "loss": "dr_grpo", "mismatch": "icepop", "mismatch_low": 0.8, "mismatch_high": 1.2,
    },
    "gspo, seq_mask": {
        "loss": "gspo", "eps_low": 0.02, "eps_high": 0.05, "mismatch": "seq_mask",
        "mismatch_low": 0.6, "mismatch_high": 1.5,
    },
    "cispo, tis": {
        "loss": "cispo", "eps_low": 1.0, "eps_high": 0.5, "mismatch": "tis", "mismatch_high": 1.1,
    },
}  # fmt: skip
"""Settings of `algorithm`, over BASE."""


def numbers():
    """Log-probs of policy, trainer's old policy, engine and reference, entropies, advantages."""
    rng = random.Random(7)
    shape = (len(LENGTHS), TOKENS)

    def near(values, spread):
        moved = [[v + rng.gauss(0, spread) for v in row] for row in values.tolist()]
        return torch.tensor(moved, dtype=torch.float64)

    new = -1 - 2 * torch.tensor(
        [[rng.random() for _ in range(shape[1])] for _ in range(shape[0])], dtype=torch.float64
    )
    old = near(new, 0.4)
    engine, reference, entropy = near(old, 0.2), near(new, 0.5), near(new, 0.3).abs()
    advantages = torch.tensor([0.9, -1.3, 1.1, -0.7], dtype=torch.float64)
    return {
        "new": new, "old": old, "engine": engine, "reference": reference, "entropy": entropy,
        "advantages": advantages,
    }  # fmt: skip


def summary(loss, new, entropy):
    """Loss, norm of its gradient, and the gradient against fixed numbers, each digit of which a
    wrong gradient would change."""
    gradients = torch.autograd.grad(loss, (new, entropy), allow_unused=True)
    flat = torch.stack([torch.zeros_like(new) if g is None else g for g in gradients]).flatten()
    ramp = torch.sin(torch.arange(1, flat.numel() + 1, dtype=torch.float64))
    return [round(float(value), 9) for value in (loss.detach(), flat.norm(), flat @ ramp)]


def of_trl(case):
    """`summary` of GRPOTrainer._compute_loss."""
    from trl import GRPOTrainer

    s = {"kl_beta": 0.0, "entropy_coef": 0.0, "mismatch": "none", "mismatch_low": 0.0} | BASE | case
    data = numbers()
    new, entropy = data["new"].requires_grad_(), data["entropy"].requires_grad_()
    mask = torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    loss_type = "grpo" if s["loss"] == "gspo" else s["loss"]
    corrected = s["mismatch"] != "none"
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            delta=s["dual_clip"], use_bias_correction_kl=False, steps_per_generation=1
        ),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=False
        ),
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, entropy, None),
        _metrics={"train": defaultdict(list)},
        _entropy_bonus_enabled=s["entropy_coef"] > 0, use_adaptive_entropy=False,
        entropy_coef=s["entropy_coef"], aux_loss_enabled=False, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, current_gradient_accumulation_steps=1,
        importance_sampling_level="sequence" if s["loss"] == "gspo" else "token",
        loss_type=loss_type, beta=s["kl_beta"], epsilon_low=s["eps_low"],
        # TRL's bound of CISPO is the ratio itself
        epsilon_high=s["eps_high"] + (loss_type == "cispo"), max_completion_length=LIMIT,
        use_vllm=corrected, vllm_importance_sampling_correction=corrected,
    )  # fmt: skip
    inputs = {
        "prompt_ids": ids[:, :PROMPT], "prompt_mask": ids[:, :PROMPT], "completion_ids": ids,
        "completion_mask": mask.double(), "advantages": data["advantages"],
        "old_per_token_logps": data["old"] if corrected else data["engine"],
        "ref_per_token_logps": data["reference"], "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    if corrected:
        difference = (data["old"] - data["engine"]) * mask
        if s["mismatch"] == "seq_mask":
            difference = difference.sum(-1, keepdim=True)
        ratio, low, high = difference.exp(), s["mismatch_low"], s["mismatch_high"]
        # as in GRPOTrainer._generate_and_score_completions, which needs an engine to run
        if s["mismatch"] == "tis":
            ratio = ratio.clamp(low, high)
        else:
            ratio = ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
        inputs["importance_sampling_ratio"] = ratio
    return summary(GRPOTrainer._compute_loss(trainer, None, inputs), new, entropy)


if __name__ == "__main__":
    import trl

    print(f"# TRL {trl.__version__}")
    for name, case in CASES.items():
        print(f'    "{name}": {of_trl(case)},')
