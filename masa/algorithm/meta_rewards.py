"""Rewards of a meta rollout: does the prediction agree with the policy's own solutions?

Source: arXiv 2510.03259, section "Self-alignment rewards".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from masa.config import MetaConfig
from masa.types import MetaPrediction

_WORD = re.compile(r"\w+")


def difficulty_reward(pass_rate: float, predicted: float | None, base: float = 0.01) -> float:
    """r_difficulty = base ** |p - p_hat|.

    Args:
        pass_rate: p, share of correct solutions, in [0, 1].
        predicted: p_hat in [0, 1]; None where the prediction is missing.
        base: b in (0, 1); smaller punishes an error harder.

    Returns:
        A reward in [0, 1], 1 for an exact prediction, 0.0 for a missing one.
    """
    if predicted is None or not math.isfinite(predicted):
        return 0.0
    return float(base ** abs(pass_rate - predicted))


def length_reward(
    lengths: Sequence[int], correct: Sequence[bool], predicted: int | None, strict: bool = False
) -> float:
    """r_length = 1 where the predicted length lies between the shortest and longest correct one.

    Args:
        lengths: token counts of the solutions.
        correct: their verdicts.
        predicted: predicted length (tokens); None where the prediction is missing.
        strict: compare with < (the paper's snippet) instead of <= (its equation).

    Returns:
        0.0 or 1.0; 0.0 where no solution is correct.
    """
    right = [length for length, is_right in zip(lengths, correct, strict=True) if is_right]
    if predicted is None or not right:
        return 0.0
    shortest, longest = min(right), max(right)
    inside = shortest < predicted < longest if strict else shortest <= predicted <= longest
    return float(inside)


def notion_reward(
    texts: Sequence[str],
    correct: Sequence[bool],
    notions: Sequence[str] | None,
    problem: str,
) -> float:
    """r_notion = mean over notions n of 1[c_correct(n) > c_wrong(n)].

    c counts the correct (wrong) solutions whose text contains n; case and regular plurals are
    ignored; notions that stand in the problem are dropped first.

    Args:
        texts: solution texts.
        correct: their verdicts.
        notions: predicted notions; None where the prediction is missing.
        problem: the problem text.

    Returns:
        A reward in [0, 1], 0.0 where no notion is left.
    """
    given = _lemmas(problem)
    asked = {_lemmas(notion) for notion in notions or ()}
    left = [notion for notion in asked if notion.strip() and notion not in given]
    if not left:
        return 0.0
    bodies = [_lemmas(text) for text in texts]
    hits = 0
    for notion in left:
        verdicts = [
            is_right for body, is_right in zip(bodies, correct, strict=True) if notion in body
        ]
        hits += 2 * sum(verdicts) > len(verdicts)
    return hits / len(left)


def component_rewards(
    prediction: MetaPrediction,
    *,
    pass_rate: float,
    lengths: Sequence[int],
    texts: Sequence[str],
    correct: Sequence[bool],
    problem: str,
    config: MetaConfig,
) -> dict[str, float]:
    """The three component rewards of one prediction, by name."""
    return {
        "difficulty": difficulty_reward(pass_rate, prediction.pass_rate, config.difficulty_base),
        "length": length_reward(lengths, correct, prediction.length, config.strict_length),
        "notion": notion_reward(texts, correct, prediction.notions, problem),
    }


def meta_reward(scores: dict[str, float], config: MetaConfig) -> float:
    """r_meta = weighted mean of the components; a weight of 0 removes one."""
    weights = {
        "difficulty": config.difficulty_weight,
        "length": config.length_weight,
        "notion": config.notion_weight,
    }
    total = sum(weights.values())
    return sum(weight * scores[name] for name, weight in weights.items()) / total


@lru_cache(maxsize=65536)
def _lemma(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    stem = word[:-1] if plural else word
    # "boxes" and "sizes" leave a stem on e; singulars lose theirs as well, so that both meet
    if stem.endswith(("sse", "xe", "ze", "che", "she")):
        return stem[:-1]
    return stem[:-2] + "y" if stem.endswith("ie") and len(stem) > 3 else stem


@lru_cache(maxsize=128)
def _lemmas(text: str) -> str:
    """Lower-case words without regular plural endings, each between spaces, so that `in` matches
    whole words and phrases."""
    return " " + " ".join(_lemma(word) for word in _WORD.findall(text.lower())) + " "
