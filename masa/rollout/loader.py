"""Prompts -> rollouts -> one batch: the loader that Lightning pulls from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from masa.errors import changing_nothing
from masa.types import Prompt, StepBatch


class Draws:
    """The prompts of one rollout: draw after draw of the sampler, none twice.

    Args:
        draw: the next draw, over all ranks.
        rank, world_size: this engine and their number: of what is asked for at a time it takes
            every `world_size`-th prompt.
    """

    def __init__(
        self, draw: Callable[[], Sequence[Prompt]], rank: int = 0, world_size: int = 1
    ) -> None:
        self.draw = draw
        self.rank = rank
        self.world_size = world_size
        self.made = 0
        """Draws so far."""
        self._seen: set[str] = set()
        self._left: list[Prompt] = []

    def __call__(self) -> list[Prompt]:
        """This rank's share of a whole draw; what is left of the one before is left out."""
        self._left = []
        return self._share(self._fresh())

    def take(self, count: int, most: int) -> tuple[list[Prompt], int]:
        """Further prompts: what is left of the last draw, then further draws.

        Args:
            count: how many are asked for, over all ranks.
            most: draws of the rollout at most.

        Returns:
            This rank's share of them, and how many they are over all ranks: fewer than `count`
            where these draws hold no more.
        """
        while len(self._left) < count and self.made < most:
            self._left += self._fresh()
        taken, self._left = self._left[:count], self._left[count:]
        return self._share(taken), len(taken)

    def _fresh(self) -> list[Prompt]:
        self.made += 1
        # a second draw may lie in the next epoch
        fresh = [prompt for prompt in self.draw() if prompt.id not in self._seen]
        self._seen.update(prompt.id for prompt in fresh)
        return fresh

    def _share(self, prompts: list[Prompt]) -> list[Prompt]:
        return prompts[self.rank :: self.world_size]


Rollout = Callable[[Sequence[Prompt], int, Draws], StepBatch]
"""(this rank's prompts, rollout number, how to get more prompts) -> what to train on."""


class StepLoader:
    """Batches by the number of their step, each made when it is asked for and not before.

    It has a length on purpose: without one Lightning fetches a batch ahead, and every rollout but
    the first would come from the policy before the last update.

    Args:
        batch: makes the batch of a step.
        steps: of the run.
    """

    def __init__(self, batch: Callable[[int], StepBatch], steps: int) -> None:
        self.batch = batch
        self.steps = steps
        self.completed = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[StepBatch]:
        while self.completed < self.steps:
            batch = self.batch(self.completed + 1)
            self.completed += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Steps completed."""
        return {"completed": self.completed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Inverse of `state_dict`."""
        self.completed = state["completed"]


class RolloutLoader(StepLoader):
    """One rollout per step.

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
        super().__init__(self._roll_out, max_rollouts)
        self.draw = draw
        self.rollout = rollout
        self.rank = rank
        self.world_size = world_size
        self.drawn = 0
        self._drawing = 0

    def _roll_out(self, step: int) -> StepBatch:
        # the draws of a rollout that is given up do not count
        self._drawing = self.drawn
        draws = Draws(self._draw, self.rank, self.world_size)
        with changing_nothing():
            prompts = draws()
        batch = self.rollout(prompts, step, draws)
        self.drawn = self._drawing
        return batch

    def _draw(self) -> Sequence[Prompt]:
        self._drawing += 1
        return self.draw(self._drawing)

    def state_dict(self) -> dict[str, int]:
        """The cursors: rollouts completed, and draws of prompts."""
        return super().state_dict() | {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self.drawn = state["drawn"]
