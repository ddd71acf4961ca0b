"""Rewards of a meta rollout: does the prediction agree with the policy's own solutions?

Each component is a function of a prediction and of the group that it is about, and an entry of
`algorithm.meta.rewards`. `difficulty`, `length` and `notion` are the paper's (arXiv 2510.03259,
section "Self-alignment rewards"); `mixed` asks for what a gate needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

from masa.plugins import WeightedFunction, checked_by
from masa.types import MetaPrediction, RolloutGroup


def _check_base(base: float = 0.01) -> None:
    if not (isinstance(base, float) and 0 < base < 1):
        raise ValueError(f"base is {base!r}, it must lie in (0, 1)")


@checked_by(_check_base)
def difficulty(prediction: MetaPrediction, group: RolloutGroup, base: float = 0.01) -> float:
    """r_difficulty = `base ** |p - p_hat|`.

    Args:
        prediction: with p_hat in [0, 1].
        group: with p, the share of correct solutions.
        base: b in (0, 1); smaller punishes an error harder.

    Returns:
        A reward in [0, 1], 1 for an exact prediction, 0.0 for a missing one.
    """
    predicted = prediction.pass_rate
    if predicted is None or not math.isfinite(predicted):
        return 0.0
    return float(base ** abs(group.pass_rate - predicted))


def _check_strict(strict: bool = False) -> None:
    if type(strict) is not bool:
        raise ValueError(f"strict is {strict!r}, it must be true or false")


@checked_by(_check_strict)
def length(prediction: MetaPrediction, group: RolloutGroup, strict: bool = False) -> float:
    """r_length = 1 where the predicted length lies between the shortest and longest correct one.

    Args:
        prediction: with a length in tokens.
        group: with the solutions and their verdicts.
        strict: compare with < (the paper's snippet) instead of <= (its equation).

    Returns:
        0.0 or 1.0; 0.0 for a missing prediction, or where no solution is correct.
    """
    predicted = prediction.length
    right = [n for n, is_right in zip(group.lengths, group.correct, strict=True) if is_right]
    if predicted is None or not right:
        return 0.0
    shortest, longest = min(right), max(right)
    inside = shortest < predicted < longest if strict else shortest <= predicted <= longest
    return float(inside)


def notion(prediction: MetaPrediction, group: RolloutGroup) -> float:
    """r_notion = mean over notions n of 1[c_correct(n) > c_wrong(n)].

    c counts the correct (wrong) solutions whose text contains n; case and regular plurals are
    ignored; notions that stand in the problem are dropped first.

    Args:
        prediction: with notions.
        group: with the problem, the solutions and their verdicts.

    Returns:
        A reward in [0, 1], 0.0 for a missing prediction, or where no notion is left.
    """
    problem = _searched(group.prompt.problem)
    predicted = {_lemmas(text) for text in prediction.notions or ()}
    notions = [lemmas for lemmas in predicted if lemmas and lemmas not in problem]
    if not notions:
        return 0.0
    bodies = [_searched(solution.text) for solution in group.solutions]
    hits = 0
    for lemmas in notions:
        verdicts = [
            is_right for body, is_right in zip(bodies, group.correct, strict=True) if lemmas in body
        ]
        hits += 2 * sum(verdicts) > len(verdicts)
    return hits / len(notions)


def mixed(prediction: MetaPrediction, group: RolloutGroup) -> float:
    """r_mixed = 1 - (q - 1[the group is mixed])^2, the Brier score turned into a reward.

    It is proper: the expected reward is largest where q is the probability of a mixed group.

    Args:
        prediction: with q in [0, 1]; asked for with `algorithm.meta.predict_mixed`.
        group: with the verdicts of its solutions.

    Returns:
        A reward in [0, 1], 0.0 for a missing prediction.
    """
    if prediction.mixed is None:
        return 0.0
    return 1.0 - (prediction.mixed - group.mixed) ** 2


def stands_in(text: str, phrase: str) -> bool:
    """Whether a text has a phrase, as `notion` counts it."""
    return _lemmas(phrase) in _searched(text)


def component_rewards(
    prediction: MetaPrediction, group: RolloutGroup, components: Sequence[WeightedFunction]
) -> dict[str, float]:
    """The component rewards of one prediction, by name."""
    return {c.name: c(group.prompt, prediction, group) for c in components}


def meta_reward(scores: Mapping[str, float], components: Sequence[WeightedFunction]) -> float:
    """r_meta = weighted mean of the components; a weight of 0 removes one."""
    total = sum(component.weight for component in components)
    return sum(component.weight * scores[component.name] for component in components) / total


@lru_cache(maxsize=65536)
def _lemma(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    stem = word[:-1] if plural else word
    # "boxes" and "sizes" leave a stem on e; singulars lose theirs as well, so that both meet
    if stem.endswith(("sse", "xe", "ze", "che", "she")):
        return stem[:-1]
    return stem[:-2] + "y" if stem.endswith("ie") and len(stem) > 3 else stem


class _Spaced(dict[int, str]):
    """For `str.translate`: what is no letter, digit or underscore becomes a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = char if char.isalnum() or char == "_" else " "
        return self[code]


_SPACED = _Spaced()


def _words(text: str) -> list[str]:
    """Words in lower case."""
    return text.lower().translate(_SPACED).split()


def _lemmas(text: str) -> tuple[str, ...]:
    return tuple(map(_lemma, _words(text)))


@lru_cache(maxsize=65536)
def _forms(lemma: str) -> tuple[str, ...]:
    """All words with this lemma: `_lemma` takes off one of few endings."""
    endings = ("", "s", "e", "es")
    words = [lemma + ending for ending in endings] + [lemma[:-1] + "ie", lemma[:-1] + "ies"]
    return tuple(word for word in words if _lemma(word) == lemma)


class _Searched:
    """A text in which words and phrases are looked up, without regular plural endings."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = set(_words(text))

    @cached_property
    def _joined(self) -> str:
        return f" {' '.join(map(_lemma, _words(self.text)))} "

    def __contains__(self, lemmas: tuple[str, ...]) -> bool:
        """True where they stand there, one after the other."""
        if any(self.words.isdisjoint(_forms(lemma)) for lemma in lemmas):
            return False
        return len(lemmas) == 1 or f" {' '.join(lemmas)} " in self._joined


# the predictions of a group are about the same texts
_searched = lru_cache(maxsize=128)(_Searched)
