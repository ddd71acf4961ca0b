"""What became of like prompts: the newest outcomes of each kind, however kinds are told apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from masa.errors import require

if TYPE_CHECKING:  # PyTorch comes with them
    from masa.types import Prompt, RolloutGroup

OWN = ("level", "id")
"""Keys that every prompt has; others are columns of its row."""


@dataclass(frozen=True)
class Outcome:
    """How a group came out."""

    pass_rate: float
    """Share of correct solutions."""
    tokens: int
    """Of all its solutions."""

    @property
    def mixed(self) -> bool:
        """True where some solutions are right and some wrong."""
        return 0 < self.pass_rate < 1


class Past:
    """The newest outcomes of like prompts. Prompts are alike where they agree in all keys.

    Outcomes of all groups count whose solutions are uncensored. The gate chose which they are, but
    by what like prompts share, so that this choice does not change what they say of each other.

    Args:
        keys: `level`, `id` (each prompt is like itself alone) or columns of the task's rows; none:
            no prompt is like another.
        window: outcomes that are kept of like prompts.
    """

    def __init__(self, keys: Sequence[str], window: int) -> None:
        self.keys = tuple(keys)
        self.window = window
        self._outcomes: dict[str, deque[Outcome]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a prompt's row that it goes by."""
        return tuple(key for key in self.keys if key not in OWN)

    def require_columns(self, prompts: Sequence[Prompt]) -> None:
        """Raise ConfigError where a prompt of the pool lacks a column."""
        for name in self.columns:
            lacking = next((p for p in prompts if p.columns.get(name) is None), None)
            known = sorted(prompts[0].columns) if prompts else []
            require(
                lacking is None,
                f"key: the task's prompt {lacking and lacking.id} has no column {name}; known are "
                f"{', '.join([*OWN, *map(str, known)])}",
            )

    def of(self, prompt: Prompt) -> Sequence[Outcome]:
        """Outcomes of prompts like this one, oldest first."""
        return self._outcomes.get(self._name(prompt) or "", ())

    def _name(self, prompt: Prompt) -> str | None:
        """The same for like prompts; None where the prompt lacks a column."""
        values = [
            getattr(prompt, key) if key in OWN else prompt.columns.get(key) for key in self.keys
        ]
        if not values or None in values:
            return None
        return ", ".join(f"{k}={v}" for k, v in zip(self.keys, values, strict=True))

    def add(self, groups: Sequence[RolloutGroup]) -> None:
        """Note the outcomes of a step."""
        for group in groups:
            name = self._name(group.prompt)
            if group.uncensored and name is not None:
                outcome = Outcome(group.pass_rate, sum(group.lengths))
                self._outcomes.setdefault(name, deque(maxlen=self.window)).append(outcome)

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {
            name: [(o.pass_rate, o.tokens) for o in outcomes]
            for name, outcomes in self._outcomes.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._outcomes = {
            name: deque((Outcome(*pair) for pair in pairs), self.window)
            for name, pairs in state.items()
        }
