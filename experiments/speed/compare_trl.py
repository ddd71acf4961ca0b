"""Seconds per 1,000 generated tokens of this project and of TRL's GRPOTrainer on the same work.

The same random Qwen3, prompts and G, GRPO with one update per step, float32. The model draws the
lengths of completions: geometric or log-normal ones, or all at the limit. Each system runs in a
separate process, one after the other, in reverse order every second time; the first step is left
out. A piece is one size with one kind of lengths; it fails where thread counts or fixed token
counts differ, or where drawn lengths are not those of the distribution.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench
import record

OURS = {"ours, vLLM": "vllm", "ours, HF": "hf"}
TRL = {"TRL, HF": False, "TRL, vLLM": True}
SYSTEMS = [*OURS, *TRL]
REPETITIONS = 3
FEWER = {
    ("10M", "fixed", 192): 2, ("50M", "fixed", 64): 2, ("50M", "fixed", 192): 1,
    ("10M", "geometric", 384): 2, ("10M", "log-normal", 384): 2,
    ("50M", "geometric", 384): 1, ("50M", "log-normal", 384): 1,
}  # fmt: skip
"""Repetitions of the longest pieces."""
MEAN = 110
"""Tokens of a drawn length, before it is cut at the limit."""
LIMIT = 384
LENGTHS = {
    "geometric": bench.Phases.geometric(MEAN),
    "log-normal": bench.Phases.log_normal(MEAN),
    "fixed": bench.Phases.fixed(),
}
PROMPTS = {"fixed": 4}
"""Per step, of these lengths and sizes; 16 of all others."""
PROMPTS_OF_LARGE = {"50M": 4}
STEPS = 4
STEPS_OF_LARGE = {"50M": 3}
"""Steps of one run; the first is left out."""
BETTER = "the better of ours"
GOALS = {"ours, vLLM": 0.55, BETTER: 0.45}
"""Of the time of TRL's best, with drawn lengths."""
CPU_SECONDS = {"0.3M": 0.1, "1M": 0.15, "3M": 0.4, "10M": 1.0, "50M": 3.8}
"""CPU seconds per 1000 tokens, generated and trained on; only for the estimate of the duration."""
START_SECONDS = 12
MICRO_BATCH_TOKENS = 4096
PARTS = ("wall", "generate", "train", "rest")


