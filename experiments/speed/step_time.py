"""Time of a step by its parts, and the cost of the framework.

Three pieces. experiment=arithmetic with vLLM: shares of the step, and tokens per second of
forward and backward over those of a plain loop without padding. The engine: tokens per second in
the framework over those of the bare engine with the same requests. Ranks: one process with all
threads, and one process per thread. Two sides begin in turn, and each is the median of its steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench
import pyarrow.parquet as pq
import record

PARTS = {
    "generate": "generate", "weight_sync": "weight sync", "verify": "verdicts",
    "gather": "exchange between ranks", "pack": "packing",
    "forward_backward": "forward and backward", "optimizer": "optimizer", "write": "parquet",
    "log": "metrics",
}  # fmt: skip
IN_ROLLOUT = ("generate", "weight_sync", "verify", "gather", "pack")
COMPUTING = ("generate", "weight_sync", "forward_backward", "optimizer")
"""What a step consists of; all else is around it."""
AFTER_STEP = ("log", "write")
"""Parts that the row of the step after tells."""
RESTS = {
    "rest of the rollout": "prompts, decoding, rewards, statistics",
    "rest of the update": "sums, learning rate",
    "between steps": "loop, checkpoints, progress",
}
MICRO_BATCH_TOKENS = 4096
REPETITIONS = {"experiment": 3, "engine": 5, "ranks": 3}
SPLIT = {"wall": "s per step", "generate": "generate", "train": "train"}
AROUND_AT_MOST = 0.02
TRAINING_AT_LEAST = 0.85
ENGINE_AT_LEAST = 0.95


def parts_of(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Seconds per part of every step but the last, whose time after its update is unknown."""
    steps = []
    for row, after in zip(rows, rows[1:], strict=False):
        parts = {name: row.get(f"timing_s/{name}", 0.0) for name in PARTS}
        parts |= {name: after[f"timing_s/{name}"] for name in AFTER_STEP}
        in_rollout = sum(parts[name] for name in IN_ROLLOUT)
        parts["rest of the rollout"] = row["timing_s/rollout"] - in_rollout
        in_update = parts["forward_backward"] + parts["optimizer"]
        parts["rest of the update"] = row["timing_s/update"] - in_update
        after_step = sum(parts[name] for name in AFTER_STEP)
        parts["between steps"] = row["wall"] - row["timing_s/step"] - after_step
        steps.append(parts)
    return steps


