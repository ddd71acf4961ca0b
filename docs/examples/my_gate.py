"""A gate that goes by levels: where all prompts of a level are trivial or hopeless, skip them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masa.algorithm.gates import Gate
from masa.types import MetaPrediction, Prompt, RolloutGroup


@dataclass
class LevelGate(Gate):
    """Skips prompts of a level at which nearly all groups had zero variance."""

    share: float = 0.9
    """This share of the level's groups."""
    minimum: int = 16
    """Groups of the level that must be known."""

    needs_predictions = False

    def __post_init__(self) -> None:
        self.known: dict[int, list[bool]] = {}

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        """The decision on one prompt."""
        outcomes = self.known.get(prompt.level, [])
        return len(outcomes) >= self.minimum and sum(outcomes) >= self.share * len(outcomes)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Learn from the outcomes of a step."""
        for group in groups:
            if group.gate_evidence:
                self.known.setdefault(group.prompt.level, []).append(group.zero_variance)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"known": self.known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.known = {level: list(outcomes) for level, outcomes in state["known"].items()}