@dataclass(frozen=True)
class Work:
    """The work of all systems."""

    size: str
    response: int
    prompts: int
    group: int
    steps: int
    threads: int
    folder: Path
    lengths: str = "fixed"
    seed: int = 0
    """Of what is sampled."""

    @property
    def model(self) -> Path:
        return self.folder / f"model-{self.size}-{self.lengths}"

    @property
    def name(self) -> str:
        """Of the piece."""
        return f"{self.size}-{self.response if self.lengths == 'fixed' else self.lengths}"

    @property
    def generated(self) -> float:
        """Tokens per step, of drawn lengths in the mean."""
        return self.prompts * self.group * LENGTHS[self.lengths].mean(self.response)

    def longest(self) -> int:
        """Tokens of the longest sequence there can be."""
        tokenizer, texts = bench.prompt_tokenizer(), bench.prompt_texts(self.prompts)
        return max(len(tokenizer(text)["input_ids"]) for text in texts) + self.response

    def rows(self, longest: int) -> int:
        """Sequences of TRL's micro-batch, without a rest: of the longest ones about
        `MICRO_BATCH_TOKENS`, and so many tokens ours holds."""
        sequences = self.prompts * self.group
        fitting = max(1, MICRO_BATCH_TOKENS // longest)
        return max(n for n in range(1, sequences + 1) if sequences % n == 0 and n <= fitting)


def run_ours(work: Work, engine: str, out: Path) -> dict[str, Any]:
    """Steps of `masa-train`, and its peak memory."""
    longest = work.longest()
    micro_batch = work.rows(longest) * longest
    more = [f"trainer.micro_batch_tokens={micro_batch}", f"seed={work.seed}"]
    if engine == "vllm":
        more.append(bench.engine_threads(work.size, work.threads))
    command = bench.short_run(
        work.model, out, engine, work.prompts, work.group, work.response, work.steps, more
    )
    memory = bench.run(command, out / "output.txt", work.threads)
    steps = []
    for row in bench.rows_of(out):
        bench.require_threads(f"ours, {engine},", work.threads, row["threads"])
        generate = row["timing_s/generate"] + row["timing_s/weight_sync"]
        steps.append(
            {
                "wall": row["wall"], "generate": generate, "train": row["timing_s/update"],
                "rest": row["wall"] - generate - row["timing_s/update"],
                "tokens": row["step/cost/tokens_trained"],
                "generated": row["step/cost/tokens_total"],
            }
        )  # fmt: skip
    return {"steps": steps, "memory": memory, "threads": work.threads}


def run_trl(work: Work, vllm: bool, python: Path, out: Path) -> dict[str, Any]:
    """Steps of GRPOTrainer, and its peak memory."""
    out.mkdir(parents=True)
    texts = bench.prompt_texts(work.prompts)
    (out / "prompts.json").write_text(json.dumps(texts))
    command = [
        str(python), str(bench.HERE / "trl_steps.py"), f"--model={work.model}",
        f"--prompts={out / 'prompts.json'}", f"--out={out}", f"--group={work.group}",
        f"--response={work.response}", f"--steps={work.steps}",
        f"--rows={work.rows(work.longest())}",
        f"--seed={work.seed}",
        *(["--vllm"] if vllm else []),
    ]  # fmt: skip
    memory = bench.run(command, out / "output.txt", work.threads)
    output = json.loads((out / "steps.json").read_text())
    bench.require_threads("TRL", work.threads, output["threads"])
    steps = []
    for step in output["steps"][1:]:
        # training_step holds the rollout of its first micro-batch
        train = step["training_step"] - step["prepare"] + step["optimizer"]
        steps.append(
            {
                "wall": step["wall"], "generate": step["generate"], "train": train,
                "rest": step["wall"] - step["generate"] - train,
                "tokens": step["tokens"], "generated": step["generated"],
            }
        )  # fmt: skip
    return {"steps": steps, "memory": memory, "threads": work.threads}


def require_same_work(work: Work, runs_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """Tokens trained on per step, prompts included, the same for all; of drawn lengths the mean.

    Raises:
        Failed: systems did not do the same work.
    """
    if work.lengths != "fixed":
        return _mean_tokens(work, runs_of)
    counts = {
        name: sorted(
            {(int(s["generated"]), int(s["tokens"])) for run in runs for s in run["steps"]}
        )
        for name, runs in runs_of.items()
    }
    distinct = {count for of_system in counts.values() for count in of_system}
    if len(distinct) != 1 or next(iter(distinct))[0] != work.generated:
        raise record.Failed(
            f"{work.size}, responses of {work.response}: (generated, processed) tokens per step "
            f"differ or are not {work.generated:.0f} generated: {counts}"
        )
    return next(iter(distinct))[1]


def _mean_tokens(work: Work, runs_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    chances = LENGTHS[work.lengths].chances(work.response)
    square = sum(n * n * chance for n, chance in enumerate(chances, 1))
    sequences = work.prompts * work.group
    mean = work.generated / sequences
    trained = []
    for name, runs in runs_of.items():
        steps = [step for run in runs for step in run["steps"]]
        trained += [step["tokens"] for step in steps]
        generated = statistics.fmean(step["generated"] for step in steps)
        drawn = [tuple(step["generated"] for step in run["steps"]) for run in runs]
        if len(set(drawn)) < len(drawn):
            raise record.Failed(f"{name} drew the same lengths in several repetitions")
        error = math.sqrt((square - mean**2) / (sequences * len(steps))) / mean
        if abs(generated / work.generated - 1) > 4 * error:
            raise record.Failed(
                f"{name} generated {generated:.0f} tokens per step, of {work.lengths} lengths "
                f"{work.generated:.0f} are expected, give or take {4 * error:.0%}"
            )
    return statistics.fmean(trained)


def calibrate(work: Work, systems: Sequence[str], python: Path) -> dict[str, dict[int, float]]:
    """Median seconds per 1,000 tokens of each TRL system, by its number of threads; nothing where
    there is one number to try."""
    numbers = threads_to_try(work)
    seconds: dict[str, dict[int, float]] = {}
    for name in systems:
        if name not in TRL or len(numbers) == 1:
            continue
        seconds[name] = {}
        for threads in numbers:
            out = work.folder / f"{work.name}-{TRL[name]}-calibration-{threads}"
            with record.progress(f"{work.name}, {name}, {threads} threads"):
                steps = run_trl(replace(work, threads=threads), TRL[name], python, out)["steps"]
            seconds[name][threads] = statistics.median(
                1000 * step["wall"] / step["generated"] for step in steps
            )
    return seconds


def threads_to_try(work: Work) -> range:
    """Numbers of threads for TRL."""
    return range(work.threads if work.size in bench.LARGE else 1, work.threads + 1)


def turns(systems: Sequence[str], repetitions: int) -> list[tuple[int, str]]:
    """Order of the runs: reversed every second time, so that a drift affects both ends equally."""
    return [
        (repetition, name)
        for repetition in range(repetitions)
        for name in (systems[::-1] if repetition % 2 else systems)
    ]


def compare(
    work: Work,
    systems: Sequence[str],
    repetitions: int,
    threads: Mapping[str, int],
    python: Path,
) -> dict[str, list[dict[str, Any]]]:
    """All runs of one piece, by system; `threads` of TRL, where several were tried."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for repetition, name in turns(systems, repetitions):
        out = work.folder / f"{work.name}-{systems.index(name)}-{repetition}"
        # else all repetitions would have the same lengths
        drawn = replace(work, seed=repetition)
        with record.progress(f"{work.name}, {name}"):
            if name in OURS:
                run = run_ours(drawn, OURS[name], out)
            else:
                tried = replace(drawn, threads=threads.get(name, work.threads))
                run = run_trl(tried, TRL[name], python, out)
            runs[name].append(run)
    return runs


def summary(runs_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Spreads per system in seconds per 1,000 generated tokens, and ratios to the best of TRL."""

    def per_1000(part: str, run: Mapping[str, Any]) -> list[float]:
        return [1000 * step[part] / step["generated"] for step in run["steps"]]

    walls = {name: [per_1000("wall", run) for run in runs] for name, runs in runs_of.items()}
    result: dict[str, Any] = {"systems": {}, "ratios": {}}
    for name, runs in runs_of.items():
        parts = {
            part: record.spread([value for run in runs for value in per_1000(part, run)])
            for part in PARTS
        }
        memory = record.spread([run["memory"] for run in runs])
        more = {"memory_gib": memory, "threads": runs[0]["threads"]}
        result["systems"][name] = parts | more
    theirs = [name for name in TRL if name in walls]
    if theirs:
        medians = {n: statistics.median(w for run in walls[n] for w in run) for n in theirs}
        best = min(theirs, key=medians.__getitem__)
        result["best of TRL"] = best
        result["ratios"] = {
            name: record.ratios(walls[name], walls[best]) for name in OURS if name in walls
        }
    return result


def ratios_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios of a piece, and the better of ours."""
    ours = dict(data["ratios"])
    better = min(ours.values(), key=lambda ratio: ratio["median"], default=None)
    return ours if better is None else ours | {BETTER: better}


def minutes(works: Sequence[tuple[Work, int]], systems: Sequence[str]) -> float:
    """About how long all of it takes: (work, repetitions) of each piece, and one calibration per
    size on its shortest work."""
    seconds = 0.0
    calibrated = set()
    for work, repetitions in works:
        seconds += repetitions * sum(_run_seconds(work, s, work.threads) for s in systems)
        to_try = threads_to_try(work)
        if (work.size, work.lengths) not in calibrated and len(to_try) > 1:
            theirs = [system for system in systems if system in TRL]
            seconds += sum(_run_seconds(work, s, threads) for s in theirs for threads in to_try)
        calibrated.add((work.size, work.lengths))
    return seconds / 60


def _run_seconds(work: Work, system: str, threads: int) -> float:
    sequences = work.prompts * work.group
    # TRL pads to the longest of a step
    tokens = work.response * sequences if system in TRL else work.generated
    # generated, and trained on with its prompt
    cpu = (2 * tokens + 20 * sequences) * CPU_SECONDS[work.size] / 1000
    # the last 10 % of another core are lost to what runs on one
    return START_SECONDS + work.steps * cpu / (0.9 * threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=bench.SHAPES, default=["1M", "10M", "50M"])
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument(
        "--responses", nargs="+", type=int, default=[64, 192], help="limits where lengths are fixed"
    )
    parser.add_argument("--prompts", type=int, help="per step; by size and lengths if not given")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, help="the first is left out; by size if not given")
    parser.add_argument("--repetitions", type=int, help="by size and lengths if not given")
    parser.add_argument("--threads", type=int, default=2, help="at most, for TRL")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--trl-python", type=Path, default=bench.ROOT / ".venv-trl/bin/python")
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    # a link into the environment, which must stay one
    args.trl_python = args.trl_python.absolute()
    if args.quick:
        args.sizes, args.lengths = ["0.3M"], ["log-normal", "fixed"]
        args.responses, args.prompts = [16], 2
        args.steps, args.repetitions = 2, 1
    if set(args.systems) & set(TRL) and not args.trl_python.exists():
        parser.error(f"there is no {args.trl_python}: make bench-env")
    pieces = record.Pieces(parser, args, "Against TRL 1.16.0")
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        works = [
            (work, repetitions_of(args, work))
            for size in args.sizes
            for lengths in args.lengths
            for response in (args.responses if lengths == "fixed" else [LIMIT])
            for work in [work_of(args, size, lengths, response, Path(scratch))]
            if not pieces.done(work.name, **alone(work))
        ]
        print(f"about {minutes(works, args.systems):.0f} minutes on 2 cores with nothing else")
        parameters: dict[Path, int] = {}
        calibrated: dict[Path, dict[str, dict[int, float]]] = {}
        for work, repetitions in works:
            model = work.model
            if model not in parameters:
                phases = LENGTHS[work.lengths]
                parameters[model] = bench.write_model(work.size, model, 1024, phases)
            order = (list(LENGTHS).index(work.lengths), parameters[model], work.response)
            with pieces.piece(work.name, order, **alone(work)) as report:
                if model not in calibrated:
                    calibrated[model] = calibrate(work, args.systems, args.trl_python)
                threads = {n: min(by, key=by.__getitem__) for n, by in calibrated[model].items()}
                runs = compare(work, args.systems, repetitions, threads, args.trl_python)
                tokens = require_same_work(work, runs)
                report.data = summary(runs) | {
                    "size": work.size, "lengths": work.lengths, "response": work.response,
                    "parameters": parameters[model], "prompts": work.prompts, "group": work.group,
                    "processed": tokens, "generated": work.generated, "repetitions": repetitions,
                    "calibration": calibrated[model],
                }  # fmt: skip
                report_piece(report)
    pieces.end()


def alone(work: Work) -> dict[str, Any]:
    """Arguments with which a piece alone is measured."""
    responses = {"responses": work.response} if work.lengths == "fixed" else {}
    return {"sizes": work.size, "lengths": work.lengths} | responses


def work_of(args: argparse.Namespace, size: str, lengths: str, response: int, folder: Path) -> Work:
    """The work of one piece."""
    steps = args.steps or STEPS_OF_LARGE.get(size, STEPS)
    prompts = args.prompts or PROMPTS.get(lengths, PROMPTS_OF_LARGE.get(size, 16))
    return Work(size, response, prompts, args.group, steps, args.threads, folder, lengths)


def repetitions_of(args: argparse.Namespace, work: Work) -> int:
    """The setting, or the number for the piece."""
    return args.repetitions or FEWER.get((work.size, work.lengths, work.response), REPETITIONS)


def report_piece(report: record.Report) -> None:
    """The table of one piece."""
    data = report.data
    report(
        f"**{data['parameters'] / 1e6:.1f} M parameters, {lengths_text(data)}**: "
        f"{data['prompts']} prompts, G {data['group']}, {data['generated']:.0f} tokens generated "
        f"and {data['processed']:.0f} trained on per step{_for_all(data)}; repetitions: "
        f"{data['repetitions']}; seconds per 1,000 generated tokens, median of n steps (lowest to "
        "highest)"
    )
    report()
    report("| | threads | n | in all | generate | train | rest | peak memory, GiB |")
    report("|---|---|---|---|---|---|---|---|")
    for name, parts in data["systems"].items():
        cells = [str(parts["threads"]), str(parts["wall"]["n"]), record.ranged(parts["wall"])]
        cells += [record.ranged(parts[part], 2) for part in ("generate", "train", "rest")]
        cells.append(record.ranged(parts["memory_gib"], 2))
        report(f"| {name} | {' | '.join(cells)} |")
    if set(TRL) & set(data["systems"]):
        report()
        report(
            "Threads of TRL: the number with which it was fastest, tried beforehand; from 10 M on "
            "all of them. Its vLLM runs without packed matrix kernels (oneDNN), with which its "
            "weight sync fails."
        )
    if not data["ratios"]:
        return
    report()
    report(f"| | of the time of {data['best of TRL']} | goal |")
    report("|---|---|---|")
    for name, ratio in ratios_of(data).items():
        report(f"| {name} | {record.ranged(ratio)} | {verdict(data, name)} |")


def verdict(data: Mapping[str, Any], name: str) -> str:
    """The goal of a ratio and whether it is met: of fixed lengths 1 is to lie within the range."""
    ratio = ratios_of(data)[name]
    if data.get("lengths", "fixed") == "fixed":
        return "1 or below reached: " + record.met(ratio["low"], at_most=1)
    goal = GOALS.get(name)
    return "–" if goal is None else f"at most {goal}: {record.met(ratio['median'], at_most=goal)}"


def lengths_text(data: Mapping[str, Any]) -> str:
    """The lengths of a piece in words."""
    if data.get("lengths", "fixed") == "fixed":
        return f"{data['response']} tokens per response"
    return f"{data['lengths']} lengths, mean {MEAN}, at most {data['response']} tokens"


def _for_all(data: Mapping[str, Any]) -> str:
    return ", the same for all" if data["lengths"] == "fixed" else " in the mean"


def trend(pieces: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table with the ratios of all pieces, by size and length."""
    columns = [*OURS, BETTER]
    lines = [
        "Ours over the best of TRL, medians (lowest to highest), and whether the goal is met.",
        "",
        f"| parameters | lengths | {' | '.join(columns)} | the best of TRL |",
        f"|---|---|{'---|' * len(columns)}---|",
    ]
    for data in pieces:
        cells = [f"{data['parameters'] / 1e6:.1f} M", lengths_text(data)]
        for name in columns:
            ratio = ratios_of(data).get(name)
            if ratio is None:
                cells.append("not measured")
            else:
                cells.append(f"{record.ranged(ratio)}; {verdict(data, name)}")
        lines.append(f"| {' | '.join(cells)} | {data.get('best of TRL', 'not measured')} |")
    return lines


def figure(pieces: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Each ratio with its range, a row per piece; left of 1 ours is faster."""
    from masa.analysis.theme import canvas, look, save, title

    with look():
        chart = canvas(1.4 + 0.4 * len(pieces))
        axes = chart.subplots()
        for place, (name, marker) in enumerate(zip(OURS, "os", strict=True)):
            rows = [i for i, data in enumerate(pieces) if name in data["ratios"]]
            found = [pieces[i]["ratios"][name] for i in rows]
            middle = [ratio["median"] for ratio in found]
            ends = [
                [ratio["median"] - ratio["low"] for ratio in found],
                [ratio["high"] - ratio["median"] for ratio in found],
            ]
            where = [i + 0.24 * (place - 0.5) for i in rows]
            axes.errorbar(middle, where, xerr=ends, fmt=marker, label=name)
        axes.axvline(1, color="0.5", linewidth=1)
        labels = [f"{data['parameters'] / 1e6:.0f} M, {lengths_text(data)}" for data in pieces]
        axes.set_yticks(range(len(pieces)), labels)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("time of ours over that of the best of TRL")
        title(axes)
        save(chart, path)


if __name__ == "__main__":
    main()
