"""Settings of the built-in task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

MODULI = (83, 89, 97)  # two-digit primes above 9 * 9, so that one wrap is always enough
PROFILES = ("uniform", "families")
HELD_OUT = ("validation", "tuning")
LEVELS = 6
LARGEST_TRAIN_SIZE = 6_000
"""Problems per level that there are in every profile, beside those held out."""
LARGEST_POOL = 600
"""Held-out problems per level."""


@dataclass(frozen=True)
class ArithmeticConfig:
    """Sizes of the task, and the shares of its kinds of demonstrations."""

    profile: str = "families"
    """families: made-up operations, a third of the prompts trivial, a third hopeless, and the rest
    learned one family after the other; uniform: chains of operations of even difficulty."""
    modulus: int = 97
    """83, 89 or 97; of uniform."""
    levels: int = 6
    """Levels 1..levels are used."""
    train_size: int = 12_000
    """Problems to train on, over all levels."""
    mix: Sequence[int] | None = None
    """How many problems of each level there are in turn among those to train on, as many numbers as
    levels; null: one of each. Those held out are of all levels alike."""
    validation_size_per_level: int = 30
    """Held-out problems per level."""
    held_out: str = "validation"
    """Which held-out problems: validation, to report on, or tuning, to choose settings by. For one
    seed no problem is in both, whatever their sizes."""
    seed: int = 0
    """Which problems are drawn."""
    careful: float = 0.78
    """Share of the demonstrated steps that are worked out and not guessed; this and what follows
    are of uniform."""
    guess_right_easy: float = 0.9
    """Share of right guesses at a step without carry, borrow, product or wrap."""
    guess_right_hard: float = 0.5
    """The same at any other step that is not hopeless."""
    review_after_error: float = 0.45
    """Share of the demonstrations with an error that list their states again."""
    review_otherwise: float = 0.08
    """The same without an error."""
    scrambled: float = 0.7
    """Share of those reviews after an error that end in a random answer."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {PROFILES}, got {self.profile!r}")
        if self.modulus not in MODULI:
            raise ValueError(f"modulus must be one of {MODULI}, got {self.modulus}")
        if not 1 <= self.levels <= LEVELS:
            raise ValueError(f"levels must be 1..{LEVELS}, got {self.levels}")
        counts = isinstance(self.mix, Sequence) and all(
            isinstance(count, int) and count >= 0 for count in self.mix
        )
        if self.mix and not (counts and len(self.mix) == self.levels and any(self.mix)):
            raise ValueError(
                f"mix must be {self.levels} whole numbers from 0, not all of them 0, got {self.mix}"
            )
        mix = self.mix or [1] * self.levels
        # whole turns, so that every level that is asked for comes up
        least, most = sum(mix), LARGEST_TRAIN_SIZE * sum(mix) // max(mix)
        if not least <= self.train_size <= most:
            limits = f"{least}..{most} with {self.levels} levels and mix={self.mix}"
            raise ValueError(f"train_size must be {limits}, got {self.train_size}")
        if not 1 <= self.validation_size_per_level <= LARGEST_POOL:
            size = self.validation_size_per_level
            raise ValueError(f"validation_size_per_level must be 1..{LARGEST_POOL}, got {size}")
        if self.held_out not in HELD_OUT:
            raise ValueError(f"held_out must be one of {HELD_OUT}, got {self.held_out!r}")
        for field in fields(self):
            share = getattr(self, field.name)
            if field.type == "float" and not 0.0 <= share <= 1.0:
                raise ValueError(f"{field.name} must be within 0..1, got {share}")

    @property
    def turn(self) -> list[int]:
        """Levels of the problems to train on, in the order in which they come again and again."""
        mix = self.mix or [1] * self.levels
        return [level for level, count in enumerate(mix, 1) for _ in range(count)]
