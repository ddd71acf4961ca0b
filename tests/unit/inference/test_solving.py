"""Rounds of samples within a budget, on a model whose answers are known."""

import pytest

from masa.errors import ConfigError, TrainingError
from masa.inference.policies import CombinedPolicy, UniformPolicy
from masa.inference.predictions import summarise
from masa.inference.solving import Limits, Response, predict, solve
from masa.tasks.templates import parse_meta
from masa.types import MetaPrediction, Prompt

LENGTH = 10


def same(a, b):
    return a == b != ""


class Model:
    """Gives each problem its answers in turn, `LENGTH` tokens each, and notes what it is asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, wanted):
        self.asked += wanted
        return [
            Response(self.answers[each.prompt.id][each.sample], min(LENGTH, each.max_tokens))
            for each in wanted
        ]


PROMPTS = [Prompt("easy", "1 + 1", "2"), Prompt("hard", "?", "3"), Prompt("mute", "??", "4")]
ANSWERS = {"easy": ["2"] * 8, "hard": list("53735333"), "mute": [""] * 8}
LIMITS = Limits(max_tokens=20, meta_max_tokens=15, min_length=5)


def predictions(*rates):
    return [summarise([MetaPrediction(rate, 8, ())] * 2, 12) for rate in rates]


def test_uniform_votes():
    model = Model(ANSWERS)
    easy, hard, mute = solve(PROMPTS, UniformPolicy(n=8), None, same, model, LIMITS)
    assert (easy.response, easy.confidence, easy.samples) == ("2", 1.0, 8)
    assert (hard.response, hard.votes) == ("3", 5) and hard.tokens == 8 * LENGTH
    assert (mute.response, mute.confidence, mute.samples) == (None, 0.0, 8)
    assert [(each.prompt.id, each.sample) for each in model.asked] == [
        (prompt.id, i) for prompt in PROMPTS for i in range(8)
    ]
    assert {each.max_tokens for each in model.asked} == {20}


@pytest.mark.parametrize("budget", range(20, 80, 7))
@pytest.mark.parametrize("policy", [UniformPolicy(n=8), CombinedPolicy(n=8, min_gain=0)])
def test_the_budget_is_never_exceeded_and_nearly_spent(policy, budget):
    known = predictions(0.9, 0.5, 0.5) if policy.needs_predictions else None
    limits = Limits(20, 6, 5, budget + 12 * policy.needs_predictions)
    solved = solve(PROMPTS, policy, known, same, Model(ANSWERS), limits)
    spent = sum(one.tokens + one.meta_tokens for one in solved)
    assert spent <= limits.budget * len(PROMPTS)
    if not policy.needs_predictions:
        # less than one more sample is left, and the samples are spread evenly
        assert limits.budget * len(PROMPTS) - spent < 20
        assert max(one.samples for one in solved) - min(one.samples for one in solved) <= 1


def test_a_budget_goes_where_it_helps():
    policy = CombinedPolicy(n=8, min_gain=0.0)
    limits = Limits(20, 6, 5, 45)
    easy, hard, _ = solve(PROMPTS, policy, predictions(1, 0.5, 0), same, Model(ANSWERS), limits)
    assert easy.samples < hard.samples and hard.response == "3"


def test_samples_are_as_long_as_predicted():
    model = Model(ANSWERS)
    solve(PROMPTS, CombinedPolicy(n=2), predictions(1, 0.5, 0), same, model, LIMITS)
    assert {each.max_tokens for each in model.asked} == {16}
    short = Limits(20, 6, 18)
    solve(PROMPTS, CombinedPolicy(n=2), predictions(1, 0.5, 0), same, model, short)
    assert {each.max_tokens for each in model.asked} == {16, 18}


def test_abstaining():
    solved = solve(PROMPTS, UniformPolicy(n=8), None, same, Model(ANSWERS), LIMITS, abstain=0.7)
    assert [one.response for one in solved] == ["2", None, None]
    assert [one.abstained for one in solved] == [False, True, False]
    assert solved[1].confidence == 5 / 8


def test_a_budget_below_one_sample_is_refused():
    Limits(20, 15, 5, 20).check_budget(0)
    Limits(20, 15, 5, 50).check_budget(2)
    with pytest.raises(ConfigError, match="budget=49 is below one sample per problem, 50 tokens"):
        Limits(20, 15, 5, 49).check_budget(2)


def test_a_model_that_does_not_know_the_form():
    texts = {p.id: ["I cannot tell."] * 4 for p in PROMPTS}
    with pytest.raises(TrainingError, match=r"0 of 12 could be read \(most often: no </meta>\)"):
        predict(PROMPTS, 4, 15, Model(texts), parse_meta)
    form = '</meta>{"math_notion": ["sum"], "pass_rate": %d, "solution_length": 8}'
    texts["easy"] = [form % 8, form % 4, "no", "no"]
    easy, hard, _ = predict(PROMPTS, 4, 15, Model(texts), parse_meta)
    assert (easy.pass_rate, easy.pass_rate_std, easy.length) == (0.75, 0.25, 8)
    assert (easy.parsed, easy.count, easy.tokens, easy.notions) == (2, 4, 40, {"sum": 2})
    assert (hard.pass_rate, hard.parsed) == (None, 0)
