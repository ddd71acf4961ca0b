import math
import random

import numpy as np
import pytest
from builders import algorithm, completion, group, plan, prompt
from pools import families, kept, knowing, p_mixed, play, useless

from masa.algorithm.controller import Controller
from masa.algorithm.value_gate import Calibration, Forecast, ValueGate, best_threshold
from masa.errors import ConfigError
from masa.types import MetaPrediction, Prompt

G = 8
PREDICTIONS = {
    "with a probability": knowing(1.0, G),
    "by pass rates": knowing(0.5, G, mixed=False),
}


def controller(min_gain=0.0, **settings):
    target = "masa.algorithm.value_gate.ValueGate"
    node = {
        "enabled": True, "_target_": target, "group_size": G, "min_gain": min_gain,
        "min_kept": 0.9, **settings,
    }  # fmt: skip
    config = algorithm(
        group_size=G, response_limit=400, gate=node,
        control={"audit_fraction": 0.05, "start_step": 5, "window": 64, "min_evidence": 16},
    )  # fmt: skip
    return Controller(config, seed=0)


def pool(step):
    return families()


def joined(steps):
    return [rolled for step in steps for rolled in step]


@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
def test_keeps_the_mixed_at_half_of_the_tokens(predict):
    """Over seeds, from rollout 15 on, where predictions are right but for noise."""
    shares = [kept(joined(list(play(controller(), pool, 60, predict, seed=s))[14:]))
              for s in range(3)]  # fmt: skip
    signal, tokens = np.mean(shares, axis=0)
    assert signal >= 0.9 and tokens <= 0.5


def test_the_past_of_like_prompts_stands_in_for_predictions():
    alone = kept(joined(list(play(controller(), pool, 60, useless))[14:]))
    shares = [kept(joined(list(play(controller(key=["family"]), pool, 60, useless, seed=s))[14:]))
              for s in range(3)]  # fmt: skip
    signal, tokens = np.mean(shares, axis=0)
    assert tokens < 0.3 < 0.7 < alone[1]
    assert signal > 0.85


def test_a_prompts_own_past_joins_in():
    steps = list(play(controller(), pool, 60, useless, fresh=False))[20:]
    signal, tokens = kept(joined(steps))
    assert signal > 0.85 and tokens < 0.5


def active(steps):
    return np.mean([r.group.plan.gate_active for r in joined(steps)])


def test_it_acts_where_it_pays_and_not_where_predictions_are_useless():
    paid = active(list(play(controller(min_gain=1.0), pool, 40, knowing(0.5, G)))[10:])
    useless_ones = [list(play(controller(min_gain=1.0), pool, 40, useless, seed=s))[10:]
                    for s in range(3)]  # fmt: skip
    assert paid > 0.9
    assert np.mean([active(steps) for steps in useless_ones]) < 0.2
    assert active(list(play(controller(), pool, 40, useless))[10:]) == 1


def test_resumed_it_decides_as_before():
    predict = knowing(0.5, G)
    whole = list(play(controller(1.0), pool, 20, predict))
    first, second = controller(1.0), controller(1.0)
    list(play(first, pool, 12, predict))
    second.load_state_dict(first.state_dict())
    again = joined(play(second, pool, 20, predict, first=13))
    assert [r.group.plan for r in again] == [r.group.plan for r in joined(whole[12:])]
    assert 0 < sum(r.group.skipped for r in again) < len(again)


def test_nothing_is_skipped_before_enough_is_known():
    gate = ValueGate(min_evidence=4)
    sure = (MetaPrediction(0.0, 10, (), mixed=0.0),) * 4
    gate.observe([group((True, False), predictions=sure)] * 3)
    assert not gate.skips(prompt(), sure, 0.5)
    assert not gate.skips(prompt(), (), 0.5)
    assert not gate.skips(prompt(), (MetaPrediction(error="no JSON"),) * 4, 0.5)


def test_only_groups_in_full_are_evidence():
    gate = ValueGate()
    says = (MetaPrediction(0.5, 10, (), mixed=0.5),) * 4
    cut = plan(enforced=True)
    audited = plan(enforced=True, audited=True, full_probability=0.05)
    gate.observe([group((True, False), predictions=says, decided=cut)])
    gate.observe([group((True, False), predictions=says, decided=audited)])
    assert [k.weight for k in gate.known] == [20]


