"""What one step of the paper's size costs beside the model: `python benchmarks/paper_scale.py`.

128 prompts, 16 solutions of about 5,800 tokens and 8 predictions of about 2,000 each: 15 million
tokens, prompts included. The engine has its token ids and log-probs ready, a verifier returns at
once, and there is no policy. All else is the path of a run: decoding, parsing, rewards, statistics,
packing into micro-batches and rollouts in parquet until they are on disk; then what one of 8 ranks
would pickle and unpickle where they share the work. Prints seconds and peak memory. On one core:

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 taskset -c 0 python benchmarks/paper_scale.py
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from masa.algorithm.controller import Controller
from masa.algorithm.step import RolloutContext, collect, training_samples
from masa.algorithm.task_rewards import TaskRewards
from masa.config import AlgorithmConfig
from masa.rollout.packing import build_update, padding_share, rank_shard, real_tokens
from masa.tasks.arithmetic.uniform import TEMPLATES
from masa.tasks.templates import PromptRenderer
from masa.tracking import records
from masa.tracking.cost import CostMeter
from masa.tracking.metrics import rollout_metrics
from masa.types import Completion, Prompt, Request, TokenIds

PROMPTS, SOLUTIONS, PREDICTIONS = 128, 16, 8
SOLUTION_TOKENS, PREDICTION_TOKENS = 5758, 2024
RANKS = 8
MICRO_BATCH_TOKENS = 16384
VOCABULARY = 30_000
TEXT_WORDS, TRAINING_WORDS = 1_000_000, 250_000
"""Of the text that completions are pieces of, and of its part that the tokenizer learns."""
PROBLEM_WORDS = 200


class Clock:
    """Seconds by part, of the wall and of the processor."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

    def reset(self) -> None:
        """Forget all parts."""
        self.wall.clear()
        self.cpu.clear()

    def move(self, outer: str, inner: str) -> None:
        """Take the seconds of a part out of those of the part around it."""
        for seconds in (self.wall, self.cpu):
            seconds[outer] -= seconds[inner]


