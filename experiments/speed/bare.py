"""Baselines of the framework: the bare engine and a plain training loop, with the same work.

step_time.py starts it; the seconds are written as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

WARMUP = 1


def engine(model: Path, prompts: list[list[int]], group: int, response: int, steps: int) -> Any:
    """Seconds of `LLM.generate` with the same requests, and without seeds and log-probs."""
    from masa.engine.vllm import VllmEngine, _torch_threads

    vllm_engine = VllmEngine(model, [], max_model_len=max(map(len, prompts)) + response)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    vllm_engine.load_weights(iter(policy.named_parameters()), 0)
    inputs: list[Any] = [{"prompt_token_ids": ids} for ids in prompts for _ in range(group)]
    common = {"temperature": 1.0, "max_tokens": response, "ignore_eos": True, "detokenize": False}
    ways: dict[str, list[float]] = {"same": [], "plain": []}
    for step in range(WARMUP + steps):
        for way, seconds in ways.items():
            same = {"logprobs": 0, "flat_logprobs": True} if way == "same" else {}
            params = [
                vllm_engine._sampling_params(**common, **same, **({"seed": i} if same else {}))
                for i in range(len(inputs))
            ]
            with _torch_threads(vllm_engine.threads):
                started = time.perf_counter()
                outputs = vllm_engine.llm.generate(inputs, params, use_tqdm=False)
                if step >= WARMUP:
                    seconds.append(time.perf_counter() - started)
            assert all(len(output.outputs[0].token_ids) == response for output in outputs)
    return ways


def training(model: Path, rows: int, length: int, batches: int, steps: int) -> Any:
    """Seconds of forward and backward over `batches` micro-batches [rows, length] of no padding,
    with the logits of all positions."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.randint(len(policy.get_input_embeddings().weight), (rows, length))
    seconds = []
    for step in range(WARMUP + steps):
        policy.zero_grad()
        started = time.perf_counter()
        for _ in range(batches):
            logits = policy(input_ids=ids, use_cache=False).logits  # [B, T, V]
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
            )
            loss.backward()
        if step >= WARMUP:
            seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["engine", "training"])
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    settings = args.settings | {"model": Path(args.settings["model"])}
    seconds = {"engine": engine, "training": training}[args.what](**settings)
    args.out.write_text(json.dumps({"seconds": seconds, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
