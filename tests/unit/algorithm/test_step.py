"""One step from end to end over an engine that plays a script."""

import itertools
import math
from dataclasses import replace

import builders
import numpy as np
import pytest
import torch
from builders import World, algorithm, decode, meta_text, prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.algorithm.expert import expert_of
from masa.algorithm.step import collect, judge, sampling_seeds, training_samples
from masa.config import BCConfig
from masa.errors import VerdictError
from masa.rollout.packing import build_update

SEED = 11
GATE = {"enabled": True, "_target_": "masa.algorithm.gates.PredictionGate"}
CUT = {
    "enabled": True,
    "_target_": "masa.algorithm.cutoffs.MeanLengthCutoff",
    "margin": 1.0,
}


def number(problem):
    return int(problem.removeprefix("problem "))


def hopeless_if_even(problem, seed):
    """Predictions that agree on 0 where the problem's number is even, and on 1/2 elsewhere."""
    return meta_text(0 if number(problem) % 2 == 0 else 4, 20, ["carry"])


def half_right(problem, seed):
    """Right answers of about 20 tokens for one seed in two, wrong ones for the other."""
    filler = "x" * (seed % 23)
    return f"carry {filler}={number(problem) if seed % 2 else 'wrong'}"


def roll_out(config, *, meta=hopeless_if_even, solve=half_right, count=6, step=5, who=None):
    world = World(config, meta, solve, SEED)
    return world, collect(who or prompts(count), world.at(step))


def grade(prediction, group):
    """A component of the meta reward that goes by a column of the prompt."""
    return float(group.prompt.columns["grade"])


def test_rewards_see_all_columns_of_a_prompt():
    rewards = {"grade": {"_target_": f"{__name__}.grade", "weight": 1}}
    who = [replace(p, columns={"grade": i}) for i, p in enumerate(prompts(4))]
    _, groups = roll_out(algorithm(meta={"rewards": rewards}), who=who, step=1)
    assert [[scores["grade"] for scores in g.meta_scores] for g in groups] == [
        [float(i)] * 4 for i in range(4)
    ]
    assert {len(g.prompt.columns) for g in groups} == {0}


# --- phases


def test_parallel_phase_is_one_call_with_both_groups():
    config = algorithm(control={"start_step": 5}, gate=GATE, cutoff=CUT)
    world, groups = roll_out(config, step=5)
    assert len(world.engine.calls) == 1
    assert len(world.requested("meta")) == len(world.requested("solve")) == 6
    assert all(len(g.meta) == len(g.solutions) == 4 for g in groups)


def test_efficient_phase_is_two_calls_predictions_first():
    config = algorithm(control={"start_step": 5}, gate=GATE)
    world, _ = roll_out(config, step=6)
    kinds = [{decode(r.prompt_ids).partition(":")[0] for r in call} for call in world.engine.calls]
    assert kinds == [{"meta"}, {"solve"}]


def test_before_start_step_nothing_is_enforced():
    config = algorithm(control={"start_step": 5, "hint": True}, gate=GATE, cutoff=CUT)
    _, groups = roll_out(config, step=5)
    for group in groups:
        assert group.plan.max_tokens == 64
        assert not group.plan.enforced and not group.plan.audited
        assert group.uncensored and group.meta_rewards
    # the verdicts are observed all the same
    assert [g.plan.would_skip for g in groups] == [True, False] * 3
    assert {g.plan.cutoff_tokens for g in groups} == {20}
    _, later = roll_out(config, step=6)
    assert all(g.plan.enforced for g in later)


def test_a_gate_without_proof_is_not_active():
    config = algorithm(gate=GATE | {"min_precision": 0.9})
    world, groups = roll_out(config)
    assert len(world.engine.calls) == 1 and len(world.requested("solve")) == 6
    world.controller.gate_precision.add([1.0] * 4)
    collect(prompts(6), world.at(6))
    assert len(world.requested("solve")) == 6 + 3


def test_a_cutoff_without_proof_is_not_active():
    config = algorithm(cutoff=CUT | {"max_lost": 0.1})
    world, groups = roll_out(config)
    assert {g.plan.max_tokens for g in groups} == {64}
    world.controller.cutoff_kept.add([1.0] * 4)
    groups = collect(prompts(6), world.at(6))
    assert {g.plan.max_tokens for g in groups} == {20}


# --- gating


