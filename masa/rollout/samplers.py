"""Prompt samplers: which prompts a rollout starts from.

A sampler of your own is a subclass of `PromptSampler` that a config names by `_target_`, here or in
a module of yours. Where its fields are a dataclass's, their types are checked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from masa.plugins import Plugin
from masa.types import Prompt


class PromptSampler(Plugin):
    """Chooses the prompts of a draw. `draw` is all that a sampler needs."""

    required = "draw"

    def draw(self, prompts: Sequence[Prompt], count: int, number: int, seed: int) -> list[Prompt]:
        """The prompts of one draw, the same on every rank.

        Args:
            prompts: the training pool.
            count: how many are asked for, over all ranks.
            number: of the draw, from 1: the rollout's number where no rollout draws twice.
            seed: run seed. A resumed run repeats a draw where it depends on the arguments and the
                state alone.

        Returns:
            `count` prompts of the pool, none twice.
        """
        raise NotImplementedError


@dataclass
class ShuffledEpochs(PromptSampler):
    """Epochs over the pool, each shuffled by (seed, epoch).

    A rest of the pool that does not fill a draw is left for the next epoch's shuffle, so no draw
    holds a prompt twice.
    """

    def draw(self, prompts: Sequence[Prompt], count: int, number: int, seed: int) -> list[Prompt]:
        epoch, index = divmod(number - 1, len(prompts) // count)
        order = shuffled(len(prompts), seed, epoch)
        return [prompts[i] for i in order[index * count : (index + 1) * count]]


@lru_cache(maxsize=1)
def shuffled(size: int, seed: int, epoch: int) -> list[int]:
    """The order of `size` prompts in an epoch, from 0."""
    order = list(range(size))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
