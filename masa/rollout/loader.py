"""Prompts -> rollouts -> one batch: the loader that Lightning pulls from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from masa.types import Prompt, StepBatch

Draw = Callable[[], Sequence[Prompt]]
"""This rank's share of a further batch of prompts."""
Rollout = Callable[[Sequence[Prompt], int, Draw], StepBatch]
"""(this rank's prompts, rollout number, how to get more prompts) -> what to train on."""


class RolloutLoader:
    """Yields one rollout per Lightning batch, made when it is asked for and not before.

    It has a length on purpose: without one Lightning fetches a batch ahead, and every rollout but
    the first would come from the policy before the last update.

    Args:
        draw: the prompts of draw n, from 1, over all ranks.
        rollout: makes the batch out of this rank's prompts.
        max_rollouts: steps of the run.
        rank, world_size: this engine and their number: it takes every `world_size`-th prompt.
    """

    def __init__(
        self,
        draw: Callable[[int], Sequence[Prompt]],
        rollout: Rollout,
        max_rollouts: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.draw = draw
        self.rollout = rollout
        self.max_rollouts = max_rollouts
        self.rank = rank
        self.world_size = world_size
        self.completed = 0
        self.drawn = 0
        self._drawing = 0

    def __len__(self) -> int:
        return self.max_rollouts

    def __iter__(self) -> Iterator[StepBatch]:
        while self.completed < self.max_rollouts:
            step = self.completed + 1
            # the draws of a rollout that is given up do not count
            self._drawing = self.drawn
            draw = partial(self._draw, set())
            batch = self.rollout(draw(), step, draw)
            self.completed, self.drawn = step, self._drawing
            yield batch

    def _draw(self, seen: set[str]) -> list[Prompt]:
        self._drawing += 1
        # a second draw may lie in the next epoch
        fresh = [prompt for prompt in self.draw(self._drawing) if prompt.id not in seen]
        seen.update(prompt.id for prompt in fresh)
        return fresh[self.rank :: self.world_size]

    def state_dict(self) -> dict[str, Any]:
        """The cursors: rollouts completed, and draws of prompts."""
        return {"completed": self.completed, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.completed = state["completed"]
        self.drawn = state["drawn"]
