"""Demonstrations in the prompts of RL -> one batch per step; deterministic by seed and step."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from masa.algorithm.step import sampling_seeds
from masa.config import AlgorithmConfig, DemonstrationConfig, TrainerConfig
from masa.errors import ConfigError
from masa.rollout.loader import StepLoader
from masa.rollout.packing import padding_share, rank_update
from masa.seeding import derive_seed
from masa.tasks.base import Task
from masa.tasks.demonstrations import (
    Demonstrated,
    PredictionForm,
    draw_prediction,
    frequent_words,
    uniform_lengths,
)
from masa.tasks.limits import prompt_tokens
from masa.tasks.templates import PromptRenderer
from masa.tracking.files import atomic_write
from masa.training.collectives import sum_over_ranks, world_size
from masa.training.held_out import HeldOutCallback
from masa.training.logprobs import token_logprobs
from masa.training.module import MasaModule
from masa.types import ByContent, Engine, Prompt, Request, Sample, StepBatch, TokenIds, Update

Kind = Literal["solution", "hinted", "prediction"]
SHOWN = 64
"""Prompts that an engine samples for at a time, between two looks at what was found."""


@dataclass(frozen=True, eq=False)
class Demonstration(ByContent):
    """What the model is to say to a prompt, as tokens."""

    _arrays = {"prompt_ids": np.int32, "token_ids": np.int32}

    kind: Kind
    prompt: Prompt
    prompt_ids: TokenIds
    token_ids: TokenIds
    """With the token that ends a turn."""

    @property
    def sample(self) -> Sample:
        """For the update."""
        return Sample.cloned(self.prompt_ids, self.token_ids)

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


class DemonstrationMixture(Sequence[Demonstration]):
    """Endless demonstrations by number. Number i depends on the seed, i and the solutions alone.

    An epoch is one pass over the solutions in random order. At each place it is drawn anew whether
    the solution comes plain, with a hint of random notions, or a prediction comes in its place.

    Args:
        solutions: what to learn from; not empty.
        task: may write its own predictions.
        renderer: the templates of RL over the policy's tokenizer.
        form: of predictions, and source of hints.
        config: the shares.
        seed: run seed.
        group_size: G, of which predictions with the field `mixed` speak.
        mixed: share of the predictions that have it.
    """

    def __init__(
        self,
        solutions: Sequence[tuple[Prompt, str]],
        task: Task,
        renderer: PromptRenderer,
        form: PredictionForm,
        config: DemonstrationConfig,
        seed: int,
        group_size: int = 0,
        mixed: float = 0.0,
    ) -> None:
        self.solutions = solutions
        self.task = task
        self.renderer = renderer
        self.mixed = mixed
        self._renderers = prediction_renderers(renderer, group_size, mixed)
        self.form = form
        self.config = config
        self.seed = seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        epoch, place = divmod(number, len(self.solutions))
        prompt, text = self.solutions[self._shuffled(epoch)[place]]
        rng = random.Random(derive_seed(self.seed, "demonstration", number))
        if rng.random() < self.config.predictions:
            return self.prediction(prompt, rng)
        hints = self.form.hint(prompt, rng) if rng.random() < self.config.hinted else []
        return self.solution(prompt, text, hints)

    def solution(self, prompt: Prompt, text: str, hints: Sequence[str] = ()) -> Demonstration:
        """A solution, with hints where there are any."""
        prompt_ids = self.renderer.solution_prompt(prompt, hints)
        kind: Kind = "hinted" if hints else "solution"
        return Demonstration(kind, prompt, prompt_ids, self.renderer.assistant_turn(text))

    def prediction(self, prompt: Prompt, rng: random.Random) -> Demonstration:
        """A prediction whose numbers and notions are random."""
        # no draw where all are of one form: with 0 the numbers of before
        mixed = self.mixed > 0 and (self.mixed == 1 or rng.random() < self.mixed)
        text = draw_prediction(self.task, self.form, prompt, rng, mixed)
        prompt_ids = self._renderers[mixed].meta_prompt(prompt)
        return Demonstration("prediction", prompt, prompt_ids, self.renderer.assistant_turn(text))

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            order = list(range(len(self.solutions)))
            random.Random(derive_seed(self.seed, "epoch", epoch)).shuffle(order)
            self._order = epoch, order
        return self._order[1]


def prediction_renderers(
    renderer: PromptRenderer, group_size: int, mixed: float
) -> dict[bool, PromptRenderer]:
    """What asks for predictions without and with the field `mixed`, those that are used.

    Args:
        renderer: of either.
        group_size: G.
        mixed: share of the predictions that have it.
    """
    used = ([False] if mixed < 1 else []) + ([True] if mixed > 0 else [])
    return {one: renderer.predicting_mixed_of(group_size if one else None) for one in used}


@dataclass(frozen=True)
class DemonstrationSets:
    """Demonstrations to train on, and those left out to measure the loss on."""

    train: DemonstrationMixture
    held_out: Sequence[Demonstration]
    """Solutions and predictions of prompts that are not in `train`."""
    report: Mapping[str, Any]
    longest: int
    """Tokens of the longest demonstration, prompt included."""

    def summary(self) -> str:
        """The report in one line."""
        dropped = [f"{n} {reason}" for reason, n in self.report["dropped"].items() if n]
        suffix = f"; dropped: {', '.join(dropped)}" if dropped else ""
        if not self.train.form.notions:
            suffix += "; no notions: the solutions share no words, give some in sft.notions"
        return (
            f"demonstrations: {len(self.train.solutions)} solutions of at most {self.longest} "
            f"tokens with their prompts, {self.report['epochs']:.2g} epochs, "
            f"{len(self.held_out)} demonstrations held out{suffix}"
        )


def mixed_share(config: DemonstrationConfig, algorithm: AlgorithmConfig) -> float:
    """Share of the demonstrated predictions that have the field `mixed`."""
    share = config.mixed_predictions
    return float(algorithm.meta.predict_mixed if share is None else share)


def build_sets(
    demonstrated: Demonstrated,
    task: Task,
    renderer: PromptRenderer,
    algorithm: AlgorithmConfig,
    config: DemonstrationConfig,
    seed: int,
) -> DemonstrationSets:
    """Leave out what is too long, and hold some prompts out.

    Raises:
        ConfigError: nothing remains, or a prompt is one that RL validates on.
    """
    validation = {prompt.problem for prompt in task.validation}
    for prompt, _ in demonstrated.solutions:
        if prompt.problem in validation:
            raise ConfigError(f"the demonstrations of {prompt.id} are of a held-out prompt")
    mixed = mixed_share(config, algorithm)
    renderers = prediction_renderers(renderer, algorithm.group_size, mixed).values()
    within, lengths, longest, dropped = _within_limits(demonstrated, list(renderers), algorithm)
    held_out_ids = _held_out_prompts([prompt for prompt, _ in within], config.held_out, seed)
    train = [pair for pair in within if pair[0].id not in held_out_ids]
    if config.limit is not None:
        train = train[: config.limit]
    shortest, most = renderer.min_length, renderer.max_length
    inside = [n for n in lengths if shortest <= n <= most]
    # a few lengths would be all that is ever predicted
    if config.lengths == "uniform" or 2 * len(inside) < len(lengths):
        inside = uniform_lengths(shortest, most)
    notions = config.notions or list(getattr(task, "notions", ()))
    form = PredictionForm(inside, notions or frequent_words([text for _, text in within]))
    mixture = DemonstrationMixture(
        train, task, renderer, form, config, seed, algorithm.group_size, mixed
    )
    left_out = []
    for number, (prompt, text) in enumerate(pair for pair in within if pair[0].id in held_out_ids):
        rng = random.Random(derive_seed(seed, "held out", number))
        as_prediction = rng.random() < config.predictions
        left_out.append(
            mixture.prediction(prompt, rng) if as_prediction else mixture.solution(prompt, text)
        )
    report = {
        "source": config.source,
        "solutions": len(train),
        "epochs": config.steps * config.batch_size / len(train),
        "dropped": dropped,
        "longest": longest,
    }
    return DemonstrationSets(mixture, left_out, report, longest)


def _within_limits(
    demonstrated: Demonstrated, renderers: Sequence[PromptRenderer], algorithm: AlgorithmConfig
) -> tuple[list[tuple[Prompt, str]], list[int], int, dict[str, int]]:
    """Solutions within the limits, their lengths, the longest with its prompt, and what is left
    out."""
    within, lengths, longest, too_long = [], [], 0, []
    dropped = Counter(demonstrated.dropped)
    for prompt, text in demonstrated.solutions:
        of_prompt = max(prompt_tokens(prompt, renderer) for renderer in renderers)
        tokens = len(renderers[0].assistant_turn(text))
        if of_prompt > algorithm.prompt_limit:
            dropped["over algorithm.prompt_limit"] += 1
        elif tokens > algorithm.response_limit:
            too_long.append(tokens)
        else:
            within.append((prompt, text))
            lengths.append(tokens)
            longest = max(longest, of_prompt + tokens)
    if too_long:
        reason = f"over algorithm.response_limit (the longest has {max(too_long)} tokens)"
        dropped[reason] = len(too_long)
    if not within:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n)
        raise ConfigError(f"no demonstration is left to learn from: {reasons}")
    return within, lengths, longest, dict(dropped)


def _held_out_prompts(prompts: Sequence[Prompt], count: int, seed: int) -> set[str]:
    """Ids of `count` prompts at random, at most a tenth of them."""
    ids = sorted({prompt.id for prompt in prompts})
    random.Random(derive_seed(seed, "held-out demonstrations")).shuffle(ids)
    return set(ids[: min(count, len(ids) // 10)])


def kept_once(
    file: Path, prompts: Iterable[Prompt], find: Callable[[], Demonstrated]
) -> Demonstrated:
    """What `find` returned to the first process that called: the same on every rank and on resume.

    Args:
        file: keeps it.
        prompts: those that solutions are to, and others.
        find: may take long, and need not return the same again.

    Raises:
        ConfigError: the file is of other prompts.
    """
    with FileLock(f"{file}.lock"):
        if not file.exists():
            solved = find()
            kept = {
                "solutions": [(prompt.id, text) for prompt, text in solved.solutions],
                "dropped": dict(solved.dropped),
            }
            with atomic_write(file) as partial:
                partial.write_text(json.dumps(kept), encoding="utf-8")
    kept = json.loads(file.read_text(encoding="utf-8"))
    by_id = {prompt.id: prompt for prompt in prompts}
    gone = sum(name not in by_id for name, _ in kept["solutions"])
    if gone:
        raise ConfigError(
            f"{file} has {gone} solutions to prompts that the task does not have any more: delete "
            "it to begin anew, or restore the data"
        )
    return Demonstrated([(by_id[name], text) for name, text in kept["solutions"]], kept["dropped"])


def self_sampled(
    task: Task,
    renderer: PromptRenderer,
    engine: Callable[[], Engine],
    algorithm: AlgorithmConfig,
    config: DemonstrationConfig,
    count: int,
    seed: int,
    correct_at: float,
) -> Demonstrated:
    """The policy's own right solutions, at most `count`, to prompts of `task.train` (rejection
    sampling).

    Raises:
        ConfigError: the verifier accepts none.
    """
    prompts = list(task.train)
    random.Random(derive_seed(seed, "prompts to sample")).shuffle(prompts)
    solutions: list[tuple[Prompt, str]] = []
    sampled = 0
    most = min(count, len(prompts) * config.keep)
    bar = tqdm(total=most, desc="own solutions", unit="solution")
    with closing(engine()) as sampling, bar:
        for start in range(0, len(prompts), SHOWN):
            chunk = prompts[start : start + SHOWN]
            requests = [
                Request(
                    renderer.solution_prompt(prompt, ()),
                    sampling_seeds(prompt, 0, seed, "demonstration", config.samples),
                    algorithm.response_limit,
                )
                for prompt in chunk
            ]
            answers = [
                (prompt, renderer.texts([completion.token_ids])[0])
                for prompt, group in zip(chunk, sampling.generate(requests), strict=True)
                for completion in group
                if completion.finished
            ]
            sampled += len(chunk) * config.samples
            kept: defaultdict[str, set[str]] = defaultdict(set)
            for (prompt, text), score in zip(answers, task.verify(answers), strict=True):
                texts = kept[prompt.id]
                if score >= correct_at and len(texts) < config.keep and text not in texts:
                    texts.add(text)
                    solutions.append((prompt, text))
            solutions = solutions[:count]
            bar.update(len(solutions) - bar.n)
            if len(solutions) == count:
                break
    if not solutions:
        raise ConfigError(
            f"the verifier accepts none of the {sampled} solutions that the model sampled: sample "
            "more (sft.samples), choose easier problems, or learn from sft.source=task"
        )
    return Demonstrated(solutions, {"sampled and not kept": sampled - len(solutions)})


def cross_entropy(algorithm: AlgorithmConfig) -> AlgorithmConfig:
    """The algorithm with nothing but the loss on demonstrations."""
    return replace(
        algorithm,
        kl_beta=0.0,
        entropy_coef=0.0,
        mismatch="none",
        temperature=1.0,
        bc=replace(algorithm.bc, mode="off"),
    )


class DemonstrationModule(L.LightningDataModule):
    """One batch of demonstrations per step.

    Args:
        mixture: demonstrations by number; step n takes the n-th `batch_size` of them.
        config: their number.
        pad_token_id: of the padding.
    """

    def __init__(
        self,
        mixture: DemonstrationMixture,
        config: DemonstrationConfig,
        pad_token_id: int,
    ) -> None:
        super().__init__()
        self.mixture = mixture
        self.config = config
        self.pad_token_id = pad_token_id

    def train_dataloader(self) -> StepLoader:
        """One batch per step."""
        return StepLoader(self.batch, self.config.steps)

    def batch(self, step: int) -> StepBatch:
        """The batch of a step: this rank's share of the demonstrations of all ranks."""
        started = time.perf_counter()
        size = self.config.batch_size
        demonstrations = self.mixture[(step - 1) * size : step * size]
        update = self.update(demonstrations)
        lengths = [len(demonstration.token_ids) for demonstration in demonstrations]
        padding = padding_share([update])
        metrics = {
            "demonstrations/tokens": float(sum(map(len, demonstrations))),
            "demonstrations/mean_length": sum(lengths) / len(lengths),
            "demonstrations/epoch": step * size / len(self.mixture.solutions),
            "padding_share": sum_over_ranks([padding])[0] / world_size(),
        }
        return StepBatch(step, [update], metrics, {"timing_s/batch": time.perf_counter() - started})

    def update(self, demonstrations: Sequence[Demonstration]) -> Update:
        """This rank's share of an optimizer step on demonstrations."""
        assert self.trainer is not None
        samples = [demonstration.sample for demonstration in demonstrations]
        module: Any = self.trainer.lightning_module
        return rank_update(samples, module, self.pad_token_id)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave the batch where it is: micro-batches travel one at a time."""
        return batch


class HeldOutLoss(HeldOutCallback):
    """Loss on held-out demonstrations.

    Args:
        held_out: demonstrations; with none nothing is measured.
        data: packs them.
        trainer: how often.
    """

    def __init__(
        self, held_out: Sequence[Demonstration], data: DemonstrationModule, trainer: TrainerConfig
    ) -> None:
        super().__init__(trainer)
        self.held_out = held_out
        self.data = data

    def measure(self, trainer: L.Trainer, module: Any, step: int) -> dict[str, float]:
        """Loss and perplexity, and the loss of predictions and solutions where there are both."""
        if not self.held_out:
            return {}
        metrics = {"val/loss": self._loss(module, self.held_out)}
        metrics["val/perplexity"] = math.exp(min(metrics["val/loss"], 700))
        predictions = [one for one in self.held_out if one.kind == "prediction"]
        solutions = [one for one in self.held_out if one.kind != "prediction"]
        if predictions and solutions:
            metrics["val/loss/prediction"] = self._loss(module, predictions)
            metrics["val/loss/solution"] = self._loss(module, solutions)
        self.accuracy = -metrics["val/loss"]
        return metrics

    @torch.no_grad()
    def _loss(self, module: MasaModule, demonstrations: Sequence[Demonstration]) -> float:
        """Nats per token, over all ranks."""
        assert module.policy is not None
        total = 0.0
        for batch in self.data.update(demonstrations):
            on_device = batch.to(module.device)
            # FSDP2 itself computes in bfloat16, as in training
            mixed = module.settings.precision == "bf16-mixed" and module.device_mesh is None
            with torch.autocast(module.device.type, torch.bfloat16, mixed):
                logprobs, _ = token_logprobs(module.policy, on_device, 1.0)
            total -= float((logprobs * on_device.weights["bc"]).sum())
        return sum_over_ranks([total])[0]
