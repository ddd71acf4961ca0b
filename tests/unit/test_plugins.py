"""Gates, cutoffs and samplers of a user's own: what is taken, and what is refused in one line."""

import contextlib
import math
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import pytest
from builders import algorithm, group, prediction, prompt, prompts

from masa.algorithm.controller import Controller
from masa.algorithm.cutoffs import Cutoff
from masa.algorithm.gates import Gate
from masa.errors import ConfigError, TrainingError
from masa.plugins import build_plugin, check_types, load_class, load_target, made, time_limit
from masa.rollout.datamodule import MasaDataModule
from masa.rollout.samplers import PromptSampler

HERE = __name__


@dataclass
class Level(Gate):
    """Skips levels from one on, and remembers how many outcomes it has seen."""

    above: int = 3
    seen: int = 0

    def skips(self, prompt, predictions, draw):
        return prompt.level > self.above

    def observe(self, groups):
        self.seen += len(groups)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Returns(Gate, Cutoff):
    """A gate and a cutoff that return what they are told."""

    def __init__(self, value):
        self.value = value

    def skips(self, prompt, predictions, draw):
        return self.value

    def tokens(self, prompt, predictions):
        return self.value


class Fails(Gate):
    def skips(self, prompt, predictions, draw):
        raise KeyError("no such\nprompt")


class TwoArguments(Gate):
    def skips(self, prompt, predictions):
        return False


class NoDecision(Gate):
    """Forgets the one method that a gate needs."""


class NoGate:
    def skips(self, prompt, predictions, draw):
        return False


class Refuses(Gate):
    def __init__(self, size):
        raise ValueError(f"{size} is too large")

    def skips(self, prompt, predictions, draw):
        return False


class Draws(PromptSampler):
    def __init__(self, indices):
        self.indices = indices

    def draw(self, prompts, count, number, seed):
        return [prompts[i] for i in self.indices]


def controller(gate=None, cutoff=None):
    nodes = {"gate": gate or {}, "cutoff": cutoff or {}}
    return Controller(algorithm(**{k: {"enabled": True} | v for k, v in nodes.items()}), seed=0)


def decide(made, level=0):
    return made.decide(prompt(level=level), (prediction(),) * 4, made.phase(1))


def test_a_gate_from_outside_decides_learns_and_is_resumed():
    made = controller(gate={"_target_": f"{HERE}.Level", "above": 2})
    assert [decide(made, level).max_tokens > 0 for level in (1, 2, 3)] == [True, True, False]
    made.observe([group(), group()])
    other = controller(gate={"_target_": f"{HERE}.Level", "above": 2})
    other.load_state_dict(made.state_dict())
    assert other.gate.seen == 2 and other.state_dict() == made.state_dict()


