import random

import numpy as np
import pytest
from builders import algorithm, group, plan, prediction
from pools import families, p_mixed, play

from masa.algorithm.adaptive import SIGMAS, TOLERANCES, AdaptiveTolerance
from masa.algorithm.controller import Controller
from masa.algorithm.gates import PredictionGate
from masa.algorithm.past import LONGEST
from masa.errors import ConfigError
from masa.types import MetaPrediction

G = 8


def controller(adaptive=True, gate=None, **control):
    config = algorithm(
        group_size=G, response_limit=400, gate={"enabled": True, **(gate or {})},
        control={"start_step": 5, "audit_fraction": 0.1, "window": 128, "min_evidence": 16,
                 "adaptive": adaptive} | control,
    )  # fmt: skip
    return Controller(config, seed=0)


def hedging(family, rng):
    """Trivial prompts are said to be 7/8 or 1, hopeless ones 0 or 1/8, rare ones 2/8 or 3/8."""
    low = {"t": 7, "l": 3, "r": 2, "h": 0}[family.name[0]]
    return MetaPrediction((low + rng.randint(0, 1)) / 8, family.tokens, ())


def over_confident(family, rng):
    """Rare prompts are said to be hopeless: no setting tells the two apart."""
    low = {"t": 8, "l": 4, "r": 0, "h": 0}[family.name[0]]
    return MetaPrediction(low / 8, family.tokens, ())


def pool(step):
    return families()


def drawn(predict):
    """Of prompts [N]: mean and deviation of their predictions, P(mixed), tokens."""
    rng = random.Random(1)
    rows = []
    for _ in range(4000):
        family = rng.choice(families())
        spread = PredictionGate().spread([predict(family, rng) for _ in range(4)])
        rows.append((*spread, p_mixed(family.pass_rate, G), family.tokens))
    return np.array(rows).T


def shares(prompts, sigma, tolerance):
    """Loss of mixed groups and saving of tokens with these settings."""
    means, deviations, mixed, tokens = prompts
    skips = PredictionGate.extreme(means, deviations, sigma, tolerance)
    return mixed[skips].sum() / mixed.sum(), tokens[skips].sum() / tokens.sum()


@pytest.mark.parametrize("predict, target", [(hedging, 0.05), (over_confident, 0.05),
                                             (over_confident, 0.4)])  # fmt: skip
def test_finds_what_an_oracle_would_choose(predict, target):
    control = controller(target_loss=target)
    list(play(control, pool, 60, predict))
    gate = control.gate
    prompts = drawn(predict)
    exact = [shares(prompts, sigma, tolerance) for sigma in SIGMAS for tolerance in TOLERANCES]
    best = max((saved for lost, saved in exact if lost <= target), default=0.0)
    lost, saved = shares(prompts, gate.sigma, gate.tolerance)
    assert lost <= target + 0.02
    assert saved >= 0.9 * best


def test_what_is_at_stake_in_that():
    """The settings of the paper save little on these predictions, or lose too much."""
    hedged = drawn(hedging)
    assert shares(hedged, 0.1, 1 / 16)[1] < 0.7 * shares(hedged, 0.1, 1 / 8)[1]
    assert shares(drawn(over_confident), 0.1, 1 / 16)[0] > 0.2


def test_nothing_is_skipped_where_no_choice_is_good_enough():
    """All that predictions say is 0."""
    gate = PredictionGate()
    adaptive = AdaptiveTolerance(gate, 0.05, 64, 4)
    says = (prediction(0),) * 4
    adaptive.add([group((True, False), predictions=says)] * 3)
    assert gate == PredictionGate()  # too few to choose by
    adaptive.add([group((True, False), predictions=says)] * 3)
    assert gate.sigma == 0 and not gate.skips(None, says, 0.5)


def test_weights_count():
    """An audited mixed prompt stands for twenty that were skipped."""
    says, other = (prediction(0),) * 4, (prediction(4),) * 4
    decided = plan(enforced=True, audited=True, full_probability=0.05)
    lost = [group((True, False), predictions=says, decided=decided)]
    rest = [group((True, False), predictions=other)] * 60
    constant = [group((False, False), predictions=says)] * 20
    for groups, skips in ((rest + constant, True), (rest + constant + lost, False)):
        gate = PredictionGate()
        AdaptiveTolerance(gate, 0.05, 256, 4).add(groups)
        assert gate.skips(None, says, 0.5) == skips


def test_what_is_chosen_depends_on_the_known_outcomes_alone():
    """Also once too few of them are of mixed groups: else a resumed run would differ."""
    gate = PredictionGate()
    adaptive = AdaptiveTolerance(gate, 0.05, 64, 4)
    says = (prediction(4),) * 4
    adaptive.add([group((True, False), predictions=says)] * 20)
    adaptive.add([group((False, False), predictions=(prediction(0),) * 4)] * 40)
    for further, chosen in ((62, True), (LONGEST * 64, False)):
        adaptive.add([group((False, False), predictions=says)] * further)
        other = PredictionGate()
        AdaptiveTolerance(other, 0.05, 64, 4).load_state_dict(adaptive.state_dict())
        assert gate == other and (gate != PredictionGate()) == chosen


def test_resumed_it_decides_as_before():
    whole = list(play(controller(), pool, 24, hedging))
    first, second = controller(), controller()
    list(play(first, pool, 12, hedging))
    second.load_state_dict(first.state_dict())
    assert second.metrics() == first.metrics() != controller().metrics()
    again = [r.group.plan for step in play(second, pool, 24, hedging, first=13) for r in step]
    assert again == [r.group.plan for step in whole[12:] for r in step]


def test_it_is_of_the_prediction_gate_alone():
    with pytest.raises(ConfigError, match="control.adaptive .* but the gate is HistoryGate"):
        controller(gate={"_target_": "masa.algorithm.gates.HistoryGate"})
    assert "gate/sigma" not in controller(adaptive=False).metrics()
