from dataclasses import replace

import pytest
from builders import World, algorithm, group, meta_text, plan, prompt, prompts
from pools import families, kept, play

from masa.algorithm.controller import Controller
from masa.algorithm.gates import CountsGate
from masa.algorithm.step import collect
from masa.errors import ConfigError

RIGHT, MIXED = (True, True), (True, False)


def at(level, correct, **fields):
    return group(correct, prompt=prompt(f"p{level}", level=level), **fields)


def controller(audit=0.1, **settings):
    node = {"enabled": True, "_target_": "masa.algorithm.gates.CountsGate", **settings}
    config = algorithm(
        group_size=8, response_limit=200, gate=node, meta={"enabled": False},
        control={"audit_fraction": audit},
    )  # fmt: skip
    return Controller(config, seed=0)


@pytest.mark.parametrize("outcomes, skipped", [
    ([RIGHT] * 3, False),  # too few
    ([RIGHT] * 4, True),  # .5 / 6 = .083
    ([RIGHT] * 4 + [MIXED], False),  # 1.5 / 7
    ([MIXED] + [RIGHT] * 11, True),  # 1.5 / 14 = .107
    ([MIXED] * 2 + [RIGHT] * 10, False),  # 2.5 / 14
    ([MIXED] * 9 + [RIGHT] * 12, True),  # only the newest 12 count
])  # fmt: skip
def test_the_rule_by_hand(outcomes, skipped):
    gate = CountsGate()
    gate.observe([at(1, correct) for correct in outcomes])
    assert gate.skips(prompt("new", level=1), (), 0.5) == skipped
    assert not gate.skips(prompt("new", level=2), (), 0.5)


def test_groups_that_the_cutoff_met_do_not_count():
    gate = CountsGate()
    gate.observe([at(1, RIGHT, uncensored=False) for _ in range(9)])
    gate.observe([at(1, (), decided=plan(max_tokens=0)) for _ in range(9)])
    assert gate.state_dict()["past"]["outcomes"] == {}


def test_outcomes_fade():
    """What was hopeless is tried again once too little is known of it."""
    gate = CountsGate(half_life=2)
    gate.observe([at(1, RIGHT) for _ in range(8)])
    decided = []
    for _ in range(4):
        decided.append(gate.skips(prompt("new", level=1), (), 0.5))
        gate.observe([])
    assert decided == [True, True, True, False]  # 8, 5.7, 4 and 2.8 outcomes
    with pytest.raises(ConfigError, match="half_life is 0"):
        CountsGate(half_life=0)


def test_several_keys_and_columns():
    def row(family, level):
        return replace(prompt(level=level), columns={"family": family})

    gate = CountsGate(key=["family", "level"])
    gate.observe([group(RIGHT, prompt=row("a", 1)) for _ in range(6)])
    skipped = {(f, n) for f in "ab" for n in (1, 2) if gate.skips(row(f, n), (), 0.5)}
    assert skipped == {("a", 1)}
    assert not gate.skips(prompt("held-out prompts may lack it", level=1), (), 0.5)


def test_it_goes_by_columns_of_the_data_set():
    """Groups travel without them; the callback gives each its prompt of the pool."""
    node = {"_target_": "masa.algorithm.gates.CountsGate", "key": ["family"], "enabled": True}
    config = algorithm(gate=node, meta={"enabled": False}, control={"audit_fraction": 1e-9})
    rows = [
        replace(p, columns={"family": i % 2, "solution": "long"}) for i, p in enumerate(prompts(24))
    ]

    def solves(problem, seed):
        number = int(problem.removeprefix("problem "))
        return f"={number}" if number % 2 or seed % 2 else "wrong"

    world = World(config, lambda problem, seed: meta_text(4, 9), solves)
    groups = collect(rows, world.at(1))
    assert [g.prompt.columns for g in groups] == [{}] * 24
    whole = [replace(g, prompt=row) for g, row in zip(groups, rows, strict=True)]
    world.controller.observe(whole)
    after = collect(rows, world.at(2))
    assert [g.skipped for g in after] == [bool(i % 2) for i in range(24)]


def test_a_pool_of_known_pass_rates():
    """At least .9 of the mixed groups at half of the tokens; a family that changes comes back."""

    def pool(step):
        return families(hopeless=0.001 if step <= 60 else 0.4)

    steps = list(play(controller(key=["family"]), pool, 160))
    before = [r for step in steps[20:60] for r in step]
    signal, tokens = kept(before)
    assert signal > 0.9 and tokens < 0.5
    signal, tokens = kept([r for step in steps[130:] for r in step])
    assert signal > 0.9 and tokens > 0.7


def test_resumed_it_decides_as_before():
    whole = list(play(controller(key=["family"]), lambda step: families(), 24))
    first, second = controller(key=["family"]), controller(key=["family"])
    list(play(first, lambda step: families(), 12))
    second.load_state_dict(first.state_dict())
    again = list(play(second, lambda step: families(), 24, first=13))
    assert [r.group.plan for step in again for r in step] == [
        r.group.plan for step in whole[12:] for r in step
    ]
    assert any(r.group.skipped for step in again for r in step)


@pytest.mark.parametrize("settings, says", [
    ({"key": []}, "gate.key is empty"),
    ({"key": "level"}, "gate.key"),
    ({"min_evidence": 13}, r"min_evidence is 13, it must lie in \[1, window\]"),
    ({"min_mixed": 1.1}, "min_mixed is 1.1"),
    ({"window": "many"}, "gate.window"),
])  # fmt: skip
def test_bad_settings(settings, says):
    with pytest.raises(ConfigError, match=says):
        controller(**settings)


def test_a_column_that_the_task_lacks():
    rows = [replace(p, columns={"source": "a"}) for p in prompts(2)]
    controller(key=["source", "level", "id"]).require_columns(rows)
    with pytest.raises(ConfigError, match=r"gate.key: .* has no column family; .*level, id, sourc"):
        controller(key=["family"]).require_columns(rows)
    Controller(algorithm(), seed=0).require_columns(rows)


def test_a_pool_of_prompts_that_are_all_alike():
    """As one without levels, which have level 0."""
    rows = [replace(p, level=0, columns={"source": "a", "type": p.id}) for p in prompts(5)]
    for key in (["level"], ["source", "level"]):
        with pytest.raises(ConfigError, match="gate.key: all 5 prompts of the pool are alike"):
            controller(key=key).require_columns(rows)
    controller(key=["level", "type"]).require_columns(rows)
    controller(key=["id"]).require_columns(rows)


def test_without_audits_it_is_refused_unless_what_is_skipped_is_seen_again():
    with pytest.raises(ConfigError, match="audit_fraction is 0, .* CountsGate never learns"):
        controller(audit=0)
    controller(audit=0, half_life=10)
    controller(audit=0, enabled=False)
    config = algorithm(
        gate={"enabled": True, "_target_": "masa.algorithm.gates.CountsGate"},
        meta={"enabled": False},
        control={"audit_fraction": 0, "audit_trivial": 0.1, "audit_hopeless": 0.1},
    )
    Controller(config, seed=0)
