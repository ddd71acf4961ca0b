"""Words of predictions that stand for numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def nearest(words: Mapping[str, Sequence[int]], number: float) -> str:
    """The word one of whose numbers is nearest, the first of equals."""
    return min(words, key=lambda word: min(abs(number - n) for n in words[word]))
