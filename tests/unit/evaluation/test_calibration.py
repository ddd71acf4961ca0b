"""The reliability curve, and precision and recall of a gate with their intervals."""

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest

from masa.evaluation.calibration import (
    chance_of_mixed,
    discrimination,
    expected_calibration_error,
    gating,
    mixed_calibration,
    reliability,
)


def test_calibration_error_in_closed_form():
    pairs = [(0.5, 0.5), (0.5, 0.0), (1.0, 0.75), (0.0, 0.0)]
    curve = reliability(pairs)
    assert [point["questions"] for point in curve] == [1, 2, 1]
    assert curve[1] == {"predicted": 0.5, "actual": 0.25, "questions": 2}
    assert expected_calibration_error(curve) == pytest.approx((2 * 0.25 + 0.25) / 4)
    assert math.isnan(expected_calibration_error([]))
    perfect = reliability([(i / 8, i / 8) for i in range(9)])
    assert expected_calibration_error(perfect) == 0 and len(perfect) == 9


def test_questions_of_one_context_alone_have_no_interval():
    verdicts = [(1, 2), (0, 2), (2, 2)]
    for estimate in discrimination([0.5, 0.1, 0.9], verdicts, ["passage"] * 3):
        assert math.isnan(estimate.low) and not math.isnan(estimate.value)


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
    # that every resample has none either makes nothing certain
    assert all(map(math.isnan, gate["f1"][1:]))


def samples(verdicts, predicted):
    """Solutions and predictions of questions, as saved."""
    solutions = [
        {"id": f"q{i}", "cluster": f"c{i // 2}", "correct": correct}
        for i, of_question in enumerate(verdicts)
        for correct in of_question
    ]
    predictions = [
        {"id": f"q{i}", "predicted_mixed": q} for i, qs in enumerate(predicted) for q in qs
    ]
    return pd.DataFrame(solutions), pd.DataFrame(predictions)


@pytest.mark.parametrize(("n", "G"), [(5, 2), (6, 3), (6, 6)])
def test_the_field_mixed_is_judged_by_all_groups_of_G_solutions(n, G):
    rng = random.Random(n)
    verdicts = [[rng.random() < rate for _ in range(n)] for rate in (0, 0.1, 0.5, 0.9, 1, 0.6)]
    predicted = [[rng.random() for _ in range(3)] for _ in verdicts]
    found = mixed_calibration(*samples(verdicts, predicted), G, min_mixed=0.5)
    q = [float(np.mean(qs)) for qs in predicted]
    mixed = [[len(set(g)) == 2 for g in itertools.combinations(v, G)] for v in verdicts]
    chances = [float(np.mean(of_question)) for of_question in mixed]
    for of_question, chance in zip(verdicts, chances, strict=True):
        assert chance_of_mixed(sum(of_question), n, G) == pytest.approx(chance)
    errors = [np.mean([(p - m) ** 2 for m in ms]) for p, ms in zip(q, mixed, strict=True)]
    assert found["brier"][0] == pytest.approx(np.mean(errors))
    assert found["corr"][0] == pytest.approx(np.corrcoef(q, chances)[0, 1])
    assert (found["predicted"], found["true"]) == pytest.approx((np.mean(q), np.mean(chances)))
    skipped = [1 - chance for chance, p in zip(chances, q, strict=True) if p < 0.5]
    assert 0 < len(skipped) < 6
    assert found["gate"]["precision"][0] == pytest.approx(np.mean(skipped))
    assert found["gate"]["recall"][0] == pytest.approx(sum(skipped) / (6 - sum(chances)))


def test_questions_without_a_readable_field_are_left_out():
    verdicts, predicted = [(True, False)] * 3, [(1.0, None), (None, None), (0.9, 0.7)]
    found = mixed_calibration(*samples(verdicts, predicted), 2, min_mixed=0.12)
    assert found["brier"][0] == pytest.approx((0 + 0.2**2) / 2)
    assert (found["predicted"], found["true"]) == (pytest.approx(0.9), 1)
    assert found["gate"]["would_skip"] == 0
    none = mixed_calibration(*samples(verdicts, [(None,)] * 3), 2, min_mixed=0.12)
    assert math.isnan(none["brier"][0]) and math.isnan(none["true"])
