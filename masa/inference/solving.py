"""Predict, then spend: predictions about problems, and answers by a policy within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from masa.errors import TrainingError, require
from masa.inference.answers import Answers, Same
from masa.inference.policies import (
    Attempts,
    Policy,
    choice_of,
    confidence_of,
    next_samples,
    sample_limit,
)
from masa.inference.predictions import PredictionSummary, summarise
from masa.types import MetaPrediction, Prompt


@dataclass(frozen=True)
class Wanted:
    """A completion that is wanted."""

    kind: str
    """solution or meta."""
    prompt: Prompt
    sample: int
    """Its number among those of its kind and prompt."""
    max_tokens: int


@dataclass(frozen=True)
class Response:
    """A completion, as text."""

    text: str
    tokens: int


Sample = Callable[[Sequence[Wanted]], list[Response]]
"""Completions of what is wanted, in its order."""
Parse = Callable[[str], MetaPrediction]


@dataclass(frozen=True)
class Limits:
    """Tokens that may be sampled."""

    max_tokens: int
    """Of a solution."""
    meta_max_tokens: int
    """Of a prediction."""
    min_length: int
    """Of a solution whose length a policy limits."""
    budget: int | None = None
    """Per problem, on average; None for no limit."""

    def check_budget(self, predictions: int) -> None:
        """Raise ConfigError where it might not suffice for one sample of each problem.

        Args:
            predictions: M, 0 for a policy that needs none.
        """
        needed = self.max_tokens + predictions * self.meta_max_tokens
        parts = f"a solution may take max_tokens={self.max_tokens}"
        if predictions:
            parts += (
                f" and each of {predictions} predictions meta_max_tokens={self.meta_max_tokens}"
            )
        require(
            self.budget is None or self.budget >= needed,
            f"budget={self.budget} is below one sample per problem, {needed} tokens: {parts}",
        )


@dataclass(frozen=True)
class Solved:
    """What became of one problem."""

    prompt: Prompt
    response: str | None
    """The first sample with the chosen answer; None where there is no answer."""
    confidence: float
    """How probable it is that it is right, in [0, 1]."""
    abstained: bool
    """True where the confidence is too low to answer."""
    votes: int
    """Samples with this answer."""
    samples: int
    tokens: int
    """Of the samples."""
    prediction: PredictionSummary | None
    """None where the policy needs none."""

    @property
    def meta_tokens(self) -> int:
        """Tokens of the predictions."""
        return self.prediction.tokens if self.prediction else 0


def predict(
    prompts: Sequence[Prompt], count: int, max_tokens: int, sample: Sample, parse: Parse
) -> list[PredictionSummary]:
    """Predictions about problems.

    Args:
        prompts: the problems, [N].
        count: M, predictions per problem.
        max_tokens: of each.
        sample, parse: how they are sampled and read.

    Returns:
        [N].

    Raises:
        TrainingError: not one of them could be read.
    """
    wanted = [Wanted("meta", p, i, max_tokens) for p in prompts for i in range(count)]
    responses = sample(wanted)
    parsed = [parse(response.text) for response in responses]
    readable = sum(prediction.parsed for prediction in parsed)
    if not readable:
        errors = [prediction.error or "" for prediction in parsed]
        common = max(set(errors), key=errors.count)
        raise TrainingError(
            f"the model does not know the form of predictions: 0 of {len(parsed)} could be read "
            f"(most often: {common}); masa-sft teaches it"
        )
    return [
        summarise(
            parsed[i : i + count], sum(response.tokens for response in responses[i : i + count])
        )
        for i in range(0, len(parsed), count)
    ]


def solve(
    prompts: Sequence[Prompt],
    policy: Policy,
    predictions: Sequence[PredictionSummary] | None,
    same: Same,
    sample: Sample,
    limits: Limits,
    abstain: float = 0.0,
) -> list[Solved]:
    """Answers to problems: rounds of samples, each for the problems that gain the most from one.

    Args:
        prompts: the problems, [N].
        policy: how many samples, how long, which answer.
        predictions: about them, [N]; None for a policy that needs none.
        same: holds answers equal.
        sample: how solutions are sampled.
        limits: tokens that may be sampled; a policy cannot go beyond them.
        abstain: smallest confidence of an answer that is given.

    Returns:
        [N].
    """
    about: Sequence[PredictionSummary | None] = predictions or [None] * len(prompts)
    attempts = [Attempts(prediction) for prediction in about]
    answers = [Answers(same) for _ in prompts]
    tokens = [0] * len(prompts)
    left = math.inf if limits.budget is None else limits.budget * len(prompts)
    left -= sum(prediction.tokens for prediction in predictions or ())
    while round_ := _next_round(attempts, policy, limits, left):
        taken = [one.taken for one in attempts]
        wanted = []
        for i in round_:
            most = sample_limit(policy, attempts[i], limits.min_length, limits.max_tokens)
            wanted.append(Wanted("solution", prompts[i], taken[i], most))
            taken[i] += 1
        for i, response in zip(round_, sample(wanted), strict=True):
            attempts[i].add(answers[i].place(response.text))
            tokens[i] += response.tokens
            left -= response.tokens
    return [
        _solved(prompts[i], attempts[i], answers[i], tokens[i], policy, abstain)
        for i in range(len(prompts))
    ]


def _next_round(
    attempts: Sequence[Attempts], policy: Policy, limits: Limits, left: float
) -> list[int]:
    """Places of the problems that get a sample, one for each sample; the most valuable samples
    first, as many as the tokens that are left suffice for at their limits."""
    wanted = [
        (-value, number, i)
        for i, one in enumerate(attempts)
        for number, value in enumerate(next_samples(policy, one))
    ]
    granted = []
    for _, _, i in sorted(wanted):
        most = sample_limit(policy, attempts[i], limits.min_length, limits.max_tokens)
        if most <= left:
            left -= most
            granted.append(i)
    return sorted(granted)


def _solved(
    prompt: Prompt,
    attempts: Attempts,
    answers: Answers,
    tokens: int,
    policy: Policy,
    abstain: float,
) -> Solved:
    choice, confidence = choice_of(policy, attempts), confidence_of(policy, attempts)
    abstained = choice is not None and confidence < abstain
    return Solved(
        prompt=prompt,
        response=None if choice is None or abstained else answers.responses[choice],
        confidence=confidence,
        abstained=abstained,
        votes=0 if choice is None else attempts.counts[choice],
        samples=attempts.taken,
        tokens=tokens,
        prediction=attempts.prediction,
    )
