"""Micro-batches hold every token once with its share, and their layout changes no gradient."""

import copy
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from builders import algorithm, float32, random_samples, tiny_qwen3
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from masa.algorithm.losses import total_loss
from masa.algorithm.step import metas_alone
from masa.rollout.packing import (
    PADDING,
    build_update,
    pack,
    pad,
    padding_share,
    rank_shard,
    token_counts,
    token_weights,
)
from masa.training.logprobs import token_logprobs
from masa.types import OBJECTIVES, MicroBatch, Sample

CONFIG = algorithm(meta={"coef": 0.5}, bc={"mode": "joint", "coef": 0.25})
PAD = 47


# --- what is in them


@settings(max_examples=50)
@given(st.integers(0, 12), st.integers(0, 99), st.integers(1, 80))
def test_every_token_once_with_its_weight(count, seed, budget):
    samples = random_samples(count, seed)
    counts = token_counts(samples)
    weights = token_weights(counts, CONFIG)
    expected = Counter()
    for sample in samples:
        for j, token in enumerate(sample.token_ids):
            expected[
                sample.objective, (*sample.prompt_ids, *sample.token_ids[:j]), token,
                sample.logprobs[j], sample.advantage, float32(weights[sample.objective]),
            ] += 1  # fmt: skip
    counts = Counter()
    for batch in pack(samples, weights, budget, PAD):
        for name in OBJECTIVES:
            for i, t in batch.weights[name].nonzero().tolist():
                counts[
                    name, tuple(batch.input_ids[i, :t].tolist()), int(batch.input_ids[i, t]),
                    float(batch.behaviour_logprobs[i, t]), float(batch.advantages[i, t]),
                    float(batch.weights[name][i, t]),
                ] += 1  # fmt: skip
                assert batch.attention_mask[i, : t + 1].all()
    assert counts == expected


def test_padding_is_on_the_right_and_carries_nothing():
    samples = random_samples(5)
    batch = pad(samples, dict.fromkeys(OBJECTIVES, 1.0), PAD)
    assert batch.input_ids.shape == (5, max(map(len, samples)))
    for i, sample in enumerate(samples):
        real = torch.arange(batch.input_ids.shape[1]) < len(sample)
        assert torch.equal(batch.attention_mask[i].bool(), real)
        assert (batch.input_ids[i, ~real] == PAD).all()
        for values in (batch.behaviour_logprobs, batch.advantages, *batch.weights.values()):
            assert (values[i, ~real] == 0).all()
            assert (values[i, : len(sample.prompt_ids)] == 0).all()


@pytest.mark.parametrize("bc", ["joint", "separate"])
def test_weights_of_an_objective_sum_to_its_coefficient(bc):
    config = replace(CONFIG, bc=replace(CONFIG.bc, mode=bc))
    samples = random_samples(20)
    weights = token_weights(token_counts(samples), config)
    sums = dict.fromkeys(OBJECTIVES, 0.0)
    for batch in pack(samples, weights, 60, PAD):
        for name, values in batch.weights.items():
            sums[name] += float(values.sum(dtype=torch.float64))
    expected = {"solution": 1.0, "meta": 0.5, "bc": 0.25 if bc == "joint" else 1.0}
    assert sums == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mean", ["separate", "joint"])
def test_an_extra_update_weighs_predictions_as_the_ordinary_one(mean):
    config = algorithm(token_mean=mean, meta={"coef": 0.5})
    samples = random_samples(12, objectives="sm")
    ordinary = token_weights(token_counts(samples), config)
    extra = metas_alone(samples, config)
    assert token_weights(token_counts(extra), config)["meta"] == ordinary["meta"]
    assert {s.objective for s in extra if len(s.token_ids)} == {"meta"}


def test_joint_weights_sum_to_the_shares():
    config = algorithm(token_mean="joint", meta={"coef": 0.5})
    weights = token_weights({"solution": 30, "meta": 10, "bc": 0}, config)
    assert 30 * weights["solution"] == pytest.approx(0.75)
    assert 10 * weights["meta"] == pytest.approx(0.5 * 0.25)
    assert weights["bc"] == 0


