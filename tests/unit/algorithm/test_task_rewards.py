import asyncio
import signal
import sys
import time
import types
from dataclasses import replace

import builders
import numpy as np
import pytest
import torch
from builders import completion, group, prompt

from masa.algorithm.step import collect, judge, reward
from masa.algorithm.task_rewards import TaskRewards
from masa.config import TaskConfig
from masa.errors import ConfigError, TrainingError, VerdictError
from masa.tracking.metrics import rollout_metrics
from masa.types import Completion, Prompt


def length_reward(completions, completion_ids, **kwargs):
    return [-float(len(ids)) for ids in completion_ids]


def messages_reward(prompts, completions, **kwargs):
    assert all(messages[-1]["role"] == "user" for messages in prompts)
    return [float(messages[0]["content"].startswith("<think>")) for messages in completions]


async def accuracy_reward(completions, solution, **kwargs):
    await asyncio.sleep(0.01)
    return [None if s is None else float(s in c) for c, s in zip(completions, solution)]  # noqa: B905


class Judge:
    async def __call__(self, completions, trainer_state, log_metric=None, **kwargs):
        log_metric("judged", 1.0)
        return torch.full((len(completions),), float(trainer_state.global_step))


judge_object = Judge()


def raises(completions, **kwargs):
    raise ValueError("no such thing")


def too_few(completions, **kwargs):
    return [1.0]


def nan(completions, **kwargs):
    return [float("nan")] * len(completions)


def words(completions, **kwargs):
    return ["good"] * len(completions)


def slow(completions, **kwargs):
    while True:
        time.sleep(0.01)


async def slow_async(completions, **kwargs):
    await asyncio.sleep(60)


async def blocking_async(completions, **kwargs):
    time.sleep(60)


def stubborn(completions, **kwargs):
    scores = []
    for _ in completions:
        try:
            time.sleep(0.4)
            scores.append(1.0)
        except Exception:
            scores.append(0.0)
    return scores


async def in_a_thread(completions, **kwargs):
    await asyncio.to_thread(time.sleep, 3)


async def cancelled(completions, **kwargs):
    raise asyncio.CancelledError


def leaves(completions, **kwargs):
    raise SystemExit(3)


def text(completions, **kwargs):
    return "111"


def factory(limit=3):
    return length_reward


def alarmed(completions, **kwargs):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(0)
    return np.ones(len(completions))


def entries(**functions):
    return {
        name: {"_target_": f"{__name__}.{function}", "weight": weight}
        for name, (function, weight) in functions.items()
    }


PROMPTS = [
    Prompt("p0", "problem 0", "7", columns={"solution": "7", "completions": "not this"}),
    Prompt("p1", "problem 1", "8", columns={"solution": None}),
    Prompt("p2", "problem 2", "9"),
]
SOLUTIONS = [
    [Completion((1, 2), (0.0, 0.0), True, 0, "it is 7"), Completion((1,), (0.0,), True, 0, "8")],
    [],
    [Completion((1, 2, 3), (0.0,) * 3, True, 0, "<think>9")],
]


def rewards_of(spec, **settings):
    return TaskRewards(spec, PROMPTS, lambda p: f"solve {p.problem}", **settings)


def test_functions_of_trl_run_unchanged():
    spec = entries(
        length=("length_reward", 0.5), accuracy=("accuracy_reward", 2), judge=("judge_object", 0)
    )
    scores = rewards_of(spec)(PROMPTS, SOLUTIONS, step=4)
    assert [len(of_prompt) for of_prompt in scores] == [2, 0, 1]
    assert scores[0][0] == {"accuracy": 1.0, "judge": 3.0, "length": -2.0}
    assert scores[0][1] == {"accuracy": 0.0, "judge": 3.0, "length": -1.0}
    # a row without the column: None reaches the function, and None does not apply
    assert scores[2][0] == {"accuracy": None, "judge": 3.0, "length": -3.0}
    weighted = rewards_of(spec).weighted
    assert [weighted(s) for s in (*scores[0], *scores[2])] == [1.0, -0.5, -1.5]


def test_chat_messages():
    spec = entries(form=("messages_reward", 1))
    scores = rewards_of(spec, messages=True)(PROMPTS, SOLUTIONS, 1)
    assert [s["form"] for of_prompt in scores for s in of_prompt] == [0.0, 0.0, 1.0]


def test_what_a_function_gets(monkeypatch):
    seen = []

    def record(prompts, completions, completion_ids, problem, answer, level, solution):
        seen.append((prompts, completions, completion_ids, problem, answer, level, solution))
        return [0.0] * len(prompts)

    module = types.ModuleType("recording")
    module.record = record
    monkeypatch.setitem(sys.modules, "recording", module)
    rewards_of({"r": {"_target_": "recording.record", "weight": 1}})(PROMPTS, SOLUTIONS, 1)
    assert seen == [
        (
            ["solve problem 0", "solve problem 0", "solve problem 2"],
            ["it is 7", "8", "<think>9"],
            [[1, 2], [1], [1, 2, 3]],
            ["problem 0", "problem 0", "problem 2"],
            ["7", "7", "9"],
            [0, 0, 0],
            ["7", "7", None],
        )
    ]


