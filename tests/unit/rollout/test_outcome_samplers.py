"""Samplers that go by outcomes, on a pool of prompts with known pass rates."""

import copy
import json
import random

import numpy as np
import pytest
from builders import group, prompts
from scipy import stats

from masa.errors import ConfigError
from masa.rollout.outcome_samplers import DpsSampler, GresoSampler, MoppsSampler

SIZE, COUNT, G = 120, 12, 8
POOL = prompts(SIZE)
# a third each: hopeless, learnable, trivial
RATES = {prompt.id: (0.0, 0.5, 1.0)[i % 3] for i, prompt in enumerate(POOL)}
SAMPLERS = [GresoSampler, MoppsSampler, DpsSampler]


def outcome(prompt, draw, rates=RATES):
    rng = random.Random(f"{prompt.id}/{draw}")
    return group([rng.random() < rates[prompt.id] for _ in range(G)], prompt=prompt)


def mixed_share(sampler, draws, pool=POOL, count=COUNT, rates=RATES):
    """By draw the share of mixed groups."""
    shares = []
    for number in draws:
        drawn = sampler.draw(pool, count, number, seed=0)
        assert len({prompt.id for prompt in drawn}) == len(drawn) == count
        groups = [outcome(prompt, number, rates) for prompt in drawn]
        shares.append(sum(g.mixed for g in groups) / count)
        sampler.observe(groups)
    return shares


@pytest.mark.parametrize(
    ("cls", "least"), [(GresoSampler, 0.75), (MoppsSampler, 0.9), (DpsSampler, 0.95)]
)
def test_what_can_be_learned_is_found(cls, least):
    shares = mixed_share(cls(), range(1, 101))
    assert np.mean(shares[60:]) > least  # 1/3 where prompts are drawn at random


@pytest.mark.parametrize("cls", SAMPLERS)
def test_a_state_repeats_the_draws(cls):
    whole, first = cls(), cls()
    mixed_share(whole, range(1, 31))
    mixed_share(first, range(1, 21))
    state = json.dumps(first.state_dict())
    assert len(state) < 200 * SIZE + 200
    # a rollout that is given up after two draws
    first.draw(POOL, COUNT, 21, 0), first.draw(POOL, COUNT, 22, 0)
    resumed = cls()
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    mixed_share(resumed, range(21, 31))
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.draw(POOL, COUNT, 31, 0) == whole.draw(POOL, COUNT, 31, 0)
    assert resumed.draw(POOL, COUNT, 31, 0) == whole.draw(POOL, COUNT, 31, 0)


@pytest.mark.parametrize("cls", [MoppsSampler, DpsSampler])  # that of GRESO may begin an epoch
def test_further_draws_of_a_rollout_are_further_prompts(cls):
    sampler = cls()
    mixed_share(sampler, range(1, 41))
    first, second = (sampler.draw(POOL, COUNT, n, 0) for n in (41, 42))
    assert not {p.id for p in first} & {p.id for p in second}


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_pool_without_anything_to_learn_and_one_of_the_size_of_a_draw(cls, rate):
    same = dict.fromkeys(RATES, rate)
    assert sum(mixed_share(cls(), range(1, 60), POOL[:13], rates=same)) == 0
    mixed_share(cls(), range(1, 60), POOL[:12], rates=same)


def test_the_chance_of_a_visit_follows_the_streak_and_its_kind():
    sampler, (prompt, *_) = GresoSampler(p_easy=0.5, p_hard=0.9, step=0), POOL
    for correct, chance in (
        ([True, True], 0.5), ([True, True], 0.25), ([False, False], 0.9), ([False, False], 0.81),
        ([True, False], 1.0), ([True, True], 0.5),
    ):  # fmt: skip
        sampler.observe([group(correct, prompt=prompt)])
        assert sampler._chance(prompt) == pytest.approx(chance)
    sampler.observe([group([False, False], prompt=prompt, uncensored=False)])
    assert sampler._chance(prompt) == pytest.approx(0.5)


def test_the_chances_move_towards_their_targets_after_the_first_epoch():
    sampler = GresoSampler()
    right, wrong, mixed = ([True] * 2, [False] * 2, [True, False])
    outcomes = [right, *[mixed] * 11]
    sampler.observe([group(c, prompt=p) for c, p in zip(outcomes, POOL, strict=False)])
    assert sampler.p == {True: 0.5, False: 0.5}
    # 1 of 12 is as many as there may be, none wrong is fewer
    sampler.observe([group(c, prompt=p) for c, p in zip(outcomes, POOL, strict=False)])
    assert sampler.p == {True: pytest.approx(0.49), False: pytest.approx(0.51)}
    for _ in range(100):
        sampler.observe([group(wrong, prompt=POOL[0])])
    assert sampler.p == {True: 0.95, False: pytest.approx(0.05)}


def test_the_posterior_is_that_of_the_paper():
    sampler = MoppsSampler()
    for right in (8, 6):
        correct = [True] * right + [False] * (8 - right)
        sampler.observe([group(correct, prompt=POOL[0])])
    assert sampler.posteriors == {"id0": (0.5 * 9 + 0.5 + 6, 0.5 * 1 + 0.5 + 2)}
    ids = ["id0"] * 4000
    drawn = 0.5 + np.abs(sampler.scores(ids, np.random.default_rng(0)))
    expected = stats.beta(11, 3).rvs(4000, random_state=1)
    assert stats.ks_2samp(drawn, 0.5 + np.abs(expected - 0.5)).pvalue > 0.01


def test_states_go_on_by_the_transitions_that_were_seen():
    """Against the recursion for one prompt, written out."""
    sampler = DpsSampler(prior=1.0, decay=0.7)
    seen, state = np.zeros((3, 3)), np.full(3, 1 / 3)
    shown = [0, None, 0, 1, None, None, 1, 2, 2]
    verdicts = {0: [False] * 2, 1: [True, False], 2: [True] * 2}
    for now in shown:
        transitions = (seen + 1) / (seen + 1).sum(axis=1, keepdims=True)
        seen = 0.7 * seen
        if now is None:
            state = state @ transitions
            sampler.observe([group(verdicts[1], prompt=POOL[1])])
        else:
            came = state * transitions[:, now]
            seen[:, now] += came / came.sum()
            state = np.eye(3)[now]
            sampler.observe([group(verdicts[now], prompt=POOL[0])])
        ahead = state @ ((seen + 1) / (seen + 1).sum(axis=1, keepdims=True))
        score, unseen = sampler.scores(["id0", "never"], np.random.default_rng(0))
        assert (score, unseen) == (pytest.approx(ahead[1]), 1 / 3)


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (GresoSampler, {"p_easy": 2}), (GresoSampler, {"min_p": 0.9, "max_p": 0.1}),
        (MoppsSampler, {"candidates": 0}), (MoppsSampler, {"decay": -1}),
        (DpsSampler, {"candidates": 0}), (DpsSampler, {"decay": -1}), (DpsSampler, {"prior": 0}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(cls, bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        cls(**bad)
