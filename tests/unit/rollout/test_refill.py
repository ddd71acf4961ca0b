"""Rollouts whose skipped prompts are replaced, over an engine that plays a script."""

import threading
import zlib
from dataclasses import replace

import pytest
from builders import World, algorithm, decode, epochs, meta_text, prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.algorithm.step import collect, training_samples
from masa.rollout.loader import Draws
from masa.rollout.refill import refilled

SEED, STEP, PLACES = 3, 4, 6
GATE = {"enabled": True, "_target_": "masa.algorithm.gates.PredictionGate"}


def share(problem):
    """In [0, 1), by the problem alone."""
    return zlib.crc32(problem.encode()) / 2**32


def half_right(problem, seed):
    number = problem.removeprefix("problem ")
    return f"{'x' * (seed % 23)}={number if seed % 2 else 'wrong'}"


def world(skipped=0.6, control=None, gate=GATE, meta=None, **selection):
    """Predictions say of this share of the problems that they are hopeless."""
    config = algorithm(
        gate=gate, control=control or {}, meta=meta or {}, selection={"refill": True, **selection}
    )

    def predict(problem, seed):
        return meta_text(0 if share(problem) < skipped else 4, 20)

    return World(config, predict, half_right, SEED)


def draws(pool=200, rank=0, ranks=1):
    numbers = iter(range(1, 99))
    draw = epochs(pool, PLACES, seed=0)
    return Draws(lambda: draw(next(numbers)), rank, ranks)


def roll_out(world, draws, gather=list):
    return refilled(draws(), draws, PLACES, world.at(STEP), gather)


# --- places and budget


@settings(deadline=None, max_examples=40)
@given(
    skipped=st.floats(0, 1),
    audit=st.sampled_from([0.0, 0.2]),
    most=st.integers(1, 6),
    pool=st.integers(PLACES, 60),
)
def test_places_are_filled_as_far_as_the_budget_goes(skipped, audit, most, pool):
    made = world(skipped, {"audit_fraction": audit}, max_draws=most)
    stream = draws(pool)
    groups = roll_out(made, stream)
    ids = [group.prompt.id for group in groups]
    rolled_out = [group for group in groups if group.solutions]
    assert len(set(ids)) == len(ids) and stream.made <= most
    assert len(rolled_out) <= PLACES
    if len(rolled_out) < PLACES:
        order = epochs(pool, PLACES, seed=0)
        within = {prompt.id for number in range(1, most + 1) for prompt in order(number)}
        assert set(ids) == within
    for group in groups:
        hopeless = share(group.prompt.problem) < skipped
        assert group.plan.would_skip == hopeless
        assert group.skipped == (hopeless and not group.plan.audited)
        assert len(group.meta) == 4
    # in the order in which they are drawn, none left out
    order = epochs(pool, PLACES, seed=0)
    numbers = range(1, stream.made + 1)
    in_order = list(dict.fromkeys(p.id for number in numbers for p in order(number)))
    assert ids == in_order[: len(ids)]


def test_all_solutions_are_one_batch_of_the_engine_after_all_predictions():
    made = world()
    groups = roll_out(made, draws())
    kinds = [{decode(r.prompt_ids).partition(":")[0] for r in call} for call in made.engine.calls]
    assert kinds == [{"meta"}] * (len(kinds) - 1) + [{"solve"}] and len(kinds) > 2
    assert len(made.requested("solve")) == PLACES
    assert sorted(made.requested("meta")) == sorted(g.prompt.problem for g in groups)


def test_with_fewer_predictions_first_the_same_prompts_for_fewer_tokens():
    whole, short = (roll_out(world(meta={"first": first}), draws()) for first in (None, 1))
    assert [g.prompt for g in short] == [g.prompt for g in whole]
    assert [g for g in short if g.solutions] == [g for g in whole if g.solutions]
    skipped = sum(g.skipped for g in whole)
    assert sum(len(g.meta) for g in whole) == 4 * (PLACES + skipped)
    assert sum(len(g.meta) for g in short) == 4 * PLACES + skipped


def test_a_prompt_is_rolled_out_as_without_refill():
    made = world()
    groups = {g.prompt.id: g for g in roll_out(made, draws())}
    first = collect(draws()(), made.at(STEP))
    for group in first:
        assert replace(groups[group.prompt.id], kept=True) == group


