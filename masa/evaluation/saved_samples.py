"""Samples for `masa-predict` and `masa-solve`, each saved before the next batch is drawn."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from masa.evaluation.store import Key, Store
from masa.inference.solving import Response, Wanted
from masa.seeding import derive_seed
from masa.tasks.templates import PromptRenderer
from masa.types import Completion, Engine, Prompt, Request, TokenIds

NAME = "problems"
"""Under which the store keeps them."""


class SavedSamples:
    """Draws completions that a store lacks; each has its own seed, whatever the order.

    Args:
        prompts: the problems.
        renderer: their templates.
        build_engine: length of the longest sequence (tokens) -> engine; called where one is needed.
        store: the saved samples.
        limits: largest completion (tokens) of each kind that will be wanted, solution or meta.
        seed: of the samples.
        batch: completions between two saves.
        label: of the progress bar.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        renderer: PromptRenderer,
        build_engine: Callable[[int], Engine],
        store: Store,
        limits: Mapping[str, int],
        seed: int,
        batch: int,
        label: str,
    ) -> None:
        self.prompts = prompts
        self.renderer = renderer
        self.build_engine = build_engine
        self.store = store
        self.limits = limits
        self.seed = seed
        self.batch = batch
        self.engine: Engine | None = None
        self.digests = {p.id: _digest(p.problem) for p in prompts}
        store.saved_keys(NAME, self.digests)
        self.saved: dict[Key, Response] = {
            (row["kind"], row["id"], row["sample"]): Response(row["text"], row["tokens"])
            for row in store.read(NAME).to_dict("records")
        }
        self.bar = tqdm(
            unit="sample",
            desc=label,
            mininterval=0.1 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def __call__(self, wanted: Sequence[Wanted]) -> list[Response]:
        """See `masa.inference.solving.Sample`."""
        missing = [each for each in wanted if _key(each) not in self.saved]
        known = len(wanted) - len(missing)
        self.bar.total = (self.bar.total or 0) + len(wanted)
        self.bar.update(known)
        for start in range(0, len(missing), self.batch):
            self._sample(missing[start : start + self.batch])
        return [self.saved[_key(each)] for each in wanted]

    def close(self) -> None:
        """Free the engine."""
        self.bar.close()
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def _sample(self, wanted: Sequence[Wanted]) -> None:
        if self.engine is None:
            self.engine = self.build_engine(
                max(
                    len(self._ids(kind, prompt)) + limit
                    for kind, limit in self.limits.items()
                    for prompt in self.prompts
                )
            )
        requests = [
            Request(
                self._ids(each.kind, each.prompt),
                (derive_seed(self.seed, NAME, each.prompt.id, each.kind, each.sample),),
                each.max_tokens,
            )
            for each in wanted
        ]
        completions = [group[0] for group in self.engine.generate(requests)]
        texts = self.renderer.texts([completion.token_ids for completion in completions])
        self.store.add(
            NAME,
            [self._row(*each) for each in zip(wanted, completions, texts, strict=True)],
        )
        for each, completion, text in zip(wanted, completions, texts, strict=True):
            self.saved[_key(each)] = Response(text, len(completion.token_ids))
        self.bar.update(len(wanted))

    def _ids(self, kind: str, prompt: Prompt) -> TokenIds:
        if kind == "meta":
            return self.renderer.meta_prompt(prompt)
        return self.renderer.solution_prompt(prompt, ())

    def _row(self, wanted: Wanted, completion: Completion, text: str) -> dict[str, Any]:
        return {
            "benchmark": NAME,
            "id": wanted.prompt.id,
            "kind": wanted.kind,
            "sample": wanted.sample,
            "cluster": wanted.prompt.id,
            "gold": wanted.prompt.answer,
            "text": text,
            "tokens": len(completion.token_ids),
            "truncated": not completion.finished,
            "digest": self.digests[wanted.prompt.id],
        }


def _key(wanted: Wanted) -> Key:
    return wanted.kind, wanted.prompt.id, wanted.sample


def _digest(problem: str) -> str:
    return hashlib.blake2b(problem.encode(), digest_size=8).hexdigest()
