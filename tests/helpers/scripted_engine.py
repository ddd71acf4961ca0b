"""An engine that plays a script instead of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from masa.types import Completion, Request

Script = Callable[[tuple[int, ...], int], Sequence[int]]
"""(prompt token ids, seed) -> token ids, with the end-of-sequence token where the text ends."""


class ScriptedEngine:
    """Plays a script, cut at the request's token limit, and records the requests.

    Args:
        script: the completion for each prompt and seed.
        eos_token_id: token that ends a completion.
    """

    def __init__(self, script: Script, eos_token_id: int) -> None:
        self.script = script
        self.eos_token_id = eos_token_id
        self.version = -1
        self.calls: list[list[Request]] = []

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        self.calls.append(list(requests))
        return [[self._completion(request, seed) for seed in request.seeds] for request in requests]

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`; the weights are read and dropped."""
        for _ in named:
            pass
        self.version = version

    def sleep(self) -> None:
        """See `Engine.sleep`."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""

    def _completion(self, request: Request, seed: int) -> Completion:
        tokens = tuple(self.script(request.prompt_ids, seed))[: request.max_tokens]
        finished = bool(tokens) and tokens[-1] == self.eos_token_id
        return Completion(tokens, (math.log(0.5),) * len(tokens), finished, self.version)
