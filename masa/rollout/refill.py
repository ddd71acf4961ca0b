"""Refill: further prompts take the places of those that the gate skips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from masa.algorithm.step import RolloutContext, consider, keep_places, solve
from masa.rollout.loader import Draws
from masa.types import Prompt, RolloutGroup

Gather = Callable[[Sequence[Any]], list[Any]]
"""Items of this rank's prompts -> those of all ranks, in the order of the prompts."""


def refilled(
    prompts: Sequence[Prompt],
    draws: Draws,
    places: int,
    context: RolloutContext,
    gather: Gather,
) -> list[RolloutGroup]:
    """Roll out a draw and, while places are empty and the budget lasts, further prompts.

    As many are taken at a time as places are empty, so that no prompt is let through in vain.
    Solutions are sampled once all are decided, in one batch of the engine.

    Args:
        prompts: this rank's share of the draw.
        draws: gives further prompts.
        places: prompts to roll out, over all ranks.
        context: see `collect`; the gate is active.
        gather: every rank decides on the prompts of all, so all ranks stop together.

    Returns:
        The groups of all ranks, in the order in which their prompts were drawn.
    """
    budget = context.config.selection
    most = draws.made + budget.max_draws - 1
    parts = [consider(prompts, context)]
    empty, tokens = places, 0
    while True:
        decided = [(one.let_through, one.budget_tokens(context.config)) for one in parts[-1]]
        for let_through, expected in gather(decided):
            empty -= let_through
            tokens += expected
        if not empty or (budget.max_tokens is not None and tokens >= budget.max_tokens):
            break
        further, count = draws.take(empty, most)
        if not count:
            break
        parts.append(consider(further, context))
    solved = iter(solve([one for part in parts for one in part], context))
    groups = [group for part in parts for group in gather([next(solved) for _ in part])]
    return keep_places(groups, places)
