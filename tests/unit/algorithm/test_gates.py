from fractions import Fraction

import pytest
from builders import algorithm, group, plan, prediction, prompt
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.controller import Controller
from masa.algorithm.gates import PredictionGate

PROMPT = prompt()


def skips(rates, **settings):
    """The decision on these predicted eighths; None did not parse."""
    return PredictionGate(**settings).skips(PROMPT, [prediction(rate) for rate in rates], 0.5)


def controller(min_precision=0.0):
    return Controller(algorithm(gate={"min_precision": min_precision}), seed=0)


@given(
    st.lists(st.none() | st.sampled_from([0, 0, 0, 1, 4, 7, 8, 8, 8]), min_size=1, max_size=16),
    st.sampled_from([0.0, 0.05, 0.1, 0.5]),
    st.sampled_from([0.0, 1 / 16, 0.25, 1.0]),
    st.sampled_from([0.0, 0.5, 0.75, 1.0]),
)
def test_against_the_rule(rates, sigma, tolerance, min_parsed):
    parsed = [Fraction(rate, 8) for rate in rates if rate is not None]
    expected = False
    if parsed and len(parsed) >= Fraction(min_parsed) * len(rates):
        mean = sum(parsed) / len(parsed)
        variance = sum((rate - mean) ** 2 for rate in parsed) / len(parsed)
        agree = variance < Fraction(sigma) ** 2
        extreme = mean <= Fraction(tolerance) or mean >= 1 - Fraction(tolerance)
        expected = agree and extreme
    assert skips(rates, sigma=sigma, tolerance=tolerance, min_parsed=min_parsed) == expected


def test_agreement_on_an_extreme_is_skipped_and_nothing_else():
    assert skips([0] * 8)
    assert skips([8] * 8)
    assert not skips([4] * 8)
    assert not skips([0, 8] * 4)
    # unanimous but for one: mean 7/64, std 0.29
    assert not skips([0] * 7 + [7])


def test_half_a_unit_is_the_edge():
    assert skips([0, 1] * 4, sigma=0.1)  # mean exactly 1/16, std 1/16
    assert skips([8, 7] * 4, sigma=0.1)
    assert not skips([0, 1, 1, 1], sigma=0.1)
    assert not skips([1] * 8)
    assert not skips([7] * 8)


def test_the_standard_deviation_must_be_below_sigma():
    assert not skips([0, 1] * 4, sigma=1 / 16)  # std exactly 1/16
    assert skips([0, 1] * 4, sigma=1 / 16 + 1e-9)
    assert not skips([0] * 8, sigma=0.0)


def test_at_least_half_must_have_parsed():
    assert skips([0] * 4 + [None] * 4)
    assert not skips([0] * 3 + [None] * 5)
    assert not skips([0] * 2 + [None] * 3)
    assert skips([0] * 3 + [None] * 2)
    assert not skips([None] * 8)
    assert not skips([None] * 8, min_parsed=0.0)
    assert not skips([])


def test_other_unreadable_fields_do_not_matter():
    assert PredictionGate().skips(PROMPT, [prediction(0, None, None)] * 8, 0.5)
    assert not PredictionGate().skips(PROMPT, [prediction(None, 10, ())] * 8, 0.5)


def test_a_gate_is_proved_by_measured_precision():
    measured = controller(min_precision=0.75)
    skipped = plan(would_skip=True)
    constant = group((False, False), decided=skipped)
    mixed = group((True, False), decided=skipped)
    assert not measured.gate_proved  # no proof yet
    measured.observe([constant])
    assert not measured.gate_proved  # one outcome is too few
    measured.observe([constant, constant, mixed])
    assert measured.gate_precision.mean == 0.75
    assert measured.gate_proved
    measured.observe([mixed])
    assert measured.gate_precision.mean == 0.6
    assert not measured.gate_proved


def test_only_its_own_decisions_are_scored():
    measured = controller(min_precision=0.5)
    measured.observe([group((True, False)), group((True, True))])  # neither was to be skipped
    assert not measured.gate_precision.state_dict()["verdicts"]


def test_without_a_requirement_it_needs_no_proof():
    assert controller().gate_proved


def test_state_round_trip():
    measured, other = controller(min_precision=0.75), controller(min_precision=0.75)
    measured.observe([group((False, False), decided=plan(would_skip=True))] * 3)
    state = measured.state_dict()
    other.load_state_dict(state)
    assert other.gate_proved == measured.gate_proved is True
    assert other.state_dict() == state
    assert state["gate_precision"] == {"verdicts": [1.0] * 3}


@pytest.mark.parametrize("correct", [(True, True), (False, False)])
def test_all_right_and_all_wrong_are_both_nothing_to_learn_from(correct):
    measured = controller(min_precision=1.0)
    measured.observe([group(correct, decided=plan(would_skip=True))] * 2)
    assert measured.gate_proved
