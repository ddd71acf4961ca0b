"""What a task has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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

    @property
    def report(self) -> Mapping[str, Any]:
        """Where the prompts come from and how many were left out, and why; plain values."""
        ...

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """One verdict per (prompt, response): True where the response answers it rightly."""
        ...
