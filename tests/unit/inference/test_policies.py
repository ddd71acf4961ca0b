"""Policies: when they stop, and how they cope with what predictions lack."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from masa.errors import ConfigError, TrainingError
from masa.inference.policies import (
    AdaptiveConsistencyPolicy,
    Attempts,
    CombinedPolicy,
    Policy,
    PredictedPolicy,
    UniformPolicy,
    choice_of,
    confidence_of,
    next_samples,
    sample_limit,
)
from masa.inference.predictions import summarise
from masa.plugins import build_plugin
from masa.types import MetaPrediction


def predicted(rate, length=40, tokens=20):
    return summarise([MetaPrediction(rate, length, ("sum",))] * 2, tokens)


def samples(policy, answers, prediction=None):
    """How many of the answers a policy takes."""
    attempts = Attempts(prediction)
    while wanted := next_samples(policy, attempts):
        for _ in wanted:
            attempts.add(answers[attempts.taken])
    return attempts.taken


def test_uniform_takes_as_many_of_all():
    assert samples(UniformPolicy(n=5), [0, 1, None, 2, 3, 4]) == 5
    attempts = Attempts()
    attempts.add(0)
    assert UniformPolicy(n=3).wanted(attempts) == [-1.0, -2.0]


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("second", [0, 1, 2])
def test_adaptive_consistency_stops_by_the_beta_criterion(threshold, second):
    policy = AdaptiveConsistencyPolicy(n=40, threshold=threshold)
    first = next(k for k in range(1, 40) if beta.sf(0.5, k + 1, second + 1) > threshold)
    attempts = Attempts(counts=[second, first - 1] if second else [first - 1])
    assert policy.wanted(attempts)
    attempts.counts[-1] += 1
    assert not policy.wanted(attempts)
    # answers apart never settle it
    assert samples(policy, list(range(40))) == 40


def test_predictions_spend_where_a_vote_can_help():
    for policy in (PredictedPolicy(n=8), CombinedPolicy(n=8)):
        alike, apart = [0] * 8, list(range(8))
        assert samples(policy, alike, predicted(1.0)) <= 2
        assert samples(policy, apart, predicted(0.0)) <= 2
        assert samples(policy, [0, 1, 0, 2, 0, 3, 4, 5], predicted(0.5)) > 2


def test_a_vote_that_belies_the_prediction_goes_on():
    policy = CombinedPolicy(n=8)
    assert samples(policy, [0, 1, 2, 3, 0, 0, 0, 0], predicted(0.9)) > 3
    assert samples(policy, [0] * 8, predicted(0.5)) < 8


def test_without_a_readable_prediction_nothing_is_assumed():
    unread = summarise([MetaPrediction(error="no </meta>")] * 2, 30)
    assert unread.pass_rate is None and unread.parsed == 0
    policy = CombinedPolicy(n=8)
    assert policy.limit(Attempts(unread)) is None
    assert policy.prior(Attempts(unread)) == policy.prior(Attempts(None))
    assert policy.limit(Attempts(predicted(0.5, length=31))) == 62


def test_confidence_and_choice():
    attempts = Attempts(predicted(0.5), counts=[1, 3], silent=1)
    assert UniformPolicy().choice(attempts) == 1
    assert UniformPolicy().confidence(attempts) == 3 / 5
    combined = CombinedPolicy()
    assert combined.choice(attempts) == 1 and 0.5 < combined.confidence(attempts) < 1
    for policy in (UniformPolicy(), CombinedPolicy(), PredictedPolicy()):
        silent = Attempts(predicted(0.5), silent=2)
        assert policy.choice(silent) is None and policy.confidence(silent) == 0
    tied = Attempts(counts=[2, 2])
    assert UniformPolicy().choice(tied) == 0


@pytest.mark.parametrize(
    "target, settings, problem",
    [
        ("UniformPolicy", {"n": 0}, "n is 0"),
        ("AdaptiveConsistencyPolicy", {"threshold": 1.0}, "threshold is 1.0"),
        ("CombinedPolicy", {"strength": 0}, "strength is 0"),
        ("CombinedPolicy", {"winning": 1.5}, "winning is 1.5"),
        ("CombinedPolicy", {"min_gain": "much"}, "min_gain"),
        ("PredictedPolicy", {"speed": 1}, "speed"),
        ("Policy", {}, "no method wanted"),
    ],
)
def test_impossible_settings_are_refused(target, settings, problem):
    node = {"_target_": f"masa.inference.policies.{target}", **settings}
    with pytest.raises(ConfigError, match=problem):
        build_plugin("solve", node, Policy)


@pytest.mark.parametrize(
    "policy", [UniformPolicy, AdaptiveConsistencyPolicy, PredictedPolicy, CombinedPolicy]
)
def test_curves_go_from_little_to_much(policy):
    answers = [0, 1, 0, 2, 3, 0, 4, 0, 0, 5, 0, 6, 0, 7, 0, 8]
    for n in (1, 4, 16):
        grid = [policy(**settings) for settings in policy.settings_to_compare(n)]
        if policy is AdaptiveConsistencyPolicy:
            # first by number, then by threshold
            grid = grid[: len(grid) - 4]
        spent = [samples(one, answers, predicted(0.5)) for one in grid]
        assert spent == sorted(spent) and spent[0] == 1 and max(spent) <= n


class Greedy(Policy):
    """Wants more, whatever there is."""

    def wanted(self, attempts):
        return np.ones(3)


def test_no_policy_gets_more_than_its_number():
    assert samples(Greedy(), [0] * 9) == 8
    many = Greedy()
    many.n = 2
    assert next_samples(many, Attempts()) == [1.0, 1.0] and samples(many, [0] * 9) == 2


@pytest.mark.parametrize(
    "returned, problem",
    [(3, "not iterable"), (["many"], "could not convert"), ([math.nan], "a sequence of numbers")],
)
def test_what_a_policy_returns_is_checked(returned, problem):
    class Wrong(Policy):
        def wanted(self, attempts):
            return returned

    with pytest.raises(TrainingError, match=f"solve: Wrong.wanted.*{problem}"):
        next_samples(Wrong(), Attempts())


@pytest.mark.parametrize("method", ["choice", "confidence"])
@pytest.mark.parametrize("returned", [3, -1, "yes", math.nan])
def test_what_a_policy_says_of_its_answer_is_checked(method, returned):
    wrong = type("Wrong", (UniformPolicy,), {method: lambda self, attempts: returned})
    attempts = Attempts()
    attempts.add(0)
    ask = {"choice": choice_of, "confidence": confidence_of}[method]
    assert ask(UniformPolicy(), attempts) == {"choice": 0, "confidence": 1.0}[method]
    with pytest.raises(TrainingError, match=f"solve: Wrong.{method}"):
        ask(wrong(), attempts)


@pytest.mark.parametrize(
    "asked, tokens", [(None, 90), (math.inf, 90), (30.2, 31), (2, 10), (-5, 10), (500, 90)]
)
def test_limits_are_held_within_the_range(asked, tokens):
    class Limited(UniformPolicy):
        def limit(self, attempts):
            return asked

    assert sample_limit(Limited(), Attempts(), 10, 90) == tokens
    with pytest.raises(TrainingError, match="Limited.limit"):
        asked = math.nan
        sample_limit(Limited(), Attempts(), 10, 90)
