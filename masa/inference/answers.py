"""Which responses give the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Same = Callable[[str, str], bool]
"""As `Task.same`."""


class Answers:
    """The different answers to one problem, each by the first response that gave it.

    Args:
        same: True where two responses give the same answer; one without an answer is not even like
            itself.
    """

    def __init__(self, same: Same) -> None:
        self.same = same
        self.responses: list[str] = []

    def place(self, response: str) -> int | None:
        """Place of its answer among those so far, which a new one joins; None without an answer."""
        if not self.same(response, response):
            return None
        for place, first in enumerate(self.responses):
            if self.same(first, response):
                return place
        self.responses.append(response)
        return len(self.responses) - 1


def places(responses: Sequence[str], same: Same) -> list[int | None]:
    """`Answers.place` of each response to a problem, in turn."""
    answers = Answers(same)
    return [answers.place(response) for response in responses]