def test_no_further_prompt_once_the_expected_tokens_reach_their_bound():
    first = collect(draws()(), world().at(STEP))
    expected = sum(len(c.token_ids) for g in first for c in g.meta)
    expected += 4 * sum(40 for g in first if not g.skipped)  # the cutoff: twice the predicted 20
    stream = draws()
    assert len(roll_out(world(max_tokens=expected), stream)) == PLACES and stream.made == 1
    assert len(roll_out(world(max_tokens=expected + 1), draws())) > PLACES


def test_the_share_to_skip_is_measured_on_all_that_were_considered():
    """Skipped prompts come first to the controller where they were drawn first."""
    made = world(0.5, {"max_skipped": 0.8, "window": 64, "min_evidence": 8})
    shares = []
    for number in range(30):
        groups = refilled((stream := draws())(), stream, PLACES, made.at(number + STEP), list)
        made.controller.observe(groups)
        shares.append(made.controller.skips.mean)
    skipped = [group.plan.would_skip for group in groups]
    assert 0.2 < sum(skipped) / len(skipped) < 0.8
    assert all(0.2 < share < 0.8 for share in shares[5:])


def test_a_pool_that_is_used_up_ends_the_rollout():
    stream = draws(pool=8)
    groups = roll_out(world(1.0, max_draws=5), stream)
    assert len(groups) <= 8 and stream.made == 5


def test_a_gate_that_needs_no_predictions():
    gate = {"enabled": True, "_target_": "masa.algorithm.gates.HistoryGate", "revisit": 0.0}
    made = world(gate=gate, meta={"enabled": False})
    made.controller.gate.streaks = {p.id: 1 for p in prompts(200) if share(p.problem) < 0.6}
    groups = roll_out(made, draws())
    assert sum(bool(g.solutions) for g in groups) == PLACES < len(groups)
    assert not any(g.meta for g in groups) and made.requested("meta") == []


# --- ranks


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("skipped", [0.0, 0.6, 0.95, 1.0])
def test_two_ranks_roll_out_what_one_does(skipped, first):
    """Also where a rank has no share of the last prompts."""
    (alone,) = on_ranks(1, skipped, first)
    left, right = on_ranks(2, skipped, first)
    assert left == right == alone
    assert {len(group.meta) for group in alone if group.skipped} <= {first or 4}
    assert {len(group.meta) for group in alone if group.solutions} <= {4}


def on_ranks(ranks, skipped, first):
    """What each rank returns; they exchange in threads."""
    barrier = threading.Barrier(ranks, timeout=30)
    parts, results = [None] * ranks, [None] * ranks

    def run(rank):
        def gather(items):
            parts[rank] = items
            barrier.wait()
            longest = max(map(len, parts))
            joined = [part[i] for i in range(longest) for part in parts if i < len(part)]
            barrier.wait()
            return joined

        made = world(skipped, meta={"first": first})
        results[rank] = roll_out(made, draws(rank=rank, ranks=ranks), gather)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in results
    return results


# --- the loss's mean


def solution_weight(groups, config):
    samples = training_samples(groups, config)
    return sum(sample.denominator for sample in samples if sample.objective == "solution")


@pytest.mark.parametrize("count_skipped", [True, False])
def test_replaced_prompts_do_not_count_in_the_mean_and_empty_places_do(count_skipped):
    made = world(0.6, {"count_skipped": count_skipped})
    groups = roll_out(made, draws())
    rolled_out = [group for group in groups if group.solutions]
    assert len(rolled_out) == PLACES < len(groups)
    everything = solution_weight(rolled_out, made.config)
    assert solution_weight(groups, made.config) == everything

    made = world(0.8, {"count_skipped": count_skipped}, max_draws=2)
    groups = roll_out(made, draws())
    rolled_out = [group for group in groups if group.solutions]
    assert 0 < len(rolled_out) < PLACES < len(groups)
    each = solution_weight(rolled_out, made.config) / len(rolled_out)
    places = PLACES if count_skipped else len(rolled_out)
    assert solution_weight(groups, made.config) == pytest.approx(places * each)


def test_several_updates_have_equal_shares_of_the_prompts_rolled_out():
    groups = roll_out(world(), draws())
    assert [sum(bool(g.solutions) for g in groups[i::3]) for i in range(3)] == [2, 2, 2]