def test_an_objective_without_tokens_has_no_weight():
    for mean in ("separate", "joint"):
        weights = token_weights(dict.fromkeys(OBJECTIVES, 0.0), algorithm(token_mean=mean))
        assert weights == dict.fromkeys(OBJECTIVES, 0.0)


def test_training_samples_advantage_zero_count_but_do_not_run():
    samples = random_samples(12, objectives="sm")
    active = [s for s in samples if s.advantage != 0]
    assert 0 < len(active) < len(samples)
    update = build_update(samples, CONFIG, 60, PAD)
    rows = sum(len(batch.input_ids) for batch in update)
    assert rows == len(active)
    weight = {float(w) for batch in update for w in batch.weights["solution"].unique() if w > 0}
    everything = sum(len(s.token_ids) for s in samples if s.objective == "solution")
    assert weight == {float32(1 / everything)}
    # a KL term has a gradient where the advantage is 0
    update = build_update(samples, replace(CONFIG, kl_beta=0.1), 60, PAD)
    assert sum(len(batch.input_ids) for batch in update) == len(samples)


def test_cloned_samples_always_run():
    samples = random_samples(3, objectives="b")
    assert sum(len(b.input_ids) for b in build_update(samples, CONFIG, 60, PAD)) == 3
    off = replace(CONFIG, bc=replace(CONFIG.bc, coef=0.0))
    assert build_update(samples, off, 60, PAD).empty


@pytest.mark.parametrize(
    "samples", [[], [replace(s, advantage=0.0) for s in random_samples(3, 0, "s")]]
)
def test_nothing_to_train_on(samples):
    update = build_update(samples, CONFIG, 60, PAD)
    assert update.empty and not update.micro_batches


def test_dummies_fill_up_to_the_rank_with_most():
    samples = random_samples(9)
    plain = build_update(samples, CONFIG, 30, PAD)
    more = len(plain.micro_batches) + 3
    update = build_update(samples, CONFIG, 30, PAD, most_of_ranks=lambda n: more)
    assert len(update.micro_batches) == more and not update.empty
    for batch in update.micro_batches[len(plain.micro_batches) :]:
        assert all((values == 0).all() for values in batch.weights.values())
        assert batch.input_ids.numel() > 1  # a forward pass needs a token to predict
    idle = build_update([], CONFIG, 30, PAD, most_of_ranks=lambda n: 2)
    assert len(idle.micro_batches) == 2 and not idle.empty


@pytest.mark.parametrize("layout", ["padded", "packed"])
@given(st.integers(1, 20), st.integers(0, 99), st.integers(1, 100))
def test_micro_batches_stay_within_the_budget(layout, count, seed, budget):
    samples = random_samples(count, seed)
    batches = pack(samples, dict.fromkeys(OBJECTIVES, 1.0), budget, PAD, layout)
    sequences = [int(batch.sequence_ids.max()) + 1 for batch in batches]
    assert sum(sequences) == count
    for batch, held_sequences in zip(batches, sequences, strict=True):
        assert batch.input_ids.numel() <= budget or held_sequences == 1
        rows = 1 if layout == "packed" else held_sequences
        assert len(batch.input_ids) == rows
        padding = 1 - batch.attention_mask.float().mean()
        assert padding <= (0 if layout == "packed" else PADDING + 1e-6)


def first_fitting(samples, capacity, layout):
    """Micro-batches as lists of samples: every batch is tried for every sample."""
    batches = []
    for sample in sorted(samples, key=len, reverse=True):
        fits = []
        for batch in batches:
            filled = sum(map(len, batch)) + len(sample)
            positions = len(batch[0]) * (len(batch) + 1)
            dense = positions <= capacity and filled >= positions * (1 - PADDING)
            # rows of like length lie in the last batch
            alike = batch is batches[-1] and dense
            fits.append(filled <= capacity if layout == "packed" else alike)
        if any(fits):
            batches[fits.index(True)].append(sample)
        else:
            batches.append([sample])
    return batches


