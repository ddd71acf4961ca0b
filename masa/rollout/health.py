"""What keeps a model from learning, said as soon as a run's rollouts show it."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence

from masa.config import AlgorithmConfig
from masa.types import RolloutGroup

ROLLOUTS = 3
"""The newest rollouts that are looked at."""
PROMPTS = 64
"""Fewer rollouts are enough where they have this many prompts."""
SILENCE = 100
"""Rollouts without a second line on the same problem."""
TRAINABLE = 0.1
"""Share of rolled-out prompts that can be learned from, up to which there is a line."""
ALIKE = 0.9
"""Share of them that are all right, or all wrong, from which the problems are called too easy or
too hard."""
PARSED = 0.1
"""Share of predictions with the asked form under which there is a line."""
_FIRST = "with masa-sft first, then go on with masa-train model=ITS_RUN"


class RunHealth:
    """Logs a line per problem of the newest rollouts, each problem once in `SILENCE` rollouts.

    Args:
        config: limits that the lines name.
        rollouts: rollouts of the run.
    """

    def __init__(self, config: AlgorithmConfig, rollouts: int) -> None:
        self.config = config
        self.rollouts = rollouts
        self._newest: deque[Sequence[RolloutGroup]] = deque(maxlen=ROLLOUTS)
        self._logged: dict[str, int] = {}

    def observe(self, groups: Sequence[RolloutGroup], step: int, gate_lacks: str) -> None:
        """Take in the groups of all ranks of rollout `step`, from 1.

        Args:
            groups: what was rolled out.
            step: number of the rollout.
            gate_lacks: as of the controller.
        """
        self._newest.append(groups)
        # the groups of large rollouts are not kept for longer than they are needed
        while sum(map(len, self._newest)) - len(self._newest[0]) >= PROMPTS:
            self._newest.popleft()
        newest = [group for of_rollout in self._newest for group in of_rollout]
        if len(newest) < PROMPTS and len(self._newest) < ROLLOUTS and step < self.rollouts:
            return
        lines = problems(newest, self.config)
        lines["gate"] = _starved(self.config, step, gate_lacks)
        start = "this run may not learn"
        if self._logged or step > ROLLOUTS:
            start = f"rollout {step}, there is little to learn"
        for name, line in lines.items():
            if line and step - self._logged.get(name, -SILENCE) >= SILENCE:
                logging.getLogger("masa").warning(f"{start}: {line}")
                self._logged[name] = step


def problems(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> dict[str, str]:
    """By problem a line with the reason why little can be learned from rollouts and its remedy,
    empty where there is no such problem."""
    return {
        "form": _form(groups, config),
        "cut": _cut(groups, config),
        "verdicts": _verdicts(groups, config),
    }


def _starved(config: AlgorithmConfig, step: int, lacks: str) -> str:
    waiting = config.gate.enabled and lacks
    if not waiting or step <= config.control.start_step + SILENCE // 10:
        return ""
    return f"the gate cannot act, as {lacks}, or set algorithm.gate.enabled=false"


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
    # a task may score in [0, 1]: solutions that are all wrong can still differ
    learned = sum(group.trainable for group in sampled)
    mixed = sum(group.mixed for group in sampled)
    if sampled and not mixed and learned and config.dynamic_sampling:
        return _left_out(len(sampled))
    if learned > TRAINABLE * len(sampled) or not sampled:
        return ""
    right = sum(all(group.correct) for group in sampled)
    wrong = sum(not any(group.correct) for group in sampled)
    if right >= ALIKE * len(sampled):
        remedy = "choose harder problems"
    elif wrong >= ALIKE * len(sampled):
        remedy = f"choose easier problems, or teach the model {_FIRST}"
    else:
        remedy = "raise algorithm.group_size, or choose problems in between"
    verb = "has" if mixed < 2 else "have"
    return (
        f"{mixed or 'no'} prompt{'s' * (mixed > 1)} of {len(sampled)} {verb} right and wrong "
        f"solutions ({right} with all solutions right, {wrong} with all wrong), so that there is "
        f"{'little' if mixed else 'nothing'} to learn from the verdicts: {remedy}"
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
