"""An engine that prints how fast it samples."""

import time
from collections.abc import Sequence

from masa.engine.hf import HfEngine
from masa.types import Completion, Request


class TimedEngine(HfEngine):
    """transformers' generate, with a line for each call."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions per request, in the order of the requests and of their seeds."""
        started = time.perf_counter()
        completions = super().generate(requests)
        tokens = sum(len(c.token_ids) for group in completions for c in group)
        print(f"{tokens} tokens, {tokens / (time.perf_counter() - started):.0f} per second")
        return completions
