"""Seconds from a command to its answer: help texts and refused settings."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import record

REPETITIONS = 7
HELP_GOAL, REFUSAL_GOAL = 2.0, 3.0
"""Seconds."""
HELP = ["masa-train --help", "masa-sft --help", "masa-eval --help", "masa-report --help"]
REFUSED = [
    "masa-train trainer.max_rolouts=3",
    "masa-train algorithm.group_size=1",
    "masa-train model=hub model.name=./missing-folder",
    "masa-train trainer.prompts_per_rollout=1000000",
    "masa-train plan=true model=hub model.name=./missing-folder",
    "masa-train ckpt=last hydra.run.dir=missing",
    "masa-sft model=hub model.name=./missing-folder",
    "masa-eval model=./missing-folder benchmark=task",
    "masa-predict model=./missing-folder problems=x",
    "masa-solve model=./missing-folder problems=x",
]
"""A misspelt name, a value out of range, too few prompts, no such model, no run to resume."""


def seconds(command: str, refused: bool, repetitions: int) -> list[float]:
    """Wall time of a command of this environment, in an empty folder, after one that is not
    counted.

    Raises:
        Failed: a help text was refused, or settings were not.
    """
    program, *arguments = command.split()
    times = []
    for _ in range(1 + repetitions):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run(
                [Path(sys.executable).with_name(program), *arguments], cwd=folder,
                capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            times.append(time.perf_counter() - start)
        if refused != (done.returncode != 0):
            raise record.Failed(f"{command} ended with {done.returncode}:\n{done.stderr[-1000:]}")
    return times[1:]


def table(
    report: record.Report, commands: Sequence[str], goal: float, refused: bool, repetitions: int
) -> None:
    """A row for each command."""
    for command in commands:
        with record.progress(command):
            spread = record.spread(seconds(command, refused, repetitions))
        report.data[command] = spread
        verdict = record.met(spread["median"], at_most=goal)
        report(f"| `{command}` | {record.ranged(spread)} | at most {goal:g}: {verdict} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    pieces = record.Pieces(parser, args, "Start-up")
    if pieces.done(""):
        return
    repetitions = 1 if args.quick else REPETITIONS
    with pieces.piece("", [0]) as report:
        report(f"Wall time, median of {repetitions} (lowest to highest).\n")
        report("| command | s | goal |")
        report("|---|---|---|")
        table(report, HELP, HELP_GOAL, False, repetitions)
        table(report, REFUSED, REFUSAL_GOAL, True, repetitions)
    pieces.end()


if __name__ == "__main__":
    main()