def shares(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Share of each part in the time of all steps, and of all that is around the computing."""
    total = sum(sum(parts.values()) for parts in steps)
    shares_by_part = {name: sum(parts[name] for parts in steps) / total for name in steps[0]}
    computing = sum(shares_by_part[name] for name in COMPUTING)
    return shares_by_part | {"around": 1 - computing}


def lengths_of(out: Path, step: int) -> list[int]:
    """Tokens of the sequences that the update of rollout `step` ran: those with an advantage."""
    table = pq.read_table(
        out / "rollouts" / f"train-{step:06d}.parquet",
        columns=["advantage", "prompt_tokens", "tokens"],
    )
    rows = table.to_pylist()
    return [row["prompt_tokens"] + row["tokens"] for row in rows if row["advantage"]]


def row_lengths(lengths: Sequence[int]) -> dict[str, int]:
    """Length of rows without padding that represent sequences of these lengths.

    The cost of attention grows with the square of a length: rows of the mean length have less of it
    than the sequences, rows of the mean weighted by tokens have as much.
    """
    tokens = sum(lengths)
    return {
        "rows of the mean length": round(tokens / len(lengths)),
        "rows with as much attention": round(sum(n * n for n in lengths) / tokens),
    }


def alone(what: str, settings: dict[str, Any], out: Path, threads: int) -> Any:
    """Seconds measured by bare.py."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{what}.json"
    command = [
        sys.executable, str(bench.HERE / "bare.py"), what, json.dumps(settings), str(file),
    ]  # fmt: skip
    bench.run(command, out / f"{what}.txt", threads)
    output = json.loads(file.read_text())
    bench.require_threads(f"bare.py {what}", threads, output["threads"])
    return output["seconds"]


def arithmetic_steps(
    out: Path, rollouts: int, threads: int, more: Sequence[str] = ()
) -> list[dict[str, float]]:
    """Steps of experiment=arithmetic without validation, after two warm-up steps."""
    command = [
        sys.executable, str(bench.HERE / "steps_only.py"), "experiment=arithmetic",
        "algorithm=masa", "engine=vllm", f"hydra.run.dir={out}", f"trainer.max_rollouts={rollouts}",
        f"trainer.micro_batch_tokens={MICRO_BATCH_TOKENS}",
        *bench.clocked(out), *more,
    ]  # fmt: skip
    bench.run(command, out / "output.txt", threads)
    return checked(bench.rows_of(out)[1:], threads)


def checked(rows: list[dict[str, float]], threads: int) -> list[dict[str, float]]:
    """The rows of a run, whose number of threads must be constant."""
    for row in rows:
        bench.require_threads("the run", threads, row["threads"])
    return rows


def plain_loops(
    out: Path, rows: Sequence[dict[str, float]], model: Path
) -> dict[str, dict[str, Any]]:
    """Settings of plain loops with about as many tokens per step."""
    tokens = statistics.mean(row["step/cost/tokens_trained"] for row in rows)
    lengths = [n for row in rows for n in lengths_of(out, int(row["step"]))]
    settings = {}
    for way, length in row_lengths(lengths).items():
        batch = MICRO_BATCH_TOKENS // length
        batches = max(1, round(tokens / (batch * length)))
        settings[way] = {
            "model": str(model), "rows": batch, "length": length, "batches": batches, "steps": 5
        }  # fmt: skip
    return settings


def median_rate(tokens: float | Sequence[float], seconds: Sequence[float]) -> float:
    """Tokens per second of the middle step; `tokens` of each, or the same number for all."""
    of_each = [tokens] * len(seconds) if isinstance(tokens, float | int) else tokens
    return statistics.median(t / s for t, s in zip(of_each, seconds, strict=True))


def in_turn(repetition: int, sides: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The result of each side; the last one begins every second time."""
    names = list(sides)
    return {name: sides[name]() for name in (names[::-1] if repetition % 2 else names)}


def experiment_and_loops(
    scratch: Path,
    repetition: int,
    first: Path,
    settings: dict[str, dict[str, Any]],
    args: argparse.Namespace,
) -> tuple[list[dict[str, float]], dict[str, dict[str, float]]]:
    """Steps of experiment=arithmetic, and its training rate over that of the plain loops.

    Args:
        first: the initial model.
        settings: of the loops; filled by the first repetition, in which the experiment begins.
    """
    out = scratch / f"run-{repetition}"

    def framework() -> list[dict[str, float]]:
        with record.progress("experiment=arithmetic"):
            rows = arithmetic_steps(out, args.rollouts, args.threads)
        if not settings:
            settings.update(plain_loops(out, rows, first))
        return rows

    def loops() -> dict[str, float]:
        rates = {}
        for number, (way, of_loop) in enumerate(settings.items()):
            with record.progress(f"plain training loop, {way}"):
                seconds = alone("training", of_loop, out / f"bare-{number}", args.threads)
            tokens = of_loop["batches"] * of_loop["rows"] * of_loop["length"]
            rates[way] = median_rate(tokens, seconds)
        return rates

    results = in_turn(repetition, {"framework": framework, "loops": loops})
    rows = results["framework"]
    ours = median_rate(
        [row["step/cost/tokens_trained"] for row in rows],
        [row["timing_s/forward_backward"] for row in rows],
    )
    return rows, {
        way: {"framework": ours, "alone": theirs, "ratio": ours / theirs}
        for way, theirs in results["loops"].items()
    }


def engine_ratio(
    out: Path, model: Path, repetition: int, args: argparse.Namespace
) -> dict[str, float]:
    """Tokens per second that the engine generates in the framework and alone."""
    texts = bench.prompt_texts(args.prompts)
    tokenizer = bench.prompt_tokenizer()
    settings = {
        "model": str(model), "prompts": [tokenizer(text)["input_ids"] for text in texts],
        "group": args.group, "response": args.response, "steps": args.steps,
    }  # fmt: skip
    work = (args.prompts, args.group, args.response, args.steps + 1)

    def framework() -> list[dict[str, float]]:
        command = bench.short_run(model, out / "framework", "vllm", *work)
        bench.run(command, out / "framework" / "output.txt", args.threads)
        return checked(bench.rows_of(out / "framework"), args.threads)

    def bare() -> Any:
        return alone("engine", settings, out / "bare", args.threads)

    with record.progress("engine in the framework and alone"):
        results = in_turn(repetition, {"framework": framework, "bare": bare})
    rows, ways = results["framework"], results["bare"]
    ours = median_rate(
        [row["step/cost/tokens_total"] for row in rows],
        [row["timing_s/generate"] for row in rows],
    )
    tokens = args.prompts * args.group * args.response
    same, without = (median_rate(tokens, ways[way]) for way in ("same", "plain"))
    return {
        "framework": ours, "alone": same, "ratio": ours / same,
        "without seeds and log-probs": without,
    }  # fmt: skip


def split(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds of the middle step, of its generation with the weight sync, and of its update."""
    sides = {
        "wall": [row["wall"] for row in rows],
        "generate": [row["timing_s/generate"] + row["timing_s/weight_sync"] for row in rows],
        "train": [row["timing_s/update"] for row in rows],
    }
    return {name: statistics.median(values) for name, values in sides.items()}


def warm_started() -> Path:
    """The initial model of experiment=arithmetic, trained now where it is not cached."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from masa.cli.config_store import conf_dir
    from masa.tasks.build import build_task

    with initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        cfg = compose("config", ["experiment=arithmetic", "++output_dir=."])
    return instantiate(cfg.model).resolve(build_task(cfg.task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = list(REPETITIONS)
    parser.add_argument("--pieces", nargs="+", choices=names, default=names)
    parser.add_argument("--rollouts", type=int, default=14)
    parser.add_argument("--repetitions", type=int, help="by piece if not given")
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
    pieces = record.Pieces(parser, args, "Against the limit")
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as name:
        scratch = Path(name)
        for piece in args.pieces:
            if pieces.done(piece, pieces=piece):
                continue
            repetitions = args.repetitions or REPETITIONS[piece]
            with pieces.piece(piece, [names.index(piece)], pieces=piece) as report:
                MEASURES[piece](report, scratch, repetitions, args)
    pieces.end()


def measure_experiment(
    report: record.Report, scratch: Path, repetitions: int, args: argparse.Namespace
) -> None:
    """Shares of the step, and the training ratio."""
    with record.progress("warm start"):
        first = warm_started()
    settings: dict[str, dict[str, Any]] = {}
    runs = [
        experiment_and_loops(scratch, repetition, first, settings, args)
        for repetition in range(repetitions)
    ]
    steps = [parts_of(rows) for rows, _ in runs]
    seconds = [{n: statistics.median(s[n] for s in run) for n in run[0]} for run in steps]
    of_runs = [shares(run) for run in steps]
    trained = [ratios for _, ratios in runs]
    report.data = {"seconds": seconds, "shares": of_runs, "training": trained, "loops": settings}
    report(
        f"experiment=arithmetic, algorithm=masa, engine=vllm, {args.threads} threads, "
        f"{repetitions} runs of {args.rollouts} rollouts, median (lowest to highest)."
    )
    report()
    report("| part | share of the step | s per step |")
    report("|---|---|---|")
    for name in seconds[0]:
        label = PARTS.get(name) or f"{name}: {RESTS[name]}"
        share = record.spread([100 * run[name] for run in of_runs])
        of_part = record.spread([run[name] for run in seconds])
        report(f"| {label} | {record.ranged(share)} % | {record.ranged(of_part, 2)} |")
    around = record.spread([run["around"] for run in of_runs])
    verdict = record.met(around["median"], at_most=AROUND_AT_MOST)
    percent = record.ranged(record.spread([100 * run["around"] for run in of_runs]))
    report(
        f"| **all but {', '.join(PARTS[name] for name in COMPUTING)}**; goal: at most "
        f"{AROUND_AT_MOST:.0%}: {verdict} "
        f"| {percent} % | |"
    )
    report()
    table(
        report,
        {
            f"per second forward and backward; {way}, {of_loop['length']} tokens": [
                ratios[way] for ratios in trained
            ]
            for way, of_loop in settings.items()
        },
        TRAINING_AT_LEAST,
    )
    padding = record.spread(
        [100 * statistics.mean(row["padding_share"] for row in rows) for rows, _ in runs]
    )
    report()
    report(
        "The plain loops have no padding and take the logits of all positions, of which the "
        "framework takes those it trains on; of the framework's positions "
        f"{record.ranged(padding)} % are padding."
    )


def measure_engine(
    report: record.Report, scratch: Path, repetitions: int, args: argparse.Namespace
) -> None:
    """The engine ratio."""
    model = scratch / "model"
    bench.write_model(args.size, model, 1024)
    runs = [
        engine_ratio(scratch / f"engine-{repetition}", model, repetition, args)
        for repetition in range(repetitions)
    ]
    report.data = {"runs": runs}
    report(
        f"The engine: {args.size} parameters, {args.prompts} prompts, G {args.group}, "
        f"{args.response} tokens per response, {repetitions} repetitions of {args.steps} steps."
    )
    report()
    table(report, {"generated per second": runs}, ENGINE_AT_LEAST)
    bare = record.spread([run["without seeds and log-probs"] for run in runs])
    report()
    report(f"The bare engine without seeds and log-probs: {record.ranged(bare)} tokens per second.")


def measure_ranks(
    report: record.Report, scratch: Path, repetitions: int, args: argparse.Namespace
) -> None:
    """The step of one process and of several on the same cores."""
    with record.progress("warm start"):
        warm_started()
    several = ["strategy=ddp", f"strategy.devices={args.threads}", "trainer.accelerator=cpu"]
    sides = {
        f"one process, {args.threads} threads": (args.threads, []),
        f"{args.threads} processes of one thread (`{' '.join(several)}`)": (1, several),
    }

    def steps_of(index: int, repetition: int, threads: int, more: list[str]) -> dict[str, float]:
        with record.progress(list(sides)[index]):
            out = scratch / f"ranks-{index}-{repetition}"
            return split(arithmetic_steps(out, args.rollouts, threads, more))

    runs = []
    for repetition in range(repetitions):
        measures = {
            name: partial(steps_of, index, repetition, *side)
            for index, (name, side) in enumerate(sides.items())
        }
        runs.append(in_turn(repetition, measures))
    report.data = {"runs": runs}
    report(
        f"Processes: experiment=arithmetic, algorithm=masa, engine=vllm, {repetitions} runs of "
        f"{args.rollouts} rollouts of each, median (lowest to highest run)."
    )
    report()
    report(f"| | {' | '.join(SPLIT.values())} |")
    report(f"|---|{'---|' * len(SPLIT)}")
    for name in sides:
        cells = [record.ranged(record.spread([run[name][part] for run in runs])) for part in SPLIT]
        report(f"| {name} | {' | '.join(cells)} |")
    one, other = sides
    ratio = record.spread([run[other]["wall"] / run[one]["wall"] for run in runs])
    report()
    report(
        f"A step of several processes over one of one process: {record.ranged(ratio)}. All but the "
        "first of several processes count as other processes below."
    )


def table(
    report: record.Report, runs: Mapping[str, Sequence[Mapping[str, float]]], at_least: float
) -> None:
    """Both sides, their ratio and whether it reaches its goal, a row for each comparison."""
    report(f"| tokens | in the framework | alone | ratio | goal: at least {at_least} |")
    report("|---|---|---|---|---|")
    for what, of_row in runs.items():
        ours, theirs, ratio = (
            record.spread([run[key] for run in of_row]) for key in ("framework", "alone", "ratio")
        )
        cells = [record.ranged(side) for side in (ours, theirs, ratio)]
        verdict = record.met(ratio["median"], at_least=at_least)
        report(f"| {what} | {' | '.join(cells)} | {verdict} |")


MEASURES = {
    "experiment": measure_experiment, "engine": measure_engine, "ranks": measure_ranks
}  # fmt: skip

if __name__ == "__main__":
    main()
