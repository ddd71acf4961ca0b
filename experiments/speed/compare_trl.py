"""Seconds per step of this project and of TRL's GRPOTrainer on the same work.

The same random Qwen3, prompts, G and response length (no completion can end early), GRPO with one
update per step, float32. Each contestant runs in a process of its own, one after the other, in
another order each time; the first step is left out. Stops where token counts differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench

OURS = {"ours, vLLM": "vllm", "ours, HF": "hf"}
TRL = {"TRL, HF": False, "TRL, vLLM": True}
CONTESTANTS = [*OURS, *TRL]
PROMPTS = {"0.3M": 4, "1M": 4, "3M": 4, "10M": 2, "50M": 1}
"""Per step; fewer of them for a large model keep the whole comparison short."""
STEPS = {"0.3M": 4, "1M": 4, "3M": 3, "10M": 3, "50M": 2}
"""The first of them is left out."""
MICRO_BATCH_TOKENS = 4096
PARTS = ("wall", "generate", "train", "rest")


@dataclass(frozen=True)
class Work:
    """What all contestants are given."""

    size: str
    response: int
    prompts: int
    group: int
    steps: int
    threads: int
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / f"model-{self.size}"

    @property
    def generated(self) -> int:
        """Tokens per step, as no completion ends early."""
        return self.prompts * self.group * self.response

    def rows(self, longest_prompt: int) -> int:
        """Sequences of TRL's micro-batch: as many as our micro-batch holds, without a rest."""
        sequences = self.prompts * self.group
        fitting = max(1, MICRO_BATCH_TOKENS // (longest_prompt + self.response))
        return max(n for n in range(1, sequences + 1) if sequences % n == 0 and n <= fitting)


def run_ours(work: Work, engine: str, out: Path) -> dict[str, Any]:
    """Steps of `masa-train`, and its peak memory."""
    more = [f"trainer.micro_batch_tokens={MICRO_BATCH_TOKENS}"]
    if engine == "vllm":
        # as its docstring has it: one thread is fastest below some 10 M parameters
        large = work.size in ("10M", "50M")
        more.append(f"engine.threads={work.threads if large else 1}")
    command = bench.fixed_length_run(
        work.model, out, engine, work.prompts, work.group, work.response, work.steps, more
    )
    memory = bench.run(command, out / "output.txt", work.threads)
    steps = []
    for row in bench.rows_of(out):
        generate = row["timing_s/generate"] + row["timing_s/weight_sync"]
        steps.append(
            {
                "wall": row["wall"], "generate": generate, "train": row["timing_s/update"],
                "rest": row["wall"] - generate - row["timing_s/update"],
                "tokens": row["step/cost/tokens_trained"],
                "generated": row["step/cost/tokens_total"],
            }
        )  # fmt: skip
    return {"steps": steps, "memory": memory}


def run_trl(work: Work, vllm: bool, python: Path, out: Path) -> dict[str, Any]:
    """Steps of GRPOTrainer, and its peak memory."""
    out.mkdir(parents=True)
    texts = bench.prompt_texts(work.prompts)
    (out / "prompts.json").write_text(json.dumps(texts))
    tokenizer = bench.HalfRight().tokenizer()
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    command = [
        str(python), str(bench.HERE / "trl_steps.py"), f"--model={work.model}",
        f"--prompts={out / 'prompts.json'}", f"--out={out}", f"--group={work.group}",
        f"--response={work.response}", f"--steps={work.steps}", f"--rows={work.rows(longest)}",
        *(["--vllm"] if vllm else []),
    ]  # fmt: skip
    memory = bench.run(command, out / "output.txt", work.threads)
    steps = []
    for step in json.loads((out / "steps.json").read_text())["steps"][1:]:
        # training_step holds the rollout of its first micro-batch
        train = step["training_step"] - step["prepare"] + step["optimizer"]
        steps.append(
            {
                "wall": step["wall"], "generate": step["generate"], "train": train,
                "rest": step["wall"] - step["generate"] - train,
                "tokens": step["tokens"], "generated": step["generated"],
            }
        )  # fmt: skip
    return {"steps": steps, "memory": memory}


def require_equal_tokens(work: Work, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """Tokens trained on per step, prompts included, the same for all.

    Raises:
        SystemExit: contestants did not do the same work.
    """
    counts = {
        name: sorted(
            {(int(s["generated"]), int(s["tokens"])) for run in runs for s in run["steps"]}
        )
        for name, runs in found.items()
    }
    seen = {count for of_one in counts.values() for count in of_one}
    if len(seen) != 1 or next(iter(seen))[0] != work.generated:
        raise SystemExit(
            f"{work.size}, responses of {work.response}: (generated, processed) tokens per step "
            f"differ or are not {work.generated} generated: {counts}"
        )
    return next(iter(seen))[1]


def compare(work: Work, contestants: Sequence[str], repetitions: int, python: Path) -> dict:
    """All runs of one piece of work, by contestant."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for repetition in range(repetitions):
        turn = repetition % len(contestants)
        for name in [*contestants[turn:], *contestants[:turn]]:
            out = work.folder / f"{work.size}-{work.response}-{name}-{repetition}".replace(
                ", ", "-"
            )
            with bench.noted(f"{work.size}, {work.response} tokens, {name}"):
                if name in OURS:
                    found[name].append(run_ours(work, OURS[name], out))
                else:
                    found[name].append(run_trl(work, TRL[name], python, out))
    return found


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Spreads per contestant, and ratios to the best of TRL."""
    walls = {
        name: [[step["wall"] for step in run["steps"]] for run in runs]
        for name, runs in found.items()
    }
    result: dict[str, Any] = {"contestants": {}, "ratios": {}}
    for name, runs in found.items():
        steps = [step for run in runs for step in run["steps"]]
        parts = {part: bench.spread([step[part] for step in steps]) for part in PARTS}
        memory = bench.spread([run["memory"] for run in runs])
        result["contestants"][name] = parts | {"memory_gib": memory}
    theirs = [name for name in TRL if name in walls]
    if theirs:
        medians = {n: statistics.median(w for run in walls[n] for w in run) for n in theirs}
        best = min(theirs, key=medians.__getitem__)
        result["best of TRL"] = best
        for name in OURS:
            if name in walls:
                result["ratios"][name] = bench.ratios(walls[name], walls[best])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=bench.SHAPES, default=["1M", "10M", "50M"])
    parser.add_argument("--responses", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--prompts", type=int, help="per step; by size where it is not given")
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--steps", type=int, help="the first is left out; by size if not given")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--trl-python", type=Path, default=bench.ROOT / ".venv-trl/bin/python")
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.responses, args.prompts = ["0.3M"], [16], 2
        args.steps, args.repetitions = 2, 1
    if set(args.contestants) & set(TRL) and not args.trl_python.exists():
        parser.error(f"there is no {args.trl_python}: make bench-env")
    report = bench.Report("compare_trl", "Against TRL 1.16.0")
    report(f"G = {args.group}, {args.threads} threads, {args.repetitions} repetitions; the first")
    report("step of each is left out; median of all others (lowest to highest).")
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        for size in args.sizes:
            parameters = bench.write_model(size, Path(scratch) / f"model-{size}", 1024)
            for response in args.responses:
                prompts, steps = args.prompts or PROMPTS[size], args.steps or STEPS[size]
                work = Work(size, response, prompts, args.group, steps, args.threads, Path(scratch))
                found = compare(work, args.contestants, args.repetitions, args.trl_python)
                tokens = require_equal_tokens(work, found)
                result = summary(found) | {
                    "parameters": parameters, "prompts": prompts, "processed": tokens,
                    "generated": work.generated,
                }  # fmt: skip
                report.data[f"{size}, {response}"] = result
                tell(report, work, result)
    if not args.quick:
        report.write(["experiments/speed/compare_trl.py", *sys.argv[1:]])


def tell(report: bench.Report, work: Work, result: Mapping[str, Any]) -> None:
    """The table of one piece of work."""
    report()
    report(
        f"**{result['parameters'] / 1e6:.1f} M parameters, {work.response} tokens per response**: "
        f"{result['prompts']} prompts, {result['generated']} tokens generated and "
        f"{result['processed']} trained on per step, the same for all"
    )
    report()
    report("| | s per step | generate | train | rest | peak memory, GiB |")
    report("|---|---|---|---|---|---|")
    for name, parts in result["contestants"].items():
        cells = [bench.shown(parts["wall"])]
        cells += [bench.shown(parts[part], 2) for part in ("generate", "train", "rest")]
        cells.append(bench.shown(parts["memory_gib"], 2))
        report(f"| {name} | {' | '.join(cells)} |")
    report()
    for name, ratio in result["ratios"].items():
        report(f"- {name}: {bench.shown(ratio)} of the time of {result['best of TRL']}")


if __name__ == "__main__":
    main()
