"""Seconds per step of this project and of TRL's GRPOTrainer on the same work.

The same random Qwen3, prompts, G and response length (no completion can end early), GRPO with one
update per step, float32, as many sequences per step at every size. Each system runs in a
separate process, one after the other, in reverse order every second time; the first step is left
out. A piece is one size with one length; it fails where token or thread counts differ.
"""

from __future__ import annotations

import argparse
import json
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
FEWER = {("10M", 192): 2, ("50M", 64): 2, ("50M", 192): 1}
"""Repetitions of the longest pieces."""
STEPS = 4
STEPS_OF_LARGE = {"50M": 3}
"""Steps of one run; the first is left out."""
GOAL = 0.5
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
    tokenizer = bench.HalfCorrect().tokenizer()
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    command = [
        str(python), str(bench.HERE / "trl_steps.py"), f"--model={work.model}",
        f"--prompts={out / 'prompts.json'}", f"--out={out}", f"--group={work.group}",
        f"--response={work.response}", f"--steps={work.steps}", f"--rows={work.rows(longest)}",
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


def require_equal_tokens(work: Work, runs_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """Tokens trained on per step, prompts included, the same for all.

    Raises:
        Failed: systems did not do the same work.
    """
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
            f"differ or are not {work.generated} generated: {counts}"
        )
    return next(iter(distinct))[1]


def calibrate(work: Work, systems: Sequence[str], python: Path) -> dict[str, dict[int, float]]:
    """Seconds of a step of each TRL system after a warm-up step, by its number of threads."""
    seconds: dict[str, dict[int, float]] = {}
    for name in systems:
        if name not in TRL:
            continue
        seconds[name] = {}
        for threads in range(1, work.threads + 1):
            short = replace(work, steps=2, threads=threads)
            out = work.folder / f"{work.size}-{TRL[name]}-calibration-{threads}"
            with record.progress(f"{work.size}, {work.response} tokens, {name}, {threads} threads"):
                seconds[name][threads] = run_trl(short, TRL[name], python, out)["steps"][0]["wall"]
    return seconds


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
    """All runs of one piece, by system; `threads` of TRL."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for repetition, name in turns(systems, repetitions):
        out = work.folder / f"{work.size}-{work.response}-{systems.index(name)}-{repetition}"
        with record.progress(f"{work.size}, {work.response} tokens, {name}"):
            if name in OURS:
                run = run_ours(work, OURS[name], out)
            else:
                run = run_trl(replace(work, threads=threads[name]), TRL[name], python, out)
            runs[name].append(run)
    return runs


def summary(runs_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Spreads per system, and ratios to the best of TRL."""
    walls = {
        name: [[step["wall"] for step in run["steps"]] for run in runs]
        for name, runs in runs_of.items()
    }
    result: dict[str, Any] = {"systems": {}, "ratios": {}}
    for name, runs in runs_of.items():
        steps = [step for run in runs for step in run["steps"]]
        parts = {part: record.spread([step[part] for step in steps]) for part in PARTS}
        memory = record.spread([run["memory"] for run in runs])
        more = {"memory_gib": memory, "threads": runs[0]["threads"]}
        result["systems"][name] = parts | more
    theirs = [name for name in TRL if name in walls]
    if theirs:
        medians = {n: statistics.median(w for run in walls[n] for w in run) for n in theirs}
        best = min(theirs, key=medians.__getitem__)
        result["best of TRL"] = best
        for name in OURS:
            if name in walls:
                result["ratios"][name] = record.ratios(walls[name], walls[best])
    return result


def minutes(works: Sequence[tuple[Work, int]], systems: Sequence[str]) -> float:
    """About how long all of it takes: (work, repetitions) of each piece, and one calibration per
    size on its shortest work."""
    seconds = 0.0
    calibrated = set()
    theirs = sum(name in TRL for name in systems)
    for work, repetitions in sorted(works, key=lambda pair: pair[0].response):
        sequences = work.prompts * work.group
        tokens = sequences * (2 * work.response + 20)  # generated, and trained on with its prompt
        cpu = tokens * CPU_SECONDS[work.size] / 1000
        # the last 10 % of another core are lost to what runs on one
        step = {threads: cpu / (0.9 * threads) for threads in range(1, work.threads + 1)}
        run = START_SECONDS + work.steps * step[work.threads]
        seconds += repetitions * len(systems) * run
        if work.size not in calibrated:
            calibrated.add(work.size)
            seconds += theirs * sum(START_SECONDS + 2 * one for one in step.values())
    return seconds / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=bench.SHAPES, default=["1M", "10M", "50M"])
    parser.add_argument("--responses", nargs="+", type=int, default=[64, 192])
    parser.add_argument("--prompts", type=int, default=4, help="per step")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, help="the first is left out; by size if not given")
    parser.add_argument("--repetitions", type=int, help="by size and response if not given")
    parser.add_argument("--threads", type=int, default=2, help="at most, for TRL")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--trl-python", type=Path, default=bench.ROOT / ".venv-trl/bin/python")
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    # a link into the environment, which must stay one
    args.trl_python = args.trl_python.absolute()
    if args.quick:
        args.sizes, args.responses, args.prompts = ["0.3M"], [16], 2
        args.steps, args.repetitions = 2, 1
    if set(args.systems) & set(TRL) and not args.trl_python.exists():
        parser.error(f"there is no {args.trl_python}: make bench-env")
    pieces = record.Pieces(parser, args, "Against TRL 1.16.0")
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        works = [
            (work_of(args, size, response, Path(scratch)), repetitions_of(args, size, response))
            for size in args.sizes
            for response in args.responses
        ]
        print(f"about {minutes(works, args.systems):.0f} minutes on 2 cores with nothing else")
        parameters: dict[str, int] = {}
        calibrated: dict[str, dict[str, dict[int, float]]] = {}
        for work, repetitions in works:
            size = work.size
            if size not in parameters:
                parameters[size] = bench.write_model(size, work.model, 1024)
            alone = {"sizes": size, "responses": work.response}
            order = (parameters[size], work.response)
            with pieces.piece(f"{size}-{work.response}", order, **alone) as report:
                if size not in calibrated:
                    shortest = replace(work, response=min(args.responses))
                    calibrated[size] = calibrate(shortest, args.systems, args.trl_python)
                threads = {n: min(by, key=by.__getitem__) for n, by in calibrated[size].items()}
                runs = compare(work, args.systems, repetitions, threads, args.trl_python)
                tokens = require_equal_tokens(work, runs)
                report.data = summary(runs) | {
                    "size": size, "response": work.response, "parameters": parameters[size],
                    "prompts": work.prompts, "group": work.group, "processed": tokens,
                    "generated": work.generated, "repetitions": repetitions,
                    "calibration": {"response": min(args.responses)} | calibrated[size],
                }  # fmt: skip
                report_piece(report)
    pieces.end()