@pytest.mark.parametrize("tokens, limit", [(10, 10), (10.2, 11), (1, 4), (1e9, 64), (None, 64)])
def test_a_cutoff_from_outside_is_rounded_up_and_kept_in_range(tokens, limit):
    made = controller(cutoff={"_target_": f"{HERE}.Returns", "value": tokens})
    assert decide(made).max_tokens == limit


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (None, ["is None", "_target_: MODULE.CLASS"]),
        ({"above": 1}, ["_target_: MODULE.CLASS"]),
        ({"_target_": "nowhere.Mine"}, ["nowhere.Mine", "cannot be imported"]),
        ({"_target_": f"{HERE}.Absent"}, ["Absent", "cannot be imported"]),
        ({"_target_": f"{HERE}.controller"}, ["controller", "is no class"]),
        ({"_target_": f"{HERE}.NoGate"}, ["subclass of masa.algorithm.gates.Gate"]),
        ({"_target_": f"{HERE}.NoDecision"}, ["NoDecision", "no method skips"]),
        ({"_target_": f"{HERE}.TwoArguments"}, ["skips", "(prompt, predictions, draw)"]),
        ({"_target_": f"{HERE}.Level", "below": 1}, ["below"]),
        ({"_target_": f"{HERE}.Level", "above": "high"}, ["high"]),
        ({"_target_": f"{HERE}.Returns"}, ["cannot be built", "value"]),
        ({"_target_": f"{HERE}.Refuses", "size": 3}, ["cannot be built", "3 is too large"]),
        ({"_target_": "masa.algorithm.gates.PredictionGate", "sigma": -1}, ["gate.sigma is -1"]),
        ({"_target_": "masa.algorithm.gates.HistoryGate", "revisit": math.nan}, ["revisit is nan"]),
        *(
            ({"_target_": f"masa.algorithm.{name}", "window": 10**23}, ["gate.window is 1"])
            for name in ("gates.CombinedGate", "gates.CountsGate", "value_gate.ValueGate")
        ),
    ],
)
def test_a_gate_that_cannot_be_is_refused_in_one_line(node, words):
    with pytest.raises(ConfigError) as caught:
        build_plugin("algorithm.gate", node, Gate)
    message = str(caught.value)
    assert message.startswith("algorithm.gate") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("part", "target", "values"),
    [
        ("gate", "Returns", [None, 0.5, "no", [], math.nan]),
        ("cutoff", "Returns", [0, -1, math.nan, math.inf, "ten", [10]]),
    ],
)
def test_what_a_plugin_may_not_return_ends_the_run_in_one_line(part, target, values):
    for value in values:
        made = controller(**{part: {"_target_": f"{HERE}.{target}", "value": value}})
        with pytest.raises(TrainingError, match=rf"algorithm\.{part}.*prompt p: .*must") as caught:
            decide(made)
        assert "\n" not in str(caught.value)


def test_a_gate_that_fails_is_named_with_the_prompt():
    made = controller(gate={"_target_": f"{HERE}.Fails"})
    with pytest.raises(TrainingError, match=r"Fails\.skips, prompt p: .*KeyError") as caught:
        decide(made)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [[0], [0, 0], [0, 1, 2], [0, 99]])
def test_a_sampler_draws_as_many_distinct_prompts_as_asked(indices):
    def module(indices):
        sampler = build_plugin(
            "sampler", {"_target_": f"{HERE}.Draws", "indices": indices}, PromptSampler
        )
        return MasaDataModule(prompts(4), sampler, None, 2, 1, seed=0)

    assert [p.id for p in module([2, 1]).draw(1)] == ["id2", "id1"]
    changed = module([2, 1])
    changed.prompts = [replace(prompt, problem="another") for prompt in changed.prompts]
    with pytest.raises(TrainingError, match="2 prompts of the pool"):
        changed.draw(1)
    with pytest.raises(TrainingError, match=r"Draws\.draw, draw 3: ") as caught:
        module(indices).draw(3)
    assert "\n" not in str(caught.value)


@dataclass
class Levels(Gate):
    """A list among the settings."""

    levels: list[int]

    def skips(self, prompt, predictions, draw):
        return prompt.level in self.levels

    def state_dict(self):
        return {"levels": self.levels}


class LevelsOnce(Levels):
    """Its own constructor, no dataclass."""

    def __init__(self, first):
        super().__init__([first])

    def observe(self, groups):
        raise OSError("no\nspace")


def test_settings_arrive_as_plain_python():
    gate = build_plugin("algorithm.gate", {"_target_": f"{HERE}.Levels", "levels": [1]}, Gate)
    assert type(gate.levels) is list  # a checkpoint takes nothing of OmegaConf's
    with pytest.raises(ConfigError, match="levels"):
        build_plugin("algorithm.gate", {"_target_": f"{HERE}.Levels", "levels": ["a"]}, Gate)


def test_a_subclass_of_a_dataclass_may_have_its_own_constructor():
    made = controller(gate={"_target_": f"{HERE}.LevelsOnce", "first": 2})
    assert decide(made, level=2).max_tokens == 0 < decide(made, level=1).max_tokens
    with pytest.raises(TrainingError, match=r"LevelsOnce\.observe.*no space") as caught:
        made.observe([group()])
    assert "\n" not in str(caught.value)


# --- types of arguments


class Colour(StrEnum):
    RED = "red"