def test_skipped_prompts_get_no_solution():
    world, groups = roll_out(algorithm(gate=GATE))
    assert world.requested("solve") == ["problem 1", "problem 3", "problem 5"]
    for group in groups:
        skipped = number(group.prompt.problem) % 2 == 0
        assert group.plan.would_skip == group.skipped == skipped
        assert group.plan.max_tokens == (0 if skipped else 64)
        assert len(group.solutions) == len(group.correct) == (0 if skipped else 4)
        assert len(group.meta) == 4


def test_skipped_prompts_earn_no_reward_and_no_gradient():
    config = algorithm(gate=GATE)
    _, groups = roll_out(config)
    skipped = [g for g in groups if g.plan.would_skip]
    assert skipped and training_samples(skipped, config) == []
    for group in skipped:
        assert group.meta_scores == group.meta_rewards == group.meta_advantages == ()
        assert group.solution_advantages == () and math.isnan(group.pass_rate)
        assert not group.uncensored
        assert expert_of(group, BCConfig(mode="joint"), *2 * [lambda *args: (1,)]) is None
    assert training_samples(groups, config)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "gspo"])
@pytest.mark.parametrize("token_mean", ["separate", "joint"])
def test_a_right_gate_changes_no_weight_of_a_solution_token(loss, token_mean):
    def hopeless_indeed(problem, seed):
        right = number(problem) % 2 and seed % 2
        return f"carry={number(problem) if right else 9}"

    def weights(gate, **control):
        # predictions are not trained: those of skipped prompts, which have no truth, are missing
        config = algorithm(
            loss=loss, token_mean=token_mean, gate=gate, meta={"coef": 0.0}, control=control
        )
        _, groups = roll_out(config, solve=hopeless_indeed)
        update = build_update(training_samples(groups, config), config, 10_000, 0)
        return torch.cat([b.weights["solution"].flatten() for b in update])

    everything = weights({})
    assert everything.sum() > 0
    torch.testing.assert_close(weights(GATE), everything)
    torch.testing.assert_close(weights(GATE, count_skipped=False), 2 * everything)


def test_everything_skipped_is_fine():
    world, groups = roll_out(algorithm(gate=GATE), meta=lambda *args: meta_text(8, 20))
    assert world.requested("solve") == [] and world.verified == []
    assert all(g.skipped for g in groups)


# --- audit


def test_audited_prompts_run_to_the_full_limit():
    config = algorithm(gate=GATE, control={"audit_fraction": 1.0}, cutoff=CUT)
    _, groups = roll_out(config)
    for group in groups:
        assert group.plan.audited and group.plan.enforced
        assert group.plan.max_tokens == 64 and len(group.solutions) == 4
        assert group.uncensored and group.meta_rewards  # they are trained on
    assert [g.plan.would_skip for g in groups] == [True, False] * 3
    assert {g.plan.cutoff_tokens for g in groups} == {20}


def test_the_audit_is_a_share_drawn_without_regard_to_the_predictions():
    config = algorithm(gate=GATE, control={"audit_fraction": 0.1}, cutoff=CUT, group_size=2)
    many = prompts(1500)

    def audited(meta, step=5):
        _, groups = roll_out(config, meta=meta, who=many, step=step)
        return {g.prompt.id for g in groups if g.plan.audited}

    drawn = audited(hopeless_if_even)
    assert abs(len(drawn) - 150) < 4 * math.sqrt(1500 * 0.1 * 0.9)
    assert audited(lambda *args: meta_text(4, 30)) == drawn
    assert len(audited(hopeless_if_even, step=6) & drawn) < 60  # 15 by chance


# --- cutoff


def test_a_group_stopped_by_the_cutoff_is_no_truth():
    config = algorithm(cutoff=CUT, bc={"mode": "joint"})
    # problem 1 is solved in 8 tokens, problem 0 would need 30
    world, groups = roll_out(
        config, count=2, solve=lambda p, s: f"carry={1 if number(p) else 'x' * 30 + '=0'}"
    )
    stopped, finished = groups
    assert stopped.plan.max_tokens == finished.plan.max_tokens == 20
    assert all(len(c.token_ids) == 20 and not c.finished for c in stopped.solutions)
    assert stopped.correct == (False,) * 4

    assert not stopped.uncensored
    assert stopped.meta_scores == stopped.meta_rewards == stopped.meta_advantages == ()
    assert expert_of(stopped, config.bc, world.renderer.rewrite, None) is None
    assert {s.objective for s in training_samples([stopped], config)} == {"solution"}

    assert finished.uncensored and finished.meta_rewards
    assert expert_of(finished, config.bc, world.renderer.rewrite, None) is not None

    def learned():
        # all but the share of prompts that the gate would skip, which needs no truth
        return {k: v for k, v in world.controller.state_dict().items() if k != "skips"}

    before = learned()
    world.controller.observe(groups)
    assert learned() == before