def test_nothing_is_called_without_solutions():
    spec = entries(r=("raises", 1))
    assert rewards_of(spec)(PROMPTS, [[], [], []], 1) == [(), (), ()]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "failed with ValueError: no such thing"),
        ("too_few", "it must return 3 finite numbers or None"),
        ("nan", "it must return 3 finite numbers or None"),
        ("words", "failed with ValueError: could not convert"),
        ("slow", "failed with TimeoutError: it ran over task.reward_seconds=0.2"),
        ("slow_async", "failed with TimeoutError: it ran over task.reward_seconds=0.2"),
        ("stubborn", "failed with TimeoutError: it ran over task.reward_seconds=0.2"),
        ("in_a_thread", "failed with TimeoutError: it ran over task.reward_seconds=0.2"),
        ("cancelled", "failed with CancelledError"),
        ("leaves", "failed with SystemExit: 3"),
        ("text", "failed with TypeError: it returned '111', no list of numbers"),
        ("blocking_async", "failed with TimeoutError: it ran over task.reward_seconds=0.2"),
    ],
)
def test_a_bad_function_ends_the_run_in_one_line(function, message):
    rewards = rewards_of(entries(a=("length_reward", 1), mine=(function, 1)), seconds=0.2)
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TrainingError) as caught:
        rewards(PROMPTS, SOLUTIONS, 1)
    text = str(caught.value)
    assert text.startswith(f"task.rewards.mine: {__name__}.{function}, first prompt p0: it ")
    assert message in text and "\n" not in text
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_a_function_may_set_alarms_of_its_own():
    scores = rewards_of(entries(a=("alarmed", 1)), seconds=5)(PROMPTS, SOLUTIONS, 1)
    assert scores[0][0] == {"a": 1.0}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"_target_": f"{__name__}.accuracy_reward", "weight": 1}, "'solution'"),
        ({"_target_": f"{__name__}.nowhere", "weight": 1}, "cannot be imported"),
        ({"_target_": f"{__name__}.factory", "weight": 1}, "not what makes one"),
        ({"_target_": f"{__name__}.Judge", "weight": 1}, "not what makes one"),
        ({"_target_": f"{__name__}.length_reward"}, "task.rewards.mine.weight is missing"),
        ({"_target_": f"{__name__}.length_reward", "weight": -1}, "finite number >= 0"),
        ("brevity", "it must be {_target_: MODULE.FUNCTION, weight: NUMBER, ...}"),
    ],
)
def test_a_bad_entry_is_refused(entry, message):
    without_columns = [prompt()]
    with pytest.raises(ConfigError, match="task.rewards.mine") as caught:
        TaskRewards({"mine": entry}, without_columns)
    assert message in str(caught.value)


def test_rewards_shape_the_advantage_and_nothing_else():
    plain = reward(group(correct=(True, True)), builders.algorithm())
    shaped = group(
        correct=(True, True),
        task_rewards=({"brevity": 1.0, "form": None}, {"brevity": 0.0, "form": None}),
        shaped_scores=(1.5, 1.0),
    )
    shaped = reward(shaped, builders.algorithm())
    assert plain.solution_advantages == (0.0, 0.0)
    assert shaped.solution_rewards == (1.5, 1.0)
    assert shaped.solution_advantages[0] > 0 > shaped.solution_advantages[1]
    assert shaped.zero_variance and not shaped.mixed and shaped.pass_rate == 1
    plain = group(task_rewards=({"brevity": None, "form": None},) * 2)
    metrics = rollout_metrics([shaped, plain], 0)
    assert metrics["reward"] == (1.25 + 0.5) / 2 and metrics["pass_rate"] == 0.75
    assert "overlong_penalty" not in metrics


def test_metrics_are_over_the_solutions_to_which_a_reward_applies():
    some = group(task_rewards=({"a": 1.0, "b": None}, {"a": None, "b": None}))
    more = group(task_rewards=({"a": 3.0, "b": None}, {"a": 5.0, "b": None}))
    metrics = rollout_metrics([some, more], 0)
    assert metrics["rewards/a/mean"] == 3.0 and metrics["rewards/a/std"] == 2.0
    assert not any(name.startswith("rewards/b") for name in metrics)


BAD_SCORES = [[1.5, 0], [float("nan"), 0], [-0.1, 0], [1.0], None, ["1", 0], [None, 0]]


@pytest.mark.parametrize("scores", BAD_SCORES)
def test_scores_outside_the_interval_end_the_run(scores):
    solutions = [[completion(2), completion(3)]]
    with pytest.raises(VerdictError, match=r"prompt p|for 2 responses"):
        judge([prompt()], solutions, lambda answers: scores)


@pytest.mark.parametrize("setting", [{"correct_at": 0}, {"correct_at": 1.1}, {"reward_seconds": 0}])
def test_bad_settings(setting):
    with pytest.raises(ConfigError, match=f"task.{next(iter(setting))} is"):
        TaskConfig(**setting)


def test_correct_is_a_score_of_at_least_correct_at():
    config = builders.algorithm()
    world = builders.World(config, lambda problem, seed: "", lambda problem, seed: "x")
    context = replace(world.at(1), verify=lambda answers: [0.5] * len(answers))
    for threshold, right in ((0.5, True), (0.6, False)):
        (outcome,) = collect([prompt()], replace(context, correct_at=threshold))
        assert set(outcome.correct) == {right} and set(outcome.solution_rewards) == {0.5}
