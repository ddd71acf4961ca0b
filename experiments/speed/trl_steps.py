"""Some steps of TRL's GRPOTrainer, timed. Runs in TRL's own environment (`make bench-env`), where
nothing of this project is imported; compare_trl.py starts it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer


class Stopwatch(TrainerCallback):
    """Seconds per step from the end of the step before, and of its parts."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []
        self.began = time.perf_counter()

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds added to part `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.add(name, time.perf_counter() - started)
            return result

        return timed

    def add(self, name: str, seconds: float) -> None:
        self.parts[name] = self.parts.get(name, 0.0) + seconds

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.optimizing = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.add("optimizer", time.perf_counter() - self.optimizing)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The end of a step; the last call of all brings a summary of the run instead."""
        if "num_tokens" not in logs:
            return
        now = time.perf_counter()
        self.steps.append({"wall": now - self.began, "tokens": logs["num_tokens"], **self.parts})
        self.parts, self.began = {}, now


def prepare_vllm() -> None:
    """Change vLLM for TRL's weight sync on a CPU, without graph capture and in float32 as for ours.

    The sync writes into parameters that vLLM's oneDNN path has packed and dropped. TRL leaves the
    dtype to vLLM, which uses 16 bits for weights of 32. TORCH_COMPILE_DISABLE (`bench.ENVIRONMENT`)
    turns compilation off; it is read at the import of trl above.
    """
    import os
    from functools import partial

    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    import trl.generation.vllm_generation as generation
    import vllm._custom_ops as ops

    ops._supports_onednn = False
    generation.LLM = partial(generation.LLM, enforce_eager=True, dtype="float32")


def half_correct(completions: list[str], **kwargs: Any) -> list[float]:
    """Every second answer is correct."""
    return [float(i % 2 == 0) for i in range(len(completions))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompts", type=Path, help="JSON list of texts")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--group", type=int)
    parser.add_argument("--response", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=int, help="sequences of a micro-batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vllm", action="store_true")
    args = parser.parse_args()
    if args.vllm:
        prepare_vllm()
    texts = json.loads(args.prompts.read_text())
    counted: list[int] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **more: Any) -> list[float]:
        counted.append(sum(map(len, completion_ids)))
        return half_correct(completions)

    sequences = len(texts) * args.group
    vllm = {
        "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.4,
        # its default makes one more forward pass over all tokens, which ours does not
        "vllm_importance_sampling_correction": False,
    }  # fmt: skip
    config = GRPOConfig(
        output_dir=str(args.out / "trl"),
        max_steps=args.steps,
        per_device_train_batch_size=args.rows,
        gradient_accumulation_steps=sequences // args.rows,
        num_generations=args.group,
        max_completion_length=args.response,
        temperature=1.0, top_p=1.0, top_k=0,
        num_iterations=1, beta=0.0, loss_type="dapo", epsilon=0.2, epsilon_high=0.28, delta=10.0,
        learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0,
        bf16=False, fp16=False, gradient_checkpointing=False, use_cpu=True,
        use_vllm=args.vllm, **(vllm if args.vllm else {}),
        logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, seed=args.seed,
        dataloader_pin_memory=False, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    watch = Stopwatch()
    trainer = GRPOTrainer(
        model=str(args.model),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        callbacks=[watch],
    )
    # generation holds weight sync where there is an engine; training_step holds prepare
    trainer._generate_single_turn = watch.timing("generate", trainer._generate_single_turn)
    trainer._prepare_inputs = watch.timing("prepare", trainer._prepare_inputs)
    trainer.training_step = watch.timing("training_step", trainer.training_step)
    if args.vllm:
        engine = trainer.vllm_generation
        engine.sync_weights = watch.timing("weight_sync", engine.sync_weights)
    # vLLM seeds the generator that it samples from with 0 when it starts
    set_seed(args.seed)
    trainer.train()
    before = 0.0
    for step, tokens in zip(watch.steps, counted, strict=True):
        step["tokens"], before = step["tokens"] - before, step["tokens"]
        step["generated"] = tokens
    output = {"steps": watch.steps, "threads": torch.get_num_threads()}
    (args.out / "steps.json").write_text(json.dumps(output, indent=1))


if __name__ == "__main__":
    main()
