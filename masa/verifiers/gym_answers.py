"""Is an answer to a reasoning-gym problem right: the gym's own scorers, on answers taken out first.

The scorers run in a `VerdictPool`, so this module imports neither torch nor, before it is asked
something, the gym.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from masa.verifiers.extract import extract_box, final_part
from masa.verifiers.pool import VerdictPool

EXECUTES = "its scorer executes what the model writes"
WRONG_IS_RIGHT = "its scorer gives full marks to wrong answers"
CHANGES = "its problems are not the same in every process"
REFUSED = {
    "binary_matrix": EXECUTES,
    "countdown": EXECUTES,
    "intermediate_integration": EXECUTES,
    "n_queens": EXECUTES,
    "polynomial_multiplication": EXECUTES,
    "puzzle24": EXECUTES,
    "simple_integration": EXECUTES,
    "spiral_matrix": EXECUTES,
    "string_insertion": EXECUTES,
    "coin_flip": WRONG_IS_RIGHT,  # to the first digits of the right one
    "complex_arithmetic": WRONG_IS_RIGHT,  # to nan
    "game_of_life_halting": WRONG_IS_RIGHT,  # to everything
    "isomorphic_strings": CHANGES,
    "knight_swap": CHANGES,
    "list_functions": CHANGES,
    "ransom_note": CHANGES,
    "word_ladder": CHANGES,
    "composite": "it is a mixture: list its parts in task.datasets",
}
"""Data sets of reasoning-gym that are not to be trained on, and why."""

MAX_LENGTH = 4000
"""Characters of the longest answer that is scored."""
CPU_SECONDS = 5.0
MEMORY = 1 << 30
"""Limits of one verdict."""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def extract(response: str) -> str | None:
    r"""The last `<answer>` or else the last \boxed{} after the thinking, None where there is none.

    An answer that is empty, longer than `MAX_LENGTH` or holds control characters is none.
    """
    tagged = _ANSWER.findall(final_part(response))
    answer = tagged[-1].strip() if tagged else extract_box(response)
    if not answer or len(answer) > MAX_LENGTH:
        return None
    return answer if all(char.isprintable() or char in "\n\t" for char in answer) else None


def verify_batch(items: Sequence[tuple[str, str, int, str]]) -> list[bool]:
    """True where a response earns full marks: (data set, its parameters as JSON, index, response).

    A scorer that runs into its limits gives none.
    """
    answers = [extract(response) for *_, response in items]
    asked = {(*item[:3], answer) for item, answer in zip(items, answers, strict=True) if answer}
    ordered = sorted(asked)
    scores = dict(zip(ordered, _pool().map(ordered) if ordered else [], strict=True))
    return [
        answer is not None and scores[(*item[:3], answer)] is True
        for item, answer in zip(items, answers, strict=True)
    ]


@lru_cache(maxsize=1)
def _pool() -> VerdictPool:
    pool = VerdictPool(f"{__name__}:score", min(8, os.cpu_count() or 1), CPU_SECONDS, MEMORY)
    atexit.register(pool.close)
    return pool


def score(item: tuple[str, str, int, str]) -> bool:
    """True where the answer earns full marks: (data set, its parameters as JSON, index, answer)."""
    name, parameters, index, answer = item
    dataset, entry = _problem(name, parameters, index)
    try:
        return float(dataset.score_answer(answer, entry)) >= 1.0
    except Exception:  # scorers raise whatever comes up in a text that they cannot read
        return False


@lru_cache(maxsize=512)
def _problem(name: str, parameters: str, index: int) -> tuple[Any, Any]:
    dataset = create(name, parameters)
    return dataset, dataset[index]


@lru_cache(maxsize=64)
def create(name: str, parameters: str) -> Any:
    """A data set of the gym: a pure function of its parameters (JSON, seed and size included)."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **json.loads(parameters))