def one_tensor_each(rows, weights):
    """A micro-batch from one tensor per sample."""
    widest = max(sum(map(len, row)) for row in rows)
    shape = (len(rows), widest)
    values = [torch.full(shape, PAD), *torch.zeros(2, *shape, dtype=torch.long)]
    values += [*torch.zeros(2 + len(OBJECTIVES), *shape)]
    ids, mask, positions, behaviour, advantages, *streams = values
    for i, row in enumerate(rows):
        begin = 0
        for sample in row:
            start, end = begin + len(sample.prompt_ids), begin + len(sample)
            ids[i, begin:end] = torch.tensor([*sample.prompt_ids, *sample.token_ids])
            mask[i, begin:end] = 1
            positions[i, begin:] = torch.arange(widest - begin)
            behaviour[i, start:end] = torch.tensor(sample.logprobs.tolist())
            advantages[i, start:end] = sample.advantage
            stream = streams[OBJECTIVES.index(sample.objective)]
            stream[i, start:end] = weights[sample.objective] * sample.weight
            begin = end
    return ids, mask, positions, behaviour, advantages, *streams


@pytest.mark.parametrize("layout", ["padded", "packed"])
@given(st.integers(0, 60), st.integers(0, 99), st.integers(1, 100))
def test_the_layout_is_that_of_the_plain_search(layout, count, seed, budget):
    rng = random.Random(seed)
    samples = [replace(s, weight=rng.random()) for s in random_samples(count, seed)]
    weights = {name: rng.random() for name in OBJECTIVES}
    expected = first_fitting(samples, budget, layout)
    for batch, chosen in zip(pack(samples, weights, budget, PAD, layout), expected, strict=True):
        rows = [chosen] if layout == "packed" else [[sample] for sample in chosen]
        ours = (
            batch.input_ids, batch.attention_mask, batch.position_ids, batch.behaviour_logprobs,
            batch.advantages, *(batch.weights[name] for name in OBJECTIVES),
        )  # fmt: skip
        for one, other in zip(ours, one_tensor_each(rows, weights), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_packed_rows_hold_the_samples_one_after_another():
    samples = random_samples(3)
    (batch,) = pack(samples, dict.fromkeys(OBJECTIVES, 1.0), 1000, PAD, "packed")
    samples.sort(key=len, reverse=True)
    joined = [token for s in samples for token in (*s.prompt_ids, *s.token_ids)]
    assert batch.input_ids.tolist() == [joined]
    assert batch.position_ids.tolist() == [[t for s in samples for t in range(len(s))]]
    assert batch.sequence_ids.tolist() == [
        [i for i, s in enumerate(samples) for _ in range(len(s))]
    ]
    padded = pad(samples, dict.fromkeys(OBJECTIVES, 1.0), PAD)
    assert torch.equal(padded.sequence_ids[:, 0], torch.arange(3))
    assert torch.equal(padded.sequence_ids[:, -1], torch.arange(3))


@given(st.integers(0, 30), st.integers(0, 99), st.integers(1, 5), st.sampled_from([0.0, 0.1]))
def test_ranks_share_all_samples_and_run_like_numbers_of_tokens(count, seed, ranks, kl_beta):
    config = replace(CONFIG, kl_beta=kl_beta)
    samples = random_samples(count, seed)
    shares = [rank_shard(samples, config, rank, ranks) for rank in range(ranks)]
    assert Counter(s for share in shares for s in share) == Counter(samples)
    loads = [
        sum(len(s) for s in share if s.advantage or s.objective == "bc" or kl_beta)
        for share in shares
    ]
    longest = max((len(s) for s in samples), default=0)
    assert max(loads) - min(loads) <= longest
    assert rank_shard(samples, config, 0, 1) == samples


@pytest.mark.parametrize("regulariser", ["kl_beta", "entropy_coef"])
def test_ranks_share_training_samples_advantage_zero_that_run(regulariser):
    samples = [replace(s, advantage=0.0) for s in random_samples(24, objectives="s")]
    config = replace(CONFIG, **{regulariser: 0.1})
    shares = [rank_shard(samples, config, rank, 2) for rank in range(2)]
    run = [sum(b.attention_mask.sum() for b in build_update(s, config, 60, PAD)) for s in shares]
    assert abs(run[0] - run[1]) <= max(map(len, samples))


def test_training_samples_like_length_lie_together():
    samples = random_samples(40)
    update = build_update(samples, CONFIG, 40, PAD)
    lengths = [batch.attention_mask.sum(1) for batch in update]
    for longer, shorter in zip(lengths, lengths[1:], strict=False):
        assert longer.min() >= shorter.max()
    positions = sum(batch.input_ids.numel() for batch in update)
    tokens = sum(int(length.sum()) for length in lengths)
    assert padding_share([update]) == pytest.approx(1 - tokens / positions)


# --- what they do to the policy, in float64


@pytest.fixture
def policy(monkeypatch):
    """A tiny Qwen3 that nowhere falls back to float32, neither in itself nor in token_logprobs."""

    def normed(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    monkeypatch.setattr(Qwen3RMSNorm, "forward", normed)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return tiny_qwen3().double()


def gradient(policy, batches, config=CONFIG, scale=1.0, reference=None):
    """Loss and flat gradient, accumulated over micro-batches as the module does."""
    policy.zero_grad()
    total = 0.0
    for batch in batches:
        logprobs, _ = token_logprobs(policy, batch, config.temperature)
        other = None
        if reference is not None:
            with torch.no_grad():
                other, _ = token_logprobs(reference, batch, config.temperature)
        loss, _ = total_loss(logprobs, batch, config, other)
        (loss * scale).backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in policy.parameters()])


