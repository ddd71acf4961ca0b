import json
import math
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from builders import algorithm, group, plan, prediction, prompt
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.controller import Controller
from masa.algorithm.cutoffs import QuantileCutoff
from masa.errors import ConfigError

LONGEST = 64
SHORTEST = 8


def controller(margin=1.0, max_lost=1.0, min_parsed=0.5):
    own = {"margin": margin, "min_parsed": min_parsed}
    config = algorithm(
        response_limit=LONGEST,
        meta={"min_length": SHORTEST},
        cutoff={"enabled": True, "max_lost": max_lost, **own},
    )
    return Controller(config, seed=0)


def limit_of(predictions, **settings):
    made = controller(**settings)
    return made.decide(prompt(), predictions, made.phase(0)).cutoff_tokens


def limit(lengths, **settings):
    return limit_of([prediction(length=length) for length in lengths], **settings)


@given(
    st.lists(st.none() | st.integers(SHORTEST, LONGEST), min_size=1, max_size=8),
    st.sampled_from([0.5, 1.0, 1.5, 2.0]),
)
def test_against_the_formula(lengths, margin):
    parsed = [length for length in lengths if length is not None]
    expected = LONGEST
    if 2 * len(parsed) >= len(lengths):
        tokens = Fraction(sum(parsed), len(parsed)) * Fraction(margin)
        expected = max(SHORTEST, min(LONGEST, math.ceil(tokens)))
    # a mean that is no float may round up to the next token, and never down
    assert limit(lengths, margin=margin) - expected in (0, int(len(parsed) in (3, 5, 6, 7)))


def test_mean_times_margin_within_the_range():
    assert limit([20, 30], margin=2.0) == 50
    assert limit([20, 21]) == 21  # not below what was asked for
    assert limit([20, 21], margin=0.5) == 11
    assert limit([40, 40], margin=2.0) == LONGEST
    assert limit([10, 10], margin=0.5) == SHORTEST


def test_unparsed_predictions_do_not_shorten():
    assert limit([None] * 4) == LONGEST
    assert limit([10, None, None, None]) == LONGEST
    assert limit([10, 10, None, None]) == 10  # the mean is over those that parsed
    assert limit([10, None], min_parsed=0.75) == LONGEST
    assert limit([None], min_parsed=0.0) == LONGEST
    assert limit_of([]) == LONGEST
    # the pass rate may be unreadable
    assert limit_of([prediction(None, 10, None)] * 2) == 10


def test_a_cutoff_is_proved_by_the_measured_share_of_correct_answers_lost():
    measured = controller(max_lost=0.25)
    at_ten = plan(cutoff_tokens=10)
    kept = group((True, True, False), (9, 10, 60), decided=at_ten)
    half = group((True, True, False), (10, 11, 3), decided=at_ten)
    assert not measured.cutoff_proved
    measured.observe([kept])
    assert not measured.cutoff_proved
    measured.observe([half])
    assert measured.cutoff_kept.mean == 0.75  # one prompt one vote, wrong answers none
    assert measured.cutoff_proved
    measured.observe([half])
    assert not measured.cutoff_proved


def test_a_prompt_without_a_correct_answer_says_nothing():
    measured = controller(max_lost=0.25)
    measured.observe([group((False, False), (60, 60), decided=plan(cutoff_tokens=10))] * 4)
    assert not measured.state_dict()["cutoff_kept"]["verdicts"]


def test_without_a_requirement_it_needs_no_proof():
    assert controller().cutoff_proved


def test_state_round_trip():
    measured, other = controller(max_lost=0.25), controller(max_lost=0.25)
    measured.observe([group((True, True), (5, 20), decided=plan(cutoff_tokens=10))] * 3)
    state = measured.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert state["cutoff_kept"] == {"verdicts": [0.5] * 3}
    assert other.cutoff_proved == measured.cutoff_proved is False


def outcomes(rng, count):
    """Groups whose right answers take a lognormal multiple of the predicted length."""
    for _ in range(count):
        predicted = rng.randint(20, 80)
        lengths = [max(1, round(predicted * rng.lognormvariate(-0.2, 0.3))) for _ in range(8)]
        correct = [rng.random() < 0.5 for _ in range(8)]
        # what is wrong is longer, and must not count
        lengths = [n if right else 10 * n for n, right in zip(lengths, correct, strict=True)]
        yield group(correct, lengths, predictions=[prediction(4, predicted)] * 2)


def test_a_quantile_cutoff_loses_the_share_asked_for_and_saves_the_rest():
    rng, cutoff = random.Random(0), QuantileCutoff(lost=0.05)
    cutoff.observe(list(outcomes(rng, 400)))
    lost, right, saved, total = 0, 0, 0, 0
    for g in outcomes(rng, 2000):
        limit = cutoff.tokens(g.prompt, g.predictions)
        for n, is_right in zip(g.lengths, g.correct, strict=True):
            lost += is_right and n > limit
            right += is_right
            saved += max(0, n - limit)
            total += n
    assert lost / right == pytest.approx(0.05, abs=0.015)
    assert saved / total > 0.7


def test_a_quantile_cutoff_knows_nothing_before_its_evidence_and_only_from_what_ran_in_full():
    rng, cutoff = random.Random(0), QuantileCutoff(min_evidence=64, window=128)
    asked = [prediction(4, 30)]
    cut = plan(cutoff_active=True)
    cutoff.observe([replace(g, plan=cut) for g in outcomes(rng, 400)])
    assert cutoff.tokens(prompt("a"), asked) is None
    cutoff.observe(list(outcomes(rng, 40)))
    limit = cutoff.tokens(prompt("a"), asked)
    assert limit is not None and cutoff.tokens(prompt("a"), [prediction(4, None)]) is None
    again = QuantileCutoff(min_evidence=64, window=128)
    again.load_state_dict(json.loads(json.dumps(cutoff.state_dict())))
    assert again.tokens(prompt("a"), asked) == limit


@pytest.mark.parametrize(
    "settings", [{"lost": 0}, {"lost": 1}, {"min_parsed": 2}, {"window": 10, "min_evidence": 11}]
)
def test_impossible_settings_of_a_quantile_cutoff_are_refused(settings):
    with pytest.raises(ConfigError, match=list(settings)[-1]):
        QuantileCutoff(**settings)
