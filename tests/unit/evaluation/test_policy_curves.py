"""Policies replayed on saved samples: what is spent and what comes of it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from masa.evaluation.calibration import discrimination
from masa.evaluation.policy_curves import (
    AnsweredQuestion,
    Curve,
    _bounds,
    accuracy_at,
    area_under_risk_coverage,
    compare_curves,
    draw_curve,
    oracle_curve,
    reference_setting,
    replay,
    risk_coverage,
    selective,
    tokens_for,
)
from masa.evaluation.policy_scores import _by_question, compare_policies, comparison_table
from masa.inference.policies import CombinedPolicy, UniformPolicy
from masa.inference.predictions import summarise
from masa.inference.solving import Limits
from masa.types import MetaPrediction

UNIFORM = {"_target_": "masa.inference.policies.UniformPolicy"}
LIMITS = Limits(max_tokens=100, meta_max_tokens=20, min_length=4)
COMBINED = {"_target_": "masa.inference.policies.CombinedPolicy"}


def question(name, answers, correct, rate=None, tokens=10, length=10):
    """`correct` is the place of the right answer."""
    prediction = None if rate is None else summarise([MetaPrediction(rate, length, ())], 5)
    verdicts = [answer == correct for answer in answers]
    return AnsweredQuestion(name, name, answers, [tokens] * len(answers), verdicts, prediction)


def drawn(count, n=16, seed=0, known=True):
    """Questions of which a third is easy, a third mixed and a third hopeless."""
    rng = np.random.default_rng(seed)
    questions = []
    for i in range(count):
        p = (0.98, 0.5, 0.02)[i % 3]
        answers = [0 if rng.random() < p else int(rng.integers(1, 9)) for _ in range(n)]
        places = list(dict.fromkeys(answers))
        right = places.index(0) if 0 in places else len(places)
        rate = p if known else float(rng.random())
        questions.append(question(f"q{i}", [places.index(a) for a in answers], right, rate))
    return questions


def test_uniform_with_all_samples_is_the_vote():
    right = question("a", [0, 1, 1, 0, 1, 2], 1)
    outcome = replay(UniformPolicy(n=6), right, LIMITS)
    assert outcome.accuracy == 1 and outcome.tokens == 60
    assert set(outcome.confidences) == {3 / 6}
    silent = question("b", [None, None], None)
    outcome = replay(UniformPolicy(n=2), silent, LIMITS)
    assert outcome.accuracy == 0 and outcome.tokens == 20 and set(outcome.confidences) == {0}


def test_one_sample_is_the_pass_rate_over_many_orders():
    mixed = question("a", [0, 1, 0, 2], 0)
    assert replay(UniformPolicy(n=1), mixed, LIMITS, orders=2000).accuracy == pytest.approx(
        0.5, abs=0.05
    )


def test_predictions_cost_and_limit():
    easy = question("a", [0] * 8, 0, rate=1.0)
    assert replay(CombinedPolicy(n=8, min_gain=0.05), easy, LIMITS).tokens == 5 + 10
    # each sample is stopped at twice the predicted length: no answer, and the cost up to there
    long = question("a", [0] * 4, 0, rate=1.0, tokens=50, length=10)
    outcome = replay(CombinedPolicy(n=4, min_gain=0.5), long, LIMITS)
    assert outcome.accuracy == 0 and outcome.tokens % 20 == 5


def test_where_curves_are_read():
    tokens, accuracy = np.array([10.0, 20.0, 40.0]), np.array([0.2, 0.4, 0.3])
    assert accuracy_at(tokens, accuracy, 15) == pytest.approx(0.3)
    # more may be spent to no good, but need not be
    assert accuracy_at(tokens, accuracy, 40) == accuracy_at(tokens, accuracy, 99) == 0.4
    assert math.isnan(accuracy_at(tokens, accuracy, 9))
    assert tokens_for(tokens, accuracy, 0.3) == pytest.approx(15)
    assert tokens_for(tokens, accuracy, 0.1) == 10
    assert tokens_for(tokens, accuracy, 0.5) == math.inf


def test_a_policy_beside_itself_differs_in_nothing():
    questions = drawn(30)
    curve = draw_curve(UNIFORM, questions, 16, LIMITS)
    at = reference_setting(curve)
    assert curve.settings[at] == {"n": 8}
    clusters = [q.cluster for q in questions]
    compared = compare_curves(curve, curve, at, clusters)
    difference, ratio = compared["accuracy_difference"], compared["tokens_ratio"]
    for estimate, same in ((difference, 0), (ratio, 1)):
        assert estimate.low == estimate.value == estimate.high == same


def test_knowing_the_pass_rate_saves_and_guessing_it_does_not_cost_the_answers():
    questions = drawn(90)
    uniform = draw_curve(UNIFORM, questions, 16, LIMITS)
    at, clusters = reference_setting(uniform), [q.cluster for q in questions]
    oracle = compare_curves(oracle_curve(questions, 16, LIMITS), uniform, at, clusters)
    assert oracle["tokens_ratio"].high < 0.75 and oracle["accuracy_difference"].low >= 0
    combined = compare_curves(draw_curve(COMBINED, questions, 16, LIMITS), uniform, at, clusters)
    assert combined["tokens_ratio"].value < 0.6
    assert combined["accuracy_difference"].value > -0.02
    blind = draw_curve(COMBINED, drawn(90, known=False), 16, LIMITS)
    assert compare_curves(blind, uniform, at, clusters)["tokens_ratio"].value > 0.5


def replayed(questions, **more):
    uniform = draw_curve(UNIFORM, questions, 16, LIMITS)
    return _by_question({"uniform": uniform} | more, questions)


def test_two_models_by_policy():
    questions = drawn(60)
    first = replayed(questions, oracle=oracle_curve(questions, 16, LIMITS))
    tokens = 8 * 10
    same = compare_policies(first, first, tokens)
    assert set(same) == {"uniform", "oracle"}
    assert same["uniform"]["tokens"] == tokens
    for score in same.values():
        assert score["accuracy_difference"] == {"value": 0, "low": 0, "high": 0}
        assert score["tokens_ratio"] == {"value": 1, "low": 1, "high": 1}
    # of other questions only, in another order, and all of them right: no policy in common but one
    better = [question(q.id, [0] * 16, 0) for q in reversed(questions[1:])]
    better.append(question("new", [0, 1] * 8, 5))
    compared = compare_policies(first, replayed(better), tokens)
    assert set(compared) == {"uniform"}
    own = draw_curve(UNIFORM, questions[1:], 16, LIMITS)
    accuracy = own.accuracy[:, reference_setting(own)].mean()
    assert compared["uniform"]["accuracy"] == pytest.approx(accuracy)
    assert compared["uniform"]["accuracy_difference"]["value"] == pytest.approx(1 - accuracy)
    assert compared["uniform"]["accuracy_difference"]["low"] > 0
    assert compared["uniform"]["tokens_ratio"]["high"] < 0.5
    area = {"value": 0.125, "low": None, "high": None}
    compared["uniform"]["aurc"] = [area, None]
    table, meaning = comparison_table("task", compared)
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")]
    assert cells[1:4] == ["uniform", "80", f"{accuracy:.3f}"] and "B - A" in table
    assert cells[6].startswith("0.125") and cells[7] == "–"
    assert meaning.startswith("task: policies of solve")


def test_what_is_not_reached_is_infinite_or_missing():
    one = Curve([{}], np.array([[0.0], [1.0]]), np.array([[50.0], [50.0]]))
    better = Curve([{}], np.array([[1.0], [1.0]]), np.array([[10.0], [10.0]]))
    compared = compare_curves(one, better, 0, ["a", "b"])
    assert compared["tokens_ratio"].value == math.inf
    assert math.isnan(compared["accuracy_difference"].value)


def test_risk_and_coverage():
    confidence, wrong = np.array([0.9, 0.8, 0.8, 0.1]), np.array([0.0, 0.0, 1.0, 1.0])
    coverage, risk = risk_coverage(confidence, wrong)
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 3, 1 / 2])
    # a confidence that says nothing has the plain error rate, a perfect one is best
    constant = area_under_risk_coverage(np.ones(1000), np.arange(1000) % 4 == 0)
    assert constant == pytest.approx(0.25, abs=1e-3)
    many = (np.arange(1000) % 4 == 0).astype(float)
    best = area_under_risk_coverage(1 - many, many)
    # of the last quarter x in [.75, 1]: the integral of (x - .75) / x
    assert best == pytest.approx(0.25 - 0.75 * math.log(1 / 0.75), abs=1e-3)
    assert area_under_risk_coverage(many, many) > 0.5


def test_one_context_has_no_interval():
    alone = [replace(question, cluster="c") for question in drawn(20)]
    area, _ = selective(UniformPolicy(n=2), alone, LIMITS)
    curve = draw_curve(UNIFORM, alone, 4, LIMITS)
    estimates = [area, *compare_curves(curve, curve, 0, ["c"] * 20).values()]
    assert all(math.isnan(e.low) and math.isnan(e.high) for e in estimates)
    assert not any(math.isnan(e.value) for e in estimates)


def test_selective_answering_of_a_policy():
    area, curve = selective(CombinedPolicy(n=8), drawn(60), LIMITS)
    plain, _ = selective(UniformPolicy(n=1), drawn(60), LIMITS)
    assert area.low <= area.value <= area.high
    assert area.value < plain.value
    assert curve[-1]["coverage"] == 1 and curve[0]["risk"] <= curve[-1]["risk"]


def test_brier_and_auroc_of_predictions():
    rng = np.random.default_rng(0)
    p = rng.integers(0, 5, 40) / 4
    right = rng.binomial(6, p)
    brier, auroc = discrimination(list(p), [(int(r), 6) for r in right], range(40))
    verdicts = np.array([[i < r for i in range(6)] for r in right], float)
    each = np.repeat(p, 6).reshape(40, 6)
    assert brier.value == pytest.approx(((each - verdicts) ** 2).mean())
    pairs = [(a > b) + (a == b) / 2 for a in each[verdicts == 1] for b in each[verdicts == 0]]
    assert auroc.value == pytest.approx(np.mean(pairs))
    assert auroc.low < auroc.value < auroc.high <= 1
    assert math.isnan(discrimination([0.5, 0.6], [(2, 2), (3, 3)], list("ab"))[1].value)


@pytest.mark.parametrize("known, bounds", [(98, True), (90, False)])
def test_bounds_leave_out_few_missing_draws_and_no_more(known, bounds):
    draws = np.concatenate([np.arange(known, dtype=float), np.full(100 - known, np.nan)])
    assert math.isnan(_bounds(draws)[0]) is not bounds
    assert _bounds(np.array([1.0] * 50 + [np.inf] * 50)) == (1.0, math.inf)