def close(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-10, abs=1e-12)
    assert float(other[1].norm()) > 1e-3
    assert float((one[1] - other[1]).norm() / other[1].norm()) < 1e-10


def one_at_a_time(policy, samples, config, reference=None):
    """The objective straight from its equations: no padding, no batch, one token after another."""
    counts = Counter()
    for sample in samples:
        counts[sample.objective] += len(sample.token_ids)
    coefs = {"solution": 1.0, "meta": config.meta.coef, "bc": config.bc.coef}
    policy.zero_grad()
    total = 0.0
    for sample in samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.token_ids]])

        def logprobs_of(model, ids=ids):
            return torch.log_softmax(model(input_ids=ids).logits[0] / config.temperature, -1)

        logps = logprobs_of(policy)
        with torch.no_grad():
            refs = None if reference is None else logprobs_of(reference)
        losses = []
        for j, (token, old) in enumerate(zip(sample.token_ids, sample.logprobs, strict=True)):
            at = len(sample.prompt_ids) + j - 1
            logp = logps[at, token]
            if sample.objective == "bc":
                losses.append(-logp)
                continue
            ratio, a = (logp - old).exp(), sample.advantage
            clipped = min(max(ratio, 1 - config.eps_low), 1 + config.eps_high)
            gain = min(ratio * a, clipped * a)
            if a < 0:
                gain = max(gain, config.dual_clip * a)
            losses.append(0 * logp - gain)
            if refs is not None:
                difference = refs[at, token] - logp
                losses.append(config.kl_beta * (difference.exp() - difference - 1))
        weight = float32(coefs[sample.objective] / counts[sample.objective])
        loss = weight * sum(losses)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in policy.parameters()])


def near_policy(policy, samples):
    """The same samples with behaviour log-probs near the policy's, so that few ratios clip."""
    rng, moved = random.Random(0), []
    for sample in samples:
        if sample.objective != "bc":
            with torch.no_grad():
                batch = pad([sample], dict.fromkeys(OBJECTIVES, 1.0), PAD)
                logprobs, _ = token_logprobs(policy, batch, 1.0)
            old = [
                float32(float(lp) + rng.gauss(0, 0.3))
                for lp in logprobs[0, len(sample.prompt_ids) : len(sample)]
            ]
            sample = replace(sample, logprobs=tuple(old))
        moved.append(sample)
    return moved


@pytest.fixture
def samples(policy):
    return near_policy(policy, random_samples(14))


@pytest.mark.parametrize("budget", [1, 20, 55, 10_000])
def test_gradient_is_the_same_over_any_split(policy, samples, budget):
    whole = gradient(policy, build_update(samples, CONFIG, 10_000, PAD))
    split = build_update(samples, CONFIG, budget, PAD)
    active = sum(s.advantage != 0 or s.objective == "bc" for s in samples)
    assert len(split.micro_batches) <= active
    if budget == 1:
        assert len(split.micro_batches) == active
    close(gradient(policy, split), whole)


def test_gradient_is_the_same_in_any_order(policy, samples):
    whole = gradient(policy, build_update(samples, CONFIG, 40, PAD))
    shuffled = random.Random(1).sample(samples, len(samples))
    close(gradient(policy, build_update(shuffled, CONFIG, 40, PAD)), whole)


