"""The interface of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from masa.errors import require
from masa.tasks.templates import Templates
from masa.types import Prompt


class Task(Protocol):
    """A source of prompts, with the verifier of their answers."""

    @property
    def templates(self) -> Templates:
        """The texts around a problem."""
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
        """Source of the prompts, and how many were left out for which reason; plain values."""
        ...

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> Sequence[float]:
        """One score in [0, 1] per (prompt, response); True and False are 1 and 0.

        A response is correct where its score is at least `task.correct_at`.
        """
        ...

    def same(self, a: str, b: str) -> bool:
        """True where two responses give the same answer, as `verify` would hold them.

        A response without an answer is like no other, nor like itself.

        Raises:
            ConfigError: the task cannot tell; raised whatever the responses are.
        """
        ...


def same_of(task: Task) -> Callable[[str, str], bool]:
    """`Task.same` of a task that can tell.

    Raises:
        ConfigError: it cannot.
    """
    require(
        hasattr(task, "same"),
        f"{type(task).__name__} cannot tell whether two answers are the same: write its "
        "method same(a, b)",
    )
    task.same("", "")
    return task.same