def test_the_cutoff_leaves_alone_what_a_gate_in_shadow_mode_would_skip():
    gate = GATE | {"min_precision": 0.9}
    slow = {"meta": hopeless_if_even, "solve": lambda p, s: "x" * 30}
    _, groups = roll_out(algorithm(cutoff=CUT, gate=gate), count=6, **slow)
    assert not any(g.plan.gate_active for g in groups) and all(g.plan.cutoff_active for g in groups)
    for g in groups:
        assert g.skip_evidence == g.plan.would_skip == (number(g.prompt.problem) % 2 == 0)
        assert g.uncensored == g.plan.would_skip
    # a gate that is off is not measured at the cost of the cutoff
    _, groups = roll_out(algorithm(cutoff=CUT, gate=gate | {"enabled": False}), count=6, **slow)
    assert not any(g.uncensored or g.skip_evidence for g in groups)


def test_one_stopped_solution_is_enough():
    config = algorithm(cutoff=CUT, group_size=8)
    _, (group,) = roll_out(config, count=1, solve=lambda p, s: "x" * (30 * (s % 2)))
    assert len({c.finished for c in group.solutions}) == 2
    assert not group.uncensored


def test_the_response_limit_itself_is_no_cutoff():
    config = algorithm(cutoff=CUT)
    _, (group,) = roll_out(
        config, count=1, meta=lambda *args: meta_text(4, 64), solve=lambda p, s: "x" * 100
    )
    assert group.plan.max_tokens == 64 and not group.solutions[0].finished
    assert group.uncensored and group.meta_rewards


# --- hints


def test_hints_reach_the_solution_prompt():
    config = algorithm(control={"hint": True})
    notions = iter([["carry", "sum"], ["carry"], ["carry", "sum"], ["other"]])
    world, (group,) = roll_out(config, count=1, meta=lambda *args: meta_text(4, 9, next(notions)))
    # the notions that at least half of the predictions name
    assert world.requested("solve") == ["problem 0#carry,sum"]
    assert decode(group.solution_prompt_ids) == "solve:problem 0#carry,sum"
    assert decode(group.meta_prompt_ids) == "meta:problem 0"
    assert group.uncensored and not group.plan.enforced
    solution = next(s for s in training_samples([group], config) if s.objective == "solution")
    assert np.array_equal(solution.prompt_ids, group.solution_prompt_ids)


A, B, C, D = (60 * letter for letter in "abcd")


@pytest.mark.parametrize(("limit", "hint"), [(250, [A, B, C, D]), (230, [A, B, C])])
def test_a_hint_is_no_longer_than_a_prediction_may_be(limit, hint):
    """Of two predictions that agree in nothing, each names half of the notions of the hint."""
    notions = iter([[A, B], [C, D]])
    config = algorithm(control={"hint": True}, meta={"group_size": 2, "response_limit": limit})
    world, _ = roll_out(config, count=1, meta=lambda *args: meta_text(4, 9, next(notions)))
    assert world.requested("solve") == [f"problem 0#{','.join(hint)}"]


def test_no_hint_before_start_step_or_without_notions():
    config = algorithm(control={"hint": True, "start_step": 5})
    world, _ = roll_out(config, count=1, step=5)
    assert world.requested("solve") == ["problem 0"]
    world, _ = roll_out(config, count=1, step=6, meta=lambda *args: "nothing to read")
    assert world.requested("solve") == ["problem 0"]


# --- rewards and samples


def test_rewards_by_hand():
    config = algorithm(group_size=2, meta={"group_size": 2})
    metas = iter([meta_text(4, 9, ["carry", "borrow"]), "unreadable"])
    solutions = iter(["carry=0", "wrong"])
    _, (group,) = roll_out(
        config, count=1, meta=lambda *args: next(metas), solve=lambda *args: next(solutions)
    )
    assert group.correct == (True, False)
    assert group.lengths == (8, 6)
    # p = 1/2 as predicted; the one correct solution has 8 tokens, not 9; carry wins, borrow not
    assert dict(group.meta_scores[0]) == {"difficulty": 1.0, "length": 0.0, "notion": 0.5}
    assert dict(group.meta_scores[1]) == {"difficulty": 0.0, "length": 0.0, "notion": 0.0}
    assert group.meta_rewards == (0.5, 0.0)
    half = math.sqrt(0.5)
    assert group.solution_advantages == pytest.approx((half, -half))
    assert group.meta_advantages == pytest.approx((half, -half))


