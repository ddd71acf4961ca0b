"""Sampling of the completions that a store lacks; each has its own seed, whatever the order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from masa.errors import TrainingError, VerdictError
from masa.evaluation.benchmarks import Benchmark
from masa.evaluation.eval_config import EvaluationConfig
from masa.evaluation.items import Item
from masa.evaluation.store import Store
from masa.seeding import derive_seed
from masa.tasks.templates import PromptRenderer
from masa.types import Completion, Engine, Request, TokenIds


@dataclass(frozen=True)
class Draw:
    """One completion to sample."""

    kind: str
    """solution or meta."""
    item: Item
    sample: int


class Sampler:
    """Samples and judges the completions of one benchmark that a store lacks.

    Args:
        benchmark: questions and scorer.
        renderer: its templates for the model's tokenizer.
        config: number, length and seed of the samples.
        store: the saved samples.
    """

    def __init__(
        self, benchmark: Benchmark, renderer: PromptRenderer, config: EvaluationConfig, store: Store
    ) -> None:
        self.benchmark = benchmark
        self.renderer = renderer
        self.config = config
        self.store = store
        self.digests = benchmark.digests()
        self.missing = self._missing()

    def _missing(self) -> list[Draw]:
        saved = self.store.saved_keys(self.benchmark.name, self.digests)
        counts = {"solution": self.config.n}
        if self.config.meta:
            counts["meta"] = self.config.meta_samples
        return [
            Draw(kind, item, sample)
            for item in self.benchmark.items
            for kind, count in counts.items()
            for sample in range(count)
            if (kind, item.prompt.id, sample) not in saved
        ]

    def prompt_ids(self, kind: str, item: Item) -> TokenIds:
        """Token ids of the prompt of a question."""
        if kind == "meta":
            return self.renderer.meta_prompt(item.prompt)
        return self.renderer.solution_prompt(item.prompt, ())

    def limit(self, kind: str) -> int:
        """Token limit of a completion."""
        return self.config.meta_max_tokens if kind == "meta" else self.config.max_tokens

    def longest_sequence(self) -> int:
        """Tokens of the longest remaining prompt and its completion."""
        kinds = {(draw.kind, draw.item.prompt.id): draw for draw in self.missing}
        return max(
            (len(self.prompt_ids(d.kind, d.item)) + self.limit(d.kind) for d in kinds.values()),
            default=0,
        )

    def batches(self, engine: Engine) -> Iterator[tuple[int, int]]:
        """Sample, save and judge batch by batch; yields (completions, tokens) of each."""
        for start in range(0, len(self.missing), self.config.batch):
            draws = self.missing[start : start + self.config.batch]
            completions = self._generate(draws, engine)
            rows = self._rows(draws, completions)
            # sampling is expensive: samples are saved before a scorer can fail
            path = self.store.add(self.benchmark.name, rows)
            self._judge(path, rows)
            yield len(draws), sum(len(c.token_ids) for c in completions)

    def judge_saved(self) -> None:
        """Judge saved samples whose evaluation stopped before the verdicts."""
        for path, rows in self.store.unjudged(self.benchmark.name):
            self._judge(path, rows)

    def _judge(self, path: Path, rows: Sequence[dict[str, Any]]) -> None:
        items = {item.prompt.id: item for item in self.benchmark.items}
        open_rows = [
            row
            for row in rows
            if row["kind"] == "solution" and row.get("correct") is None and row["id"] in items
        ]
        if not open_rows:
            return
        answers = [(items[row["id"]], row["text"]) for row in open_rows]
        try:
            verdicts = self.benchmark.scorer.judge(answers)
        except VerdictError as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{reason}; no sample is lost: free memory or processes, then repeat the command "
                "to resume"
            ) from error
        for row, verdict in zip(open_rows, verdicts, strict=True):
            row |= {"correct": verdict.correct, "answer": verdict.answer}
        self.store.replace(path, rows)

    def _generate(self, draws: Sequence[Draw], engine: Engine) -> list[Completion]:
        requests = []
        for (kind, _), group in groupby(draws, key=lambda draw: (draw.kind, draw.item.prompt.id)):
            of_question = list(group)
            seeds = tuple(self.seed(draw) for draw in of_question)
            requests.append(
                Request(self.prompt_ids(kind, of_question[0].item), seeds, self.limit(kind))
            )
        return [c for group in engine.generate(requests) for c in group]

    def seed(self, draw: Draw) -> int:
        """The seed of a draw."""
        return derive_seed(
            self.config.seed, self.benchmark.name, draw.item.prompt.id, draw.kind, draw.sample
        )

    def _rows(
        self, draws: Sequence[Draw], completions: Sequence[Completion]
    ) -> list[dict[str, Any]]:
        rows = []
        texts = self.renderer.texts([completion.token_ids for completion in completions])
        for draw, completion, text in zip(draws, completions, texts, strict=True):
            row: dict[str, Any] = {
                "benchmark": self.benchmark.name,
                "id": draw.item.prompt.id,
                "kind": draw.kind,
                "sample": draw.sample,
                "cluster": draw.item.cluster,
                "gold": draw.item.prompt.answer,
                "text": text,
                "tokens": len(completion.token_ids),
                "truncated": not completion.finished,
                "digest": self.digests[draw.item.prompt.id],
            }
            if draw.kind == "meta":
                prediction = self.renderer.parse(text)
                row |= {
                    "predicted_pass_rate": prediction.pass_rate,
                    "predicted_length": prediction.length,
                    "predicted_notions": prediction.notions,
                    "predicted_mixed": prediction.mixed,
                    "parse_error": prediction.error,
                }
            rows.append(row)
        return rows


def sample_all(samplers: Sequence[Sampler], build_engine: Callable[[int], Engine]) -> None:
    """Sample what is missing in all benchmarks; the engine is built only where it is needed.

    Args:
        samplers: one per benchmark.
        build_engine: length of the longest sequence (tokens) -> engine.
    """
    for sampler in samplers:
        sampler.judge_saved()
    missing = sum(len(sampler.missing) for sampler in samplers)
    if not missing:
        return
    engine = build_engine(max(sampler.longest_sequence() for sampler in samplers))
    saved = sum(_total(sampler) for sampler in samplers) - missing
    try:
        with tqdm(
            total=missing + saved,
            initial=saved,
            unit="sample",
            mininterval=0.1 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
        ) as bar:
            started, tokens = time.perf_counter(), 0
            for sampler in samplers:
                bar.set_description(sampler.benchmark.name)
                for completions, count in sampler.batches(engine):
                    tokens += count
                    speed = tokens / (time.perf_counter() - started)
                    bar.set_postfix({"tok/s": f"{speed:,.0f}"}, refresh=False)
                    bar.update(completions)
    finally:
        engine.close()


def _total(sampler: Sampler) -> int:
    config = sampler.config
    return len(sampler.benchmark.items) * (config.n + config.meta * config.meta_samples)
