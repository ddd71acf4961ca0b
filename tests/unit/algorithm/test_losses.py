import math

import pytest
import torch
from builders import algorithm, random_samples
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.losses import clipped_policy_loss, k3_divergence, total_loss
from masa.rollout.packing import pad, token_counts, token_weights
from masa.types import OBJECTIVES

logps = st.floats(-8, 0)


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def objective(ratio, advantage, low, high, dual):
    """What one token adds to the objective that is maximised (PPO, clip-higher, dual clip)."""
    if ratio < 1 - low:
        clipped = 1 - low
    elif ratio > 1 + high:
        clipped = 1 + high
    else:
        clipped = ratio
    value = min(ratio * advantage, clipped * advantage)
    return max(value, dual * advantage) if advantage < 0 else value


@given(logps, logps, st.floats(-3, 3), st.floats(0, 0.9), st.floats(0, 2), st.floats(1.01, 20))
def test_against_the_scalar_formula(logp, old, advantage, low, high, dual):
    loss = clipped_policy_loss(tensor(logp), tensor(old), tensor(advantage), low, high, dual)
    expected = -objective(math.exp(logp - old), advantage, low, high, dual)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


# eps 0.2 and 0.28, dual clip 10
CORNERS = [
    # ratio, advantage, loss, gradient flows
    (1.0, 1.0, -1.0, True),
    (1.25, 1.0, -1.25, True),  # a symmetric clip of 0.2 would stop here
    (1.5, 1.0, -1.28, False),
    (0.5, 1.0, -0.5, True),  # the pessimistic side is not clipped
    (1.0, -1.0, 1.0, True),
    (0.9, -1.0, 0.9, True),
    (0.5, -1.0, 0.8, False),
    (2.0, -1.0, 2.0, True),
    (9.9, -1.0, 9.9, True),
    (50.0, -1.0, 10.0, False),  # dual clip
    (50.0, -0.5, 5.0, False),
    (50.0, 2.0, -2.56, False),  # dual clip is for negative advantages alone
    (50.0, 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "expected", "flows"), CORNERS)
def test_corners_by_hand(ratio, advantage, expected, flows):
    logp = tensor(math.log(ratio) - 1, grad=True)
    loss = clipped_policy_loss(logp, tensor(-1.0), tensor(advantage), 0.2, 0.28, 10)
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    # d(-A r)/d logp = -A r
    assert float(gradient) == pytest.approx(-advantage * ratio if flows else 0.0)


@given(st.lists(st.tuples(logps, st.floats(-3, 3)), min_size=1, max_size=8))
def test_on_policy_the_gradient_is_the_policy_gradient(tokens):
    logp = tensor(*[logp for logp, _ in tokens], grad=True)
    advantages = tensor(*[advantage for _, advantage in tokens])
    loss = clipped_policy_loss(logp, logp.detach(), advantages, 0.2, 0.28, 10)
    torch.testing.assert_close(loss, -advantages, check_dtype=False)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    torch.testing.assert_close(gradient, -advantages)


@given(logps, logps)
def test_k3(logp, reference):
    policy = tensor(logp, grad=True)
    value = k3_divergence(policy, tensor(reference))
    ratio = math.exp(reference - logp)
    assert value.item() == pytest.approx(ratio - math.log(ratio) - 1, abs=1e-9)
    assert value.item() >= -1e-12
    (gradient,) = torch.autograd.grad(value.sum(), policy)
    assert float(gradient) == pytest.approx(1 - ratio, abs=1e-9)


def test_k3_estimates_the_divergence():
    policy, reference = tensor(0.7, 0.2, 0.1), tensor(0.5, 0.2, 0.3)
    expected = float((policy * (policy / reference).log()).sum())
    estimate = float((policy * k3_divergence(policy.log(), reference.log())).sum())
    assert estimate == pytest.approx(expected)
    assert float(k3_divergence(policy.log(), policy.log()).abs().max()) == 0


@pytest.mark.parametrize("mean", ["separate", "joint"])
@pytest.mark.parametrize("kl_beta", [0.0, 0.3])
@pytest.mark.parametrize("bc", ["joint", "separate"])
def test_total_loss_is_the_sum_of_token_means(mean, kl_beta, bc):
    config = algorithm(
        token_mean=mean, kl_beta=kl_beta, meta={"coef": 0.5}, bc={"mode": bc, "coef": 0.25}
    )
    samples = random_samples(9)
    weights = token_weights(token_counts(samples), config)
    batch = pad(samples, weights, pad_token_id=0)
    generator = torch.Generator().manual_seed(1)
    shape = batch.input_ids.shape
    logprobs = -6 * torch.rand(shape, generator=generator, dtype=torch.float64)
    reference = -6 * torch.rand(shape, generator=generator, dtype=torch.float64)

    sums, counts = dict.fromkeys(OBJECTIVES, 0.0), dict.fromkeys(OBJECTIVES, 0)
    for row, sample in enumerate(samples):
        for j, old in enumerate(sample.logprobs):
            logp = float(logprobs[row, len(sample.prompt_ids) + j])
            ref = float(reference[row, len(sample.prompt_ids) + j])
            if sample.objective == "bc":
                loss = -logp
            else:
                loss = -objective(math.exp(logp - old), sample.advantage, 0.2, 0.28, 10)
                loss += kl_beta * (math.exp(ref - logp) - (ref - logp) - 1)
            sums[sample.objective] += loss
            counts[sample.objective] += 1
    both = counts["solution"] + counts["meta"]
    expected = {
        "solution": sums["solution"] / (both if mean == "joint" else counts["solution"]),
        "meta": 0.5 * sums["meta"] / (both if mean == "joint" else counts["meta"]),
        "bc": (0.25 if bc == "joint" else 1.0) * sums["bc"] / counts["bc"],
    }

    loss, parts = total_loss(logprobs, batch, config, reference if kl_beta else None)
    assert {n: float(p) for n, p in parts.items()} == pytest.approx(expected, rel=1e-6)
    assert loss.item() == pytest.approx(sum(expected.values()), rel=1e-6)
    assert not any(part.requires_grad for part in parts.values())


def test_a_meta_objective_of_weight_zero_does_not_dilute_the_joint_mean():
    counts = {"solution": 10.0, "meta": 30.0, "bc": 0.0}
    assert token_weights(counts, algorithm(token_mean="joint", meta={"coef": 0.0})) == {
        "solution": 0.1,
        "meta": 0.0,
        "bc": 0.0,
    }
    joint = token_weights(counts, algorithm(token_mean="joint"))
    assert joint["solution"] == joint["meta"] == 1 / 40


def test_prompt_and_padding_have_no_gradient():
    config = algorithm(bc={"mode": "joint"})
    samples = random_samples(6)
    batch = pad(samples, token_weights(token_counts(samples), config), pad_token_id=0)
    logprobs = torch.full(batch.input_ids.shape, -1.0, requires_grad=True)
    loss, _ = total_loss(logprobs, batch, config)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    trained = torch.zeros_like(gradient, dtype=torch.bool)
    for row, sample in enumerate(samples):
        trained[row, len(sample.prompt_ids) : len(sample)] = True
    assert gradient[~trained].abs().max() == 0
    assert gradient[trained].abs().max() > 0