def test_samples_are_what_was_sampled():
    config = algorithm()
    _, groups = roll_out(config)
    samples = training_samples(groups, config)
    assert len(samples) == 6 * (4 + 4)
    rows = iter(samples)
    for group in groups:
        for objective, prompt_ids, completions, advantages in (
            ("solution", group.solution_prompt_ids, group.solutions, group.solution_advantages),
            ("meta", group.meta_prompt_ids, group.meta, group.meta_advantages),
        ):
            for completion, advantage in zip(completions, advantages, strict=True):
                sample = next(rows)
                assert sample.objective == objective
                assert np.array_equal(sample.prompt_ids, prompt_ids)
                assert np.array_equal(sample.token_ids, completion.token_ids)
                assert np.array_equal(sample.logprobs, completion.logprobs)
                assert sample.advantage == advantage


def test_verdicts_stay_with_their_texts():
    world, groups = roll_out(algorithm(gate=GATE))
    for group in groups:
        for completion, right in zip(group.solutions, group.correct, strict=True):
            assert right == completion.text.endswith(f"={group.prompt.answer}")
    assert len(world.verified) == 3 * 4


def test_a_verifier_that_fails_is_an_error_that_says_so():
    def broken(answers):
        return {}["no such key"]

    with pytest.raises(VerdictError, match="verify failed .KeyError: 'no such key'.*ckpt=auto"):
        judge(prompts(1), [[builders.completion(3)]], broken)
    # nothing to judge is no business of the verifier's
    assert judge(prompts(2), [[], []], broken) == [(), ()]


# --- randomness


@pytest.mark.parametrize("step", [5, 6])
@settings(max_examples=25)
@given(order=st.permutations(range(6)), ranks=st.integers(1, 3))
def test_order_and_ranks_change_nothing(step, order, ranks):
    config = algorithm(control={"start_step": 5, "audit_fraction": 0.3}, gate=GATE, cutoff=CUT)
    _, straight = roll_out(config, step=step)
    shuffled = [prompts(6)[i] for i in order]
    by_rank = [roll_out(config, step=step, who=shuffled[r::ranks])[1] for r in range(ranks)]
    for group in itertools.chain(*by_rank):
        assert group == straight[number(group.prompt.problem)]


def test_seeds_are_all_different():
    config = algorithm(control={"start_step": 10})
    seeds, count = set(), 0
    for seed, step in itertools.product([0, 1], [1, 2, 11]):
        world = World(config, hopeless_if_even, half_right, seed)
        collect(prompts(8), world.at(step))
        drawn = [s for call in world.engine.calls for request in call for s in request.seeds]
        seeds |= set(drawn)
        count += len(drawn)
    assert count == len(seeds) == 2 * 3 * 8 * (4 + 4)


def test_a_step_can_be_repeated():
    config = algorithm(gate=GATE, control={"audit_fraction": 0.3}, cutoff=CUT)
    assert roll_out(config)[1] == roll_out(config)[1]


# --- GRPO is the special case


def test_grpo_never_asks_for_predictions():
    world, groups = roll_out(algorithm(meta={"enabled": False}))
    assert world.requested("meta") == []
    assert len(world.requested("solve")) == 6 and len(world.engine.calls) == 1
    for group in groups:
        assert group.meta == group.predictions == group.meta_rewards == ()
        assert not group.plan.would_skip and group.plan.max_tokens == group.plan.cutoff_tokens == 64


@pytest.mark.parametrize("mean", ["separate", "joint"])
@pytest.mark.parametrize("kl_beta", [0.0, 0.1])
def test_masa_without_weight_trains_as_grpo(mean, kl_beta):
    grpo = algorithm(meta={"enabled": False}, token_mean=mean, kl_beta=kl_beta)
    masa = replace(grpo, meta=replace(grpo.meta, enabled=True, group_size=4, coef=0.0))
    updates = []
    for config in (grpo, masa):
        _, groups = roll_out(config)
        updates.append(build_update(training_samples(groups, config), config, 64, 0))
    assert len(updates[0].micro_batches) == len(updates[1].micro_batches) > 1
    for one, other in zip(*updates, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.advantages, other.advantages)
        for name in one.weights:
            assert torch.equal(one.weights[name], other.weights[name])


