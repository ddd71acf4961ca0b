"""Prompt samplers that go by a prompt's own outcomes: they need several epochs of a finite pool.

Solutions that the cutoff stopped are no evidence. The state is what was observed; everything random
comes from run seed and number of the draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masa.algorithm.gates import require_shares
from masa.errors import positive, require
from masa.rollout.samplers import PromptSampler, ShuffledEpochs, shuffled
from masa.seeding import derive_seed, uniform
from masa.types import Floats, Prompt, RolloutGroup


@dataclass
class GresoSampler(PromptSampler):
    """Shuffled epochs without the prompts that are likely to have zero variance again (GRESO, arXiv
    2506.02177, section 4).

    After z visits in a row that were all right or all wrong a prompt is skipped with probability
    1 - p ** z, and the next of the epoch takes its place. p is one number for prompts that were all
    right at their last visit and one for those that were all wrong. After each rollout both move by
    `step`: down where the share of such prompts in it reaches its target, else up.
    """

    p_easy: float = 0.5
    """First p of prompts that were all right."""
    p_hard: float = 0.5
    """First p of prompts that were all wrong."""
    target_easy: float = 1 / 12
    """Share of the rolled-out prompts that may be all right."""
    target_hard: float = 1 / 6
    """Share of the rolled-out prompts that may be all wrong."""
    step: float = 0.01
    """What p moves by after a rollout."""
    min_p: float = 0.05
    """Smallest p."""
    max_p: float = 0.95
    """Largest p."""

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in self.__dataclass_fields__}
        require_shares(**shares)
        require(self.min_p <= self.max_p, "min_p must not be above max_p")
        self.streaks: dict[str, int] = {}
        """Visits without variance in a row by prompt, negative where the last was all wrong."""
        self.ends: dict[int, int] = {0: 0}
        """By number of a draw how many prompts of the epochs' orders it and those before took."""
        self.p = {True: self.p_easy, False: self.p_hard}

    def draw(self, prompts: Sequence[Prompt], count: int, number: int, seed: int) -> list[Prompt]:
        """See `PromptSampler.draw`. Where two epochs do not hold enough prompts, those that were
        passed over first fill it."""
        chosen: dict[str, Prompt] = {}
        passed: dict[str, Prompt] = {}
        # a draw that is repeated, after a rollout that was given up, begins where it did
        self.ends = {n: end for n, end in self.ends.items() if n < number}
        place = self.ends[number - 1]
        last = place + 2 * len(prompts)
        while len(chosen) < count and place < last:
            epoch, index = divmod(place, len(prompts))
            prompt = prompts[shuffled(len(prompts), seed, epoch)[index]]
            skipped = uniform(seed, number, place, "greso") >= self._chance(prompt)
            (passed if skipped else chosen).setdefault(prompt.id, prompt)
            place += 1
        self.ends[number] = place
        rest = [prompt for name, prompt in passed.items() if name not in chosen]
        return [*chosen.values(), *rest[: count - len(chosen)]]

    def _chance(self, prompt: Prompt) -> float:
        streak = self.streaks.get(prompt.id, 0)
        return self.p[streak > 0] ** abs(streak)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        # no earlier draw can be repeated now
        number = max(self.ends)
        self.ends = {number: self.ends[number]}
        sampled = [group for group in groups if group.uncensored]
        revisited = any(group.prompt.id in self.streaks for group in sampled)
        for group in sampled:
            before = self.streaks.get(group.prompt.id, 0)
            sign = 0 if group.mixed else 1 if group.correct[0] else -1
            # a prompt that went from all wrong to all right begins anew
            self.streaks[group.prompt.id] = sign * (1 + max(0, sign * before))
        if not revisited:
            return  # in the first epoch nothing is skipped yet
        for right, target in ((True, self.target_easy), (False, self.target_hard)):
            share = sum(set(group.correct) == {right} for group in sampled) / len(sampled)
            moved = self.p[right] + (-self.step if share >= target else self.step)
            self.p[right] = min(max(moved, self.min_p), self.max_p)

    def state_dict(self) -> dict[str, Any]:
        p = [self.p[True], self.p[False]]
        return {"streaks": dict(self.streaks), "ends": dict(self.ends), "p": p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streaks = dict(state["streaks"])
        self.ends = dict(state["ends"])
        self.p = dict(zip((True, False), state["p"], strict=True))


class BestOfCandidates(PromptSampler):
    """Takes those candidates of a draw that score highest; a subclass gives the scores."""

    candidates: int
    """Prompts that a draw chooses from, as a multiple of those that it takes."""

    required = "scores"

    def __post_init__(self) -> None:
        require(self.candidates >= 1, f"candidates is {self.candidates}, it must be >= 1")
        self._taken: dict[int, set[str]] = {}
        """By number of a draw the prompts that it took, since the last outcomes."""

    def scores(self, ids: Sequence[str], generator: np.random.Generator) -> Floats:
        """How much each prompt is worth; `generator` gives the same numbers on every rank."""
        raise NotImplementedError

    def draw(self, prompts: Sequence[Prompt], count: int, number: int, seed: int) -> list[Prompt]:
        size = min(self.candidates * count, len(prompts))
        offered = ShuffledEpochs().draw(prompts, size, number, seed)
        generator = np.random.default_rng(derive_seed(seed, number, "sampler"))
        scores = self.scores([prompt.id for prompt in offered], generator)
        # a further draw of a rollout is for further prompts: those taken come last
        taken = {name for n, names in self._taken.items() if n < number for name in names}
        scores = np.where([prompt.id in taken for prompt in offered], -np.inf, scores)
        # stable: among equals those that come first in the shuffled order
        best = np.argsort(-scores, kind="stable")[:count]
        drawn = [offered[i] for i in best]
        self._taken[number] = {prompt.id for prompt in drawn}
        return drawn

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        self._taken.clear()


@dataclass
class MoppsSampler(BestOfCandidates):
    """Takes the prompts whose pass rate, drawn from its posterior, is nearest a target (MoPPS,
    arXiv 2507.04632, section 3).

    The posterior of a prompt's pass rate is Beta(a, b), at first Beta(1, 1). At a visit with s of G
    solutions right, a becomes decay * a + (1 - decay) + s, and b the same with G - s.
    """

    candidates: int = 16
    """Prompts that a draw chooses from, as a multiple of those that it takes: this many draws of
    shuffled epochs. At most the pool."""
    target: float = 0.5
    """Pass rate of the most useful prompt."""
    decay: float = 0.5
    """Weight of the past at a visit: 1 where the policy stays as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(target=self.target, decay=self.decay)
        self.posteriors: dict[str, tuple[float, float]] = {}
        """a and b by prompt."""

    def scores(self, ids: Sequence[str], generator: np.random.Generator) -> Floats:
        posteriors = np.array([self.posteriors.get(name, (1.0, 1.0)) for name in ids])
        drawn = generator.beta(posteriors[:, 0], posteriors[:, 1])
        return -np.abs(drawn - self.target)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        super().observe(groups)
        for group in groups:
            if group.uncensored:
                a, b = self.posteriors.get(group.prompt.id, (1.0, 1.0))
                right, past = sum(group.correct), 1 - self.decay
                self.posteriors[group.prompt.id] = (
                    self.decay * a + past + right,
                    self.decay * b + past + len(group.correct) - right,
                )

    def state_dict(self) -> dict[str, Any]:
        return {"posteriors": {name: list(ab) for name, ab in self.posteriors.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.posteriors = {name: (a, b) for name, (a, b) in state["posteriors"].items()}


UNSOLVED, PARTIAL, SOLVED = range(3)


@dataclass
class DpsSampler(BestOfCandidates):
    """Takes the prompts that are most probably partly solved (DPS, arXiv 2603.10887, section 3).

    A prompt is unsolved (all wrong), partly solved or solved (all right), and goes from state to
    state with probabilities of its own. They are Dirichlet distributed: `prior` for each transition
    plus those seen, weighted by how probable they were. A visit shows the state. A rollout without
    a visit moves the state's distribution on by one transition. At each rollout the transitions
    seen are multiplied by `decay`.
    """

    candidates: int = 32
    """Prompts that a draw chooses from, as a multiple of those that it takes: this many draws of
    shuffled epochs. At most the pool."""
    prior: float = 1.0
    """Parameter of the Dirichlet distribution for each transition."""
    decay: float = 0.7
    """Weight of the transitions seen before, per rollout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("prior", self.prior)
        require_shares(decay=self.decay)
        self.rows: dict[str, int] = {}
        """Row of a prompt in the two arrays: prompts that were visited."""
        self.states: Floats = np.empty((0, 3))
        """Probability of each state in the rollout before (after its visit, where it had one)."""
        self.seen: Floats = np.empty((0, 3, 3))
        """Transitions seen, from the state of the second index to that of the third."""

    def _ahead(self) -> Floats:
        """Probability of each state in the next rollout."""
        transitions = self.seen + self.prior
        transitions = transitions / transitions.sum(axis=2, keepdims=True)
        ahead: Floats = np.einsum("pi,pij->pj", self.states, transitions)
        return ahead

    def scores(self, ids: Sequence[str], generator: np.random.Generator) -> Floats:
        """See `BestOfCandidates.scores`. A prompt without a visit is in each state alike."""
        ahead = np.append(self._ahead()[:, PARTIAL], 1 / 3)
        scores: Floats = ahead[[self.rows.get(name, -1) for name in ids]]
        return scores

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        super().observe(groups)
        groups = [group for group in groups if group.uncensored]
        for group in groups:
            self.rows.setdefault(group.prompt.id, len(self.rows))
        new = len(self.rows) - len(self.states)
        self.states = np.concatenate([self.states, np.full((new, 3), 1 / 3)])
        self.seen = np.concatenate([self.seen, np.zeros((new, 3, 3))])
        ahead = self._ahead()
        visited = np.array([self.rows[group.prompt.id] for group in groups], dtype=int)
        shown = np.array([_state(group) for group in groups], dtype=int)
        transitions = (self.seen + self.prior)[visited]
        transitions = transitions / transitions.sum(axis=2, keepdims=True)
        into = np.take_along_axis(transitions, shown[:, None, None], axis=2)[:, :, 0]
        came_from = self.states[visited] * into
        self.seen *= self.decay
        self.seen[visited, :, shown] += came_from / came_from.sum(axis=1, keepdims=True)
        self.states = ahead
        self.states[visited] = np.eye(3)[shown]

    def state_dict(self) -> dict[str, Any]:
        arrays = {"states": self.states.tolist(), "seen": self.seen.tolist()}
        return {"names": list(self.rows), **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = {name: row for row, name in enumerate(state["names"])}
        self.states = np.array(state["states"]).reshape(-1, 3)
        self.seen = np.array(state["seen"]).reshape(-1, 3, 3)


def _state(group: RolloutGroup) -> int:
    return PARTIAL if group.mixed else SOLVED if group.correct[0] else UNSOLVED
