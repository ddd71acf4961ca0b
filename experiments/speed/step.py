"""Where a step's time goes, and how much of it the framework costs.

Shares of the step in a run of the embedded experiment with vLLM; the engine's throughput in the
framework over that of the bare engine with the same requests; tokens per second of the framework's
forward and backward passes over those of a plain loop without padding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench
import pyarrow.parquet as pq

PARTS = {
    "generate": "generate", "weight_sync": "weight sync", "verify": "verdicts",
    "gather": "exchange between ranks", "pack": "packing",
    "forward_backward": "forward and backward", "optimizer": "optimizer", "write": "parquet",
    "log": "metrics",
}  # fmt: skip
IN_ROLLOUT = ("generate", "weight_sync", "verify", "gather", "pack", "write")
RESTS = {
    "rest of the rollout": "prompts, decoding, rewards, statistics",
    "rest of the update": "sums, learning rate",
    "between steps": "loop, checkpoints, progress",
}
MICRO_BATCH_TOKENS = 4096


def parts_of(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Seconds per part of every step but the last, of which the time to log is not known."""
    found = []
    for row, after in zip(rows, rows[1:], strict=False):
        parts = {name: row.get(f"timing_s/{name}", 0.0) for name in PARTS}
        parts["log"] = after["timing_s/log"]
        in_rollout = sum(parts[name] for name in IN_ROLLOUT)
        parts["rest of the rollout"] = row["timing_s/rollout"] - in_rollout
        in_update = parts["forward_backward"] + parts["optimizer"]
        parts["rest of the update"] = row["timing_s/update"] - in_update
        parts["between steps"] = row["wall"] - row["timing_s/step"] - parts["log"]
        found.append(parts)
    return found


