"""The verifier of reasoning-gym problems: the gym's own scorers, on extracted answers.

The scorers run in a `VerdictPool`. This module imports no torch, and the gym only at its first use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from masa.verifiers.extract import extract_box, final_part
from masa.verifiers.pool import shared_pool

EXECUTES = "its scorer executes what the model writes"
ACCEPTS_WRONG = "its scorer gives full marks to wrong answers"
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
    "coin_flip": ACCEPTS_WRONG,  # the first digits of the gold answer
    "complex_arithmetic": ACCEPTS_WRONG,  # nan
    "fraction_simplification": ACCEPTS_WRONG,  # the fraction, whatever follows
    "game_of_life_halting": ACCEPTS_WRONG,  # everything
    "gsm_symbolic": ACCEPTS_WRONG,  # a number without its sign, and whatever follows
    "isomorphic_strings": CHANGES,
    "knight_swap": CHANGES,
    "list_functions": CHANGES,
    "ransom_note": CHANGES,
    "word_ladder": CHANGES,
    "composite": "it is a mixture: list its parts in task.datasets",
}
"""Data sets of reasoning-gym that cannot be trained on, and the reason."""

MAX_LENGTH = 4000
"""Characters of the longest answer that is scored."""
CPU_SECONDS = 5.0
MEMORY = 1 << 30
"""Limits of one verdict."""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def extract(response: str) -> str | None:
    r"""The last `<answer>` or else the last \boxed{} after the thinking, None where there is none.

    An answer that is empty, longer than `MAX_LENGTH` or with control characters does not count.
    """
    tagged = _ANSWER.findall(final_part(response))
    answer = tagged[-1].strip() if tagged else extract_box(response)
    if not answer or len(answer) > MAX_LENGTH:
        return None
    return answer if all(char.isprintable() or char in "\n\t" for char in answer) else None


def verify_batch(items: Sequence[tuple[str, str, int, str]]) -> list[bool]:
    """True where a response gets full marks: (data set, its parameters as JSON, index, response).

    A scorer that runs into its limits gives no marks.
    """
    keys = [(*item[:3], extract(item[3])) for item in items]
    pool = shared_pool(f"{__name__}:score", CPU_SECONDS, MEMORY)
    # problems of one data set one after the other, as a worker caches them
    verdicts = pool.verdicts(sorted(key for key in keys if key[3] is not None))
    return [verdicts.get(key, False) for key in keys]


def score(item: tuple[str, str, int, str]) -> bool:
    """True where the answer gets full marks: (data set, its parameters as JSON, index, answer)."""
    name, parameters, index, answer = item
    dataset, entry = _problem(name, parameters, index)
    try:
        return float(dataset.score_answer(answer, entry)) >= 1.0
    except Exception:  # scorers raise any exception on a text that they cannot read
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