def forecasts(rng, n):
    """Over-confident by a factor of two on the log-odds, and half as long as they say."""
    for _ in range(n):
        odds = rng.gauss(-1, 1.5)
        says = 1 / (1 + math.exp(-2 * odds))
        tokens = rng.choice([40, 400])
        yield Forecast(says, 0.5, 2 * tokens, 0, 0), 1 / (1 + math.exp(-odds)), tokens


def test_calibration_finds_what_predictions_mean():
    rng = random.Random(0)
    known = list(forecasts(rng, 2000))
    mixed = np.array([rng.random() < chance for _, chance, _ in known], float)
    tokens = np.array([t for _, _, t in known], float)
    weights = np.ones(len(known))
    calibration = Calibration.of([f for f, _, _ in known], mixed, tokens, weights, prior=4.0)
    for forecast, chance, cost in forecasts(rng, 50):
        if 0.02 < chance < 0.9:
            value = calibration.values([forecast])[0]
            assert value == pytest.approx(chance / cost, rel=0.2, abs=0.03 / cost)


def test_calibration_on_what_is_seen_by_chance():
    """Of two kinds that predictions do not tell apart, one is seen at 1 in 20."""
    rng = random.Random(0)
    rows = []
    for _ in range(8000):
        often = rng.random() < 0.5
        if often or rng.random() < 0.05:
            mixed, tokens = (rng.random() < 0.9, 40) if often else (rng.random() < 0.1, 400)
            rows.append((mixed, tokens, 1.0 if often else 20.0))
    mixed, tokens, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    forecast = Forecast(0.5, 0.5, 100, 0, 0)
    calibration = Calibration.of([forecast] * len(rows), mixed, tokens, weights, prior=4.0)
    assert calibration.values([forecast])[0] == pytest.approx(0.5 / 220, rel=0.15)
    again = Calibration.of([forecast] * len(rows), mixed, tokens, 7 * weights, prior=4.0)
    assert again.values([forecast])[0] == pytest.approx(calibration.values([forecast])[0])


def test_tokens_are_a_mean_as_those_of_like_prompts_are():
    """Lengths of a heavy tail that predictions do not explain: the median is far below the mean."""
    rng = np.random.default_rng(0)
    tokens = 50 * np.exp(rng.normal(0, 1, 4000))
    forecast = Forecast(0.5, 0.5, 30, 0, 0)
    mixed, ones = np.tile([0.0, 1.0], 2000), np.ones(4000)
    calibration = Calibration.of([forecast] * 4000, mixed, tokens, ones, prior=4.0)
    chance, mean = 0.5, tokens.mean()
    assert mean > 1.5 * np.median(tokens)
    assert calibration.values([forecast])[0] == pytest.approx(chance / mean, rel=0.01)


def test_outcomes_of_like_prompts_stand_for_those_unseen():
    gate = ValueGate(key=["family"])
    like = {"prompt": Prompt("p", "problem", "7", columns={"family": "a"})}
    gate.observe([group((True, False), **like)] * 4)
    audited = plan(enforced=True, audited=True, full_probability=0.25)
    gate.observe([group((False, False), (50, 50), decided=audited, **like)])
    worth = (4 + 4) ** 2 / (4 + 16)
    made = gate._forecast(like["prompt"], [MetaPrediction(0.5, 10, ())])
    assert made.mixed_visits == pytest.approx(worth * 0.5)
    assert made.visit_tokens == pytest.approx(worth * (10 + 100) / 2)


def test_of_its_own_visits_an_audited_one_counts_like_the_others():
    """They come out as they do, whoever chose them."""
    gate = ValueGate(key=["id"])
    gate.observe([group((True, False))] * 3)
    audited = plan(enforced=True, audited=True, full_probability=0.05)
    gate.observe([group((False, False), (50, 50), decided=audited)])
    made = gate._forecast(group().prompt, [MetaPrediction(0.5, 10, ())])
    assert (made.mixed_visits, made.visit_tokens) == pytest.approx((3, 3 * 10 + 100))


