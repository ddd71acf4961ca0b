import pytest
from builders import algorithm, group, plan, prediction, prompt

from masa.algorithm.controller import Controller
from masa.algorithm.gates import CombinedGate, HistoryGate
from masa.errors import ConfigError

RIGHT, MIXED = (True, True), (True, False)


DRAWS = [(i + 0.5) / 64 for i in range(64)]


def combined(**settings):
    return CombinedGate(min_evidence=4, **settings)


def seen(name, correct, rate=None, **decided):
    predictions = () if rate is None else (prediction(rate),) * 4
    return group(correct, prompt=prompt(name), predictions=predictions, decided=plan(**decided))


def skipped_share(gate, name):
    return sum(gate.skips(prompt(name), (), draw) for draw in DRAWS) / len(DRAWS)


@pytest.mark.parametrize("outcomes, expected", [
    ([], 0.0),
    ([MIXED], 0.0),
    ([RIGHT], 0.5),
    ([RIGHT, (False, False)], 0.75),
    ([RIGHT, RIGHT, MIXED], 0.0),
    ([MIXED, RIGHT, RIGHT, RIGHT], 0.875),
])  # fmt: skip
def test_history_skips_with_one_minus_r_to_the_streak(outcomes, expected):
    gate = HistoryGate(revisit=0.5)
    for correct in outcomes:
        gate.observe([seen("p", correct)])
    assert skipped_share(gate, "p") == expected
    assert not skipped_share(gate, "another")


def test_history_forgets_nothing_over_a_skip():
    gate = HistoryGate()
    gate.observe([seen("p", RIGHT)])
    gate.observe([seen("p", (), would_skip=True, gate_active=True, max_tokens=0)])
    assert gate.streaks["p"] == 1
    assert {gate.skips(prompt("p"), (), draw) for draw in DRAWS} == {True, False}


def test_combined_learns_what_a_prediction_means():
    gate = combined(min_posterior=0.8)
    says_seven, says_four = (prediction(7),) * 4, (prediction(4),) * 4
    assert not gate.skips(prompt("new"), says_seven, 0.5)  # nothing is known yet
    gate.observe([seen(f"a{i}", RIGHT, 7) for i in range(12)])
    gate.observe([seen(f"b{i}", MIXED if i % 2 else RIGHT, 4) for i in range(12)])
    assert gate.skips(prompt("new"), says_seven, 0.5)
    assert not gate.skips(prompt("new"), says_four, 0.5)
    assert not gate.skips(prompt("new"), (prediction(6),) * 4, 0.5)  # never seen
    assert not gate.skips(prompt("new"), (prediction(None),) * 4, 0.5)


def test_combined_weighs_a_prompts_own_past():
    gate = combined(min_posterior=0.8)
    for _ in range(4):
        gate.observe([seen(f"same{i}", RIGHT, 4) for i in range(6)])
        gate.observe([seen(f"varied{i}", MIXED, 4) for i in range(6)])
    says_four = (prediction(4),) * 4
    assert gate.skips(prompt("same0"), says_four, 0.5)
    assert not gate.skips(prompt("varied0"), says_four, 0.5)
    assert not gate.skips(prompt("new"), says_four, 0.5)


def test_only_unbiased_truth_counts():
    gate = combined()
    chosen = [seen(f"a{i}", RIGHT, 7, gate_active=True) for i in range(12)]
    gate.observe(chosen)
    assert not gate.state_dict()["outcomes"]
    gate.observe([seen("b", RIGHT, 7, gate_active=True, audited=True)])
    assert gate.state_dict()["outcomes"] == [[7, None, True]]


@pytest.mark.parametrize("build", [HistoryGate, combined])
def test_state_round_trip(build):
    gate, other = build(), build()
    for _ in range(2):
        gate.observe([seen(f"a{i}", RIGHT, 7, would_skip=True) for i in range(16)])
    state = gate.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state
    calls = [(prompt(f"a{i}"), (prediction(7),) * 4, d) for i in range(16) for d in DRAWS]
    decisions = [gate.skips(*call) for call in calls]
    assert decisions == [other.skips(*call) for call in calls]
    assert any(decisions)


def test_history_needs_no_predictions_and_the_others_do():
    def built(name):
        node = {"enabled": True, "_target_": f"masa.algorithm.gates.{name}"}
        return Controller(algorithm(meta={"enabled": False}, gate=node), seed=0)

    assert isinstance(built("HistoryGate").gate, HistoryGate)
    with pytest.raises(ConfigError, match="gate.enabled needs predictions"):
        built("CombinedGate")
