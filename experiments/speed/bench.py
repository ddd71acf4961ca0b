"""Shared parts of the measurements: models of a size, and runs in separate processes.

The lengths of completions are drawn by the weights of a model alone (`write_model`), so that all
systems draw them from the same distribution with their own settings.
"""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import process_memory
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from record import Failed
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from masa.types import Prompt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHAPES = {
    "0.3M": {"hidden_size": 128, "num_hidden_layers": 2, "head_dim": 32},
    "1M": {"hidden_size": 192, "num_hidden_layers": 3, "head_dim": 32},
    "3M": {"hidden_size": 256, "num_hidden_layers": 5, "head_dim": 32},
    "10M": {"hidden_size": 384, "num_hidden_layers": 8, "head_dim": 64},
    "50M": {"hidden_size": 768, "num_hidden_layers": 9, "head_dim": 64},
}
"""Shapes of Qwen3 by the approximate number of parameters."""
LARGE = ("10M", "50M")
"""Sizes that more than one thread makes faster, to train and to generate."""
PROFILE = "uniform"
"""Of the built-in task: its prompts and its tokenizer."""
WORDS = 4
"""Tokens of a phase."""
SIGNAL = 100.0
"""Of a phase's channel: what layers write to the others is small beside it."""
NEVER = -50.0
"""Logit of what is not to be sampled. A far lower one would make much of what the first updates put
into the other channels."""
TIMEOUT = 1800
"""Seconds after which a process is stopped: several times the time of the longest one."""
ENVIRONMENT = {
    # what `masa-train` sets for itself, for both sides: threads that spin for long while waiting
    # stop each other as soon as anything else runs on the machine
    "GOMP_SPINCOUNT": "20000",
    # `devices.keep_freed_memory`, likewise for both sides
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    # as our engine has it on a CPU: it would compile for seconds, and save nothing
    "TORCH_COMPILE_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


class HalfCorrect(ArithmeticTask):
    """The built-in task with alternating verdicts.

    A random model answers nothing, and a group without a correct answer would not be trained on.
    """

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """Every second answer is correct."""
        return [i % 2 == 0 for i in range(len(answers))]


class StepClock(Logger):
    """Logs the end of each step: the time between two ends is the full cost of a step.

    Args:
        path: file of (step, seconds, peak memory in GiB, threads of torch), a line each.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    name = property(lambda self: "")
    version = property(lambda self: "")

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a rollout; metrics of a validation are ignored."""
        if "timing_s/step" in metrics:
            with self.path.open("a") as file:
                now = (time.perf_counter(), process_memory.peak(), torch.get_num_threads())
                print(step, *now, sep=",", file=file)


@dataclass(frozen=True)
class Phases:
    """Lengths as a chain of phases: in phase k a token ends the completion, or is the last of the
    phase, with constant probabilities. The last phase has no end but that of the completion."""

    ends: Sequence[float]
    """Chance that a token of phase k ends the completion."""
    leaves: Sequence[float]
    """Chance that it is the last of its phase instead."""

    @classmethod
    def fixed(cls) -> Phases:
        """No completion ends before its limit."""
        return cls([0.0], [0.0])

    @classmethod
    def geometric(cls, mean: float) -> Phases:
        """Any token may be the last with the same probability."""
        return cls([1 / mean], [0.0])

    @classmethod
    def log_normal(cls, mean: float, sigma: float = 1.0, growth: float = 1.3) -> Phases:
        """Phases as long as bins of a log-normal distribution, each with its bin's hazard.

        Args:
            mean: of the distribution (tokens).
            sigma: standard deviation of the logarithm.
            growth: width of a bin over that of the one before.
        """
        location = math.log(mean) - sigma**2 / 2

        def survival(tokens: float) -> float:
            return 0.5 * math.erfc((math.log(tokens) - location) / (sigma * math.sqrt(2)))

        ends, leaves, begin, last = [], [], 0.5, math.exp(location + 3 * sigma)
        while begin < last:
            width = max(1, round(begin * (growth - 1)))
            inside = sum(survival(begin + i) for i in range(width))
            ends.append((survival(begin) - survival(begin + width)) / inside)
            leaves.append((1 - ends[-1]) / width)
            begin += width
        leaves[-1] = 0.0
        return cls(ends, leaves)

    def chances(self, limit: int) -> list[float]:
        """Probabilities of 1 to `limit` tokens; longer completions are cut there."""
        here, chances = [1.0] + [0.0] * (len(self.ends) - 1), []
        for _ in range(limit):
            chances.append(sum(p * end for p, end in zip(here, self.ends, strict=True)))
            left = [p * leave for p, leave in zip(here, self.leaves, strict=True)]
            here = [
                p * (1 - end) - gone + came
                for p, end, gone, came in zip(here, self.ends, left, [0.0, *left[:-1]], strict=True)
            ]
        chances[-1] += sum(here)
        return chances

    def mean(self, limit: int) -> float:
        """Mean number of tokens with this limit."""
        return sum(n * chance for n, chance in enumerate(self.chances(limit), 1))


def write_model(size: str, folder: Path, context: int, phases: Phases | None = None) -> int:
    """Random Qwen3 of `size` with the built-in task's tokenizer; returns its number of parameters.

    Completions consist of tokens that say which phase they belong to. The first channels of the
    hidden states are one for each phase; no layer writes to them, and the output head reads nothing
    else. Without `phases` no completion ends.
    """
    transformers_logging.disable_progress_bar()
    phases = phases or Phases.fixed()
    count = len(phases.ends)
    tokenizer = prompt_tokenizer()
    tokenizer.add_tokens([f"<{k}.{i}>" for k in range(count) for i in range(WORDS)])
    shape = SHAPES[size]
    heads = shape["hidden_size"] // shape["head_dim"]
    config = AutoConfig.for_model(
        "qwen3",
        **shape,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        intermediate_size=2 * shape["hidden_size"],
        max_position_embeddings=context,
        tie_word_embeddings=False,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        table = model.get_input_embeddings().weight  # [V, H]
        table[:, :count] = 0.0
        table[:, 0] = SIGNAL  # what a prompt ends with
        for k in range(count):
            words = _words(tokenizer, k)
            table[words, 0], table[words, k] = 0.0, SIGNAL
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:count] = 0.0
            layer.mlp.down_proj.weight[:count] = 0.0
        head = model.get_output_embeddings().weight  # [V, H]
        head.zero_()
        # all that is left of a hidden state after the last norm is about sqrt(H) in one channel
        scale = math.sqrt(shape["hidden_size"])
        head[:, :count] = NEVER / scale
        for k, (end, leave) in enumerate(zip(phases.ends, phases.leaves, strict=True)):
            head[tokenizer.eos_token_id, k] = _logit(end) / scale
            for to, chance in ((k, 1 - end - leave), (k + 1, leave)):
                if to < count:
                    head[_words(tokenizer, to), k] = _logit(chance / WORDS) / scale
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def _words(tokenizer: Any, phase: int) -> list[int]:
    return tokenizer.convert_tokens_to_ids([f"<{phase}.{i}>" for i in range(WORDS)])


def _logit(chance: float) -> float:
    return math.log(chance) if chance > 0 else NEVER


def prompt_tokenizer() -> Any:
    """That of the prompts."""
    return ArithmeticTask(ArithmeticConfig(PROFILE)).tokenizer()


def short_run(
    model: Path,
    out: Path,
    engine: str,
    prompts: int,
    group: int,
    response: int,
    steps: int,
    more: Sequence[str] = (),
) -> list[str]:
    """Command of a `masa-train` run: GRPO, no validation, one update per rollout, the prompts of
    `prompt_texts` in every rollout."""
    return [
        sys.executable, str(HERE / "steps_only.py"),
        "experiment=arithmetic", "algorithm=grpo", "model=hub", f"model.name={model}",
        f"engine={engine}", f"hydra.run.dir={out}",
        "task._target_=bench.HalfCorrect", f"task.config.profile={PROFILE}",
        f"task.config.train_size={prompts}",
        f"task.config.levels={min(prompts, 6)}", "task.config.validation_size_per_level=1",
        f"algorithm.group_size={group}", f"algorithm.response_limit={response}",
        "optimizer.lr=1e-6", "optimizer.warmup_steps=0",
        f"trainer.prompts_per_rollout={prompts}", f"trainer.max_rollouts={steps}",
        "trainer.val_every=1000000", "trainer.val_samples=2", "trainer.val_meta_samples=0",
        "trainer.checkpoint_every=1000000", *clocked(out), *more,
    ]  # fmt: skip


def clocked(out: Path) -> list[str]:
    """Overrides of `masa-train` that put a StepClock beside its metrics."""
    return ["+logger.clock._target_=bench.StepClock", f"+logger.clock.path={out / 'clock.csv'}"]


def engine_threads(size: str, threads: int) -> str:
    """Override of `masa-train`: threads of the vLLM engine, of which one is fastest below some 10 M
    parameters."""
    return f"engine.threads={threads if size in LARGE else 1}"


def prompt_texts(count: int) -> list[str]:
    """The prompts of `short_run`, as rendered for the model."""
    task = HalfCorrect(ArithmeticConfig(PROFILE, train_size=count, levels=min(count, 6)))
    return [task.templates.solution_text(prompt.problem) for prompt in task.train]


def run(command: Sequence[str], log: Path, threads: int, timeout: float = TIMEOUT) -> float:
    """Run a command to its end, its output in `log`; returns its peak memory (GiB).

    Raises:
        Failed: it failed, with the end of its output, or took longer than `timeout` (s).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT), str(HERE)]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
    environment["OMP_NUM_THREADS"] = str(threads)
    name = f"{' '.join(command[:4])} ..."
    with log.open("w") as file:
        # a separate process group, so that its children end with it
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + timeout
        try:
            # of this process alone; RUSAGE_CHILDREN is the largest of all so far
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                if time.monotonic() > until:
                    raise Failed(
                        f"{name} was stopped after {timeout:.0f} s, see the end of its output: "
                        f"fewer steps or less work per step take less time\n{_end(log)}"
                    )
                time.sleep(0.05)
            process.returncode = os.waitstatus_to_exitcode(ended[1])
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        raise Failed(f"{name} failed with status {process.returncode}:\n{_end(log)}")
    # at least that of this process, from which it was started, and which is smaller
    return ended[2].ru_maxrss * 1024 / process_memory.GIB


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def require_threads(who: str, expected: int, actual: float) -> None:
    """Raise Failed where a run ended with another number of threads than it was given."""
    if actual != expected:
        raise Failed(f"{who} was given {expected} threads and ended with {actual:.0f}")


def rows_of(out: Path) -> list[dict[str, float]]:
    """Per step of a clocked run its metrics and timings, without the first step.

    `wall` is the time between the ends of two steps (s), `memory` the peak so far (GiB), `threads`
    those of torch at the end.
    """
    tables: dict[int, dict[str, float]] = {}
    for name in ("metrics.csv", "timings.csv"):
        with (out / name).open(newline="") as file:
            for row in csv.DictReader(file):
                values = {k: float(v) for k, v in row.items() if v}
                tables.setdefault(int(row["step"]), {}).update(values)
    with (out / "clock.csv").open(newline="") as file:
        clock = [(int(step), *map(float, values)) for step, *values in csv.reader(file)]
    rows = []
    for (before, start, *_), (step, end, gib, threads) in zip(clock, clock[1:], strict=False):
        row = tables[step] | {"wall": end - start, "memory": gib, "threads": threads}
        # a validation between two steps is part of neither
        row["wall"] -= tables[before].get("timing_s/validation", 0.0)
        for key in ("cost/tokens_trained", "cost/tokens_total", "cost/tokens_prompt"):
            row[f"step/{key}"] = row[key] - tables[before][key]
        rows.append(row)
    return rows
