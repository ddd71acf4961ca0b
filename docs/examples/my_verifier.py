"""A verifier: the last box must have the gold answer, letter by letter."""

from collections.abc import Sequence

from masa.tasks.hub import HubTask
from masa.types import Prompt
from masa.verifiers.extract import extract_box


class ExactTask(HubTask):
    """Any data set, judged by text alone: 0.5 is not 1/2."""

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """One verdict per (prompt, response)."""
        return [extract_box(response) == prompt.answer for prompt, response in answers]
