"""An engine without a model: it gives the correct or the wrong answer to every question.

A benchmark on which correct answers do not score 100 %, or wrong ones 0 %, has an error in its data
or its scorer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from masa.errors import ConfigError
from masa.evaluation.items import Item
from masa.evaluation.sampling import Sampler
from masa.tasks.templates import PASS_RATE_SCALE, fields_json
from masa.types import Completion, Request, TokenIds

if TYPE_CHECKING:
    import torch


class GoldAnswersEngine:
    """Gives the scorer's correct or wrong response, and predicts its pass rate.

    Args:
        samplers: the benchmarks to answer.
        answers: gold or wrong.

    Raises:
        ConfigError: a benchmark has no solutions, and correct answers are asked for.
    """

    def __init__(self, samplers: Sequence[Sampler], answers: str = "gold") -> None:
        if answers not in ("gold", "wrong"):
            raise ConfigError(f"engine.answers is {answers!r}, it must be gold or wrong")
        self.replies: dict[tuple[bytes, int], TokenIds] = {}
        for sampler in samplers:
            for (kind, _), draws in groupby(
                sampler.missing, key=lambda draw: (draw.kind, draw.item.prompt.id)
            ):
                group = list(draws)
                prompt = sampler.prompt_ids(kind, group[0].item).tobytes()
                reply = _reply(sampler, kind, group[0].item, answers)
                # two questions may have the same text, but no two draws have the same seed
                self.replies |= {(prompt, sampler.seed(draw)): reply for draw in group}

    @staticmethod
    def check_available() -> None:
        """The engine is always available."""

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
        reply = self.replies[request.prompt_ids.tobytes(), seed]
        tokens = reply[: request.max_tokens]
        logprobs = np.zeros(len(tokens), np.float32)
        return Completion(tokens, logprobs, len(tokens) == len(reply), 0)


def _reply(sampler: Sampler, kind: str, item: Item, answers: str) -> TokenIds:
    scorer = sampler.benchmark.scorer
    gold = answers == "gold"
    text = scorer.correct_response(item) if gold else scorer.wrong_response(item)
    if text is None:
        raise ConfigError(f"{sampler.benchmark.name} has no solutions: use engine.answers=wrong")
    reply = sampler.renderer.assistant_turn(text)
    if kind == "solution":
        return reply
    rate = PASS_RATE_SCALE if gold else 0
    length = max(sampler.config.min_length, len(reply))
    fields = fields_json((), rate, length, None if sampler.config.mixed_of is None else 0)
    return sampler.renderer.assistant_turn(f"<meta></meta>{fields}")