def generated_words(count: int, seed: int = 0) -> list[str]:
    """Made-up words as frequent as those of a language (Zipf), and numbers, with what follows."""
    rng = random.Random(seed)
    syllables = [a + b + c for a in "bcdfglmnprst" for b in "aeiou" for c in ("", "n", "r", "st")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(40_000)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    marks = [" ", " ", " ", " ", " ", " ", ", ", ". ", " = ", "\n"]
    pieces: list[str] = []
    for word in rng.choices(words, cum_weights=weights, k=count):
        number = rng.random() < 0.1
        pieces.append((str(rng.randrange(10**4)) if number else word) + rng.choice(marks))
    return pieces


def trained_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of `VOCABULARY` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


class PreparedEngine:
    """Pieces of a text as completions, ready before the clock runs.

    Args:
        text_ids: int32 token ids of the text.
        tokenizer: it encodes the predictions at the end of meta rollouts.
        prompts: number of prompts.
    """

    def __init__(
        self, text_ids: np.ndarray, tokenizer: PreTrainedTokenizerFast, prompts: int
    ) -> None:
        self.rng = np.random.default_rng(0)
        self.text_ids = text_ids
        self.tokenizer = tokenizer
        self.solutions = [
            [self._completion(SOLUTION_TOKENS) for _ in range(SOLUTIONS)] for _ in range(prompts)
        ]
        self.predictions = [
            [self._completion(PREDICTION_TOKENS, self._prediction()) for _ in range(PREDICTIONS)]
            for _ in range(prompts)
        ]

    def _prediction(self) -> list[int]:
        start = self.rng.integers(len(self.text_ids) - 100)
        words = self.tokenizer.decode(self.text_ids[start : start + 100].tolist()).split()
        fields = {
            "math_notion": [word.strip(",.=") for word in words[1:6]],
            "pass_rate": int(self.rng.integers(9)),
            "solution_length": int(self.rng.integers(4000, 8000)),
        }
        return self.tokenizer.encode(f"</meta>{json.dumps(fields)}")

    def _completion(self, mean: int, ending: Sequence[int] = ()) -> Completion:
        count = int(self.rng.uniform(0.5, 1.5) * mean) - len(ending) - 1
        start = self.rng.integers(len(self.text_ids) - count)
        piece = self.text_ids[start : start + count]
        ids = np.concatenate([piece, [*ending, self.tokenizer.eos_token_id]]).astype(np.int32)
        logprobs = self.rng.uniform(-3, 0, len(ids)).astype(np.float32)
        return Completion(ids, logprobs, finished=True, version=0)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        ready = {SOLUTIONS: iter(self.solutions), PREDICTIONS: iter(self.predictions)}
        return [next(ready[len(request.seeds)]) for request in requests]

    def load_weights(self, named: Any, version: int) -> None:
        """See `Engine.load_weights`."""

    def sleep(self) -> None:
        """See `Engine.sleep`."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""


class TimedRenderer(PromptRenderer):
    """Its decoding is a part of its own."""

    clock: Clock

    def texts(self, sequences: Sequence[TokenIds]) -> list[str]:
        """See `Renderer.texts`."""
        with self.clock.part("decoding"):
            return super().texts(sequences)


def every_second(answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
    """Verdicts at once: groups are mixed, so all solutions are trained on."""
    return [i % 2 == 0 for i in range(len(answers))]


def exchange(items: Sequence[Any], clock: Clock) -> None:
    """Pickle what one rank sends, and unpickle what it gets from all."""
    received = [pickle.dumps(items[rank::RANKS]) for rank in range(1, RANKS)]
    with clock.part("exchange"):
        received.append(pickle.dumps(items[0::RANKS]))
        for sent in received:
            pickle.loads(sent)


def one_step(prompts: Sequence[Prompt], context: RolloutContext, clock: Clock, out: Path) -> int:
    """The parts of `RolloutCallback`, each with its time; returns the tokens trained on."""
    config = context.config
    with clock.part("rewards"):
        groups = collect(prompts, context)
    clock.move("rewards", "decoding")
    with clock.part("statistics"):
        context.controller.observe(groups)
        CostMeter().add(groups, 0)
        rollout_metrics(groups, config.meta.response_limit)
    with clock.part("packing"):
        samples = rank_shard(training_samples(groups, config), config, 0, 1)
        update = build_update(samples, config, MICRO_BATCH_TOKENS, 0, layout="packed")
        padding_share([update])
        tokens = real_tokens([update])
    del samples, update
    with clock.part("parquet"):
        writer = records.RecordWriter()
        writer.write(groups, 1, "train", config.meta.response_limit, out)
        writer.wait()
    # completions where the ranks share the sampling, then groups
    exchange([[*group.meta, *group.solutions] for group in groups], clock)
    exchange(groups, clock)
    return tokens


def measure(scale: float, folder: Path) -> dict[str, Any]:
    """One step with `scale` of the prompts."""
    words = generated_words(max(TRAINING_WORDS, round(TEXT_WORDS * scale)))
    tokenizer = trained_tokenizer("".join(words[:TRAINING_WORDS]))
    encoding = tokenizer.backend_tokenizer.encode("".join(words))
    count = max(RANKS, round(PROMPTS * scale))
    prompts = [
        Prompt(f"p{i}", "".join(words[i * PROBLEM_WORDS :][:PROBLEM_WORDS]), str(i))
        for i in range(count)
    ]
    engine = PreparedEngine(np.array(encoding.ids, np.int32), tokenizer, count)
    del words, encoding
    config, clock = AlgorithmConfig(group_size=SOLUTIONS), Clock()
    config.meta.group_size = PREDICTIONS
    renderer = TimedRenderer(TEMPLATES, tokenizer, 1, config.response_limit)
    renderer.clock = clock
    context = RolloutContext(
        renderer=renderer,
        generate=engine.generate,
        verify=every_second,
        correct_at=1.0,
        task_rewards=TaskRewards({}),
        controller=Controller(config, 0),
        config=config,
        step=1,
        seed=0,
    )
    # what a run does once: imports, the tokenizer's table
    one_step(prompts[:RANKS], context, clock, folder / "first.parquet")
    clock.reset()
    tokens = one_step(prompts, context, clock, folder / "rollouts.parquet")
    return {
        "seconds": clock.wall,
        "total": sum(clock.wall.values()),
        "cpu_seconds": clock.cpu,
        "peak_gib": peak_gib(),
        "tokens": tokens,
    }


def peak_gib() -> float:
    """Peak memory of this process; `getrusage` would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the prompts")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(args.scale, Path(folder))
    for name, seconds in measured["seconds"].items():
        print(f"{name:12}{seconds:8.2f} s  (processor {measured['cpu_seconds'][name]:.2f} s)")
    cpu = sum(measured["cpu_seconds"].values())
    print(f"{'total':12}{measured['total']:8.2f} s  (processor {cpu:.2f} s)")
    print(f"{measured['tokens']:,} tokens, peak memory {measured['peak_gib']:.2f} GiB")
    if args.json:
        args.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