class Annotated:
    def __init__(
        self,
        bare,
        text: str = "a",
        number: float = 1.0,
        count: int | None = None,
        implicit: int = None,
        flag: bool = False,
        names: Sequence[str] = (),
        group: Mapping[str, Any] | None = None,
        anything: Any = None,
        thing: object = None,
        colour: Colour = Colour.RED,
        word: Literal["a", "b"] = "a",
        other: "Annotated | None" = None,
        **further: int,
    ):
        self.text = text

    @classmethod
    def of(cls, text: str):
        return cls(None, text)


class Unreadable:
    def __init__(self, size: "number of problems", tool: "'X' | None" = None):  # noqa: F722, F821
        self.size = size


@pytest.mark.parametrize("settings", [
    {"bare": None}, {"bare": 3}, {"text": "b"}, {"number": 2}, {"count": None}, {"count": 3},
    {"implicit": None}, {"names": ["a"]}, {"group": {"a": 1}}, {"group": None}, {"anything": None},
    {"thing": None}, {"colour": "red"}, {"word": "b"}, {"other": {"_target_": "x"}},
    {"other": None}, {"unknown": "x"},
])  # fmt: skip
def test_what_an_argument_may_be(settings):
    check_types("task", Annotated, settings)


@pytest.mark.parametrize("settings, words", [
    ({"text": 3}, "task.text is 3, it must be a text"),
    ({"text": None}, "task.text is None, it must be a text"),
    ({"number": "2"}, "task.number is '2', it must be a number"),
    ({"number": True}, "task.number is True, it must be a number"),
    ({"count": 2.5}, "task.count is 2.5, it must be an integer or null"),
    ({"flag": 1}, "task.flag is 1, it must be true or false"),
    ({"names": "a"}, "task.names is 'a', it must be a list"),
    ({"group": ["a"]}, "it must be a group of settings or null"),
])  # fmt: skip
def test_what_an_argument_may_not_be(settings, words):
    with pytest.raises(ConfigError) as caught:
        check_types("task", Annotated, settings)
    assert words in str(caught.value)


def test_any_callable_is_taken_whatever_its_annotations():
    check_types("task", Unreadable, {"size": 3, "tool": None})
    for name in ("Annotated.of", "call", "Annotated"):
        target = load_target("task", {"_target_": f"{HERE}.{name}" if name != "call" else
                                      "masa.plugins.call"})  # fmt: skip
        check_types("task", target, {"text": "a"})
    with pytest.raises(ConfigError, match="engine: masa.plugins.call is no class"):
        load_class("engine", {"_target_": "masa.plugins.call"})
    with pytest.raises(ConfigError, match="is no class and no function"):
        load_target("task", {"_target_": "masa.plugins.F.__name__"})


def test_a_group_of_settings_for_a_class():
    assert made("task.a", Annotated, {"bare": 1, "text": "b"}).text == "b"
    with pytest.raises(ConfigError, match="task.a: missing a required argument: 'bare'"):
        made("task.a", Annotated, {})
    with pytest.raises(ConfigError, match="task.a is 3, it must be a group of settings"):
        made("task.a", Annotated, 3)


# --- a time limit


def test_the_limit_does_not_outlive_its_block(monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with time_limit(1e300, "a.b"):
        pass
    assert not failed
    with time_limit(0.05, "a.b"):
        pass
    time.sleep(0.1)
    with pytest.raises(TimeoutError, match="it ran over a.b=0.05"), time_limit(0.05, "a.b"):
        time.sleep(1)


def test_a_regular_expression_is_stopped():
    """No other thread runs while it does."""
    before, started = signal.getsignal(signal.SIGVTALRM), time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.2, "a.b"):
        re.fullmatch(r"(a+)+", "a" * 40 + "b")
    assert time.monotonic() - started < 20
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_work_within_the_limit_is_left_alone():
    started = time.thread_time()
    with time_limit(60, "a.b"):
        while time.thread_time() - started < 2.5:
            pass


def test_what_takes_the_limit_for_its_own_error_is_stopped_all_the_same():
    def stubborn():
        with contextlib.suppress(TimeoutError):
            time.sleep(10)
        while True:
            pass

    with pytest.raises(TimeoutError), time_limit(0.1, "a.b"):
        stubborn()