def work_of(args: argparse.Namespace, size: str, response: int, folder: Path) -> Work:
    """The work of one piece."""
    steps = args.steps or STEPS_OF_LARGE.get(size, STEPS)
    return Work(size, response, args.prompts, args.group, steps, args.threads, folder)


def repetitions_of(args: argparse.Namespace, size: str, response: int) -> int:
    """The setting, or the number for the piece's length."""
    return args.repetitions or FEWER.get((size, response), REPETITIONS)


def report_piece(report: record.Report) -> None:
    """The table of one piece."""
    data = report.data
    report(
        f"**{data['parameters'] / 1e6:.1f} M parameters, {data['response']} tokens per response**: "
        f"{data['prompts']} prompts, G {data['group']}, {data['generated']} tokens generated and "
        f"{data['processed']} trained on per step, the same for all; repetitions: "
        f"{data['repetitions']}; median of n steps (lowest to highest)"
    )
    report()
    report("| | threads | n | s per step | generate | train | rest | peak memory, GiB |")
    report("|---|---|---|---|---|---|---|---|")
    for name, parts in data["systems"].items():
        cells = [str(parts["threads"]), str(parts["wall"]["n"]), record.ranged(parts["wall"])]
        cells += [record.ranged(parts[part], 2) for part in ("generate", "train", "rest")]
        cells.append(record.ranged(parts["memory_gib"], 2))
        report(f"| {name} | {' | '.join(cells)} |")
    if set(TRL) & set(data["systems"]):
        report()
        report(
            "Threads of TRL: the number that took it the least time in a step with "
            f"{data['calibration']['response']} tokens per response, tried beforehand."
        )
    if not data["ratios"]:
        return
    report()
    report(f"| | of the time of {data['best of TRL']} | goal: at most {GOAL} |")
    report("|---|---|---|")
    for name, ratio in data["ratios"].items():
        verdict = record.met(ratio["median"], at_most=GOAL)
        report(f"| {name} | {record.ranged(ratio)} | {verdict} |")


def trend(pieces: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table with the ratios of all pieces, by size and length."""
    lines = [
        f"Ours over the best of TRL, medians; goal: at most {GOAL}.",
        "",
        f"| parameters | tokens per response | {' | '.join(OURS)} | the best of TRL |",
        f"|---|---|{'---|' * len(OURS)}---|",
    ]
    for data in pieces:
        cells = [f"{data['parameters'] / 1e6:.1f} M", str(data["response"])]
        for name in OURS:
            ratio = data["ratios"].get(name)
            if ratio is None:
                cells.append("not measured")
            else:
                verdict = record.met(ratio["median"], at_most=GOAL)
                cells.append(f"{record.ranged(ratio)}: {verdict}")
        lines.append(f"| {' | '.join(cells)} | {data.get('best of TRL', 'not measured')} |")
    return lines


if __name__ == "__main__":
    main()