def test_gradient_is_the_same_over_any_padding(policy, samples):
    update = build_update(samples, CONFIG, 40, PAD)
    padded = []
    for k, batch in enumerate(update):

        def wider(values, fill=0, extra=3 * k + 2):
            return torch.nn.functional.pad(values, (0, extra), value=fill)

        padded.append(
            MicroBatch(
                wider(batch.input_ids, 5),
                wider(batch.attention_mask),
                torch.arange(batch.input_ids.shape[1] + 3 * k + 2).expand(len(batch.input_ids), -1),
                wider(batch.behaviour_logprobs),
                wider(batch.advantages),
                {name: wider(values) for name, values in batch.weights.items()},
            )
        )
    close(gradient(policy, padded), gradient(policy, update))
    other_token = build_update(samples, CONFIG, 40, pad_token_id=3)
    close(gradient(policy, other_token), gradient(policy, update))


@pytest.mark.parametrize("budget", [20, 55, 10_000])
def test_gradient_is_the_same_in_packed_rows(policy, samples, budget):
    whole = gradient(policy, build_update(samples, CONFIG, 10_000, PAD))
    packed = build_update(samples, CONFIG, budget, PAD, layout="packed")
    assert padding_share([packed]) == 0
    close(gradient(policy, packed), whole)


@pytest.mark.parametrize(("kl_beta", "temperature"), [(0.0, 1.0), (0.2, 0.7)])
def test_gradient_is_that_of_the_equations(policy, samples, kl_beta, temperature):
    config = replace(CONFIG, kl_beta=kl_beta, temperature=temperature)
    reference = None
    if kl_beta:
        reference = copy.deepcopy(policy)
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter.mul_(0.9)
    expected = one_at_a_time(policy, samples, config, reference)
    update = build_update(samples, config, 40, PAD)
    close(gradient(policy, update, config, reference=reference), expected)


@pytest.mark.parametrize("mean", ["separate", "joint"])
def test_two_ranks_are_one(policy, samples, mean):
    config = replace(CONFIG, token_mean=mean)
    expected = gradient(policy, build_update(samples, config, 40, PAD), config)
    shares = [samples[:3], samples[3:]]  # unequal on purpose
    weights = token_weights(token_counts(samples), config)
    alone = [len(build_update(share, config, 40, PAD).micro_batches) for share in shares]
    assert alone[0] != alone[1]
    losses, gradients = [], []
    for share in shares:
        update = build_update(share, config, 40, PAD, weights, lambda mine: max(alone))
        assert len(update.micro_batches) == max(alone)
        loss, flat = gradient(policy, update, config, scale=2.0)  # FSDP averages over two ranks
        losses.append(loss)
        gradients.append(flat)
    close((sum(losses), sum(gradients) / 2), expected)


def test_a_dummy_has_no_gradient(policy):
    update = build_update([], CONFIG, 40, PAD, most_of_ranks=lambda n: 1)
    loss, flat = gradient(policy, update)
    assert loss == 0 and float(flat.abs().max()) == 0


def test_logprobs_and_entropy_against_the_model(policy):
    sample = Sample((1,), (2, 3, 4, 5), (0.0,) * 4, 1.0, "solution")
    batch = pad([sample], dict.fromkeys(OBJECTIVES, 1.0), PAD)
    logprobs, entropy = token_logprobs(policy, batch, temperature=0.5)
    with torch.no_grad():
        probabilities = torch.softmax(2 * policy(input_ids=batch.input_ids).logits[0], -1)
    for t in range(1, 5):
        p = probabilities[t - 1]
        assert logprobs[0, t].item() == pytest.approx(float(p[batch.input_ids[0, t]].log()))
        assert entropy[0, t].item() == pytest.approx(float(-(p * p.log()).sum()))
    assert logprobs[0, 0].item() == entropy[0, 0].item() == 0
    assert logprobs.requires_grad and not entropy.requires_grad
    # the oracle of the library itself: mean negative log-likelihood
    labels = batch.input_ids.clone()
    loss = policy(input_ids=batch.input_ids, labels=labels).loss.item()
    plain, _ = token_logprobs(policy, batch, temperature=1.0)
    assert -plain[0, 1:].mean().item() == pytest.approx(loss)
