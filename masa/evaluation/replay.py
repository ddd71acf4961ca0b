"""An engine that answers without a model: right or wrong wherever it is asked.

A benchmark on which right answers do not score 100 % and wrong ones 0 % has a fault in its data or
its scorer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch

from masa.config import ConfigError
from masa.evaluation.sampling import Sampler
from masa.types import Completion, Request


class ReplayEngine:
    """Says the scorer's right or wrong answer, and predicts as much.

    Args:
        samplers: the benchmarks to answer.
        answers: gold or wrong.

    Raises:
        ConfigError: a benchmark has no solutions to replay.
    """

    def __init__(self, samplers: Sequence[Sampler], answers: str = "gold") -> None:
        if answers not in ("gold", "wrong"):
            raise ConfigError(f"engine.answers is {answers!r}, it must be gold or wrong")
        self.replies: dict[tuple[int, ...], tuple[int, ...]] = {}
        for sampler in samplers:
            for draw in sampler.missing:
                if draw.sample:
                    continue
                item = draw.item
                scorer = sampler.benchmark.scorer
                text = scorer.right(item) if answers == "gold" else scorer.wrong(item)
                if text is None:
                    raise ConfigError(
                        f"{sampler.benchmark.name} has no solutions: replay engine.answers=wrong"
                    )
                reply = _encode(sampler, text)
                if draw.kind == "meta":
                    rate = 8 if answers == "gold" else 0
                    length = max(sampler.config.min_length, len(reply))
                    fields = {"math_notion": [], "pass_rate": rate, "solution_length": length}
                    reply = _encode(sampler, f"<meta></meta>{json.dumps(fields)}")
                self.replies[sampler.prompt_ids(draw.kind, item)] = reply

    @staticmethod
    def check_available() -> None:
        """Needs nothing."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        return [[self._completion(request) for _ in request.seeds] for request in requests]

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`; there is nothing to load."""

    def sleep(self) -> None:
        """See `Engine.sleep`."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""

    def _completion(self, request: Request) -> Completion:
        reply = self.replies[request.prompt_ids]
        tokens = reply[: request.max_tokens]
        return Completion(tokens, (0.0,) * len(tokens), len(tokens) == len(reply), 0)


def _encode(sampler: Sampler, text: str) -> tuple[int, ...]:
    tokenizer = sampler.dialogue.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return (*ids, int(tokenizer.eos_token_id))
