"""A task without data: how often is a letter in a word?"""

import random
from collections.abc import Sequence
from functools import cached_property

from masa.tasks.templates import Templates
from masa.types import Prompt
from masa.verifiers.math.verifier import same, verify_batch


class LetterTask:
    """Random words of two letters; the level is the number of their letters over 4.

    Args:
        templates: what is said to the model.
        train_size, validation_size: problems.
        seed: which problems.
    """

    def __init__(self, templates: Templates, train_size: int, validation_size: int, seed: int):
        self.templates = templates
        self.train_size = train_size
        self.validation_size = validation_size
        self.seed = seed

    @cached_property
    def _problems(self) -> list[Prompt]:
        draw = random.Random(self.seed)
        words: dict[str, None] = {}
        while len(words) < self.train_size + self.validation_size:
            words["".join(draw.choices("ab", k=draw.randint(4, 20)))] = None
        return [
            Prompt(
                id=f"letters/{word}",
                problem=f'How often is the letter a in "{word}"?',
                answer=str(word.count("a")),
                level=len(word) // 4,
            )
            for word in words
        ]

    @property
    def train(self) -> Sequence[Prompt]:
        """The training pool."""
        return self._problems[self.validation_size :]

    @property
    def validation(self) -> Sequence[Prompt]:
        """Held-out problems; none of them is in `train`."""
        return self._problems[: self.validation_size]

    @property
    def report(self) -> dict[str, int]:
        """What data.json of the run says about the problems."""
        return {"seed": self.seed}

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """One verdict per (prompt, response): the number in the last box."""
        return verify_batch([(prompt.answer, response) for prompt, response in answers])

    def same(self, a: str, b: str) -> bool:
        """Whether two responses give the same answer."""
        return same(a, b)
