"""A curriculum: easy prompts first, all of them after some draws."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from masa.rollout.samplers import PromptSampler
from masa.types import Prompt


@dataclass
class EasyFirst(PromptSampler):
    """Samples from the easiest part of the pool, a part that grows with each draw."""

    draws: int = 100
    """Draws until the part is the whole pool."""

    def draw(self, prompts: Sequence[Prompt], count: int, number: int, seed: int) -> list[Prompt]:
        """The prompts of one draw, the same on every rank and after a resume."""
        order = sorted(prompts, key=lambda prompt: (prompt.level, prompt.id))
        part = max(count, min(len(order), len(order) * number // self.draws))
        return random.Random(f"{seed}/{number}").sample(order[:part], count)
