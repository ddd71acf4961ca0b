"""What the order of problem and instruction costs: `python benchmarks/prompt_order.py`.

Real vLLM with prefix caching, as a run builds it, on a random Qwen3. Each prompt is asked for M
predictions and G solutions, as in a rollout, with three orders of the templates. Counted are the
prompt tokens that the engine computed and those that it found in its cache; timed are the whole
batch and, with completions of one token, the reading alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from masa.cli.config_store import conf_dir
from masa.engine.vllm import VllmEngine
from masa.markdown import markdown_table
from masa.tasks.templates import PromptRenderer, Templates
from masa.types import Prompt, Request

ROOT = Path(__file__).resolve().parent.parent
LICENSE = ROOT / "LICENSE"
CONTEXT = 4096
PAPER = {"G": 16, "solution": 6251, "M": 8, "meta": 2293}
"""Completions per prompt and their mean tokens in arXiv 2510.03259."""


def orders() -> dict[str, Templates]:
    """The templates as they are (boxed), and the same sentences with the problem moved."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        boxed = instantiate(compose("evaluate", ["++output_dir=."]).templates)
    problem, instruction = "{problem}\n\n", boxed.solution.removeprefix("{problem}\n\n")
    head, _, form = boxed.meta.partition(problem)
    assert boxed.solution == problem + instruction and head and form
    return {
        "instruction first": Templates(
            f"{instruction}\n\n{{problem}}", f"{head.split(chr(10))[0]}\n\n{form}\n\n{{problem}}",
            boxed.hint,
        ),
        "as they are": boxed,
        "problem first": Templates(boxed.solution, problem + head + form, boxed.hint),
    }  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE on English that does not change: about a token per word."""
    pages = [str(LICENSE), str(ROOT / "conf" / "templates" / "boxed.yaml")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train(pages, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def make_problems(tokenizer: PreTrainedTokenizerFast, count: int, tokens: int) -> list[Prompt]:
    """Problems of `tokens` tokens, words in random order, no two with a common beginning."""
    words = sorted({*LICENSE.read_text().split()})
    made = []
    for i in range(count):
        drawn = random.Random(i).choices(words, k=tokens)
        text = tokenizer.decode(tokenizer.encode(" ".join(drawn))[:tokens])
        made.append(Prompt(str(i), text, ""))
    return made


def write_model(folder: Path, vocabulary: int, width: int, layers: int) -> int:
    """A random Qwen3; returns its number of parameters."""
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        head_dim=64,
        intermediate_size=3 * width,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class Meter:
    """The engine, with what its batches read and how long they take.

    Args:
        engine: the engine.
        model: weights for it; a sync before each batch empties the prefix cache, as in a run.
    """

    def __init__(self, engine: VllmEngine, model: torch.nn.Module) -> None:
        self.engine = engine
        self.model = model
        self._generate = engine.llm.generate
        engine.llm.generate = self._counted
        self.prompt_tokens = self.cached = self.sampled = 0

    def _counted(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._generate(*args, **kwargs)
        self.prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
        self.cached = sum(output.num_cached_tokens for output in outputs)
        self.sampled = sum(len(output.outputs[0].token_ids) for output in outputs)
        return outputs

    def run(self, requests: list[Request]) -> dict[str, float]:
        """One batch, after a weight sync. `seconds` are of the process's CPU time."""
        self.engine.load_weights(iter(self.model.named_parameters()), 0)
        wall, cpu = time.perf_counter(), time.process_time()
        self.engine.generate(requests)
        return {
            "prompt_tokens": self.prompt_tokens,
            "cached": self.cached,
            "computed": self.prompt_tokens - self.cached,
            "sampled": self.sampled,
            "seconds": time.process_time() - cpu,
            "wall_seconds": time.perf_counter() - wall,
        }


def batch(
    renderer: PromptRenderer, prompts: list[Prompt], args: argparse.Namespace, read_only: bool
) -> list[Request]:
    """Predictions, then solutions of all prompts, as `collect` asks for them."""

    def seeds(count: int) -> tuple[int, ...]:
        return tuple(range(count))

    meta, solution = (1, 1) if read_only else (args.meta_tokens, args.solution_tokens)
    return [
        *(Request(renderer.meta_prompt(p), seeds(args.m), meta) for p in prompts),
        *(Request(renderer.solution_prompt(p, ()), seeds(args.g), solution) for p in prompts),
    ]


