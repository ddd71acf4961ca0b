"""A task without its prompts that are too long, in tokens of the policy."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from masa.errors import ConfigError, require
from masa.tasks.base import Task, same_of
from masa.tasks.templates import PromptRenderer
from masa.types import Prompt


def prompt_tokens(prompt: Prompt, renderer: PromptRenderer) -> int:
    """Tokens of q_sol or q_meta, of the longer one."""
    return max(len(renderer.meta_prompt(prompt)), len(renderer.solution_prompt(prompt, ())))


def check_task(task: Task) -> None:
    """Raise ConfigError where a task cannot be trained and validated on.

    It has a report and a verifier; each prompt has an id of its own, there are some to validate on,
    and none of these is trained on.
    """
    name = type(task).__name__
    require(
        isinstance(getattr(task, "report", None), Mapping),
        f"{name}.report must be a property that returns a dict, for data.json",
    )
    verify = getattr(task, "verify", None)
    require(callable(verify), f"{name} has no method verify(answers)")
    require(not inspect.iscoroutinefunction(verify), f"{name}.verify must not be async")
    try:
        inspect.signature(task.verify).bind([])
    except TypeError as error:
        raise ConfigError(f"{name}.verify cannot be called with (answers): {error}") from error
    require(
        len(task.validation) > 0, f"{name}.validation is empty: there is nothing to validate on"
    )
    for pool, prompts in (("train", task.train), ("validation", task.validation)):
        ids = Counter(prompt.id for prompt in prompts)
        twice = next((each for each, count in ids.items() if count > 1), None)
        require(
            twice is None,
            f"{name}.{pool} has several prompts with the id {twice!r}: give each its own",
        )
    trained = {prompt.problem for prompt in task.train}
    both = next((p.problem for p in task.validation if p.problem in trained), None)
    require(
        both is None,
        f"{name}.validation and .train have a problem in common, {str(both)[:60]!r}: leave it out "
        "of one, or accuracy is measured on what was trained on",
    )


class LimitedTask:
    """A task without the prompts whose q_sol or q_meta is longer than the limit.

    Args:
        task: the task.
        renderer: its templates over the policy's tokenizer.
        limit: tokens of the longest prompt.

    Raises:
        ConfigError: no prompt remains to train or to validate on.
    """

    def __init__(self, task: Task, renderer: PromptRenderer, limit: int) -> None:
        self._task = task
        self.templates = task.templates
        self.longest_prompt = 0
        self._too_long = 0
        self.train = self._within(task.train, renderer, limit, "train")
        self.validation = self._within(task.validation, renderer, limit, "validate")
        unseen: Sequence[Prompt] = getattr(task, "unseen", ())
        self.unseen = self._within(unseen, renderer, limit, "validate") if unseen else []

    @property
    def report(self) -> Mapping[str, Any]:
        """The task's report, with the numbers of prompts that are too long and that remain."""
        report = dict(self._task.report)
        dropped = {**report.pop("dropped", {}), "over algorithm.prompt_limit": self._too_long}
        sizes = {"train": len(self.train), "validation": len(self.validation)}
        return {**report, "dropped": dropped, **sizes, "longest_prompt": self.longest_prompt}

    def summary(self) -> str:
        """The report in one line."""
        dropped = [f"{n} {reason}" for reason, n in self.report["dropped"].items() if n]
        suffix = f"; dropped: {', '.join(dropped)}" if dropped else ""
        return f"data: {len(self.train)} to train on, {len(self.validation)} held out{suffix}"

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> Sequence[float]:
        """The task's scores."""
        return self._task.verify(answers)

    def same(self, a: str, b: str) -> bool:
        """The task's judgement.

        Raises:
            ConfigError: the task cannot tell.
        """
        return same_of(self._task)(a, b)

    def _within(
        self, prompts: Sequence[Prompt], renderer: PromptRenderer, limit: int, use: str
    ) -> list[Prompt]:
        lengths = [prompt_tokens(prompt, renderer) for prompt in prompts]
        within = [p for p, tokens in zip(prompts, lengths, strict=True) if tokens <= limit]
        if not within:
            raise ConfigError(
                f"all {len(prompts)} prompts to {use} on have over algorithm.prompt_limit={limit} "
                f"tokens, the shortest {min(lengths)}: raise it"
            )
        self._too_long += len(prompts) - len(within)
        self.longest_prompt = max(self.longest_prompt, *(n for n in lengths if n <= limit))
        return within
