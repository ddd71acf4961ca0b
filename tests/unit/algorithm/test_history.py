import pytest
from builders import algorithm, group, plan, prediction, prompt

from masa.algorithm.gates import build_gate
from masa.algorithm.history import HistoryGate
from masa.config import ControlConfig, GateConfig
from masa.errors import ConfigError

RIGHT, MIXED = (True, True), (True, False)


def gate(kind, **settings):
    config = GateConfig(enabled=True, kind=kind, **settings)
    return build_gate(config, ControlConfig(window=64, min_evidence=4), seed=0)


def seen(name, correct, rate=None, **decided):
    predictions = () if rate is None else (prediction(rate),) * 4
    return group(correct, prompt=prompt(name), predictions=predictions, decided=plan(**decided))


def skipped_share(asked, name):
    return sum(asked.skips(prompt(name), (), step) for step in range(4000)) / 4000


@pytest.mark.parametrize("outcomes, expected", [
    ([], 0.0),
    ([MIXED], 0.0),
    ([RIGHT], 0.5),
    ([RIGHT, (False, False)], 0.75),
    ([RIGHT, RIGHT, MIXED], 0.0),
    ([MIXED, RIGHT, RIGHT, RIGHT], 0.875),
])  # fmt: skip
def test_history_skips_with_one_minus_r_to_the_streak(outcomes, expected):
    asked = gate("history", revisit=0.5)
    for correct in outcomes:
        asked.observe([seen("p", correct)])
    assert skipped_share(asked, "p") == pytest.approx(expected, abs=0.03)
    assert not skipped_share(asked, "another")


def test_history_forgets_nothing_over_a_skip_and_draws_anew_at_each_step():
    asked = gate("history")
    asked.observe([seen("p", RIGHT)])
    asked.observe([seen("p", (), would_skip=True, gate_active=True, max_tokens=0)])
    assert asked.streaks[prompt("p")] == 1
    verdicts = [asked.skips(prompt("p"), (), step) for step in range(64)]
    assert {True, False} == set(verdicts)
    assert verdicts == [asked.skips(prompt("p"), (), step) for step in range(64)]


def test_combined_learns_what_a_prediction_means():
    asked = gate("combined", min_posterior=0.8)
    says_seven, says_four = (prediction(7),) * 4, (prediction(4),) * 4
    assert not asked.skips(prompt("new"), says_seven, 1)  # nothing is known yet
    asked.observe([seen(f"a{i}", RIGHT, 7) for i in range(12)])
    asked.observe([seen(f"b{i}", MIXED if i % 2 else RIGHT, 4) for i in range(12)])
    assert asked.skips(prompt("new"), says_seven, 1)
    assert not asked.skips(prompt("new"), says_four, 1)
    assert not asked.skips(prompt("new"), (prediction(6),) * 4, 1)  # never seen
    assert not asked.skips(prompt("new"), (prediction(None),) * 4, 1)


def test_combined_weighs_a_prompts_own_past():
    asked = gate("combined", min_posterior=0.8)
    for _ in range(4):
        asked.observe([seen(f"same{i}", RIGHT, 4) for i in range(6)])
        asked.observe([seen(f"varied{i}", MIXED, 4) for i in range(6)])
    says_four = (prediction(4),) * 4
    assert asked.skips(prompt("same0"), says_four, 1)
    assert not asked.skips(prompt("varied0"), says_four, 1)
    assert not asked.skips(prompt("new"), says_four, 1)


def test_only_unbiased_truth_counts():
    asked = gate("combined")
    chosen = [seen(f"a{i}", RIGHT, 7, gate_active=True) for i in range(12)]
    asked.observe(chosen)
    assert not asked.state_dict()["known"]
    asked.observe([seen("b", RIGHT, 7, gate_active=True, audited=True)])
    assert asked.state_dict()["known"] == [[7, None, True]]


@pytest.mark.parametrize("kind", ["history", "combined"])
def test_state_round_trip(kind):
    asked, other = gate(kind), gate(kind)
    for _ in range(2):
        asked.observe([seen(f"a{i}", RIGHT, 7, would_skip=True) for i in range(16)])
    state = asked.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state
    asks = [(prompt(f"a{i}"), (prediction(7),) * 4, step) for i in range(16) for step in range(4)]
    verdicts = [asked.skips(*ask) for ask in asks]
    assert verdicts == [other.skips(*ask) for ask in asks]
    assert any(verdicts)


def test_history_needs_no_predictions_and_the_others_do():
    config = algorithm(meta={"group_size": 0}, gate={"enabled": True, "kind": "history"})
    assert isinstance(build_gate(config.gate, config.control, 0), HistoryGate)
    with pytest.raises(ConfigError, match="needs predictions"):
        algorithm(meta={"group_size": 0}, gate={"enabled": True, "kind": "combined"})
    with pytest.raises(ConfigError, match="gate.kind"):
        GateConfig(kind="luck")
