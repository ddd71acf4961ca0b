"""The warm start: a small model learns the built-in task's format from demonstrations."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from filelock import FileLock
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig
from transformers import PreTrainedTokenizerFast as Tokenizer

from masa.engine.hf import faithful_attention
from masa.tasks import arithmetic, chains
from masa.tasks.arithmetic import NOTIONS, ArithmeticTask
from masa.tasks.chains import Problem
from masa.tracking.files import atomic_replace
from masa.types import Prompt

_IGNORED = -100  # the label that torch's cross entropy leaves out


# Long chains teach the later lines; the impossible ones are mostly noise.
LEVEL_WEIGHTS = (2, 2, 3, 4, 4, 1)


@dataclass(frozen=True)
class WarmstartConfig:
    """Settings of the warm start: optimizer and demonstrations."""

    steps: int = 2000
    """Optimizer steps."""
    tokens_per_step: int = 1200
    """Tokens in the demonstrations of one step, prompts included."""
    learning_rate: float = 3e-3
    """Peak of the cosine schedule."""
    warmup_fraction: float = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    meta_fraction: float = 0.15
    """Share of the demonstrations that are predictions."""
    hint_fraction: float = 0.1
    """Share of the solution demonstrations whose prompt has a hint of random notions."""
    seed: int = 0
    """Of the initial weights and of the demonstrations."""

    def __post_init__(self) -> None:
        for name in ("steps", "tokens_per_step", "learning_rate", "grad_clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_fraction", "meta_fraction", "hint_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be within 0..1, got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True)
class Demo:
    """One demonstration."""

    prompt: Prompt
    prompt_text: str
    """The rendered prompt; no loss is taken on it."""
    completion: str
    """What is learned, followed by the end-of-sequence token."""


def demonstrations(task: ArithmeticTask, config: WarmstartConfig) -> Iterator[Demo]:
    """Endless demonstrations on problems that are never held out."""
    rng = random.Random(f"demonstrations-{config.seed}")
    levels = range(1, task.config.levels + 1)
    weights = LEVEL_WEIGHTS[: task.config.levels]
    while True:
        (level,) = rng.choices(levels, weights)
        prompt = task.draw(level, rng)
        if rng.random() < config.meta_fraction:
            operations = Problem.parse(prompt.problem).operations
            large = sum(operation.hopeless for operation in operations)
            yield Demo(
                prompt,
                task.templates.meta_text(prompt.problem, 0, 0),
                task.meta_demo(rng, len(operations), large),
            )
            continue
        hinted = rng.random() < config.hint_fraction
        hint = rng.sample(NOTIONS, rng.randint(1, 3)) if hinted else ()
        demo = task.solution_demo(prompt, rng)
        yield Demo(prompt, task.templates.solution_text(prompt.problem, hint), demo)


def warm_start(
    task: ArithmeticTask,
    model_config: PretrainedConfig,
    config: WarmstartConfig,
    out_dir: Path,
    progress: bool = True,
) -> None:
    """Train a causal LM in float32 on demonstrations and save it, with its tokenizer, to `out_dir`.

    Vocabulary size and special tokens of `model_config` are replaced by the tokenizer's. The random
    state of the process is left as it was.
    """
    tokenizer = task.tokenizer()
    model_config = _fit_to_tokenizer(model_config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AutoModelForCausalLM.from_config(
            model_config,
            dtype=torch.float32,
            attn_implementation=faithful_attention(model_config),
        )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    batches = _batches(demonstrations(task, config), tokenizer, config.tokens_per_step)
    bar = tqdm(
        range(config.steps),
        desc="warm start",
        disable=not progress,
        file=sys.stderr,
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 15,
    )
    for step in bar:
        loss = _train_step(model, next(batches))
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    # Sampling must follow the model's own distribution, so only the ids are set.
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.eval().save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def cached_warm_start(
    task: ArithmeticTask,
    model_config: PretrainedConfig,
    config: WarmstartConfig,
    cache_dir: Path,
    progress: bool = True,
) -> Path:
    """The directory of a warm-started model, trained now where `cache_dir` does not have it.

    The directory's name is a hash over all that the model depends on. The directory is complete or
    absent. Of several processes that call at once, one trains and the others wait.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / f"warmstart-{fingerprint(task, model_config, config)}"
    with FileLock(f"{path}.lock"):
        if not path.is_dir():
            # No other process builds under the lock, so older leftovers are of killed builds.
            for leftover in cache_dir.glob(f"{path.name}.building-*"):
                shutil.rmtree(leftover)
            building = Path(tempfile.mkdtemp(prefix=f"{path.name}.building-", dir=cache_dir))
            try:
                warm_start(task, model_config, config, building, progress)
                building.chmod(0o755)
                atomic_replace(building, path)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return path