def gain(orders: dict[str, dict[str, float]], prompts: int) -> dict[str, float]:
    """What problem first would save against the templates as they are.

    The paper's lengths are a sum: of this reading, and of its completions at the time that a
    sampled token takes here.
    """
    now, then = orders["as they are"], orders["problem first"]
    per_token = (now["all_seconds"] - now["reading_seconds"]) / now["sampled"]
    of_paper = PAPER["G"] * PAPER["solution"] + PAPER["M"] * PAPER["meta"]
    saved = {unit: (now[unit] - then[unit]) / prompts for unit in ("computed", "reading_seconds")}
    read = {unit: now[unit] / prompts for unit in saved}
    return {
        "saved_tokens_per_prompt": saved["computed"],
        "share_of_reading": saved["computed"] / read["computed"],
        "share_of_seconds": 1 - then["all_seconds"] / now["all_seconds"],
        "share_of_tokens_at_the_papers_lengths": saved["computed"] / (read["computed"] + of_paper),
        "share_of_seconds_at_the_papers_lengths": saved["reading_seconds"]
        / (read["reading_seconds"] + of_paper * per_token),
    }


def show(numbers: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    settings = numbers["settings"]
    print(
        f"{settings['prompts']} prompts, problems of {settings['problem_tokens']} tokens, "
        f"G={settings['g']} solutions of {settings['solution_tokens']} tokens, "
        f"M={settings['m']} predictions of {settings['meta_tokens']}; "
        f"{numbers['parameters'] / 1e6:.0f} M parameters, vLLM {numbers['vllm']}, blocks of "
        f"{settings['block_size']}; CPU seconds, median of {settings['repeats']}\n"
    )
    head = ["order", "prompt tokens", "found in the cache", "computed", "s reading", "s in all"]
    lines = [
        [
            order,
            *(f"{row[name]:,}" for name in ("prompt_tokens", "cached", "computed")),
            *(f"{row[name]:.1f}" for name in ("reading_seconds", "all_seconds")),
        ]
        for order, row in numbers["orders"].items()
    ]
    print(markdown_table([head, *lines]))
    for name, value in numbers["gain"].items():
        print(f"{name}: {value:.3g}")


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--problem-tokens", type=int, default=500)
    parser.add_argument("--g", type=int, default=8, help="solutions per prompt")
    parser.add_argument("--m", type=int, default=4, help="predictions per prompt")
    parser.add_argument("--solution-tokens", type=int, default=256)
    parser.add_argument("--meta-tokens", type=int, default=96)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--block-size", type=int, default=32, help="of the cache (tokens)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()

    import vllm

    logging.disable(logging.WARNING)  # a line for each layer and weight sync
    if args.block_size:
        plain = vllm.LLM
        vllm.LLM = lambda **options: plain(block_size=args.block_size, **options)
    tokenizer = make_tokenizer()
    prompts = make_problems(tokenizer, args.prompts, args.problem_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = write_model(folder, len(tokenizer), args.width, args.layers)
        model = AutoModelForCausalLM.from_pretrained(folder)
        # no token ends a text: completions have their full length in every order
        engine = VllmEngine(folder, [], CONTEXT, kv_cache_gib=2)
        meter = Meter(engine, model)
    renderers = {
        order: PromptRenderer(templates, tokenizer, 128, 8192)
        for order, templates in orders().items()
    }
    measured: dict[str, list[dict[str, dict[str, float]]]] = {order: [] for order in renderers}
    for repeat in range(args.repeats + 1):
        for order, renderer in renderers.items():
            both = {
                kind: meter.run(batch(renderer, prompts, args, kind == "reading"))
                for kind in ("reading", "all")
            }
            if repeat:  # the first warms up
                measured[order].append(both)
    engine.close()

    results = {}
    for order, runs in measured.items():
        first = runs[0]["all"]
        assert all(run["all"]["computed"] == first["computed"] for run in runs)
        seconds = {
            f"{kind}_{unit}": statistics.median(run[kind][unit] for run in runs)
            for kind in ("reading", "all")
            for unit in ("seconds", "wall_seconds")
        }
        counts = {name: first[name] for name in ("prompt_tokens", "cached", "computed", "sampled")}
        results[order] = counts | seconds
    numbers = {
        "settings": {name: value for name, value in vars(args).items() if name != "json"},
        "vllm": vllm.__version__,
        "parameters": parameters,
        "orders": results,
        "gain": gain(results, args.prompts),
    }
    show(numbers)
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