def shares(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Share of each part in the time of all steps, and of the three rests together."""
    total = sum(sum(parts.values()) for parts in steps)
    found = {name: sum(parts[name] for parts in steps) / total for name in steps[0]}
    return found | {"rest": sum(found[name] for name in RESTS)}


def sequences_of(out: Path, step: int) -> int:
    """Sequences that the update of rollout `step` ran: those with an advantage."""
    table = pq.read_table(out / "rollouts" / f"train-{step:06d}.parquet", columns=["advantage"])
    return sum(bool(value) for value in table["advantage"].to_pylist())


def alone(what: str, settings: dict[str, Any], log: Path, threads: int) -> Any:
    """What bare.py found."""
    command = [sys.executable, str(bench.HERE / "bare.py"), what, json.dumps(settings)]
    bench.run(command, log, threads)
    return json.loads(log.read_text().splitlines()[-1])


def embedded(out: Path, rollouts: int, threads: int) -> list[dict[str, float]]:
    """Steps of the embedded experiment, validation left out, after two that warm up."""
    command = [
        sys.executable, str(bench.HERE / "steps_only.py"), "experiment=arithmetic",
        "algorithm=masa", "engine=vllm", f"hydra.run.dir={out}", f"trainer.max_rollouts={rollouts}",
        f"trainer.micro_batch_tokens={MICRO_BATCH_TOKENS}",
        *bench.clocked(out),
    ]  # fmt: skip
    bench.run(command, out / "output.txt", threads)
    return bench.rows_of(out)[1:]


def training_ratio(
    out: Path, rows: Sequence[dict[str, float]], model: Path, threads: int
) -> dict[str, float]:
    """Tokens per second of the framework's passes and of a plain loop over as many tokens."""
    tokens = sum(row["step/cost/tokens_trained"] for row in rows)
    ours = tokens / sum(row["timing_s/forward_backward"] for row in rows)
    sequences = sum(sequences_of(out, int(row["step"])) for row in rows)
    length = round(tokens / sequences)
    of_a_step = statistics.mean(row["step/cost/tokens_trained"] for row in rows)
    batch = MICRO_BATCH_TOKENS // length
    batches = max(1, round(of_a_step / (batch * length)))
    settings = {
        "model": str(model), "rows": batch, "length": length, "batches": batches, "steps": 5,
    }  # fmt: skip
    seconds = alone("training", settings, out / "training.txt", threads)
    theirs = batches * batch * length / statistics.median(seconds)
    padding = statistics.mean(row["padding_share"] for row in rows)
    return {
        "framework": ours, "plain": theirs, "ratio": ours / theirs, "padding": padding,
        "length": length,
    }  # fmt: skip


def engine_ratio(
    out: Path, model: Path, prompts: int, group: int, response: int, steps: int, threads: int
) -> dict[str, float]:
    """Tokens per second that the engine generates in the framework and alone."""
    run = out / "framework"
    command = bench.fixed_length_run(model, run, "vllm", prompts, group, response, steps + 1)
    bench.run(command, run / "output.txt", threads)
    rows = bench.rows_of(run)
    ours = statistics.median(r["step/cost/tokens_total"] / r["timing_s/generate"] for r in rows)
    texts = bench.prompt_texts(prompts)
    tokenizer = bench.HalfRight().tokenizer()
    settings = {
        "model": str(model), "prompts": [tokenizer(text)["input_ids"] for text in texts],
        "group": group, "response": response, "steps": steps,
    }  # fmt: skip
    ways = alone("engine", settings, out / "engine.txt", threads)
    tokens = prompts * group * response
    same, plain = (tokens / statistics.median(ways[way]) for way in ("same", "plain"))
    return {
        "framework": ours, "bare": same, "ratio": ours / same,
        "without seeds and log-probs": plain,
    }  # fmt: skip


def warm_started() -> Path:
    """The embedded experiment's first model, trained now where it is not there yet."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from masa.config import conf_dir

    with initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        cfg = compose("config", ["experiment=arithmetic", "++output_dir=."])
    return instantiate(cfg.model).resolve(instantiate(cfg.task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=14)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--size", choices=bench.SHAPES, default="1M", help="of the engine's model")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--response", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="of the engine, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.quick:
        args.rollouts, args.repetitions, args.steps = 4, 1, 1
        args.prompts, args.response = 2, 16
    report = bench.Report("step", "Against the limit")
    steps, trained, generated = [], [], []
    with bench.noted("warm start"):
        first = warm_started()
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        model = Path(scratch) / "model"
        bench.write_model(args.size, model, 1024)
        for repetition in range(args.repetitions):
            out = Path(scratch) / f"run-{repetition}"
            with bench.noted("embedded experiment"):
                rows = embedded(out, args.rollouts, args.threads)
            with bench.noted("plain training loop"):
                trained.append(training_ratio(out, rows, first, args.threads))
            with bench.noted("engine in the framework and alone"):
                work = (args.prompts, args.group, args.response, args.steps, args.threads)
                generated.append(engine_ratio(out / "engine", model, *work))
            steps.append(parts_of(rows))
    report.data = {
        "seconds": [{n: statistics.median(s[n] for s in run) for n in run[0]} for run in steps],
        "shares": [shares(run) for run in steps], "training": trained, "engine": generated,
    }  # fmt: skip
    tell(report, args)
    if not args.quick:
        report.write(["experiments/speed/step.py", *sys.argv[1:]])


def tell(report: bench.Report, args: argparse.Namespace) -> None:
    """The table and the two ratios."""
    data = report.data
    report(f"The embedded experiment, algorithm=masa, engine=vllm, {args.threads} threads, ")
    report(f"{args.repetitions} runs of {args.rollouts} rollouts, median (lowest to highest).")
    report()
    report("| part | share of the step | s per step |")
    report("|---|---|---|")
    for name in data["seconds"][0]:
        label = PARTS.get(name) or f"{name}: {RESTS[name]}"
        share = bench.spread([100 * run[name] for run in data["shares"]])
        seconds = bench.spread([run[name] for run in data["seconds"]])
        report(f"| {label} | {bench.shown(share)} % | {bench.shown(seconds, 2)} |")
    rest = bench.spread([100 * run["rest"] for run in data["shares"]])
    report(f"| **the three rests together** | {bench.shown(rest)} % | |")
    report()
    for what, other, label in (
        ("engine", "bare", "generated per second by the engine in the framework"),
        ("training", "plain", "per second forward and backward in the framework"),
    ):
        ours, theirs, ratio = (
            bench.spread([found[key] for found in data[what]])
            for key in ("framework", other, "ratio")
        )
        report(
            f"- tokens {label}: {bench.shown(ours)}, {other}: {bench.shown(theirs)}, ratio "
            f"{bench.shown(ratio)}"
        )
    plain = bench.spread([found["without seeds and log-probs"] for found in data["engine"]])
    report(f"- the bare engine without seeds and log-probs: {bench.shown(plain)} tokens per second")
    padding = bench.spread([100 * found["padding"] for found in data["training"]])
    lengths = ", ".join(str(found["length"]) for found in data["training"])
    report(
        f"- of the framework's positions {bench.shown(padding)} % were padding; the plain loop has "
        f"none, in rows of {lengths} tokens"
    )


if __name__ == "__main__":
    main()
