"""The reliability curve, and precision and recall of a gate with their intervals."""

import math

import pytest

from masa.evaluation.calibration import expected_calibration_error, gating, reliability


def test_calibration_error_in_closed_form():
    pairs = [(0.5, 0.5), (0.5, 0.0), (1.0, 0.75), (0.0, 0.0)]
    curve = reliability(pairs)
    assert [point["questions"] for point in curve] == [1, 2, 1]
    assert curve[1] == {"predicted": 0.5, "actual": 0.25, "questions": 2}
    assert expected_calibration_error(curve) == pytest.approx((2 * 0.25 + 0.25) / 4)
    assert math.isnan(expected_calibration_error([]))
    perfect = reliability([(i / 8, i / 8) for i in range(9)])
    assert expected_calibration_error(perfect) == 0 and len(perfect) == 9


def test_questions_of_one_context_are_one_piece_of_evidence_about_the_gate():
    gated = [True] * 8 + [False] * 4
    constant = [True, True, True, True, True, True, False, False, True, False, False, False]
    alone = gating(gated, constant, range(12))
    shared = gating(gated, constant, [i // 2 for i in range(12)])
    for part in ("precision", "recall", "f1"):
        (value, low, high), (same, lower, higher) = alone[part], shared[part]
        assert value == same and 0 < lower < low < value < high <= higher <= 1, part
    assert (alone["precision"][0], alone["recall"][0]) == (6 / 8, 6 / 7)
    assert alone["f1"][0] == pytest.approx(2 * 6 / (8 + 7))
    assert (alone["would_skip"], alone["zero_variance"]) == (8 / 12, 7 / 12)


def test_a_gate_that_skips_nothing_has_no_precision():
    gate = gating([False, False], [True, False], ["a", "b"])
    assert math.isnan(gate["precision"][0]) and gate["recall"][0] == 0 == gate["f1"][0]
