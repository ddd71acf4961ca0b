"""Prompts of known pass rates and lengths, played through a controller without a model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from builders import completion, group

from masa.algorithm.controller import Controller
from masa.types import MetaPrediction, Prompt, RolloutGroup


@dataclass(frozen=True)
class Family:
    """Prompts of one pass rate and one mean length."""

    name: str
    pass_rate: float
    tokens: int


MEMBERS = {"trivial": 8, "learnable": 6, "rare": 6, "hopeless": 8}
"""Families of each kind: a third of the prompts is trivial, a third hopeless with long traces."""


def families(**changed: float) -> list[Family]:
    """Pass rates as training sets have them, with another rate for the kinds named."""
    rates = {"trivial": 0.998, "learnable": 0.3, "rare": 0.05, "hopeless": 0.001} | changed
    tokens = {"trivial": 20, "learnable": 20, "rare": 20, "hopeless": 100}
    return [
        Family(f"{kind}{i}", rates[kind], tokens[kind])
        for kind, count in MEMBERS.items()
        for i in range(count)
    ]


Predict = Callable[[Family, random.Random], MetaPrediction]


def knowing(noise: float, G: int, mixed: bool = True) -> Predict:
    """Predictions around the truth: normal noise on the logits, a fifth on the length."""

    def predict(family: Family, rng: random.Random) -> MetaPrediction:
        rate = _noisy(family.pass_rate, noise, rng)
        q = _noisy(p_mixed(family.pass_rate, G), noise, rng)
        length = max(1, round(family.tokens * math.exp(rng.gauss(0, 0.2))))
        return MetaPrediction(round(8 * rate) / 8, length, (), mixed=round(q, 2) if mixed else None)

    return predict


def useless(family: Family, rng: random.Random) -> MetaPrediction:
    """A prediction that knows nothing."""
    return MetaPrediction(rng.choice([0, 1]), rng.randint(10, 100), (), mixed=rng.random())


def p_mixed(pass_rate: float, G: int) -> float:
    """Probability that G solutions do not all have one verdict."""
    return 1 - pass_rate**G - (1 - pass_rate) ** G


def _noisy(share: float, noise: float, rng: random.Random) -> float:
    share = min(max(share, 0.005), 0.995)
    return 1 / (1 + math.exp(-math.log(share / (1 - share)) - rng.gauss(0, noise)))


@dataclass(frozen=True)
class Rolled:
    """A group, and what it would have been in full."""

    family: Family
    group: RolloutGroup
    mixed: bool
    tokens: int


def play(
    controller: Controller,
    pool: Callable[[int], Sequence[Family]],
    steps: int,
    predict: Predict | None = None,
    prompts: int = 48,
    seed: int = 0,
    first: int = 1,
    fresh: bool = True,
) -> Iterator[list[Rolled]]:
    """Rollouts `first` to `steps`; outcomes depend on seed, step and place alone, not on what is
    decided.

    Args:
        controller: decides and observes.
        pool: the families at a step, all equally likely.
        steps: the last rollout.
        predict: one of the M predictions of a prompt.
        prompts: per rollout.
        seed: of all draws.
        first: the first rollout.
        fresh: no prompt comes twice.
    """
    config = controller.config
    for step in range(first, steps + 1):
        rng = random.Random(f"{seed}-{step}")
        rolled = []
        for i in range(prompts):
            family = rng.choice(pool(step))
            name = f"{step}-{i}" if fresh else f"{family.name}-{i % 2}"
            prompt = Prompt(name, "problem", "7", columns={"family": family.name})
            count = config.meta.group_size if predict else 0
            predictions = [predict(family, rng) for _ in range(count)] if predict else []
            correct = [rng.random() < family.pass_rate for _ in range(config.group_size)]
            lengths = [max(1, round(family.tokens * math.exp(rng.gauss(0, 0.1)))) for _ in correct]
            plan = controller.decide(prompt, predictions, controller.phase(step))
            limit = plan.max_tokens
            ends = [completion(min(n, limit), finished=n <= limit) for n in lengths if limit]
            right = [ok and n <= limit for ok, n in zip(correct, lengths, strict=True) if limit]
            done = group(
                right,
                prompt=prompt,
                decided=plan,
                predictions=predictions,
                solutions=tuple(ends),
                uncensored=bool(ends) and all(n <= limit for n in lengths),
            )
            rolled.append(Rolled(family, done, 0 < sum(correct) < len(correct), sum(lengths)))
        controller.observe([r.group for r in rolled])
        yield rolled


def kept(rolled: Sequence[Rolled]) -> tuple[float, float]:
    """Shares of the mixed groups and of the tokens that the gate lets through."""
    through = [r for r in rolled if not r.group.plan.would_skip]
    mixed, tokens = sum(r.mixed for r in rolled), sum(r.tokens for r in rolled)
    return sum(r.mixed for r in through) / mixed, sum(r.tokens for r in through) / tokens
