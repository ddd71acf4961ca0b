"""What became of like prompts: the newest outcomes of each kind, however kinds are told apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from masa.errors import require
from masa.types import Prompt, RolloutGroup

LONGEST = 8
"""At most this many times as many outcomes as asked for are kept."""
OWN = ("level", "id")
"""Keys that every prompt has; others are columns of its row."""


@dataclass(frozen=True)
class Outcome:
    """How a group came out."""

    pass_rate: float
    """Share of correct solutions."""
    tokens: int
    """Of all its solutions."""
    weight: float
    """Like prompts that it stands for: `RolloutGroup.evidence_weight`, 1 where that is 0, and where
    a prompt is like itself alone, whose visits come out as they do whoever chose them."""
    rollout: int
    """In which it came, counted from 1."""

    @property
    def mixed(self) -> bool:
        """True where some solutions are right and some wrong."""
        return 0 < self.pass_rate < 1


class Past:
    """The newest outcomes of like prompts. Prompts are alike where they agree in all keys.

    Outcomes of all groups count whose solutions are uncensored. A gate that chooses by what like
    prompts share does not change what they say of each other; one that tells them apart must weight
    them.

    Args:
        keys: `level`, `id` (each prompt is like itself alone) or columns of the task's rows; none:
            no prompt is like another.
        window: outcomes that are kept of like prompts.
    """

    def __init__(self, keys: Sequence[str], window: int) -> None:
        self.keys = tuple(keys)
        self.window = window
        self.rollouts = 0
        """That have been added."""
        self._outcomes: dict[str, deque[Outcome]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a prompt's row that it goes by."""
        return tuple(key for key in self.keys if key not in OWN)

    def require_columns(self, prompts: Sequence[Prompt]) -> None:
        """Raise ConfigError where a prompt of the pool lacks a column, or all are alike."""
        for name in self.columns:
            lacking = next((p for p in prompts if p.columns.get(name) is None), None)
            known = sorted(prompts[0].columns) if prompts else []
            require(
                lacking is None,
                f"algorithm.gate.key: the task's prompt {lacking and lacking.id} has no column "
                f"{name}; known are {', '.join([*OWN, *map(str, known)])}",
            )
        kinds = {kind for kind in map(self._name, prompts) if kind is not None}
        require(
            len(kinds) != 1 or len(prompts) == 1,
            f"algorithm.gate.key: all {len(prompts)} prompts of the pool are alike "
            f"({', '.join(kinds)}), so that all or none would be skipped: name other columns or id",
        )

    def of(self, prompt: Prompt) -> Sequence[Outcome]:
        """Outcomes of prompts like this one, oldest first."""
        return self._outcomes.get(self._name(prompt) or "", ())

    def fading(self, outcomes: Sequence[Outcome], half_life: float | None) -> list[float]:
        """What each outcome counts, as the policy has changed since: half after so many rollouts.
        1 for each without a half-life."""
        if half_life is None:
            return [1.0] * len(outcomes)
        return [0.5 ** ((self.rollouts - outcome.rollout) / half_life) for outcome in outcomes]

    def _name(self, prompt: Prompt) -> str | None:
        """The same for like prompts; None where the prompt lacks a column."""
        values = [
            getattr(prompt, key) if key in OWN else prompt.columns.get(key) for key in self.keys
        ]
        if not values or None in values:
            return None
        return ", ".join(f"{k}={v}" for k, v in zip(self.keys, values, strict=True))

    def add(self, groups: Sequence[RolloutGroup]) -> None:
        """Note the outcomes of a rollout."""
        self.rollouts += 1
        for group in groups:
            name = self._name(group.prompt)
            if group.uncensored and name is not None:
                weight = 1.0 if "id" in self.keys else group.evidence_weight or 1.0
                outcome = Outcome(group.pass_rate, sum(group.lengths), weight, self.rollouts)
                self._outcomes.setdefault(name, deque(maxlen=self.window)).append(outcome)

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        outcomes = {
            name: [astuple(outcome) for outcome in outcomes]
            for name, outcomes in self._outcomes.items()
        }
        return {"rollouts": self.rollouts, "outcomes": outcomes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.rollouts = state["rollouts"]
        self._outcomes = {
            name: deque((Outcome(*values) for values in outcomes), self.window)
            for name, outcomes in state["outcomes"].items()
        }


def require_half_life(half_life: float | None) -> None:
    """Raise ConfigError where outcomes cannot fade like that."""
    fades = half_life is None or half_life > 0
    require(fades, f"half_life is {half_life}, it must be > 0 or null")


def drop_oldest(outcomes: deque[Any], size: int, mixed: int) -> None:
    """Keep the newest `size`, or as many as hold `mixed` of mixed groups.

    These become rare as a policy learns, and without them nothing can be learned from outcomes.
    """
    left = sum(outcome.mixed for outcome in outcomes)
    while len(outcomes) > size:
        left -= outcomes[0].mixed
        if left < mixed and len(outcomes) <= LONGEST * size:
            return
        outcomes.popleft()
