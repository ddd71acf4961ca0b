"""Further rewards of solutions beside the verdict: functions written for TRL's `reward_funcs`.

Each is an entry of `task.rewards`. They shape the advantages and nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from masa.errors import require
from masa.plugins import WeightedFunction, call, is_finite, time_limit
from masa.types import Completion, Prompt

ARGUMENTS = ("prompts", "completions", "completion_ids")
"""What every function gets, by name, one entry per solution."""
OF_THE_TRAINER = ("trainer_state", "log_extra", "log_metric")
"""What TRL passes as well. The state has `global_step`, `max_steps` and `epoch`, the share of the
run that is done; the others are None."""
OF_PROMPTS = ("problem", "answer", "level")
"""What a prompt has by itself; a column of that name takes its place."""

LIMIT = "task.reward_seconds"

Scores = Mapping[str, float | None]
"""Rewards of one solution by name, None where one does not apply."""


class TaskRewards:
    """The functions of `task.rewards`.

    Args:
        entries: per name `_target_`, `weight` and settings of the function; it is called by name
            with `ARGUMENTS`, `OF_THE_TRAINER` and the columns of the data set, of which it gets
            those that it takes.
        prompts: the prompts that may come, for the names of their columns.
        prompt_text: the text of q_sol without a hint.
        messages: prompts and completions are chat messages, else plain texts.
        seconds: time limit of each call.
        max_steps: rollouts of the run.

    Raises:
        ConfigError: an entry cannot be used, or needs a column that there is not.
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        prompts: Sequence[Prompt] = (),
        prompt_text: Callable[[Prompt], str] = str,
        messages: bool = False,
        seconds: float = 600.0,
        max_steps: int = 0,
    ) -> None:
        columns = {column for prompt in prompts for column in prompt.columns} if entries else set()
        # objects have a `self` of their own
        self.columns = sorted(columns - {*ARGUMENTS, *OF_THE_TRAINER, "self"})
        self.of_prompts = [name for name in OF_PROMPTS if name not in columns]
        names = (*ARGUMENTS, *OF_THE_TRAINER, *self.of_prompts, *self.columns)
        self.functions = WeightedFunction.from_entries("task.rewards", entries, names, by_name=True)
        for function in self.functions:
            require(
                bool(set(function.arguments) & {*ARGUMENTS})
                and not inspect.isclass(function.function.func),
                f"task.rewards.{function.name}: {function.target} takes none of "
                f"{', '.join(ARGUMENTS)}: name a reward function, not what makes one",
            )
        self.prompt_text = prompt_text
        self.messages = messages
        self.seconds = seconds
        self.max_steps = max_steps

    def __call__(
        self, prompts: Sequence[Prompt], solutions: Sequence[Sequence[Completion]], step: int
    ) -> list[tuple[Scores, ...]]:
        """Rewards of every solution of every prompt, in one call per function.

        Raises:
            TrainingError: a function failed, took too long, or returned something else than one
                finite number or None per solution.
        """
        pairs = [(p, c) for p, group in zip(prompts, solutions, strict=True) for c in group]
        if not (self.functions and pairs):
            return [tuple({} for _ in group) for group in solutions]
        values = self._values(pairs, step)
        names = [function.name for function in self.functions]
        rows = iter([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)])
        return [tuple(next(rows) for _ in group) for group in solutions]

    def weighted(self, scores: Scores) -> float:
        """Weighted sum of the rewards of one solution; one that does not apply adds nothing."""
        parts = ((f.weight, scores.get(f.name)) for f in self.functions)
        return sum(weight * score for weight, score in parts if score is not None)

    def _values(
        self, pairs: Sequence[tuple[Prompt, Completion]], step: int
    ) -> list[list[float | None]]:
        """Per function its values, one per solution."""
        outcomes: dict[str, Callable[[], Any]] = {}
        waiting: dict[str, Coroutine[Any, Any, Any]] = {}
        for function in self.functions:
            # made anew, as a function may change its lists
            arguments = self._arguments(pairs, step)
            wanted = {name: arguments[name] for name in function.arguments}
            if is_async(function.function):
                waiting[function.name] = function.function(**wanted)
            else:
                outcomes[function.name] = partial(self._limited, function.function, wanted)
        outcomes |= self._awaited(waiting)
        first, count = pairs[0][0].id, len(pairs)
        return [
            call(
                f"task.rewards.{function.name}: {function.target}",
                f"first prompt {first}",
                numbers,
                outcomes[function.name],
                valid=lambda returned: (
                    len(returned) == count
                    and all(value is None or is_finite(value) for value in returned)
                ),
                expected=f"{count} finite numbers or None, one per completion",
            )
            for function in self.functions
        ]

    def _arguments(self, pairs: Sequence[tuple[Prompt, Completion]], step: int) -> dict[str, Any]:
        prompts: list[Any] = [self.prompt_text(prompt) for prompt, _ in pairs]
        completions: list[Any] = [completion.text for _, completion in pairs]
        if self.messages:
            prompts = [[{"role": "user", "content": text}] for text in prompts]
            completions = [[{"role": "assistant", "content": text}] for text in completions]
        return {
            **{name: [getattr(p, name) for p, _ in pairs] for name in self.of_prompts},
            **{name: [p.columns.get(name) for p, _ in pairs] for name in self.columns},
            "prompts": prompts,
            "completions": completions,
            "completion_ids": [c.token_ids.tolist() for _, c in pairs],
            "trainer_state": SimpleNamespace(
                global_step=step - 1,
                max_steps=self.max_steps,
                epoch=(step - 1) / max(1, self.max_steps),
            ),
            "log_extra": _unlogged,
            "log_metric": _unlogged,
        }

    def _limited(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        with time_limit(self.seconds, LIMIT):
            return function(**arguments)

    def _awaited(
        self, waiting: Mapping[str, Coroutine[Any, Any, Any]]
    ) -> dict[str, Callable[[], Any]]:
        """The outcomes of async functions, which run at the same time."""

        async def run() -> list[Any]:
            limited = [limited_async(routine, self.seconds) for routine in waiting.values()]
            return await asyncio.gather(*limited, return_exceptions=True)

        if not waiting:
            return {}
        results: list[Any]
        # not asyncio.run, which waits for the threads that a function has started
        loop = asyncio.new_event_loop()
        try:
            # one that never awaits would not notice its own limit
            with time_limit(self.seconds, LIMIT, grace=1.0):
                results = loop.run_until_complete(run())
        except TimeoutError as error:
            results = [error] * len(waiting)
        finally:
            loop.close()
        return {name: partial(outcome_of, r) for name, r in zip(waiting, results, strict=True)}


def is_async(function: partial[Any]) -> bool:
    """True for an async function, and for an object with an async `__call__`."""
    inner = function.func
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004
    )


def numbers(outcome: Callable[[], Any]) -> list[float | None]:
    """Plain numbers out of a list, an array or a tensor, or of a list of tensors."""
    returned = outcome()
    if isinstance(returned, str | Mapping):
        raise TypeError(f"it returned {returned!r:.80}, no list of numbers")
    return [None if value is None else float(value) for value in returned]


def outcome_of(result: Any) -> Any:
    """A result, or the exception that took its place."""
    if isinstance(result, BaseException):
        raise result
    return result


async def limited_async(routine: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """What the routine returns.

    Raises:
        TimeoutError: it ran longer.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            return await routine
    except TimeoutError as error:
        over = TimeoutError(f"it ran over {LIMIT}={seconds:g}")
        raise (over if limit.expired() else error) from error


def _unlogged(*args: object, **kwargs: object) -> None:
    """What TRL gives a reward for its own logging."""
