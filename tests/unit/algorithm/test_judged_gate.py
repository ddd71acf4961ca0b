"""Prompts chosen by the policy's own judgement, which sees recent outcomes."""

import json
import random

import numpy as np
import pytest
from builders import World, algorithm, group, meta_text, plan, prompt, prompts
from pools import families, knowing, p_mixed, play

from masa.algorithm.controller import Controller
from masa.algorithm.gates import JudgedGate
from masa.errors import ConfigError
from masa.rollout.loader import Draws
from masa.rollout.refill import refilled
from masa.rollout.samplers import ShuffledEpochs
from masa.types import MetaPrediction

G, PLACES = 8, 6
POOL = prompts(60)


def settings(recent=0, predict_mixed=True, **changes):
    node = {"enabled": True, "_target_": "masa.algorithm.gates.JudgedGate"}
    meta = {"group_size": 2, "first": 1, "predict_mixed": predict_mixed, "recent": recent}
    return algorithm(group_size=G, gate=node, meta=meta, selection={"refill": True}, **changes)


def test_the_rule_by_hand():
    def skips(*mixed, threshold=0.5):
        predictions = [MetaPrediction(0.5, 9, (), mixed=q) for q in mixed]
        return JudgedGate(threshold).skips(prompt(), predictions, 0.5)

    assert [skips(q) for q in (0.0, 0.49, 0.5, 1.0)] == [True, True, False, False]
    assert skips(0.2, 0.7) and not skips(0.2, 0.9) and skips(0.2, 0.9, threshold=0.6)
    assert skips(None, 0.1) and not skips(None) and not skips()
    assert not skips(None, None, 0.1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"threshold is 1.5, it must lie in \[0, 1\]"):
        JudgedGate(1.5)
    with pytest.raises(ConfigError, match="JudgedGate goes by a field .*predict_mixed=true"):
        Controller(settings(predict_mixed=False), seed=0)
    with pytest.raises(ConfigError, match="recent=3 shows whether .*predict_mixed=true"):
        settings(recent=3, predict_mixed=False)
    with pytest.raises(ConfigError, match=r"recent is -1, it must lie in \[0"):
        settings(recent=-1)


def test_with_perfect_judgements_what_is_more_likely_mixed_than_not_is_rolled_out():
    config = settings(response_limit=400)
    pool = families(rare=0.1)
    rolled = [r for step in play(Controller(config, 0), lambda step: pool, 15, knowing(0, G))
              for r in step]  # fmt: skip
    for one in rolled:
        assert one.group.skipped == (p_mixed(one.family.pass_rate, G) < 0.5)
    through = [r.mixed for r in rolled if not r.group.skipped]
    assert np.mean(through) > 0.7 > 0.4 > np.mean([r.mixed for r in rolled])


# --- the whole loop, with a policy that knows nothing but the outcomes that it is shown


def kind(problem):
    return int(problem.removeprefix("problem ")) % 3


def judges(shown, seed):
    """Mixed where the newest shown outcome of the kind was, or none is shown."""
    *outcomes, problem = shown.split(";")
    of_kind = [o[-1] == "1" for o in outcomes if kind(o.partition("=")[0]) == kind(problem)]
    return meta_text(4, 9, mixed=100 * (not of_kind or of_kind[-1]))


def solves(problem, seed):
    """Kind 0 is hopeless, 2 trivial, 1 in between."""
    right = random.Random(seed).random() < kind(problem) / 2
    return f"={problem.removeprefix('problem ')}" if right else "wrong"


def run(world, steps):
    """Rolled-out groups of these steps, of at most four draws each."""
    for step in steps:
        numbers = iter(range(4 * step, 4 * step + 4))
        stream = Draws(lambda ns=numbers: ShuffledEpochs().draw(POOL, PLACES, next(ns), 0))
        groups = refilled(stream(), stream, PLACES, world.at(step), list)
        world.controller.observe(groups)
        yield [g for g in groups if g.solutions]


def mixed_share(recent):
    world = World(settings(recent), judges, solves)
    return np.mean([g.mixed for groups in list(run(world, range(1, 41)))[10:] for g in groups])


def test_recent_outcomes_tell_what_can_be_learned():
    assert mixed_share(recent=0) < 0.4  # a third of the pool
    assert mixed_share(recent=12) > 0.6
    assert mixed_share(recent=40) > 0.8


def test_a_state_repeats_the_judgements():
    whole = World(settings(12), judges, solves)
    expected = list(run(whole, range(1, 21)))
    first, second = World(settings(12), judges, solves), World(settings(12), judges, solves)
    list(run(first, range(1, 13)))
    second.controller.load_state_dict(json.loads(json.dumps(first.controller.state_dict())))
    assert list(run(second, range(13, 21))) == expected[12:]
    assert second.controller.state_dict() == whole.controller.state_dict()
    shown = [text.count("=") for text in second.requested("meta")]
    assert set(shown) == {12}


def test_only_outcomes_that_are_known_are_shown():
    controller = Controller(settings(2), 0)
    known = [group(c, prompt=prompt(problem=n)) for n, c in zip("abc", [(1, 1), (1, 0), (0, 0)],
                                                                strict=True)]  # fmt: skip
    skipped = group((), prompt=prompt(problem="d"), decided=plan(max_tokens=0))
    cut = group((True, False), prompt=prompt(problem="e"), uncensored=False)
    controller.observe([*known, skipped, cut])
    assert list(controller.recent) == [("b", True), ("c", False)]
