"""What is said of a model that cannot start, and of one that can."""

import logging
import re
from dataclasses import replace

import builders
import pytest
from builders import algorithm, completion, plan, prediction, prompt

from masa.algorithm.controller import Controller
from masa.algorithm.step import reward
from masa.rollout import health
from masa.rollout.health import RunHealth
from masa.types import MetaPrediction

CONFIG = algorithm()
RIGHT, WRONG, MIXED = (True,) * 4, (False,) * 4, (True, False, False, True)


def group(correct, **fields):
    """A group with its advantages."""
    scores = fields.get("scores", tuple(map(float, correct)))
    return reward(builders.group(correct, shaped_scores=scores, **fields), CONFIG)


def problems(groups, config):
    return [line for line in health.problems(groups, config).values() if line]


def predicting(parsed, errors, text="I think so", cut=0):
    """A mixed group with `parsed` readable predictions and one per error, the first `cut` cut."""
    predictions = [*(MetaPrediction(error=error) for error in errors), *[prediction()] * parsed]
    meta = [completion(7, text=text, finished=i >= cut) for i in range(len(predictions))]
    return replace(group(MIXED, predictions=predictions), meta=tuple(meta))


def cut_at(limit, count):
    """A mixed group with `count` of 4 solutions cut at `limit` tokens."""
    solutions = tuple(completion(limit, finished=i >= count) for i in range(4))
    return replace(group(MIXED), solutions=solutions)


def test_a_model_that_can_start_is_not_spoken_of():
    healthy = [predicting(4, []), cut_at(64, 2), group(RIGHT), group(WRONG), group(())]
    assert problems(healthy, CONFIG) == []
    assert problems([group(()), group(())], CONFIG) == []
    assert problems([group(MIXED)], CONFIG) == []  # no predictions, as in grpo


@pytest.mark.parametrize(("parsed", "said"), [(0, True), (1, True), (2, False), (19, False)])
def test_predictions_without_the_form(parsed, said):
    (*line,) = problems([predicting(parsed, ["no </meta>"] * (20 - parsed))], CONFIG)
    assert bool(line) == said
    if said:
        assert line[0].startswith(f"only {parsed} of 20 predictions have the asked form;")


def test_the_most_frequent_reason_and_an_example_of_it_are_named():
    groups = [
        predicting(0, ["malformed JSON"] * 3, text="{"),
        predicting(0, ["no </meta>"] * 4, text=f"I \x1b\n{'think ' * 50}"),
    ]
    (line,) = problems(groups, CONFIG)
    assert "the most frequent reason, 4 times: no </meta>, as in 'I \\x1b think think" in line
    assert "\n" not in line and "\x1b" not in line and len(line) < 350
    assert "masa-sft" in line and "response_limit" not in line


@pytest.mark.parametrize(("cut", "said"), [(2, False), (3, True)])
def test_predictions_that_are_cut_need_a_larger_limit(cut, said):
    (line,) = problems([predicting(0, ["no </meta>"] * 4, cut=cut)], CONFIG)
    assert (
        f"{cut} of them were cut at algorithm.meta.response_limit=200: raise it" in line
    ) == said
    assert "masa-sft" in line


@pytest.mark.parametrize(
    ("groups", "found", "remedy"),
    [
        ([WRONG, WRONG, ()], "0 with all solutions right, 2 with all wrong", "easier problems"),
        ([RIGHT, RIGHT, ()], "2 with all solutions right, 0 with all wrong", "harder problems"),
        ([RIGHT, WRONG, WRONG], "1 with all solutions right, 2 with", "raise algorithm.group_size"),
    ],
)
def test_no_prompt_with_right_and_wrong_solutions(groups, found, remedy):
    (line,) = problems([group(correct) for correct in groups], CONFIG)
    assert found in line and remedy in line
    assert problems([group(correct) for correct in [*groups, MIXED]], CONFIG) == []
    graded = group(WRONG, scores=(0.1, 0.0, 0.3, 0.0))
    assert problems([*[group(correct) for correct in groups], graded], CONFIG) == []


def test_solutions_that_are_cut():
    (line,) = problems([cut_at(64, 3), cut_at(64, 2)], CONFIG)
    assert line == "5 of 8 solutions were cut at algorithm.response_limit=64: raise it"
    # stopped by the length cutoff, not by the limit
    assert problems([cut_at(20, 4)], CONFIG) == []


def said(caplog, rollouts, steps, prompts, sampled=lambda step: WRONG):
    """Steps after which a line was logged."""
    caplog.clear()
    run, after = RunHealth(CONFIG, rollouts), []
    with caplog.at_level(logging.WARNING, "masa"):
        for step in steps:
            before = len(caplog.records)
            run.observe([group(sampled(step))] * prompts, step, "")
            after += [step] * (len(caplog.records) - before)
    return after


