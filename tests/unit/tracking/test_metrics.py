import math
from types import SimpleNamespace

import pytest
from builders import World, algorithm, completion, group, plan, prediction, prompt
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from masa.algorithm.step import reward
from masa.config import TrainerConfig
from masa.rollout.validation import HeldOut, ValidationCallback, validation_metrics
from masa.tracking.loggers import WandbLogger
from masa.tracking.metrics import control_metrics, correlation, meta_metrics, rollout_metrics
from masa.training.stopping import StopSignal

CONFIG = algorithm()
SHADOW = {"enforced": False, "audited": False}
AUDITED = {"enforced": True, "audited": True}
STEERED = {"enforced": True, "audited": False}


def rolled_out(correct, gated, phase=SHADOW, lengths=None, cutoff=64, rates=(4, 4)):
    """A prompt with its verdicts, the gate's verdict and the phase it was rolled out in."""
    decided = plan(would_skip=gated, cutoff_tokens=cutoff, max_tokens=64 if correct else 0, **phase)
    return reward(
        group(correct, lengths, decided=decided, predictions=[prediction(r) for r in rates]),
        CONFIG,
    )


ALIKE, MIXED = (True, True), (True, False)


@pytest.mark.parametrize("phase", [SHADOW, AUDITED])
def test_precision_and_recall_of_the_gate(phase):
    groups = [
        rolled_out(ALIKE, True, phase),
        rolled_out((False, False), True, phase),
        rolled_out(MIXED, True, phase),
        rolled_out(ALIKE, False, phase),
        rolled_out(MIXED, False, phase),
        # neither of these is evidence: control acted on them
        rolled_out((), True, STEERED),
        rolled_out(MIXED, True, STEERED),
        rolled_out(ALIKE, False, STEERED),
    ]
    metrics = control_metrics(groups)
    assert metrics["gate/precision"] == pytest.approx(2 / 3)
    assert metrics["gate/recall"] == pytest.approx(2 / 3)
    assert metrics["gate/fraction"] == pytest.approx(1 / 8)
    assert metrics["gate/would_skip"] == pytest.approx(5 / 8)
    assert metrics["gate/audited"] == (5 if phase is AUDITED else 0)


def test_precision_and_recall_differ():
    groups = [rolled_out(ALIKE, True), *[rolled_out(MIXED, True)] * 3, rolled_out(ALIKE, False)]
    metrics = control_metrics(groups)
    assert (metrics["gate/precision"], metrics["gate/recall"]) == (0.25, 0.5)


def test_without_audits_the_gain_is_not_known():
    """What is skipped is not seen, and the rest is not all."""
    unseen = plan(would_skip=True, gate_active=True, full_probability=0.0, max_tokens=0)
    groups = [rolled_out(MIXED, False), group((), decided=unseen)]
    for name in ("gate/gain", "gate/signal_kept", "gate/tokens_kept"):
        assert math.isnan(control_metrics(groups)[name])
        assert not math.isnan(control_metrics([rolled_out(MIXED, False)])[name])


def test_correct_answers_lost_to_the_cutoff():
    three_right = (True, True, True, False)
    groups = [
        rolled_out(three_right, False, lengths=(10, 11, 12, 60), cutoff=11),  # 1 of 3
        rolled_out((True, False), False, lengths=(9, 9), cutoff=5),  # 1 of 1
        rolled_out((False, False), False, lengths=(60, 60), cutoff=5),  # 0 of 0
        rolled_out(
            (True, True), True, AUDITED, lengths=(60, 60), cutoff=5
        ),  # gated: the cutoff never acts
        rolled_out((True, True), False, STEERED, lengths=(60, 60), cutoff=5),  # no evidence
    ]
    assert control_metrics(groups)["cutoff/lost_correct"] == pytest.approx(2 / 4)
    assert control_metrics(groups)["cutoff/mean_limit"] == pytest.approx((11 + 4 * 5) / 5)


