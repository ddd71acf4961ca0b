"""Deduplication, decontamination and the held-out share of a data set."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

GRAM = 13
"""Words of a run that two problems have in common only where one is a copy of the other."""
SHORT = 8
"""A shorter evaluation problem is found only where it is the whole of another problem."""
PHRASE = 5
"""A run of words in at least this many training problems is a phrase ("where m and n are relatively
prime positive integers. Find m + n") and alone no sign of a copy."""
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
    """True for about `fraction` of all problems; depends on the text and the seed alone."""
    position = hashlib.blake2b(f"{seed}/{digest(problem)}".encode(), digest_size=8).digest()
    return int.from_bytes(position, "big") < fraction * 2**64


def grams(problem: str, length: int = GRAM) -> set[str]:
    """Runs of so many words (punctuation left out), or the whole problem where it has fewer."""
    words = _WORD.findall(problem.lower())
    return {" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


def contaminated(problems: Sequence[str], evaluation: Iterable[str]) -> list[bool]:
    """Whether each problem is a copy of an evaluation problem.

    It is one if they share a run of words that is no phrase, if it holds a short evaluation problem
    that is no phrase, or if they share `LARGE` of all its runs, phrases or not: several copies of
    one problem are copies too.
    """
    of_evaluation = [grams(problem) for problem in evaluation]
    occurrences: dict[str, list[int]] = defaultdict(list)
    for i, runs in enumerate(of_evaluation):
        for gram in runs:
            occurrences[gram].append(i)
    whole = {gram for runs in of_evaluation if len(runs) == 1 for gram in runs}
    lengths = {gram.count(" ") + 1 for gram in whole} & set(range(SHORT, GRAM))
    shared = [grams(problem) & occurrences.keys() for problem in problems]
    within = [
        {gram for length in lengths for gram in grams(problem, length)} & whole
        for problem in problems
    ]
    counts = Counter(gram for pair in zip(shared, within, strict=True) for gram in set.union(*pair))

    def is_copy(common: set[str]) -> bool:
        counts_by_problem = Counter(i for gram in common for i in occurrences[gram])
        return any(count >= LARGE * len(of_evaluation[i]) for i, count in counts_by_problem.items())

    return [
        any(counts[gram] < PHRASE for gram in common | inside) or is_copy(common)
        for common, inside in zip(shared, within, strict=True)
    ]