def test_it_is_said_early_and_once_in_a_hundred_rollouts(caplog):
    assert said(caplog, 100, range(1, 9), prompts=6) == [3]
    assert said(caplog, 100, range(1, 9), prompts=32) == [2]
    assert said(caplog, 100, range(1, 9), prompts=128) == [1]
    assert said(caplog, 1, [1], prompts=6) == [1]
    assert said(caplog, 100, [1, 2], prompts=6) == []
    assert said(caplog, 100, range(3, 9), prompts=6) == [5]  # resumed
    assert said(caplog, 300, range(1, 301), prompts=6) == [3, 103, 203]


def test_what_goes_wrong_later_is_said_when_it_does(caplog):
    later = said(caplog, 300, range(1, 60), 6, lambda step: MIXED if step < 40 else RIGHT)
    assert later == [42]  # 6 of 18 prompts are mixed in rollout 41
    (line,) = caplog.messages
    assert line.startswith("rollout 42, there is little to learn: no prompt of 18 has")
    assert line.endswith("choose harder problems")


@pytest.mark.parametrize(("mixed", "said"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_tenth_of_the_prompts_is_little_to_learn_from(mixed, said):
    lines = problems([group(RIGHT)] * (20 - mixed) + [group(MIXED)] * mixed, CONFIG)
    assert len(lines) == said
    if mixed == 2:
        assert lines[0].startswith("2 prompts of 20 have right and wrong solutions (18 with all")
        assert lines[0].endswith("little to learn from the verdicts: choose harder problems")


def test_a_gate_without_evidence_names_what_it_needs(caplog):
    gated = algorithm(gate={"enabled": True, "min_precision": 0.7}, control={"start_step": 5})
    for config, lacks, steps in ((gated, "it needs", [16]), (gated, "", []), (CONFIG, "it", [])):
        run, after = RunHealth(config, 100), []
        for step in range(1, 30):
            caplog.clear()
            run.observe([group(MIXED)] * 6, step, lacks)
            after += [step] * len(caplog.records)
            said = "the gate cannot act, as it needs, or set algorithm.gate.enabled=false"
            assert not caplog.messages or caplog.messages[0].endswith(said)
        assert after == steps


SKIP = plan(would_skip=True)
KEPT, SKIPPED = group(MIXED), group(RIGHT, decided=SKIP)
BY_VALUE = {"_target_": "masa.algorithm.value_gate.ValueGate", "min_evidence": 3}


@pytest.mark.parametrize(
    ("gate", "groups", "lacks"),
    [
        ({}, [], ""),
        ({"min_precision": 0.7}, [KEPT] * 4, "0 prompts that it would skip .*min_evidence=2 are"),
        ({"min_precision": 0.7}, [SKIPPED] * 2, ""),
        ({"min_gain": 1}, [KEPT], "measured on 1 prompts and algorithm.control.min_evidence=2 are"),
        ({"min_gain": 1}, [KEPT] * 9, "of the 9 newest .* would skip 0: let the gate skip sooner"),
        ({"min_gain": 1}, [SKIPPED] * 9, "newest prompts 0 are mixed, .* problems in between"),
        ({"min_gain": 1}, [KEPT, SKIPPED], ""),
        (BY_VALUE, [group(MIXED, predictions=[prediction()])] * 2 + [group(RIGHT)], "2 of the 2"),
        (BY_VALUE, [group(MIXED, predictions=[prediction()])] * 3, ""),
        (BY_VALUE | {"min_precision": 0.7}, [], "algorithm.gate.min_evidence=3 are needed"),
    ],
)
def test_what_a_gate_waits_for(gate, groups, lacks):
    acting = algorithm(gate={"enabled": True} | gate, control={"audit_fraction": 1e-9})
    controller = Controller(acting, seed=0)
    controller.observe(groups)
    assert re.search(lacks, controller.gate_lacks) if lacks else controller.gate_lacks == ""
    assert controller.metrics() == {"health/gate_starved": float(bool(lacks))}
    assert Controller(algorithm(gate={"enabled": False} | gate), seed=0).metrics() == {}
    assert not (
        lacks and controller.phase(1).gate_active and controller.gate.skips(prompt(), (), 0)
    )


@pytest.mark.parametrize("prompts", [6, 64, 200])
def test_large_rollouts_are_not_kept(prompts):
    run = RunHealth(CONFIG, 100)
    for step in range(1, 9):
        run.observe([group(MIXED)] * prompts, step, "")
    assert len(run._newest) == (3 if prompts == 6 else 1)


def test_dynamic_sampling_leaves_out_what_differs_in_score_alone():
    groups = [group(correct=(False, False), scores=(0.1, 0.4))]
    (line,) = problems(groups, algorithm(dynamic_sampling=2))
    assert "lower task.correct_at, or set algorithm.dynamic_sampling=0" in line
    assert problems(groups, algorithm()) == []
