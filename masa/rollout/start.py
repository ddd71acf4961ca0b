"""What keeps a model from learning, said after a run's first rollouts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from masa.config import AlgorithmConfig
from masa.types import RolloutGroup

ROLLOUTS = 3
"""The first rollouts that are looked at."""
PROMPTS = 64
"""Fewer rollouts are enough where they have this many prompts."""
PARSED = 0.1
"""Share of predictions with the asked form under which there is a line."""
_FIRST = "with masa-sft first, then go on with masa-train model=ITS_RUN"


class FirstRollouts:
    """Logs a line per problem, once, after the first rollouts of a run.

    Args:
        config: limits that the lines name.
        rollouts: rollouts of the run.
    """

    def __init__(self, config: AlgorithmConfig, rollouts: int) -> None:
        self.config = config
        self.last = min(rollouts, ROLLOUTS)
        self._groups: list[RolloutGroup] = []
        self._done = False

    def observe(self, groups: Sequence[RolloutGroup], step: int) -> None:
        """Take in the groups of all ranks of rollout `step`, from 1."""
        if self._done or step > self.last:
            return
        self._groups += groups
        if len(self._groups) >= PROMPTS or step == self.last:
            for problem in problems(self._groups, self.config):
                logging.getLogger("masa").warning(f"this run may not learn: {problem}")
            self._done = True
            self._groups = []


def problems(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> list[str]:
    """A line per reason why little can be learned from rollouts, each with its remedy."""
    lines = [_form(groups, config), _cut(groups, config), _verdicts(groups, config)]
    return [line for line in lines if line]


def _form(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> str:
    pairs = [pair for g in groups for pair in zip(g.meta, g.predictions, strict=True)]
    unread = [(completion, p.error) for completion, p in pairs if p.error is not None]
    if not pairs or len(pairs) - len(unread) >= PARSED * len(pairs):
        return ""
    ((reason, count),) = Counter(error for _, error in unread).most_common(1)
    text = next(completion.text for completion, error in unread if error == reason)
    remedy = f"teach the form {_FIRST}"
    cut, limit = sum(not c.finished for c, _ in unread), config.meta.response_limit
    if 2 * cut > len(unread):
        cause = f"{cut} of them were cut at algorithm.meta.response_limit={limit}"
        remedy = f"{cause}: raise it, or {remedy}"
    return (
        f"only {len(pairs) - len(unread)} of {len(pairs)} predictions have the asked form; the "
        f"most frequent reason, {count} times: {reason}, as in {_excerpt(text)}; {remedy}"
    )


def _cut(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> str:
    solutions = [completion for group in groups for completion in group.solutions]
    limit = config.response_limit
    cut = sum(not c.finished and len(c.token_ids) >= limit for c in solutions)
    if 2 * cut <= len(solutions):
        return ""
    of_all = f"{cut} of {len(solutions)} solutions"
    return f"{of_all} were cut at algorithm.response_limit={limit}: raise it"


def _verdicts(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> str:
    sampled = [group for group in groups if not group.skipped]
    if not sampled or any(group.mixed for group in sampled):
        return ""
    # a task may score in [0, 1]: solutions that are all wrong can still differ
    if any(len(set(group.scores)) > 1 for group in sampled):
        return _left_out(len(sampled)) if config.dynamic_sampling else ""
    right = sum(all(group.correct) for group in sampled)
    found = f"{right} with all solutions right, {len(sampled) - right} with all wrong"
    if right == len(sampled):
        remedy = "choose harder problems"
    elif right == 0:
        remedy = f"choose easier problems, or teach the model {_FIRST}"
    else:
        remedy = "raise algorithm.group_size, or choose problems in between"
    return (
        f"no prompt of {len(sampled)} has right and wrong solutions ({found}), so that there is "
        f"nothing to learn from the verdicts: {remedy}"
    )


def _left_out(prompts: int) -> str:
    return (
        f"no prompt of {prompts} has right and wrong solutions, and dynamic sampling leaves out "
        "those whose solutions differ in score alone: lower task.correct_at, or set "
        "algorithm.dynamic_sampling=0"
    )


def _excerpt(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= length else f"{text[:length]}...")
