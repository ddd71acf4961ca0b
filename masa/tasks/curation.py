"""Which problems are left out: duplicates and those that an evaluation set holds as well."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

GRAM = 13
"""Words of a run that two problems have in common only where one was taken from the other."""
PHRASE = 5
"""A run of words in at least this many training problems is a phrase ("where m and n are relatively
prime positive integers. Find m + n") and betrays nothing by itself."""
LARGE = 0.5
"""Share of an evaluation problem's runs that makes a problem its copy, phrases or not."""
_WORD = re.compile(r"[^\W\d_]+|\d+")


def normalised(problem: str) -> str:
    """The text without case and spacing, in which two copies of a problem are equal."""
    return " ".join(problem.lower().split())


def digest(problem: str) -> str:
    """Identity of a problem: the same for all its copies, on every machine."""
    return hashlib.blake2b(normalised(problem).encode(), digest_size=8).hexdigest()


def is_held_out(problem: str, fraction: float, seed: int) -> bool:
    """True for about `fraction` of all problems, each judged by its own text and the seed alone."""
    drawn = hashlib.blake2b(f"{seed}/{digest(problem)}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < fraction * 2**64


def grams(problem: str) -> set[str]:
    """Runs of `GRAM` words (punctuation left out), or the whole problem where it has fewer."""
    words = _WORD.findall(problem.lower())
    return {" ".join(words[i : i + GRAM]) for i in range(max(1, len(words) - GRAM + 1))}


def contaminated(problems: Sequence[str], evaluation: Iterable[str]) -> list[bool]:
    """Per problem whether it has a run of words in common with an evaluation problem that is no
    phrase, or `LARGE` of all runs of one, phrases or not: several copies of it are copies too."""
    whole = [grams(problem) for problem in evaluation]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, runs in enumerate(whole):
        for gram in runs:
            holders[gram].append(i)
    shared = [grams(problem) & holders.keys() for problem in problems]
    counts = Counter(gram for found in shared for gram in found)

    def is_copy(found: set[str]) -> bool:
        of_each = Counter(i for gram in found for i in holders[gram])
        return any(count >= LARGE * len(whole[i]) for i, count in of_each.items())

    return [any(counts[gram] < PHRASE for gram in found) or is_copy(found) for found in shared]