def fingerprint(
    task: ArithmeticTask, model_config: PretrainedConfig, config: WarmstartConfig
) -> str:
    """Hash over everything that a warm start depends on, sources included.

    The pools are left out: demonstrations are on fresh problems that are never held out.
    """
    model = model_config.to_dict()
    habits = asdict(task.config)
    for key in ("train_size", "validation_size_per_level", "held_out", "seed"):
        habits.pop(key)
    # Written by save_pretrained or of no consequence for the weights.
    for key in ("_name_or_path", "transformers_version"):
        model.pop(key, None)
    facts = {
        "task": habits,
        "model": model,
        "warmstart": asdict(config),
        "templates": asdict(task.templates),
        "sources": [_code_of(module) for module in (arithmetic, chains, sys.modules[__name__])],
        "torch": torch.__version__.split(".")[0],
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_of(module: ModuleType) -> str:
    # without comments and layout, so that a change of those needs no new training
    return ast.dump(ast.parse(inspect.getsource(module)))


def _fit_to_tokenizer(config: PretrainedConfig, tokenizer: Tokenizer) -> PretrainedConfig:
    """A copy of the model's config with the tokenizer's vocabulary and special tokens."""
    fitted = type(config).from_dict(config.to_dict())
    fitted.vocab_size = len(tokenizer)
    fitted.eos_token_id = tokenizer.eos_token_id
    fitted.pad_token_id = tokenizer.pad_token_id
    fitted.bos_token_id = None
    return fitted


def _rate(step: int, config: WarmstartConfig) -> float:
    """Learning rate at `step` over its peak: linear rise, then a cosine down to 0."""
    warmup = max(1, round(config.warmup_fraction * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


TokenizedDemo = tuple[list[int], int]
"""Token ids of a demonstration and how many of them are its prompt."""


def _batches(
    demos: Iterator[Demo], tokenizer: Tokenizer, tokens_per_step: int
) -> Iterator[list[TokenizedDemo]]:
    """Demonstrations as token ids, in batches of at least `tokens_per_step` tokens."""
    batch: list[TokenizedDemo] = []
    for demo in demos:
        prompt_ids = tokenizer(demo.prompt_text, add_special_tokens=False)["input_ids"]
        ids = tokenizer(demo.completion, add_special_tokens=False)["input_ids"]
        batch.append(([*prompt_ids, *ids, tokenizer.eos_token_id], len(prompt_ids)))
        if sum(len(ids) for ids, _ in batch) >= tokens_per_step:
            yield batch
            batch = []


def _train_step(model: torch.nn.Module, batch: list[TokenizedDemo]) -> float:
    """Gradients of the mean loss per completion token; returns that loss (nats)."""
    total = sum(len(ids) - prompt for ids, prompt in batch)
    ordered = sorted(batch, key=lambda sequence: len(sequence[0]))
    # Two halves by length waste less on padding than one batch does.
    middle = len(ordered) // 2
    loss_sum = 0.0
    for half in (ordered[:middle], ordered[middle:]):
        if half:
            loss = _loss(model, half) / total
            loss.backward()
            loss_sum += loss.item()
    return loss_sum


def _loss(model: torch.nn.Module, batch: list[TokenizedDemo]) -> torch.Tensor:
    """Sum of the negative log-likelihoods of all completion tokens (nats)."""
    width = max(len(ids) for ids, _ in batch)
    input_ids = torch.zeros(len(batch), width, dtype=torch.long)  # [B, T]
    labels = torch.full_like(input_ids, _IGNORED)  # [B, T]
    for row, (ids, prompt) in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = input_ids[row, prompt : len(ids)]
    # Padding is on the right, where causal attention does not reach: no mask is needed.
    logits = model(input_ids=input_ids, use_cache=False).logits  # [B, T, V]
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=_IGNORED,
        reduction="sum",
    )
