"""Losses, advantages and mismatch corrections against TRL and closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from builders import algorithm, completion, group, random_samples
from trl_numbers import BASE, CASES, LENGTHS, LIMIT, PROMPT, numbers, summary

from masa.algorithm.advantages import group_advantages
from masa.algorithm.diagnostics import policy_statistics
from masa.algorithm.losses import LOSSES, total_loss, with_loss_weights
from masa.algorithm.step import keep_mixed, overlong_penalty, reward, training_samples
from masa.rollout.packing import build_update
from masa.types import Sample

# loss, norm of the gradient, gradient against fixed numbers; python tests/helpers/trl_numbers.py
TRL_1_16_0 = {
    "grpo": [0.159003168, 0.396562328, 0.228218233],
    "dapo": [0.302202624, 0.244365705, 0.014241304],
    "dr_grpo": [0.084994488, 0.068727855, 0.004005367],
    "gspo": [0.115171889, 0.376716034, 0.107337296],
    "cispo": [-0.29922284, 0.26731104, 0.038576003],
    "grpo, kl": [0.192826799, 0.379496974, 0.192143416],
    "cispo, kl": [-0.271904376, 0.266710163, 0.013986915],
    "dapo, entropy": [-0.044997208, 0.248871091, 0.035971971],
    "dapo, tis": [0.211864901, 0.248153918, 0.039562913],
    "dr_grpo, icepop": [0.037798158, 0.041522128, 0.000438701],
    "gspo, seq_mask": [-0.035566782, 0.285788347, 0.273109213],
    "cispo, tis": [-0.259994365, 0.243458104, 0.031209064],
}


def on(batch, values, rows):
    """Values of completions [4, 8] where they stand in the micro-batch."""
    laid = torch.zeros(batch.input_ids.shape, dtype=torch.float64)
    for i, row in enumerate(rows):
        laid = laid.index_put(
            (torch.tensor(i), PROMPT + torch.arange(LENGTHS[row])), values[row, : LENGTHS[row]]
        )
    return laid


@pytest.mark.parametrize("budget", [1, 1000])
@pytest.mark.parametrize("name", CASES)
def test_against_trl(name, budget):
    config = algorithm(response_limit=LIMIT, meta={"enabled": False}, **BASE | CASES[name])
    data = numbers()
    samples = [
        with_loss_weights(
            Sample(
                (row + 1,) * PROMPT, (row + 1,) * n, tuple(data["engine"][row, :n].tolist()),
                float(data["advantages"][row]), "solution",
            ),
            config,
        )
        for row, n in enumerate(LENGTHS)
    ]  # fmt: skip
    new, entropy = data["new"].requires_grad_(), data["entropy"].requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for batch in build_update(samples, config, budget, 0):
        rows = [int(first) - 1 for first in batch.input_ids[:, 0]]
        old = on(batch, data["old"], rows) if config.mismatch != "none" else None
        batch = replace(batch, old_logprobs=old)
        part, _ = total_loss(
            on(batch, new, rows), batch, config, on(batch, data["reference"], rows),
            on(batch, entropy, rows),
        )  # fmt: skip
        loss = loss + part
    # engine log-probs, advantages and weights are float32 here
    assert summary(loss, new, entropy) == pytest.approx(TRL_1_16_0[name], abs=2e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mismatch", ["none", "tis", "icepop", "seq_mask"])
def test_neither_split_nor_padding_changes_anything(loss, mismatch):
    config = algorithm(loss=loss, mismatch=mismatch, mismatch_low=0.9, entropy_coef=0.1)
    samples = [with_loss_weights(s, config) for s in random_samples(12, objectives="sm")]
    totals = []
    for budget, layout in [(1, "padded"), (40, "padded"), (10_000, "padded"), (50, "packed")]:
        total, tokens = 0.0, 0.0
        for batch in build_update(samples, config, budget, 47, layout=layout):
            # any function of the token and its place: a policy that sees no other sequence
            places = batch.position_ids
            logprobs = -3 + torch.sin(batch.input_ids.double() + 0.1 * places)
            old = logprobs + 0.2 * torch.cos(batch.input_ids.double() - places)
            batch = replace(batch, old_logprobs=old)
            logprobs.requires_grad_()
            part, _ = total_loss(logprobs, batch, config, None, logprobs**2)
            part.backward()
            total += part.item() + 7 * float(
                (logprobs.grad * torch.cos(3 * logprobs.detach())).sum()
            )
            tokens += float(policy_statistics(logprobs, logprobs, batch, config, None)["tokens"])
        assert tokens == sum(len(s.token_ids) for s in samples)
        totals.append(total)
    assert totals == pytest.approx([totals[0]] * 4, rel=1e-6)
    assert totals[0] != 0


def test_weights_by_hand():
    sample = Sample((1,), (2, 3, 4, 5), (0.0,) * 4, 1.0, "solution")
    expected = {
        "grpo": (0.25, 1), "dapo": (1, 4), "dr_grpo": (1, 64), "gspo": (0.25, 1), "cispo": (1, 4),
    }  # fmt: skip
    for name, pair in expected.items():
        made = with_loss_weights(sample, algorithm(loss=name))
        assert (made.weight, made.own_denominator) == pair
    assert (
        with_loss_weights(
            replace(sample, objective="meta"), algorithm(loss="dr_grpo")
        ).own_denominator
        == 200
    )


@pytest.mark.parametrize("mismatch", ["tis", "icepop", "seq_mask"])
def test_an_engine_that_agrees_needs_no_correction(mismatch):
    config = algorithm(mismatch=mismatch)
    samples = [with_loss_weights(s, config) for s in random_samples(6, objectives="s")]
    (batch,) = build_update(samples, config, 10_000, 0, layout="packed")
    gradients = []
    for chosen in (config, replace(config, mismatch="none")):
        logprobs = batch.behaviour_logprobs.clone().requires_grad_()
        loss, _ = total_loss(logprobs, batch, chosen)
        gradients.append(torch.autograd.grad(loss, logprobs)[0])
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0


def test_raw_ratios_are_measured_before_any_clipping():
    config = algorithm(mismatch="icepop", mismatch_low=0.5, mismatch_high=2.0, meta={"coef": 0.0})
    sample = Sample((1,), (2, 3, 4), (-1.0, -2.0, -3.0), 1.0, "solution")
    (batch,) = build_update([sample], config, 100, 0)
    ratios = [0.25, 1.0, 8.0]
    logprobs = batch.behaviour_logprobs + torch.tensor([[0.0, *map(math.log, ratios)]])
    measured = policy_statistics(logprobs, logprobs, batch, config, None)
    ratio = "sampling/importance_sampling_ratio"
    expected = {
        f"{ratio}/min": 0.25, f"{ratio}/mean": sum(ratios), f"{ratio}/max": 8.0,
        f"{ratio}/frac_masked": 2,
        "sampling/sampling_logp_difference/max": math.log(8),
        "sampling/sampling_logp_difference/mean": math.log(8) + math.log(4),
        "sampling/kl": sum(r - 1 - math.log(r) for r in ratios),
    }  # fmt: skip
    assert {n: float(measured[n]) for n in expected} == pytest.approx(expected, rel=1e-5)


def test_advantages_by_hand():
    rewards = [1.0, 0.0, 0.0, 0.5]
    assert group_advantages(rewards, "dr_grpo") == pytest.approx((0.625, -0.375, -0.375, 0.125))
    others = [(sum(rewards) - r) / 3 for r in rewards]
    expected = [r - o for r, o in zip(rewards, others, strict=True)]
    assert group_advantages(rewards, "rloo") == pytest.approx(expected)
    for kind in ("grpo", "dr_grpo", "rloo"):
        assert group_advantages([0.1] * 7, kind) == (0.0,) * 7


def test_overlong_penalty_is_dapos():
    config = algorithm(response_limit=20480, overlong_buffer=0.2, overlong_penalty=1.0)
    for length, expected in [(16384, 0), (16385, 1 / 4096), (18432, 0.5), (20480, 1.0)]:
        assert overlong_penalty(length, config) == pytest.approx(expected, abs=1e-9)
    assert overlong_penalty(64, algorithm()) == 0
    judged = reward(group([True, True], [5, 64]), algorithm(overlong_buffer=0.5))
    assert judged.solution_rewards == (1.0, 0.5)  # right both, but one at the limit
    assert judged.solution_advantages[0] > 0 > judged.solution_advantages[1]


def test_truncated_completions_count_but_have_no_gradient():
    config = algorithm(mask_overlong=True, kl_beta=0.1)
    made = group([True, False])
    cut = replace(made, solutions=(made.solutions[0], completion(9, finished=False)))
    samples = training_samples([reward(cut, config)], config)
    update = build_update(samples, config, 100, 0)
    (batch,) = update
    assert len(batch.input_ids) == 1
    assert float(batch.weights["solution"].max()) == pytest.approx(1 / 14)
    kept = build_update(
        training_samples([reward(cut, config)], algorithm(kl_beta=0.1)), config, 100, 0
    )
    assert sum(len(b.input_ids) for b in kept) == 2


def test_dynamic_sampling_keeps_mixed_groups_and_every_prediction():
    config = algorithm(dynamic_sampling=1)
    verdicts = [[True] * 2, [True, False], [], [False, True], [False] * 2, [True, False]]
    groups = [
        replace(reward(group(v), config), meta=(completion(3),), meta_advantages=(1.0,))
        for v in verdicts
    ]
    chosen = keep_mixed(groups, 2)
    assert [g.kept for g in chosen] == [False, True, False, True, False, False]
    assert [replace(g, kept=True) for g in chosen] == groups
    kinds = [s.objective for s in training_samples(chosen, config)]
    assert (kinds.count("solution"), kinds.count("meta")) == (4, 6)
    few = keep_mixed(groups, 9)
    assert sum(g.kept for g in few) == 3
