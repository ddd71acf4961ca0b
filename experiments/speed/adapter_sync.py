"""A weight sync of a LoRA policy: the engine gets merged weights, or the adapter alone.

Each way runs in a separate process and reports the median time of a sync, and of generating after
it. The model has the shape of SmolLM2-135M and random weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYNCS = 3
SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
}  # fmt: skip
QUICK = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 300,
}  # fmt: skip
WAYS = ("merged weights", "adapter alone")


def measure(way: str, quick: bool, rank: int, sequences: int, tokens: int) -> dict[str, float]:
    """Median seconds of a sync, and of a generation of `sequences` of `tokens` each."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from masa.config import AlgorithmConfig, OptimizerConfig, StrategyConfig, TrainerConfig
    from masa.engine.vllm import VllmEngine
    from masa.training.lora import LoraConfig
    from masa.training.models import HubModel
    from masa.training.module import MasaModule
    from masa.types import Request

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = AutoConfig.for_model(
            "llama", tie_word_embeddings=True, **(QUICK if quick else SHAPE)
        )
        AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
        policy = HubModel(temporary, lora=LoraConfig(rank=rank)).load(folder)
        alone = {"lora_rank": rank} if way == "adapter alone" else {}
        engine = VllmEngine(
            folder, [0], 2 * tokens, dtype="bfloat16", max_num_seqs=sequences,
            threads=torch.get_num_threads(), **alone,
        )  # fmt: skip
    settings = AlgorithmConfig(), OptimizerConfig(), TrainerConfig(), StrategyConfig()
    module = MasaModule(lambda _: policy, *settings)
    module.policy = policy
    requests = [Request(tuple(range(1, 9)), tuple(range(sequences)), tokens)]
    syncs, generations = [], []
    for version in range(1 + SYNCS):
        module.version = version
        started = time.perf_counter()
        module.give_weights(engine)
        synced = time.perf_counter()
        made = sum(len(c.token_ids) for group in engine.generate(requests) for c in group)
        # the first sync of an adapter sends the weights beside it as well
        if version:
            syncs.append(synced - started)
            generations.append((time.perf_counter() - synced) / made * 1000)
    engine.close()
    return {"sync": statistics.median(syncs), "generate": statistics.median(generations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="of each of them")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.quick, args.rank, args.sequences, args.tokens)))
        return
    import record

    pieces = record.Pieces(parser, args, "Weight sync of an adapter")
    if pieces.done(""):
        return
    with pieces.piece("", [0]) as report:
        size = [f"--rank={args.rank}", f"--sequences={args.sequences}", f"--tokens={args.tokens}"]
        size += ["--quick"] if args.quick else []
        for way in WAYS:
            command = [sys.executable, __file__, f"--way={way}", *size]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                raise record.Failed(f"{way} failed:\n{process.stderr[-2000:]}")
            measured = json.loads(process.stdout.splitlines()[-1])
            report(
                f"- {way}: {measured['sync']:.2f} s per sync, {measured['generate']:.2f} s per "
                f"1,000 generated tokens (rank {args.rank}, {args.sequences} sequences of "
                f"{args.tokens} tokens, 135 M parameters, bfloat16, median of {SYNCS})"
            )
            report.data[way] = measured
    pieces.end()


if __name__ == "__main__":
    main()
