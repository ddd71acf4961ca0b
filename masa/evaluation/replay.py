"""An engine that answers without a model: right or wrong wherever it is asked.

A benchmark on which right answers do not score 100 % and wrong ones 0 % has a fault in its data or
its scorer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from masa.errors import ConfigError
from masa.evaluation.items import Item
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
        self.replies: dict[tuple[tuple[int, ...], int], tuple[int, ...]] = {}
        for sampler in samplers:
            for (kind, _), draws in groupby(
                sampler.missing, key=lambda draw: (draw.kind, draw.item.prompt.id)
            ):
                asked = list(draws)
                prompt = sampler.prompt_ids(kind, asked[0].item)
                reply = _reply(sampler, kind, asked[0].item, answers)
                # two questions may share a text, no two draws share a seed as well
                self.replies |= {(prompt, sampler.seed(draw)): reply for draw in asked}

    @staticmethod
    def check_available() -> None:
        """Needs nothing."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        return [[self._completion(request, seed) for seed in request.seeds] for request in requests]

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`; there is nothing to load."""

    def sleep(self) -> None:
        """See `Engine.sleep`."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""

    def _completion(self, request: Request, seed: int) -> Completion:
        reply = self.replies[request.prompt_ids, seed]
        tokens = reply[: request.max_tokens]
        return Completion(tokens, (0.0,) * len(tokens), len(tokens) == len(reply), 0)


def _reply(sampler: Sampler, kind: str, item: Item, answers: str) -> tuple[int, ...]:
    scorer = sampler.benchmark.scorer
    text = scorer.right(item) if answers == "gold" else scorer.wrong(item)
    if text is None:
        raise ConfigError(f"{sampler.benchmark.name} has no solutions: replay engine.answers=wrong")
    reply = sampler.renderer.assistant_turn(text)
    if kind == "solution":
        return reply
    rate = 8 if answers == "gold" else 0
    length = max(sampler.config.min_length, len(reply))
    fields = {"math_notion": [], "pass_rate": rate, "solution_length": length}
    return sampler.renderer.assistant_turn(f"<meta></meta>{json.dumps(fields)}")
