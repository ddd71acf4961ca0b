"""A sampler that goes by a column of the data set."""

from collections import Counter

import numpy as np

from masa.rollout.samplers import PromptSampler


class RareFamilies(PromptSampler):
    """Prompts of families that were seen least."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def draw(self, prompts, count, number, seed):
        def rarity(prompt):
            return self.seen[prompt.columns["family"]], prompt.columns["family"], prompt.id

        return sorted(prompts, key=rarity)[:count]

    def observe(self, groups):
        self.seen.update(group.prompt.columns["family"] for group in groups)

    def state_dict(self):
        return dict(self.seen)

    def load_state_dict(self, state):
        self.seen = Counter(state)


class NumpyStates(RareFamilies):
    """A mistake: a checkpoint cannot hold NumPy's numbers."""

    def state_dict(self):
        return {family: np.float64(count) for family, count in self.seen.items()}