# --- predictions in two parts


def test_skipped_prompts_cost_the_first_predictions_alone():
    config = algorithm(gate=GATE, meta={"first": 1})
    world, groups = roll_out(config)
    _, whole = roll_out(algorithm(gate=GATE))
    kinds = [{decode(r.prompt_ids).partition(":")[0] for r in call} for call in world.engine.calls]
    assert kinds == [{"meta"}, {"meta"}, {"solve"}]
    assert world.requested("meta") == [f"problem {i}" for i in (0, 1, 2, 3, 4, 5, 1, 3, 5)]
    for group, other in zip(groups, whole, strict=True):
        if group.skipped:
            assert group.meta == other.meta[:1] and len(group.predictions) == 1
            assert not group.meta_rewards
        else:
            # seeds are by index: nothing differs
            assert group == other and len(group.meta) == 4
    assert sum(len(group.meta) for group in groups) == 3 * 1 + 3 * 4


def disagree_later(problem, seed):
    """The first prediction says that every problem is hopeless, those after it one half."""
    return meta_text(0 if seed in FIRST_SEEDS else 4, 10 if seed in FIRST_SEEDS else 30)


FIRST_SEEDS = {
    seed for p in prompts(6) for seed in sampling_seeds(p, 5, SEED, "meta", 1)
}  # of roll_out


@pytest.mark.parametrize("step_of_control", [0, 99])
def test_the_gate_decides_by_the_first_predictions_in_shadow_mode_as_well(step_of_control):
    config = algorithm(gate=GATE, meta={"first": 1}, control={"start_step": step_of_control})
    _, groups = roll_out(config, meta=disagree_later)
    assert all(g.plan.would_skip for g in groups)
    assert {len(g.meta) for g in groups} == ({4} if step_of_control else {1})
    _, by_all = roll_out(algorithm(gate=GATE), meta=disagree_later)
    assert not any(g.plan.would_skip for g in by_all)


def test_cutoff_and_audit_go_by_all_predictions():
    config = algorithm(
        gate=GATE, meta={"first": 1}, cutoff=CUT, control={"audit_fraction": 1.0, "hint": True}
    )
    _, groups = roll_out(config, meta=disagree_later)
    for group in groups:
        assert group.plan.would_skip and group.plan.audited and group.solutions
        assert len(group.meta) == 4 and group.meta_rewards
        assert group.plan.cutoff_tokens == (10 + 3 * 30) / 4


def test_a_revisit_is_decided_by_the_first_predictions():
    """All together they would say that the prompts are trivial, which are not revisited."""
    control = {"audit_hopeless": 1.0, "audit_trivial": 0.0, "max_skipped": 1.0}
    config = algorithm(gate=GATE, meta={"first": 1}, control=control)
    _, groups = roll_out(config, meta=lambda _, seed: meta_text(0 if seed in FIRST_SEEDS else 8, 9))
    assert all(g.plan.revisited and g.plan.skip_kind == "hopeless" for g in groups)
    assert all(len(g.meta) == len(g.solutions) == 4 for g in groups)


def test_a_gate_learns_from_what_it_decides_by():
    gate = GATE | {"_target_": "masa.algorithm.gates.CombinedGate", "min_evidence": 1}
    config = algorithm(gate=gate, meta={"first": 1}, control={"audit_fraction": 1e-9})
    world, groups = roll_out(config, meta=disagree_later)
    assert not any(g.skipped for g in groups)
    world.controller.observe([replace(g, plan=replace(g.plan, audited=True)) for g in groups])
    assert {cell for cell, _, _ in world.controller.gate.outcomes} == {0}


def test_two_predictions_of_which_one_comes_first():
    config = algorithm(gate=GATE, meta={"group_size": 2, "first": 1})
    _, groups = roll_out(config)
    assert [len(g.meta) for g in groups] == [1, 2] * 3
    rolled_out = [g for g in groups if not g.skipped]
    assert all(len(g.meta_advantages) == 2 for g in rolled_out)
    metas = [s for s in training_samples(groups, config) if s.objective == "meta"]
    assert len(metas) == 6
