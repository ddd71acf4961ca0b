"""What a task has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from masa.tasks.templates import Templates
from masa.types import Prompt


class Task(Protocol):
    """Where prompts come from and when an answer is right."""

    @property
    def templates(self) -> Templates:
        """What is said to the model."""
        ...

    @property
    def train(self) -> Sequence[Prompt]:
        """The training pool."""
        ...

    @property
    def validation(self) -> Sequence[Prompt]:
        """Held-out prompts; none of them is in `train`."""
        ...

    def verify(self, prompt: Prompt, text: str) -> bool:
        """True where the text answers the prompt rightly."""
        ...