def test_share_stopped_by_the_cutoff():
    def stopped(count, uncensored, phase):
        ends = [completion(8, finished=i >= count) for i in range(4)]
        return group(
            (False,) * 4, solutions=tuple(ends), uncensored=uncensored, decided=plan(**phase),
            predictions=[prediction()],
        )  # fmt: skip

    groups = [stopped(1, False, STEERED), stopped(2, True, AUDITED), stopped(0, True, STEERED)]
    # the two of the audited prompt ran into the response limit, which is no cutoff
    assert control_metrics(groups)["cutoff/fraction"] == pytest.approx(1 / 12)
    assert rollout_metrics(groups, 99)["completions/clipped_ratio"] == pytest.approx(3 / 12)


def test_alignment_by_hand():
    groups = [
        rolled_out((True, True), False, rates=(8, 6)),  # predicted 7/8, true 1
        rolled_out((True, False), False, rates=(4, None)),  # predicted 1/2, true 1/2
        rolled_out((False, False), False, rates=(2, 2)),  # predicted 1/4, true 0
        rolled_out((), True, STEERED, rates=(0, None)),  # no truth
    ]
    metrics = meta_metrics(groups)
    assert metrics["meta/pass_rate_mae"] == pytest.approx((1 / 8 + 0 + 1 / 4) / 3)
    assert metrics["meta/pass_rate_predicted"] == pytest.approx((7 / 8 + 1 / 2 + 1 / 4) / 3)
    assert metrics["meta/pass_rate_true"] == pytest.approx(1 / 2)
    r = stats.pearsonr([7 / 8, 1 / 2, 1 / 4], [1, 1 / 2, 0]).statistic
    assert metrics["meta/pass_rate_corr"] == pytest.approx(r)
    assert metrics["meta/parse_rate"] == pytest.approx(6 / 8)
    scores = [score for g in groups for score in g.meta_scores]
    assert len(scores) == 6
    for name in ("difficulty", "length", "notion"):
        mean = sum(score[name] for score in scores) / 6
        assert metrics[f"meta/reward/{name}"] == pytest.approx(mean)
    rewards = [r for g in groups for r in g.meta_rewards]
    assert metrics["meta/reward"] == pytest.approx(sum(rewards) / 6)


def test_mixed_groups_by_hand():
    said = [(0.9, 0.7), (0.4, None), (0.1, 0.0), (0.3, 0.3)]
    seen = [(True, False), (False, True), (False, False), ()]
    groups = [
        group(correct, predictions=[prediction(mixed=q) for q in chances])
        for correct, chances in zip(seen, said, strict=True)
    ]
    metrics = meta_metrics(groups)
    assert metrics["meta/mixed_predicted"] == pytest.approx((0.8 + 0.4 + 0.05) / 3)
    assert metrics["meta/mixed_true"] == pytest.approx(2 / 3)
    assert metrics["meta/mixed_brier"] == pytest.approx((0.2**2 + 0.6**2 + 0.05**2) / 3)
    r = stats.pearsonr([0.8, 0.4, 0.05], [1, 1, 0]).statistic
    assert metrics["meta/mixed_corr"] == pytest.approx(r)
    plain = meta_metrics([group((True, False), predictions=[prediction()])])
    assert not any("mixed" in name for name in plain)


def test_share_of_predictions_in_the_sampled_tokens():
    groups = [
        group((True, False), (4, 5), predictions=[prediction()] * 2),
        group((), predictions=[prediction()]),
    ]
    # three tokens each
    assert rollout_metrics(groups, 99)["meta/token_share"] == pytest.approx(9 / 18)
    assert "meta/token_share" not in rollout_metrics([group()], 99)


def test_rewards_by_hand():
    groups = [
        rolled_out((True, True, False, False), False, lengths=(4, 5, 6, 7)),
        rolled_out((True,) * 4, False, lengths=(8,) * 4),
        rolled_out((), True, STEERED),
    ]
    metrics = rollout_metrics(groups, meta_limit=3)
    assert metrics["reward"] == pytest.approx(3 / 4)
    assert metrics["reward_std"] == pytest.approx(math.sqrt(1 / 3) / 2)
    assert metrics["frac_reward_zero_std"] == pytest.approx(1 / 2)
    assert metrics["completions/mean_length"] == pytest.approx((22 + 32) / 8)
    assert metrics["completions/max_length"] == 8
    assert metrics["meta/mean_length"] == 3