def test_outcomes_of_like_prompts_fade():
    like = {"prompt": Prompt("p", "problem", "7", columns={"family": "a"})}
    made = {}
    for half_life in (None, 2.0):
        gate = ValueGate(key=["family"], half_life=half_life)
        gate.observe([group((True, False), (10, 10), **like)])
        gate.observe([])
        gate.observe([group((False, False), (40, 40), **like)])
        forecast = gate._forecast(like["prompt"], [MetaPrediction(0.5, 10, ())])
        made[half_life] = forecast.mixed_visits, forecast.visit_tokens
        again = ValueGate(key=["family"], half_life=half_life)
        again.load_state_dict(gate.state_dict())
        assert again._forecast(like["prompt"], [MetaPrediction(0.5, 10, ())]) == forecast
    assert made[None] == pytest.approx((1, 100))
    assert made[2.0] == pytest.approx((0.5, 0.5 * 20 + 80))


def test_predictions_beyond_the_first_cost_what_is_kept_alone():
    says = (MetaPrediction(0.5, 10, (), mixed=0.5),)
    gate = ValueGate(min_evidence=1)
    meta = (completion(3), completion(30), completion(20))
    gate.observe([group((True, False), predictions=says, meta=meta)])
    assert [(k.tokens, k.deciding, k.further) for k in gate.known] == [(10, 3, 50)]


def test_like_prompts_outweigh_predictions_in_the_end():
    calibration = Calibration(np.array([0.0, 1, 0]), np.array([0.0, 1]), 80.0, 1.0, prior=4.0)
    (value,) = calibration.values([Forecast(0.5, 0.5, 80, 0, 12 * 160)])
    assert value == pytest.approx((4 * 0.5 + 0) / (4 * 80 + 12 * 160))


def test_the_threshold_by_hand():
    signal, tokens = np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 9])
    values = np.array([4.0, 2, 3, 1])
    assert best_threshold(values, signal, tokens, 0.9) == 2  # all of the signal at 3 of 12
    assert best_threshold(values, signal, tokens, 0.0) == 4  # half of it at 1 of 12
    assert best_threshold(np.ones(4), signal, tokens, 0.9) == 1  # equal values are kept together
    # half of it at 1 + 6 of 12, all of it at 3 + 6 of 12
    assert best_threshold(values, signal, tokens, 0.0, 6 / 12) == 2


@pytest.mark.parametrize("overhead", [0.0, 0.2])
@pytest.mark.parametrize("min_kept", [0.0, 0.5, 0.9, 1.0])
def test_the_threshold_against_all_others(min_kept, overhead):
    rng = np.random.default_rng(0)
    for _ in range(50):
        values, tokens = rng.integers(1, 9, 30).astype(float), rng.integers(1, 99, 30).astype(float)
        signal = (rng.random(30) < values / 9) * 1.0 + np.eye(30)[0]
        best = best_threshold(values, signal, tokens, min_kept, overhead)
        gains = {}
        for threshold in values:
            keeps = values >= threshold
            share = signal[keeps].sum() / signal.sum()
            error = math.sqrt(share * (1 - share) * (signal**2).sum()) / signal.sum()
            if share - error >= min_kept - 1e-12:
                gains[threshold] = share / (tokens[keeps].sum() / tokens.sum() + overhead)
        assert gains[best] == pytest.approx(max(gains.values()))


def test_the_probability_from_pass_rates():
    gate = ValueGate(group_size=G)
    made = gate._forecast(prompt(), [MetaPrediction(rate, 10, ()) for rate in (0.0, 0.25)])
    assert made.mixed == pytest.approx(p_mixed(0.125, G))
    assert made.tokens == 10 * G
    told = gate._forecast(prompt(), [MetaPrediction(0.0, None, (), mixed=q) for q in (0.1, 0.3)])
    assert told.mixed == pytest.approx(0.2) and math.isnan(told.tokens)


@pytest.mark.parametrize("settings, says", [
    ({"group_size": 1}, "group_size is 1"),
    ({"prior": 0}, "prior is 0"),
    ({"prior": math.inf}, "prior is inf"),
    ({"min_kept": 1.5}, "min_kept is 1.5"),
    ({"min_parsed": -1}, "min_parsed is -1"),
    ({"past_window": 0}, "past_window is 0"),
    ({"half_life": 0}, "half_life is 0"),
    ({"min_evidence": 257}, "min_evidence is 257"),
    ({"key": "id"}, "gate.key"),
])  # fmt: skip
def test_bad_settings(settings, says):
    with pytest.raises(ConfigError, match=says):
        controller(**settings)