def test_undefined_metrics_are_left_out():
    nothing = rollout_metrics([rolled_out((), True, STEERED)], 99)
    for name in ("reward", "gate/precision", "gate/recall", "cutoff/lost_correct",
                 "meta/pass_rate_corr", "meta/reward", "completions/max_length"):  # fmt: skip
        assert name not in nothing
    assert nothing["gate/fraction"] == 1
    assert all(math.isfinite(value) for value in nothing.values())
    grpo = rollout_metrics([group()], 99)
    assert not [name for name in grpo if name.startswith(("meta/", "gate/", "cutoff/"))]


def test_a_gate_without_predictions_is_measured_in_shadow_mode():
    groups = [group((True, True), decided=plan(would_skip=True)), group((True, False))]
    metrics = rollout_metrics(groups, 99, controlled=True)
    assert (metrics["gate/would_skip"], metrics["gate/precision"]) == (0.5, 1)


def test_a_rollout_without_overlong_solutions_has_no_penalty():
    groups = [group((True, False), solution_rewards=(1.0, 0.0))]
    assert rollout_metrics(groups, 99, penalized=True)["overlong_penalty"] == 0
    assert "overlong_penalty" not in rollout_metrics(groups, 99)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=3, max_size=20))
def test_correlation_against_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    expected = stats.pearsonr(first, second).statistic
    assert correlation([(a / 8, b / 8) for a, b in pairs]) == pytest.approx(expected, abs=1e-12)


def test_correlation_that_is_not_defined():
    assert math.isnan(correlation([]))
    assert math.isnan(correlation([(0, 0), (1, 1)]))
    assert math.isnan(correlation([(0.1, 0), (0.1, 1), (0.1, 2)]))


def test_held_out_accuracy_per_level():
    def of_level(level, correct):
        return group(correct, prompt=prompt(level=level))

    groups = [of_level(1, (True, True)), of_level(1, (True, False)), of_level(2, (False, False))]
    metrics = validation_metrics(groups)
    assert metrics["accuracy"] == pytest.approx(1 / 2)
    assert metrics["accuracy/level_1"] == pytest.approx(3 / 4)
    assert metrics["accuracy/level_2"] == 0
    assert "accuracy/level_1" not in validation_metrics(groups[:2])


class Tables(WandbLogger):
    def __init__(self):
        self.tables = []

    def log_metrics(self, metrics, step=None):
        pass

    def log_tables(self, groups, step, split):
        self.tables.append((step, groups))


def test_validation_tables_hold_the_task_and_no_benchmark():
    """Both are rolled out, the benchmark last."""
    groups = {"val": [group((True, False))], "aime25": [group((False, False))]}
    rollout = SimpleNamespace(
        algorithm=CONFIG,
        settings=TrainerConfig(),
        ranks_per_engine=1,
        context=lambda step: World(CONFIG, None, None).at(step),
        roll_out=lambda prompts, context, draw, step, split: groups[split],
        records=SimpleNamespace(wait=lambda: None),
        stop=StopSignal(),
    )
    held_out = [HeldOut(name, [prompt()], None, None) for name in ("", "aime25")]
    callback = ValidationCallback(held_out, rollout)
    logger = Tables()
    trainer = SimpleNamespace(global_rank=0, loggers=[logger])
    callback.on_train_start(trainer, SimpleNamespace(version=0, log=lambda *_, **__: None))
    assert logger.tables == [(0, groups["val"])]
    assert callback.accuracy == 0.5
    # a run that is about to be stopped validates when it goes on
    rollout.stop.received = True
    callback.on_train_batch_end(trainer, None, None, SimpleNamespace(step=10), 0)
    assert len(logger.tables) == 1
